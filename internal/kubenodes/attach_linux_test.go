package kubenodes

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/poldernet/polder/internal/attach"
	"github.com/poldernet/polder/internal/kubetest"
	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
)

// TestAttachUnheard: a pod is attached within a second, and its policies are in the
// kernel, while the API server answers and nothing that is watched is heard. One that
// there is not, or not any more, is refused at once.
func TestAttachUnheard(t *testing.T) {
	w := newWorld(t, network)
	cut := &kubetest.Cut{}
	w.config.Wrap(cut.Wrap)
	w.Node(t, "n1", []string{"192.0.2.11", "2001:db8::11"}, []string{"10.244.1.0/24", "fd00:10:244:1::/64"})
	w.Namespace(t, "shop", nil)
	w.Policy(t, "shop", "deny", `{podSelector: {matchLabels: {app: db}}}`)
	d := w.daemon("n1")
	w.until("sync", func() (bool, any) { c := d.Condition(); return c.InSync, c })
	cut.Make()
	w.until("silence", func() (bool, any) { c := d.Condition(); return c.Cluster.Err != nil, c })

	p := kubetest.Pod{Namespace: "shop", Name: "db", Node: "n1", Labels: map[string]string{"app": "db"}}
	a := attach.Attachment{
		ID:   attach.ID{ContainerID: "c1", IfName: "eth0"},
		Pod:  attach.Pod{Namespace: p.Namespace, Name: p.Name, UID: string(w.Pod(t, p).UID)},
		Port: attach.Port{Interface: "veth1", MAC: spec.MAC{2, 0, 0, 0, 0, 1}, Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.7")}},
	}
	try := func() (time.Duration, error) {
		ctx, cancel := context.WithTimeout(t.Context(), kubetest.Patience)
		defer cancel()
		began := time.Now()
		err := d.Attach(ctx, a)
		return time.Since(began), err
	}
	enforced := func() bool {
		return strings.Contains(w.must("n1", "nft list table inet polder"), "10.244.1.7 : jump")
	}
	if took, err := try(); err != nil || took > time.Second || !enforced() {
		t.Errorf("after %v: %v; it is in the rules: %t", took, err, enforced())
	} else {
		t.Logf("attached after %v", took)
	}
	// Another one of its name; and none.
	uid := a.Pod.UID
	a.Pod.UID = "another"
	if took, err := try(); !errors.Is(err, reconcile.ErrNotInForce) || !errors.Is(err, reconcile.ErrNoPod) || !strings.Contains(err.Error(), uid) || took > time.Second {
		t.Errorf("another UID, after %v: %v", took, err)
	}
	a.Pod.Name = "nobody"
	if took, err := try(); !errors.Is(err, reconcile.ErrNoPod) || took > time.Second {
		t.Errorf("no pod, after %v: %v", took, err)
	}
	// It goes on by what is watched.
	cut.Mend()
	if err := w.Client.NetworkingV1().NetworkPolicies("shop").Delete(t.Context(), "deny", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.until("the end of the policy", func() (bool, any) { return !enforced(), d.Condition() })
}
