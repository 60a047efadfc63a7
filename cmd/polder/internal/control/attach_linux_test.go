package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/poldernet/polder/cmd/polder/internal/view"
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

// patient is a daemon that waits as long as it may.
type patient struct{ fake }

func (p *patient) Attach(ctx context.Context, _ attach.Attachment) error {
	<-ctx.Done()
	return fmt.Errorf("%w: %w: 1 in conflict", reconcile.ErrNotInForce, ctx.Err())
}

// Who waits for an attachment hears in time why it is not in force.
func TestAttachTellsWhyInTime(t *testing.T) {
	s := NewServer(&patient{}, events{}, view.Process{})
	s.within = time.Millisecond
	answer := httptest.NewRecorder()
	s.handler().ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/attach", strings.NewReader("{}")))
	if answer.Code != http.StatusServiceUnavailable || !strings.Contains(answer.Body.String(), "not in force: context deadline exceeded: 1 in conflict") {
		t.Errorf("status %d: %s", answer.Code, answer.Body)
	}
}
