package kube

import (
	"strings"
	"testing"
	"time"

	"github.com/poldernet/polder/internal/e2e/process"
)

// TestBesideFlanneld: polder enforces policies on nodes whose pod network flanneld
// makes, and leaves that as it is, also when flanneld starts again.
func TestBesideFlanneld(t *testing.T) {
	for _, name := range []string{"vxlan", "host-gw dual"} {
		t.Run(name, func(t *testing.T) {
			h := underFlannel(t, fabrics[name])
			closed, friend := h.pods[2], h.pods[0] // p21 and p11
			strangers := append(h.pods[1:2:2], h.pods[3:]...)
			for i, a := range strangers {
				h.measureWith(a, strangers[i+1:])
			}
			h.measureWith(closed, []party{friend})
			var before []string
			for i := 1; i <= 3; i++ {
				before = append(before, h.sh(nodeName(i), besides))
			}
			for i := 1; i <= 3; i++ {
				h.meter.during("polder comes to n%d", i)
				h.run(i, "cluster = \"e2e\"\nkubernetes {}\n")
				h.expectNoPlan(i)
			}
			h.dials(closed)
			h.meter.during("there is a policy")
			h.api.Policy(t, "default", "closed", `{podSelector: {matchLabels: {pod: p21}}, ingress: [{from: [{podSelector: {matchLabels: {pod: p11}}}]}]}`)
			h.expectClosed(closed, friend, strangers)
			h.meter.during("flanneld starts again")
			h.flannel.Stop("n2")
			h.flannel.Start("n2")
			h.flannel.Await()
			h.expectClosed(closed, friend, strangers)
			for i := 1; i <= 3; i++ {
				h.expectNoPlan(i)
				if now := h.sh(nodeName(i), besides); now != before[i-1] {
					t.Errorf("n%d was\n%s\nand is\n%s", i, before[i-1], now)
				}
			}
			h.meter.expectNothingLost()
		})
	}
}

// besides prints what polder has no part in, where it makes no pod network.
// Counters count.
const besides = `ip -o link | sed 's/^[0-9]*: //' | sort; ip -o addr show scope global | sed 's/^[0-9]*: //'
	ip route; ip -6 route | sed 's/ expires.*//'; ip neigh show nud permanent | sort; bridge fdb show | grep 'dst ' | sort || true
	for family in ip ip6; do nft list ruleset $family | sed 's/counter packets [0-9]* bytes [0-9]*/counter/'; done`

// expectClosed fails if a pod can be reached by others than its friend and those
// whom it asks.
func (h *hybrid) expectClosed(closed, friend party, strangers []party) {
	h.Helper()
	const moment = 300 * time.Millisecond
	for _, f := range h.families {
		for _, s := range strangers {
			for begin := time.Now(); opens(s, closed, f, moment) == nil; {
				if time.Since(begin) > process.Endurance {
					h.Fatalf("%s reaches %s over %s", s.name, closed.name, f)
				}
			}
			if err := opens(closed, s, f, patience); err != nil {
				h.Errorf("%s to %s over %s: %v", closed.name, s.name, f, err)
			}
		}
		for _, s := range strangers { // by now for good
			if err := opens(s, closed, f, moment); err == nil || !strings.Contains(err.Error(), "timeout") {
				h.Errorf("%s to %s over %s: %v", s.name, closed.name, f, err)
			}
		}
		if err := opens(friend, closed, f, patience); err != nil {
			h.Errorf("%s to %s over %s: %v", friend.name, closed.name, f, err)
		}
	}
}
