package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/reconcile"
)

// obstacles are foreign objects in the way, each with the conflicts that it
// makes and what cannot be there because of it.
var obstacles = []struct {
	name    string
	command string
	backend string
	want    []obstacle
	absent  []string // commands that must find nothing
	present []string // commands that must find something
	clear   string   // what the remedies say
}{
	{
		name:    "a link of the bridge's name is no bridge",
		command: "ip link add cni0 type veth peer name other; ip addr add 10.244.1.1/24 dev cni0; ip link set cni0 up",
		want:    []obstacle{{"link cni0", "type is veth, not bridge", "ip link delete cni0"}},
		absent:  []string{"ip -6 addr show dev cni0 to fd00:10:244::/48", "ip link show cni0 | grep alias", "ip link show veth1 | grep master"},
		present: []string{"ip link show polder.1", "ip route show 10.244.2.0/24", "ip -6 route show fd00:10:244:2::/64"},
		clear:   "ip link delete cni0",
	},
	{
		name:    "a VTEP with our VNI and port",
		command: "ip link add vx7 type vxlan id 1 dstport 8472 local 192.0.2.11 dev eth0; ip addr add 10.7.0.1/24 dev vx7; ip link set vx7 up",
		want:    []obstacle{{"link polder.1", "VNI 1 on UDP port 8472 is taken by vx7", "ip link delete vx7"}},
		absent:  []string{"ip link show dev polder.1 2>/dev/null", "ip route show 10.244.2.0/24", "ip nexthop | grep -v polder-v6.1"},
		present: []string{"ip link show cni0", "ip -6 route show fd00:10:244:2::/64", "ip link show polder-v6.1", "ip link show veth1 | grep 'master cni0'"},
		clear:   "ip link delete vx7",
	},
	{
		name:    "an external VTEP on our port",
		command: "ip link add cilium_vxlan type vxlan external dstport 8472; ip link set cilium_vxlan up",
		want: []obstacle{
			{"link polder.1", "UDP port 8472 is taken by cilium_vxlan", "ip link delete cilium_vxlan"},
			{"link polder-v6.1", "UDP port 8472 is taken by cilium_vxlan", "choose another port"},
		},
		absent:  []string{"ip link show dev polder.1 2>/dev/null", "ip link show dev polder-v6.1 2>/dev/null", "ip route show 10.244.2.0/24"},
		present: []string{"ip link show cni0", "ip link show veth1 | grep 'master cni0'"},
		clear:   "ip link delete cilium_vxlan",
	},
	{
		name:    "a link of the VTEP's name with another VNI",
		command: "ip link add polder.1 type vxlan id 7 dstport 8472 local 192.0.2.11 dev eth0 nolearning; ip link set polder.1 up",
		want:    []obstacle{{"link polder.1", "id is 7, not 1", "ip link delete polder.1"}},
		absent:  []string{"ip addr show dev polder.1 to 10.244.0.0/16", "ip neigh show dev polder.1 nud permanent", "bridge fdb show dev polder.1 | grep -v 33:33", "ip route show 10.244.2.0/24"},
		present: []string{"ip -6 route show fd00:10:244:2::/64"},
		clear:   "ip link delete polder.1",
	},
	{
		name:    "routes to a peer's subnets",
		command: "ip route add 10.244.2.0/24 via 192.0.2.1 proto static; ip -6 route add fd00:10:244:2::/64 via 2001:db8:2::1 proto bird",
		want: []obstacle{
			{"route 10.244.2.0/24", "via 192.0.2.1 dev eth0 proto static", "ip route del 10.244.2.0/24"},
			{"route fd00:10:244:2::/64", "via 2001:db8:2::1 dev eth0", "ip route del fd00:10:244:2::/64"},
		},
		absent:  []string{"ip route show 10.244.2.0/24 proto 87", "ip -6 route show fd00:10:244:2::/64 proto 87"},
		present: []string{"ip route show 10.244.3.0/24 proto 87", "ip -6 route show fd00:10:244:3::/64 proto 87"},
		clear:   "ip route del 10.244.2.0/24; ip route del fd00:10:244:2::/64",
	},
	{
		name:    "a route that is preferred to ours",
		command: "ip -6 route add fd00:10:244:2::/64 via 2001:db8:2::1 proto bird metric 20",
		want:    []obstacle{{"route fd00:10:244:2::/64 metric 20", "via 2001:db8:2::1 dev eth0", "ip route del fd00:10:244:2::/64 metric 20"}},
		present: []string{"ip -6 route show fd00:10:244:2::/64 proto bird", "ip route show 10.244.2.0/24 proto 87"},
		clear:   "ip route del fd00:10:244:2::/64 metric 20",
	},
	{
		name:    "an endpoint's interface is a port of another bridge",
		command: "ip link add docker0 type bridge; ip link set veth1 master docker0 up",
		want:    []obstacle{{"port veth1", "a port of docker0", "ip link set veth1 nomaster"}},
		absent:  []string{"ip link show veth1 | grep 'master cni0'"},
		present: []string{"ip link show veth2 | grep 'master cni0'", "ip route show 10.244.2.0/24"},
		clear:   "ip link set veth1 nomaster",
	},
	{
		name:    "host-gw: a route to a peer's subnet",
		backend: backendHostGW,
		command: "ip route add blackhole 10.244.2.0/24",
		want:    []obstacle{{"route 10.244.2.0/24", "not unicast", "ip route del 10.244.2.0/24"}},
		present: []string{"ip route show 10.244.3.0/24 proto 87", "ip -6 route show fd00:10:244:2::/64 proto 87"},
		clear:   "ip route del 10.244.2.0/24",
	},
}

// obstacle is an expected conflict: its object, and what its reason and its
// remedy say.
type obstacle struct{ subject, reason, remedy string }

// TestConflicts: what is in the way is reported with what to do about it and is
// not touched, neither by apply nor by destroy; what does not depend on it is
// done, without a single failure; and when the user has done what the report
// says, the next apply does the rest.
func TestConflicts(t *testing.T) {
	t.Parallel()
	for _, o := range obstacles {
		t.Run(o.name, func(t *testing.T) {
			c := cluster{backend: backendVXLAN, pods: dual}
			if o.backend != "" {
				c.backend, c.oneLink = o.backend, true
			}
			n := up(t, c)
			n.sh("n1", o.command)
			before := n.settled("n1")
			a := n.attempt("n1", n.spec, reconcile.ModeApply, "")
			expectConflicts(t, a.plan.Conflicts, o.want)
			if a.err != nil {
				t.Error(a.err)
			}
			a.expectFailed()
			a.expectRemaining()
			for _, command := range o.absent {
				if out := n.sh("n1", command+" || true"); out != "" {
					t.Errorf("%s: %s", command, out)
				}
			}
			for _, command := range o.present {
				if out := n.sh("n1", command); out == "" {
					t.Errorf("%s: nothing", command)
				}
			}
			again := n.plan("n1", n.spec, reconcile.ModeApply)
			if !again.Empty() {
				t.Errorf("a second plan is not empty: %+v", again.Changes)
			}
			if !slices.Equal(again.Conflicts, a.plan.Conflicts) {
				t.Errorf("conflicts were %+v and are %+v", a.plan.Conflicts, again.Conflicts)
			}
			n.apply("n1", nil, reconcile.ModeDestroy)
			if after := n.settled("n1"); after != before {
				t.Errorf("apply and destroy left\n%s", difference(before, after))
			}

			n.attempt("n1", n.spec, reconcile.ModeApply, "")
			n.sh("n1", o.clear)
			n.apply("n1", n.spec, reconcile.ModeApply)
			n.expectNothing(n.spec)
		})
	}
}

func expectConflicts(t *testing.T, conflicts []change.Conflict, want []obstacle) {
	t.Helper()
	if len(conflicts) != len(want) {
		t.Fatalf("%d conflicts, want %d: %+v", len(conflicts), len(want), conflicts)
	}
	bySubject := map[string]change.Conflict{}
	for _, c := range conflicts {
		bySubject[c.Kind+" "+c.Name] = c
	}
	for _, w := range want {
		c, ok := bySubject[w.subject]
		if !ok || !strings.Contains(c.Reason, w.reason) || !strings.Contains(c.Remedy, w.remedy) {
			t.Errorf("%+v, want %+v", c, w)
		}
	}
}

// TestForeignNextHop: somebody has a nexthop object of the ID that is a peer's.
// Routes of theirs use it.
func TestForeignNextHop(t *testing.T) {
	n := up(t, cluster{backend: backendVXLAN, pods: dual})
	n.apply("n1", n.spec, reconcile.ModeApply)
	id := strings.TrimSpace(n.sh("n1", "ip route show 10.244.2.0/24 | sed 's/.*nhid \\([0-9]*\\).*/\\1/'"))
	n.apply("n1", nil, reconcile.ModeDestroy)
	n.sh("n1", fmt.Sprintf("ip nexthop add id %s via 192.0.2.1 dev eth0 proto static; ip route add 203.0.113.0/24 nhid %s proto static", id, id))
	before := n.settled("n1")
	a := n.attempt("n1", n.spec, reconcile.ModeApply, "")
	expectConflicts(t, a.plan.Conflicts, []obstacle{{"nexthop id " + id, "proto static", "ip nexthop del id " + id}})
	a.expectFailed()
	a.expectRemaining()
	if route := n.sh("n1", "ip route show 10.244.2.0/24"); route != "" {
		t.Errorf("a route over what is somebody else's: %s", route)
	}
	for _, route := range []string{"-4 route show 10.244.3.0/24", "-6 route show fd00:10:244:2::/64", "-6 route show fd00:10:244:3::/64"} {
		if n.sh("n1", "ip "+route+" proto 87") == "" {
			t.Errorf("ip %s shows nothing", route)
		}
	}
	n.apply("n1", nil, reconcile.ModeDestroy)
	if after := n.settled("n1"); after != before {
		t.Errorf("apply and destroy left\n%s", difference(before, after))
	}
}
