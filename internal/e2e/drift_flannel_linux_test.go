package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/poldernet/polder/internal/peers"
)

// flannelPatience is how long flanneld has for a repair: three of the 5 s after
// which it looks at its rules, where it does.
const flannelPatience = 15 * time.Second

// flannelCase is a cluster of flanneld, and what happens to n1 of it: by the
// name of the row, the command, and where it is no repair that is due, a command
// that succeeds once flanneld has followed. Without DirectRouting, what flanneld
// has with VXLAN outlives the underlay's going down.
type flannelCase struct {
	name   string
	rules  peers.Rules
	c      cluster
	drifts []move
}

var flannelVXLAN = cluster{backend: `backend "vxlan" { device = { ipv4 = "flannel.1" } }`, pods: ipv4, oneLink: true}

var flannelCases = []flannelCase{
	{"VXLAN, nftables", peers.NFTables, flannelVXLAN, []move{
		{what: "VTEP deleted", command: "ip link del flannel.1"},
		{what: "VTEP MAC", command: "ip link set flannel.1 address 02:11:22:33:44:55"},
		{what: "VTEP down and up", command: "ip link set flannel.1 down; ip link set flannel.1 up"},
		{what: "VTEP MTU", command: "ip link set flannel.1 mtu 1280"},
		{what: "VTEP's address deleted", command: "ip addr del 10.244.1.0/32 dev flannel.1"},
		{what: "neighbour's MAC", command: "ip neigh replace 10.244.2.0 lladdr 02:11:22:33:44:55 dev flannel.1 nud permanent"},
		{what: "neighbour deleted", command: "ip neigh del 10.244.2.0 dev flannel.1"},
		{what: "FDB rows deleted", command: "bridge fdb show dev flannel.1 | awk '{print $1}' | while read m; do bridge fdb del $m dev flannel.1; done"},
		{what: "FDB row leads elsewhere", command: "m=$(bridge fdb show dev flannel.1 | awk '{print $1; exit}'); bridge fdb replace $m dev flannel.1 dst 192.0.2.99 self permanent"},
		{what: "stale second FDB row", command: "bridge fdb add 02:11:22:33:44:55 dev flannel.1 dst 192.0.2.12 self permanent"},
		{what: "route deleted", command: "ip route del 10.244.2.0/24"},
		{what: "route leads elsewhere", command: "ip route replace 10.244.2.0/24 via 192.0.2.77"},
		{what: "stray route", command: "ip route add 10.244.50.0/24 via 10.244.50.0 dev flannel.1 onlink"},
		{what: "stale route to the node's own subnet over the VTEP", command: "ip route prepend 10.244.1.0/24 via 10.244.1.77 dev flannel.1 onlink"},
		{
			what: "underlay MTU 1500 to 1400", command: "ip link set eth0 mtu 1400",
			followed: "grep -q 1350 /sys/class/net/flannel.1/mtu",
		},
		{
			what: "node address changed", command: "ip addr del 192.0.2.11/24 dev eth0; ip addr add 192.0.2.111/24 brd + dev eth0; ip route replace default via 192.0.2.1",
			followed: "ip -d link show flannel.1 | grep -q 'local 192.0.2.111 '",
		},
		{what: "all rules flushed", command: "nft flush ruleset"},
		{what: "table deleted", command: "nft delete table ip flannel-ipv4"},
		{what: "table emptied", command: "nft flush table ip flannel-ipv4"},
		{what: "rule deleted", command: "nft delete rule ip flannel-ipv4 postrtg handle $(nft -a list chain ip flannel-ipv4 postrtg | sed -n '/masquerade/{s/.*# handle //p;q}')"},
	}},
	{"VXLAN, iptables", peers.IPTables, flannelVXLAN, []move{
		{what: "all rules flushed", command: "nft flush ruleset"},
		{what: "chain deleted", command: "iptables -t nat -D POSTROUTING -m comment --comment 'flanneld masq' -j FLANNEL-POSTRTG; iptables -t nat -F FLANNEL-POSTRTG; iptables -t nat -X FLANNEL-POSTRTG"},
		{what: "chain flushed", command: "iptables -t nat -F FLANNEL-POSTRTG"},
		{what: "rule deleted", command: "iptables -t nat -D FLANNEL-POSTRTG 1"},
		{what: "rule added in front", command: "iptables -t nat -I FLANNEL-POSTRTG -j ACCEPT"},
	}},
	{"VXLAN with DirectRouting", peers.NFTables, cluster{backend: `backend "vxlan" { direct_routing = true }`, pods: ipv4, oneLink: true}, []move{
		{what: "route deleted", command: "ip route del 10.244.2.0/24"},
		{what: "underlay down and up", command: "ip link set eth0 down; ip link set eth0 up; ip route replace default via 192.0.2.1"},
	}},
	{"host-gw, iptables", peers.IPTables, cluster{backend: backendHostGW, pods: ipv4, oneLink: true}, []move{
		{what: "route deleted", command: "ip route del 10.244.2.0/24"},
		{what: "route leads elsewhere", command: "ip route replace 10.244.2.0/24 via 192.0.2.77"},
		{what: "route doubled", command: "ip route prepend 10.244.2.0/24 via 192.0.2.77"},
		{what: "stray route", command: "ip route add 10.244.50.0/24 via 192.0.2.77"},
		{what: "underlay down and up", command: "ip link set eth0 down; ip link set eth0 up; ip route replace default via 192.0.2.1"},
		{what: "chain flushed", command: "iptables -t nat -F FLANNEL-POSTRTG"},
	}},
}

// repairs are what flanneld does about each, by the name of the row: how long it
// took, each time; none, where it did nothing in flannelPatience.
func (f flannelCase) repairs(t *testing.T, times int) map[string][]time.Duration {
	took := make([][]time.Duration, len(f.drifts))
	t.Run(f.name, func(t *testing.T) {
		for i, m := range f.drifts {
			t.Run(m.what, func(t *testing.T) {
				t.Parallel() // most is waiting
				took[i] = f.repair(t, m, times)
			})
		}
	})
	all := map[string][]time.Duration{}
	for i, m := range f.drifts {
		all[m.what] = took[i]
	}
	return all
}

// repair measures one drift in a lab of its own.
func (f flannelCase) repair(t *testing.T, m move, times int) (took []time.Duration) {
	n := up(t, f.c)
	n.flannel(f.rules, nodeNames[:2])
	words := n.listen("n1")
	whole := n.settled("n1")
	is := func() bool {
		if m.followed != "" {
			return strings.Contains(n.sh("n1", "("+m.followed+") && echo followed || true"), "followed")
		}
		return n.snapshot("n1") == whole
	}
	if m.followed != "" {
		times = 1
	}
	for range times {
		words.begin("")
		n.sh("n1", m.command)
		for began := time.Now(); !is(); {
			if time.Since(began) > flannelPatience {
				t.Logf("%s: not repaired\n%s", m.command, difference(whole, n.snapshot("n1")))
				return took
			}
			words.quiet(50 * time.Millisecond)
		}
		first, last, said := words.span()
		t.Logf("%s: %v; %v", m.command, last.Sub(first), said)
		took = append(took, last.Sub(first))
	}
	return took
}
