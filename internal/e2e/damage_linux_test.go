package e2e

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/poldernet/polder/reconcile"
)

// A rule as nft lists it, for another in its place with its comment: $1 is the
// chain and $2 the sed script.
const rewriteRule = `h=$(nft -a list chain inet polder %s | sed -n '/%s/{s/.*# handle //p;q}')
	r=$(nft -a list chain inet polder %[1]s | sed -n '/%[2]s/{s/ # handle.*//;%[3]s;p;q}')
	[ -n "$h" ]; nft replace rule inet polder %[1]s handle $h "$r"`

// damages are what somebody can do to a node that is whole, by ip(8), bridge(8)
// and nft(8).
var damages = []struct{ name, command string }{
	{"all rules flushed", "nft flush ruleset"},
	{"table deleted", "nft delete table inet polder"},
	{"table dormant", "nft add table inet polder '{ flags dormant; }'"},
	{"table dormant, and a policy", "nft add chain inet polder guard_input '{ policy drop; }'; nft add table inet polder '{ flags dormant; }'"},
	{"table emptied", "nft flush table inet polder"},
	{"chain deleted", "nft 'flush chain inet polder postrouting; delete chain inet polder postrouting'"},
	{"chain flushed", "nft flush chain inet polder vxlan_door"},
	{"chain added", "nft 'add chain inet polder mine; add rule inet polder mine accept'"},
	{"base chain added", "nft add chain inet polder mine2 '{ type filter hook forward priority 0; policy drop; }'"},
	{"policy", "nft add chain inet polder guard_input '{ policy drop; }'"},
	{"rule added in front", "nft insert rule inet polder vxlan_door accept"},
	{"rule added behind", "nft add rule inet polder guard_prerouting counter"},
	{"rule doubled", `nft add rule inet polder vxlan_door "$(nft list chain inet polder vxlan_door | sed -n '/anybody else/{p;q}')"`},
	{"rule deleted", "nft delete rule inet polder guard_prerouting handle $(nft -a list chain inet polder guard_prerouting | sed -n '/wrong interface/{s/.*# handle //p;q}')"},
	{"verdict", fmt.Sprintf(rewriteRule, "vxlan_door", "anybody else", "s/ drop / accept /")},
	{"port", fmt.Sprintf(rewriteRule, "guard_input", "door of VXLAN", "s/8472/8473/")},
	{"prefix", fmt.Sprintf(rewriteRule, "guard_prerouting", "wrong interface", "s,10.244.0.0.16,10.244.0.0/17,")},
	{"set of a rule", fmt.Sprintf(rewriteRule, "vxlan_door", "VXLAN from a peer", "s/saddr/daddr/")},
	{"negated", fmt.Sprintf(rewriteRule, "vxlan_door", "from a pod", "s/iifname @/iifname != @/")},
	{"element deleted", "nft delete element inet polder vxlan_peers4 '{ 192.0.2.12 }'"},
	{"element added", "nft add element inet polder vxlan_peers4 '{ 203.0.113.9 }'"},
	{"element deleted, IPv6", "nft delete element inet polder vxlan_peers6 '{ 2001:db8:2::12 }'"},
	{"interface added", "nft add element inet polder pod_links '{ eth0 }'"},
	{"set added", "nft add set inet polder mine3 '{ type ipv4_addr; }'"},
	{"bridge table of our name", "nft 'add table bridge polder; add chain bridge polder c { type filter hook forward priority 0; policy drop; }'"},

	{"bridge deleted", "ip link del cni0"},
	{"bridge MAC", "ip link set cni0 address 02:11:22:33:44:55"},
	{"bridge down", "ip link set cni0 down"},
	{"bridge MTU", "ip link set cni0 mtu 1280"},
	{"VTEP deleted", "ip link del polder.1"},
	{"VTEP MAC", "ip link set polder-v6.1 address 02:11:22:33:44:55"},
	{"VTEP down and up", "ip link set polder.1 down; ip link set polder.1 up"},
	{"VTEP MTU", "ip link set polder.1 mtu 1280"},
	{"port taken off", "ip link set veth1 nomaster"},
	{"port's hairpin", "ip link set veth2 type bridge_slave hairpin off"},
	{"port isolated", "ip link set veth1 type bridge_slave isolated on"},
	{"port without learning and flooding", "ip link set veth2 type bridge_slave learning off flood off"},
	{"bridge with STP", "ip link set cni0 type bridge stp_state 1"},
	{"VTEP's TTL", "ip link set polder.1 type vxlan ttl 1"},
	{"VTEP's address deleted", "ip addr del 10.244.1.0/32 dev polder.1"},
	{"address expires", "ip addr change 10.244.1.1/24 dev cni0 valid_lft 500 preferred_lft 400"},
	{"port down", "ip link set veth2 down"},
	{"address deleted", "ip addr del 10.244.1.1/24 dev cni0"},
	{"address deleted, IPv6", "ip addr del fd00:10:244:1::1/64 dev cni0"},
	{"stray address", "ip addr add 10.244.2.1/24 dev cni0"},
	{"neighbour's MAC", "ip neigh replace 10.244.3.0 lladdr 02:11:22:33:44:55 dev polder.1 nud permanent"},
	{"neighbour deleted", "ip neigh del fd00:10:244:3:: dev polder-v6.1"},
	{"FDB rows deleted", "bridge fdb show dev polder.1 | awk '{print $1}' | while read m; do bridge fdb del $m dev polder.1; done"},
	{"FDB row leads elsewhere", "m=$(bridge fdb show dev polder-v6.1 | awk '{print $1; exit}'); bridge fdb replace $m dev polder-v6.1 dst 2001:db8::99 self permanent"},
	{"stale second FDB row", "bridge fdb add 02:11:22:33:44:55 dev polder.1 dst 192.0.3.13 self permanent"},
	{"row for all other MACs", "bridge fdb append 00:00:00:00:00:00 dev polder.1 dst 192.0.3.13 self permanent; bridge fdb append 00:00:00:00:00:00 dev polder.1 dst 192.0.2.99 self permanent"},
	{"nexthop objects flushed", "ip nexthop flush"},
	{"nexthop object leads elsewhere", "ip nexthop replace id $(ip nexthop | awk '{print $2; exit}') via 192.0.2.77 dev eth0 proto 87"},
	{"route deleted", "ip route del 10.244.2.0/24"},
	{"route leads elsewhere", "ip route replace 10.244.2.0/24 via 192.0.2.77 proto 87"},
	{"route leads elsewhere, IPv6", "ip -6 route replace fd00:10:244:3::/64 via 2001:db8:2::77 proto 87"},
	{"route doubled", "ip route prepend 10.244.3.0/24 via 192.0.2.77 proto 87"},
	{"stray route", "ip route add 10.244.50.0/24 via 192.0.2.77 proto 87"},
	{"stale route to the node's own subnet over the VTEP", "ip route prepend 10.244.1.0/24 via 10.244.1.77 dev polder.1 onlink"},
	{"route to the node's own pods deleted", "ip route del 10.244.1.0/24 dev cni0"},
	{"underlay down and up", "ip link set eth0 down; ip link set eth0 up; ip route replace default via 192.0.2.1; ip -6 route replace default via 2001:db8:2::1"},
	{"forwarding", "echo 0 >/proc/sys/net/ipv4/ip_forward"},
	{"forwarding, IPv6", "echo 0 >/proc/sys/net/ipv6/conf/all/forwarding"},
	{"forwarding of a link", "echo 0 >/proc/sys/net/ipv4/conf/cni0/forwarding"},
	{"accept_ra", "echo 2 >/proc/sys/net/ipv6/conf/cni0/accept_ra"},
	{"forwarding of a VTEP", "echo 0 >/proc/sys/net/ipv4/conf/polder.1/forwarding"},
	{"accept_ra of a VTEP", "echo 1 >/proc/sys/net/ipv6/conf/polder-v6.1/accept_ra"},
	{"rp_filter", "echo 1 >/proc/sys/net/ipv4/conf/polder.1/rp_filter"},
	{"disable_ipv6", "echo 1 >/proc/sys/net/ipv6/conf/cni0/disable_ipv6"},
	{"disable_ipv6 of a VTEP", "echo 1 >/proc/sys/net/ipv6/conf/polder-v6.1/disable_ipv6"},
	{"bridge-nf-call-iptables", "echo 0 >/proc/sys/net/bridge/bridge-nf-call-iptables"},
	{"bridge-nf-call-ip6tables", "echo 0 >/proc/sys/net/bridge/bridge-nf-call-ip6tables"},
}

// damagedCluster has peers by both paths.
var damagedCluster = cluster{backend: backendDirect, pods: dual}

// wholeNode is n1 of a lab with peers by both paths, applied, and what it is.
func wholeNode(t *testing.T) (*network, string) { return damagedCluster.wholeNode(t) }

func (c cluster) wholeNode(t *testing.T) (*network, string) {
	t.Helper()
	n := up(t, c)
	n.sh("n1", "echo 1 >/proc/sys/net/ipv6/conf/eth0/keep_addr_on_down; echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad")
	n.apply("n1", n.spec, reconcile.ModeApply)
	return n, n.settled("n1")
}

// TestDamages does every damage by itself: the plan sees it, one apply undoes
// it, and the node is as it was.
func TestDamages(t *testing.T) {
	t.Parallel()
	n, whole := wholeNode(t)
	for _, d := range damages {
		n.sh("n1", d.command)
		plan := n.apply("n1", n.spec, reconcile.ModeApply)
		if plan.Empty() {
			t.Errorf("%s: the plan does not see it", d.name)
		}
		n.expectNothing(n.spec)
		if after := n.settled("n1"); after != whole {
			t.Fatalf("%s is repaired to\n%s", d.name, difference(whole, after))
		}
	}
}

// TestDamagesTogether does several at once.
func TestDamagesTogether(t *testing.T) {
	t.Parallel()
	n, whole := wholeNode(t)
	rapid.Check(t, func(rt *rapid.T) {
		chosen := rapid.SliceOfNDistinct(rapid.IntRange(0, len(damages)-1), 2, 7, rapid.ID[int]).Draw(rt, "damages")
		var names []string
		for _, i := range chosen {
			// One may leave nothing for the next to break.
			n.sh("n1", "("+damages[i].command+") 2>/dev/null || true")
			names = append(names, damages[i].name)
		}
		done := strings.Join(names, "; ")
		a := n.attempt("n1", n.spec, reconcile.ModeApply, "")
		if failed := a.result.Failed(); a.err != nil || len(failed) > 0 || len(a.result.Remaining) > 0 || len(a.plan.Conflicts) > 0 {
			rt.Fatalf("after %s: %v, failed %+v, remaining %+v, conflicts %+v", done, a.err, failed, a.result.Remaining, a.plan.Conflicts)
		}
		if plan := n.plan("n1", n.spec, reconcile.ModeApply); !plan.Empty() {
			rt.Fatalf("after %s: a second plan is not empty: %+v", done, plan.Changes)
		}
		if after := n.settled("n1"); after != whole {
			// The next case begins from here.
			before := whole
			whole = after
			rt.Fatalf("after %s: the node is\n%s", done, difference(before, after))
		}
	})
}
