package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/reconcile"
)

// TestHostGatewayBehindRouter: with addresses that say nothing of links, only
// the host's routes tell that a peer is not on one. The plan names it and its
// gateway, and leads to the others.
func TestHostGatewayBehindRouter(t *testing.T) {
	t.Parallel()
	n := up(t, cluster{backend: backendVXLAN, pods: dual})
	sp := site{backend: backendHostGW, pods: dual, noPrefix: true}.spec(t)
	n.sh("n1", "ip route add 192.0.2.13 via 192.0.2.1; ip -6 route add 2001:db8:2::13 via 2001:db8:2::1")
	a := n.attempt("n1", sp, reconcile.ModeApply, "")
	behind := func() []obstacle {
		return []obstacle{
			{"route 10.244.3.0/24", "node n3 at 192.0.2.13 is behind the gateway 192.0.2.1", `backend "vxlan"`},
			{"route fd00:10:244:3::/64", "node n3 at 2001:db8:2::13 is behind the gateway 2001:db8:2::1", `backend "vxlan"`},
		}
	}
	expectConflicts(t, a.plan.Conflicts, behind())
	a.expectFailed()
	a.expectRemaining()
	for route, want := range map[string]string{
		"ip route get 10.244.2.9":          "via 192.0.2.12 dev eth0",
		"ip -6 route get fd00:10:244:2::9": "via 2001:db8:2::12 dev eth0",
	} {
		if got := n.sh("n1", route); !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", route, got, want)
		}
	}
	if left := n.sh("n1", "ip route show 10.244.3.0/24; ip -6 route show fd00:10:244:3::/64"); left != "" {
		t.Errorf("a route over a gateway that knows nothing of pods: %s", left)
	}

	// A peer that moves behind the router later loses its route: what is left
	// of it would lead nowhere. Another whose route is gone altogether, too.
	n.sh("n1", "ip route del 192.0.2.13; ip -6 route del 2001:db8:2::13")
	n.apply("n1", sp, reconcile.ModeApply)
	n.expectNothing(sp)
	n.sh("n1", "ip route add 192.0.2.13 via 192.0.2.1; ip -6 route add 2001:db8:2::13 via 2001:db8:2::1; ip route add unreachable 192.0.2.12")
	a = n.attempt("n1", sp, reconcile.ModeApply, "")
	expectConflicts(t, a.plan.Conflicts, append(behind(), obstacle{"route 10.244.2.0/24", "no route to node n2 at 192.0.2.12", ""}))
	a.expectFailed()
	a.expectRemaining()
	if left := n.sh("n1", "ip route show proto 87; ip -6 route show proto 87"); strings.Count(left, "nhid") != 1 || !strings.Contains(left, "fd00:10:244:2::/64") {
		t.Errorf("routes: %s", left)
	}
}

// TestPathFlips: under direct routing a peer that moves behind a router is
// reached by VXLAN, and by a plain route again when it comes back, by one write
// to its nexthop object. No packet is lost, neither by a new path nor in between,
// while the two nodes disagree about it.
func TestPathFlips(t *testing.T) {
	n := up(t, cluster{backend: backendDirect, pods: dual})
	n.applyAll()
	var streams []traffic
	for _, to := range []string{"10.244.2.5", "fd00:10:244:2::5", "10.244.3.5", "fd00:10:244:3::5"} {
		streams = append(streams, n.ping("p11", to))
	}
	for _, path := range []string{"vxlan", "direct", "vxlan", "direct"} {
		verb := map[string]string{"vxlan": "add", "direct": "del"}[path]
		for i, node := range []string{"n1", "n2"} {
			n.sh(node, fmt.Sprintf("ip route %[1]s 192.0.2.1%[2]d via 192.0.2.1; ip -6 route %[1]s 2001:db8:2::1%[2]d via 2001:db8:2::1", verb, 2-i))
			n.flip(node, path)
		}
		for _, s := range streams {
			s.flow(t, 20)
		}
	}
	for _, s := range streams {
		// The last may be on its way.
		if sent, received := s.stop(); received < sent-1 {
			t.Errorf("%s: %d sent, %d came back", s.name, sent, received)
		}
	}
}

// flip applies, and expects that a peer's nexthop objects are written over and
// that its routes stay. (Of a nexthop object that is written the kernel tells as
// of its routes, too, so that only deletions say something.)
func (n *network) flip(node, path string) {
	n.t.Helper()
	routes := n.watch(node, "ip", "-o", "monitor", "route", "nexthop")
	n.sentinel(node, routes, "203.0.113.1", "ip route add 203.0.113.1 dev lo; ip route del 203.0.113.1")
	plan := n.apply(node, n.spec, reconcile.ModeApply)
	n.sh(node, "ip route add 203.0.113.2 dev lo; ip route del 203.0.113.2")
	for _, line := range routes.until(n.t, "203.0.113.2") {
		// The IPv6 next hop takes a host route of one moment, see forceOnLink.
		if strings.Contains(line, "Deleted") && !strings.Contains(line, "203.0.113.1") && !strings.Contains(line, "fd00:10:244:2:: dev") && !strings.Contains(line, "fd00:10:244:1:: dev") {
			n.t.Errorf("to %s on %s: %s", path, node, line)
		}
	}
	hops := 0
	for _, c := range plan.Changes {
		switch {
		case c.Kind == "nexthop" && c.Action == change.Update:
			hops++
		case c.Kind == "neighbour", c.Kind == "fdb":
		default:
			n.t.Errorf("to %s on %s: %+v", path, node, c)
		}
	}
	if hops != 2 {
		n.t.Errorf("to %s on %s: %d nexthop objects are written: %+v", path, node, hops, plan.Changes)
	}
	if direct := strings.Contains(n.sh(node, "ip nexthop"), "via 192.0.2.1"); direct != (path == "direct") {
		n.t.Errorf("to %s on %s: %s", path, node, n.sh(node, "ip nexthop"))
	}
}
