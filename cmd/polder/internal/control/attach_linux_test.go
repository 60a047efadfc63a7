package control

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"testing"

	"github.com/poldernet/polder/internal/attach"
	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
)

func attachmentOf(id, network string) attach.Attachment {
	return attach.Attachment{
		ID: attach.ID{ContainerID: id, IfName: "eth0"}, Network: network, Netns: "/run/netns/" + id,
		Pod:  attach.Pod{Namespace: "shop", Name: id, UID: "0b8a"},
		Port: attach.Port{Interface: "veth" + id, MAC: spec.MAC{2, 0, 0, 0, 0, 1}, Addresses: []netip.Addr{netip.MustParseAddr("fd00::1")}},
	}
}

func TestAttachments(t *testing.T) {
	d := &fake{}
	c, _ := startServer(t, d, events{})
	a, b, other := attachmentOf("a", "pods"), attachmentOf("b", "pods"), attachmentOf("c", "others")
	b.Addresses, other.Addresses = nil, nil
	for _, x := range []attach.Attachment{a, b, other} {
		if err := c.Attach(t.Context(), x); err != nil {
			t.Fatal(err)
		}
	}
	if !reflect.DeepEqual(d.attached, attach.List{a, b, other}) {
		t.Fatalf("the daemon heard %+v", d.attached)
	}
	if err := c.Sweep(t.Context(), Sweep{"pods", []attach.ID{a.ID}}); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(d.attached, attach.List{a, other}) {
		t.Fatalf("after the sweep there are %+v", d.attached)
	}
	if err := c.Attached(t.Context(), a); err != nil {
		t.Error(err)
	}
	if err := c.Detach(t.Context(), a.ID); err != nil {
		t.Fatal(err)
	}
	if err := c.Attached(t.Context(), a); !errors.Is(err, reconcile.ErrNotAttached) || err.Error() != "not attached: a eth0" {
		t.Error(err)
	}
	d.err = fmt.Errorf("%w: held", reconcile.ErrNotInForce)
	if err := c.Attach(t.Context(), a); !errors.Is(err, reconcile.ErrNotInForce) || err.Error() != "not in force: held" {
		t.Error(err)
	}
}
