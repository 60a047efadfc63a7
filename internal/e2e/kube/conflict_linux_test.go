package kube

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/poldernet/polder/internal/e2e/process"
)

// aPeer is a node of which there is no more than this.
const aPeer = `node "n2" {
  addresses = ["192.0.2.12/24", "2001:db8:2::12/64"]
  subnets   = ["10.244.2.0/24", "fd00:10:244:2::/64"]
}
`

// TestCNIBesideAConflict: what is in the way of a peer, from before the first start, keeps
// no container out. What is in the way of the node's own subnet does.
func TestCNIBesideAConflict(t *testing.T) {
	n := up(t, oneNode, cniSpec)
	n.sh("n1", "ip route add 10.244.2.0/24 via 192.0.2.12 proto static")
	r := n.listed("n1", cniSpec+cniPod+aPeer)
	ctx := t.Context()
	inTheWay := func(m process.Metrics) bool { return m["polder_in_sync"] == 0 && m.Sum("polder_conflicts") == 1 }
	r.Says("the route is in the way", inTheWay)
	if err := r.Status(ctx); err != nil {
		t.Errorf("status: %v", err)
	}
	for _, name := range []string{"closed", "open"} {
		pod := r.sandbox(name)
		began := time.Now()
		for _, a := range r.add(pod) {
			if rules := n.sh("n1", "nft list ruleset"); !strings.Contains(rules, a.String()) {
				t.Errorf("when %s was attached, %s was not in the kernel:\n%s", name, a, rules)
			}
		}
		t.Logf("%s was attached after %v", name, time.Since(began))
		if err := r.Check(ctx, pod); err != nil {
			t.Error(err)
		}
	}
	r.Says("the route is still in the way", inTheWay)

	n.sh("n1", "ip route del 10.244.2.0/24 proto static; ip route replace 10.244.1.0/24 via 192.0.2.12 proto static")
	for begin := time.Now(); ; r.Pause() {
		err := r.Status(ctx)
		if code(err) == types.ErrLimitedConnectivity {
			break
		}
		if time.Since(begin) > process.Endurance {
			t.Fatalf("status: %v", err)
		}
	}
	short, stop := context.WithTimeout(ctx, 3*time.Second)
	defer stop()
	if _, err := r.Add(short, r.sandbox("late")); err == nil {
		t.Error("it is attached, and a route leads its packets away")
	}
	n.sh("n1", "ip route del 10.244.1.0/24 proto static")
	r.Ready()
	r.add(r.sandbox("later"))
}
