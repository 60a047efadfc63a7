package overlay

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/poldernet/polder/spec"
)

// damages are what somebody with ip(8) can do to our objects, one at a time.
// Each is a shell command for the node of the dual stack VXLAN cluster.
var damages = []struct{ name, command string }{
	{"bridge deleted", "ip link del cni0"},
	{"bridge MAC", "ip link set cni0 address 02:11:22:33:44:55"},
	{"bridge MTU", "ip link set cni0 mtu 1400"},
	{"bridge MTU too small for IPv6", "ip link set cni0 mtu 1000"},
	{"bridge down", "ip link set cni0 down"},
	{"bridge down and up", "ip link set cni0 down; ip link set cni0 up"},
	{"bridge alias of another cluster", "ip link set cni0 alias 'polder cluster=other'"},
	{"bridge renamed", "ip link set cni0 down; ip link set cni0 name br7; ip link set br7 up"},
	{"bridge address deleted", "ip addr del 10.244.1.1/24 dev cni0"},
	{"bridge address deleted, IPv6", "ip addr del fd00:10:244:1::1/64 dev cni0"},
	{"bridge address with another length", "ip addr del 10.244.1.1/24 dev cni0; ip addr add 10.244.1.1/25 dev cni0"},
	{"bridge address with another length, IPv6", "ip addr del fd00:10:244:1::1/64 dev cni0; ip addr add fd00:10:244:1::1/72 dev cni0 nodad"},
	{"another pod address on the bridge", "ip addr add 10.244.9.1/24 dev cni0"},
	{"bridge with STP", "ip link set cni0 type bridge stp_state 1"},
	{"bridge address expires", "ip addr change 10.244.1.1/24 brd + dev cni0 valid_lft 500 preferred_lft 400"},
	{"bridge address expires, IPv6", "ip addr change fd00:10:244:1::1/64 dev cni0 valid_lft 500 preferred_lft 400"},
	{"bridge address expires, without its route", "ip addr change 10.244.1.1/24 brd + dev cni0 valid_lft 500 preferred_lft 400; ip route del 10.244.1.0/24 dev cni0"},
	{"bridge address expires, without its route, IPv6", "ip addr change fd00:10:244:1::1/64 dev cni0 valid_lft 500 preferred_lft 400; ip -6 route del fd00:10:244:1::/64 dev cni0"},
	{"port isolated", "ip link set v1 type bridge_slave isolated on"},
	{"port locked", "ip link set v1 type bridge_slave locked on"},
	{"port does not learn", "ip link set v1 type bridge_slave learning off"},
	{"port not flooded", "ip link set v1 type bridge_slave flood off"},
	{"port without broadcasts", "ip link set v1 type bridge_slave bcast_flood off"},
	{"port without multicasts", "ip link set v1 type bridge_slave mcast_flood off"},
	{"VTEP's TTL", "ip link set polder.1 type vxlan ttl 1"},
	{"VTEP's outer packets not to be fragmented", "ip link set polder.1 type vxlan df set"},
	{"VTEP made anew with a limit", "ip link del polder.1; ip link add polder.1 type vxlan id 1 dstport 8472 local 192.0.2.11 dev eth0 nolearning maxaddress 1; ip link set polder.1 alias 'polder cluster=test' up"},
	{"VTEP made anew with the packet's TTL", "ip link del polder.1; ip link add polder.1 type vxlan id 1 dstport 8472 local 192.0.2.11 dev eth0 nolearning ttl inherit; ip link set polder.1 alias 'polder cluster=test' up"},
	{"VTEP made anew without checksums, IPv6", "ip link del polder-v6.1; ip link add polder-v6.1 type vxlan id 1 dstport 8472 local 2001:db8::11 dev eth0 nolearning udp6zerocsumtx; ip link set polder-v6.1 alias 'polder cluster=test' up"},
	{"port's hairpin", "ip link set v2 type bridge_slave hairpin off"},
	{"VTEP deleted", "ip link del polder.1"},
	{"VTEP MAC", "ip link set polder.1 address 02:11:22:33:44:55"},
	{"VTEP MAC, the same", "ip link set polder.1 address $(ip -br link show polder.1 | awk '{print $3}')"},
	{"VTEP MTU", "ip link set polder.1 mtu 1300"},
	{"VTEP down", "ip link set polder.1 down"},
	{"VTEP down and up", "ip link set polder-v6.1 down; ip link set polder-v6.1 up"},
	{"VTEP is a bridge's port", "ip link set polder.1 master cni0"},
	{"VTEP address deleted", "ip addr del 10.244.1.0/32 dev polder.1"},
	{"VTEP made anew with another VNI", "ip link del polder.1; ip link add polder.1 type vxlan id 9 dstport 8472 local 192.0.2.11 dev eth0 nolearning; ip link set polder.1 alias 'polder cluster=test' up"},
	{"VTEP made anew with learning", "ip link del polder.1; ip link add polder.1 type vxlan id 1 dstport 8472 local 192.0.2.11 dev eth0; ip link set polder.1 alias 'polder cluster=test' up"},
	{"VTEP of another name takes the VNI", "ip link del polder.1; ip link add vx9 type vxlan id 1 dstport 8472 local 192.0.2.11 dev eth0 nolearning; ip link set vx9 alias 'polder cluster=test' up"},
	{"neighbour deleted", "ip neigh del 10.244.2.0 dev polder.1"},
	{"neighbour's MAC", "ip neigh replace 10.244.2.0 lladdr 02:11:22:33:44:55 dev polder.1 nud permanent"},
	{"neighbour not permanent", "ip neigh replace fd00:10:244:2:: lladdr $(ip -6 neigh show fd00:10:244:2:: dev polder-v6.1 | awk '{print $3}') dev polder-v6.1 nud noarp"},
	{"stray neighbour", "ip neigh replace 10.244.77.0 lladdr 02:11:22:33:44:55 dev polder.1 nud permanent"},
	{"FDB rows deleted", "bridge fdb show dev polder.1 | awk '{print $1}' | while read m; do bridge fdb del $m dev polder.1; done"},
	{"FDB row leads elsewhere", "m=$(bridge fdb show dev polder.1 | awk '{print $1; exit}'); bridge fdb replace $m dev polder.1 dst 192.0.2.99 self permanent"},
	{"stray FDB row", "bridge fdb replace 02:11:22:33:44:55 dev polder.1 dst 192.0.2.12 self permanent"},
	{"FDB flood entry", "bridge fdb append 00:00:00:00:00:00 dev polder.1 dst 192.0.2.12; bridge fdb append 00:00:00:00:00:00 dev polder.1 dst 192.0.2.13"},
	{"FDB row to another port", "m=$(bridge fdb show dev polder.1 | awk '{print $1; exit}'); d=$(bridge fdb show dev polder.1 | awk '{print $3; exit}'); bridge fdb replace $m dev polder.1 dst $d port 4000 self permanent"},
	{"FDB row to another VNI", "m=$(bridge fdb show dev polder.1 | awk '{print $1; exit}'); d=$(bridge fdb show dev polder.1 | awk '{print $3; exit}'); bridge fdb replace $m dev polder.1 dst $d vni 9 self permanent"},
	{"FDB row by a nexthop object", "m=$(bridge fdb show dev polder.1 | awk '{print $1; exit}'); bridge fdb del $m dev polder.1; ip nexthop add id 4 via 192.0.2.77 fdb proto 87; ip nexthop add id 6 group 4 fdb proto 87; bridge fdb replace $m dev polder.1 nhid 6 self permanent"},
	{"nexthop object deleted", "ip nexthop del id $(ip nexthop | awk '{print $2; exit}')"},
	{"nexthop object leads elsewhere", "ip nexthop replace id $(ip nexthop | awk '{print $2; exit}') via 192.0.2.77 dev eth0 proto 87"},
	{"nexthop object is a blackhole", "id=$(ip nexthop | awk '{print $2; exit}'); ip nexthop del id $id; ip nexthop add id $id blackhole proto 87"},
	{"stray nexthop object", "ip nexthop add id 5 via 192.0.2.77 dev eth0 proto 87"},
	{"all nexthop objects flushed", "ip nexthop flush"},
	{"route deleted", "ip route del 10.244.2.0/24"},
	{"route deleted, IPv6", "ip -6 route del fd00:10:244:2::/64"},
	{"route leads elsewhere", "ip route replace 10.244.2.0/24 via 192.0.2.77 proto 87"},
	{"route of another protocol", "ip route replace 10.244.2.0/24 via 10.244.2.0 dev polder.1 onlink proto static"},
	{"route is a blackhole", "ip route del 10.244.2.0/24; ip route add blackhole 10.244.2.0/24 proto 87"},
	{"route doubled", "ip route append 10.244.2.0/24 via 192.0.2.77 proto 87"},
	{"route doubled in front", "ip route prepend 10.244.2.0/24 via 192.0.2.77 proto 87"},
	{"route doubled with a metric", "ip route add 10.244.2.0/24 via 192.0.2.77 metric 7 proto 87"},
	{"route doubled, IPv6", "ip -6 route append fd00:10:244:2::/64 via 2001:db8::77 proto 87"},
	{"route doubled with a type of service", "ip route add 10.244.2.0/24 tos 0x10 via 192.0.2.77 proto 87"},
	{"route with an MTU of its own", "ip route change 10.244.2.0/24 nhid $(ip route show 10.244.2.0/24 | awk '{print $3}') proto 87 mtu 1000"},
	{"route with an MTU of its own, IPv6", "ip -6 route change fd00:10:244:2::/64 nhid $(ip -6 route show fd00:10:244:2::/64 | awk '{print $3}') proto 87 mtu 1290"},
	{"stray route", "ip route add 10.244.50.0/24 via 192.0.2.77 proto 87"},
	{"stale route over the VTEP", "ip route add 10.244.51.0/24 via 10.244.51.0 dev polder.1 onlink"},
	{"stale route to the own subnet", "ip route prepend 10.244.1.0/24 via 10.244.9.0 dev polder.1 onlink"},
	{"connected route deleted", "ip route del 10.244.1.0/24"},
	{"connected route deleted, IPv6", "ip -6 route del fd00:10:244:1::/64"},
	{"ip_forward", "echo 0 >/proc/sys/net/ipv4/ip_forward"},
	{"forwarding, IPv6", "echo 0 >/proc/sys/net/ipv6/conf/all/forwarding"},
	{"accept_ra of the VTEP", "echo 1 >/proc/sys/net/ipv6/conf/polder.1/accept_ra"},
	{"accept_ra of the bridge", "echo 1 >/proc/sys/net/ipv6/conf/cni0/accept_ra"},
	{"disable_ipv6 of the bridge", "echo 1 >/proc/sys/net/ipv6/conf/cni0/disable_ipv6"},
	{"bridge-nf-call-iptables", "echo 0 >/proc/sys/net/bridge/bridge-nf-call-iptables"},
}

// damagedHost is a host that matches its spec, with two ports on its bridge:
// v1 is an endpoint's, and v2 a CNI plugin's.
func damagedHost(t *testing.T) (host, *spec.Spec, string) {
	sp := cluster{nodes: 3, families: dual, underlay: dual, backend: vxlan()}.spec()
	sp.Endpoints = []*spec.Endpoint{{Name: "e", Node: "n1", Interface: "v1"}}
	h := newHost(t)
	h.sh(`for i in 1 2; do
		ip link add v$i type veth peer name p$i
		ip link set v$i address 02:00:00:00:02:0$i up; ip link set p$i address 02:00:00:00:03:0$i up
	done`)
	h.converge(sp)
	h.sh("ip link set v2 master cni0")
	h.converge(sp)
	return h, sp, h.snapshot()
}

// reattach does what a CNI plugin would after the bridge was lost.
func (h host) reattach() {
	h.sh("ip link show v2 | grep -q 'master cni0' || ip link set v2 master cni0")
}

// TestDamageIsSeenAndRepaired does each damage by itself: the plan sees it and
// the apply undoes it, in one go.
func TestDamageIsSeenAndRepaired(t *testing.T) {
	h, sp, whole := damagedHost(t)
	for _, d := range damages {
		h.sh(d.command)
		plan := h.plan(sp)
		if len(plan.Ops) == 0 {
			t.Errorf("%s: the plan does not see it", d.name)
		}
		h.apply(plan)
		h.expectEmpty(h.plan(sp))
		h.reattach()
		h.converge(sp)
		if after := h.snapshot(); after != whole {
			t.Errorf("%s: repaired by\n%s\nthe state is\n%s\nand was\n%s", d.name, plan.text(), after, whole)
			h, sp, whole = damagedHost(t) // for the next
		}
	}
}

// TestDamageTogether does several at once.
func TestDamageTogether(t *testing.T) {
	h, sp, whole := damagedHost(t)
	rapid.Check(t, func(rt *rapid.T) {
		var done []string
		var commands strings.Builder
		for i := range rapid.IntRange(2, 6).Draw(rt, "damages") {
			d := rapid.SampledFrom(damages).Draw(rt, fmt.Sprint("damage ", i))
			// One may leave nothing for the next to break.
			fmt.Fprintf(&commands, "(%s) 2>/dev/null || true\n", d.command)
			done = append(done, d.name)
		}
		h.sh(commands.String())
		plan := h.plan(sp)
		h.apply(plan)
		if again := h.plan(sp); len(again.Ops) > 0 {
			rt.Fatalf("after %s, repaired by\n%s\nthe plan is not empty:\n%s", strings.Join(done, "; "), plan.text(), again.text())
		}
		h.reattach()
		h.converge(sp)
		if after := h.snapshot(); after != whole {
			before := whole
			h, sp, whole = damagedHost(t) // for the next
			rt.Errorf("after %s, repaired by\n%s\nthe state is\n%s\nand was\n%s", strings.Join(done, "; "), plan.text(), after, before)
		}
	})
}
