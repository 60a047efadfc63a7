package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
)

// variants are specs for one lab with both families on its underlay. What
// differs is what a user may come to change.
var variants = []struct {
	name string
	edit func(*draft)
}{
	{"vxlan", func(*draft) {}},
	{"vxlan IPv4", func(d *draft) { d.pods = ipv4 }},
	{"vxlan IPv6", func(d *draft) { d.pods = ipv6 }},
	{"vxlan, IPv6 pods over IPv4", func(d *draft) { d.pods, d.underlay = ipv6, ipv4 }},
	{"vxlan, both over IPv4", func(d *draft) { d.underlay = ipv4 }},
	{"vxlan, both over IPv6", func(d *draft) { d.underlay = ipv6 }},
	{"accepting direct", func(d *draft) { d.backend = backendAccept }},
	{"direct", func(d *draft) { d.backend = backendDirect }},
	{"direct IPv4", func(d *draft) { d.backend, d.pods = backendDirect, ipv4 }},
	{"direct IPv6", func(d *draft) { d.backend, d.pods = backendDirect, ipv6 }},
	{"host-gw", func(d *draft) { d.backend, d.nodes = backendHostGW, 2 }},
	{"host-gw IPv4", func(d *draft) { d.backend, d.nodes, d.pods = backendHostGW, 2, ipv4 }},
	{"host-gw IPv6", func(d *draft) { d.backend, d.nodes, d.pods = backendHostGW, 2, ipv6 }},
	{"alone", func(d *draft) { d.nodes = 1 }},
	{"two nodes", func(d *draft) { d.nodes = 2 }},
	{"twelve nodes", func(d *draft) { d.nodes = 12 }},
	{"other subnets", func(d *draft) { d.shift = 40 }},
	{"subnets exchanged", func(d *draft) { d.exchanged = true }},
	{"subnets of another length", func(d *draft) { d.subnetBits = 25 }},
	{"other pod network", func(d *draft) { d.podNet = "10.77" }},
	{"small MTU", func(d *draft) { d.network = "mtu = 1300\n masquerade {}" }},
	{"other bridge", func(d *draft) { d.network = "bridge { name = \"br-pods\" }\n masquerade {}" }},
	{"no hairpin", func(d *draft) { d.network = "bridge { hairpin_mode = false }\n masquerade {}" }},
	{"no NAT", func(d *draft) { d.network = "" }},
	{"NAT with exceptions", func(d *draft) {
		d.network = "masquerade { except = [\"192.0.0.0/16\", \"203.0.113.0/24\", \"2001:db8::/32\"] }"
	}},
	{"NAT, ports in order", func(d *draft) { d.network = "masquerade { random_fully = false }" }},
	{"other VNI", func(d *draft) { d.backend = "backend \"vxlan\" { vni = 42 }" }},
	{"other port", func(d *draft) { d.backend = "backend \"vxlan\" { port = 4789 }" }},
	{"other device", func(d *draft) {
		d.backend = "backend \"vxlan\" { device = { ipv4 = \"flannel.1\", ipv6 = \"flannel-v6.1\" } }"
	}},
	{"devices exchanged", func(d *draft) {
		d.backend = "backend \"vxlan\" { device = { ipv4 = \"polder-v6.1\", ipv6 = \"polder.1\" } }"
	}},
	{"other cluster", func(d *draft) { d.cluster = "other" }},
	{"no endpoints", func(d *draft) { d.endpoints = false }},
}

// draft is a variant's spec before it is text.
type draft struct {
	cluster, backend, network, podNet string
	pods, underlay                    families
	nodes, shift, subnetBits          int
	exchanged, endpoints              bool
}

func (d draft) text() string {
	var b strings.Builder
	length := ""
	if d.subnetBits != 24 {
		length = fmt.Sprintf("subnet_len = { ipv4 = %d }", d.subnetBits)
	}
	fmt.Fprintf(&b, "cluster = %q\nnetwork {\n pod_cidrs = %s\n %s\n %s\n %s\n}\n",
		d.cluster, d.pods.list(d.podNet+".0.0/16", "fd00:10:244::/48"), length, d.backend, d.network)
	for i := 1; i <= d.nodes; i++ {
		third := 2
		if i == 3 {
			third = 3
		}
		number := i + d.shift
		if d.exchanged {
			number = d.nodes + 1 - i
		}
		fmt.Fprintf(&b, "node \"n%d\" {\n addresses = %s\n subnets = %s\n}\n", i,
			d.underlay.list(fmt.Sprintf("192.0.%d.1%d/24", third, i), fmt.Sprintf("2001:db8:%d::1%d/64", third, i)),
			d.pods.list(fmt.Sprintf("%s.%d.0/%d", d.podNet, number, d.subnetBits), fmt.Sprintf("fd00:10:244:%d::/64", number)))
		if d.endpoints && i == 1 {
			fmt.Fprintf(&b, "endpoint \"p11\" {\n node = \"n1\"\n interface = \"veth1\"\n}\n")
		}
	}
	return b.String()
}

// foreign is what other programs have on the node, close to ours.
const foreign = `
	ip link add docker0 type bridge; ip addr add 172.17.0.1/16 dev docker0; ip link set docker0 address 02:42:00:00:00:01 up
	ip link add vx-foreign type vxlan id 99 dstport 4790 local 192.0.2.11 dev eth0; ip link set vx-foreign address 02:42:00:00:00:02
	ip link add mine type veth peer name mine2; ip link set mine alias 'polder uplink of mine'; ip link set mine2 alias 'polder cluster=e2e'
	ip nexthop add id 7 via 192.0.2.1 dev eth0
	ip route add 10.99.0.0/16 nhid 7
	ip route add 10.98.0.0/16 via 192.0.2.1 proto static
	ip route add 10.97.0.0/16 via 192.0.2.1 table 87
	ip -6 route add fd99::/48 via 2001:db8:2::1 proto bird
	nft add table ip docker; nft add chain ip docker FORWARD '{ type filter hook forward priority 0; policy accept; }'; nft add rule ip docker FORWARD counter
	nft add table ip polder; nft add set ip polder s '{ type ipv4_addr; }'
	echo 1 >/proc/sys/net/ipv6/conf/docker0/disable_ipv6`

// TestTransitions applies every spec after every other: the result is what the
// spec gives by itself, and what belongs to others is as it was.
func TestTransitions(t *testing.T) {
	t.Parallel()
	n := up(t, cluster{backend: backendVXLAN, pods: dual})
	n.sh("n1", foreign)
	initial := n.settled("n1")
	specs := make([]*spec.Spec, len(variants))
	alone := make([]string, len(variants))
	for i, v := range variants {
		d := draft{
			cluster: "e2e", backend: backendVXLAN, network: "masquerade {}", podNet: "10.244",
			pods: dual, underlay: dual, nodes: 3, subnetBits: 24, endpoints: true,
		}
		v.edit(&d)
		specs[i] = load(t, d.text())
		n.apply("n1", specs[i], reconcile.ModeApply)
		n.expectNothing(specs[i])
		alone[i] = n.settled("n1")
		n.apply("n1", nil, reconcile.ModeDestroy)
		if after := n.settled("n1"); after != initial {
			t.Fatalf("%s: destroy leaves\n%s", v.name, difference(initial, after))
		}
	}
	tour := everyPair(len(variants))
	n.apply("n1", specs[tour[0]], reconcile.ModeApply)
	for i, now := range tour[1:] {
		t.Logf("%q after %q", variants[now].name, variants[tour[i]].name)
		n.apply("n1", specs[now], reconcile.ModeApply)
		n.expectNothing(specs[now])
		if after := n.settled("n1"); after != alone[now] {
			t.Fatalf("%q after %q is not %q alone:\n%s", variants[now].name, variants[tour[i]].name, variants[now].name, difference(alone[now], after))
		}
	}
	n.apply("n1", nil, reconcile.ModeDestroy)
	if after := n.settled("n1"); after != initial {
		t.Errorf("destroy leaves\n%s", difference(initial, after))
	}
}

func (n *network) expectNothing(sp *spec.Spec) {
	n.t.Helper()
	if plan := n.plan("n1", sp, reconcile.ModeApply); !plan.Empty() {
		n.t.Fatalf("a second plan is not empty: %+v", plan.Changes)
	}
}

// everyPair is a walk over 0 to n-1 that takes every step from one to another
// exactly once: an Eulerian circuit of the complete graph (Hierholzer).
func everyPair(n int) []int {
	next := make([]int, n) // the steps from i lead to i+1, i+2, … in turn
	var walk []int
	stack := []int{0}
	for len(stack) > 0 {
		at := stack[len(stack)-1]
		if next[at] == n-1 {
			walk = append(walk, at)
			stack = stack[:len(stack)-1]
			continue
		}
		next[at]++
		stack = append(stack, (at+next[at])%n)
	}
	return walk
}

// difference lists the lines that only one of two snapshots has.
func difference(before, after string) string {
	count := map[string]int{}
	for _, line := range strings.Split(before, "\n") {
		count[line]--
	}
	for _, line := range strings.Split(after, "\n") {
		count[line]++
	}
	var b strings.Builder
	for _, text := range []string{before, after} {
		for _, line := range strings.Split(text, "\n") {
			switch c := count[line]; {
			case c < 0:
				fmt.Fprintf(&b, "- %s\n", line)
			case c > 0:
				fmt.Fprintf(&b, "+ %s\n", line)
			}
			count[line] = 0
		}
	}
	return b.String()
}

// TestEveryPair holds the walk to what it promises.
func TestEveryPair(t *testing.T) {
	const n = 7
	walk := everyPair(n)
	seen := map[[2]int]bool{}
	for i := range walk[1:] {
		step := [2]int{walk[i], walk[i+1]}
		if seen[step] || step[0] == step[1] {
			t.Fatalf("step %v twice, or to itself", step)
		}
		seen[step] = true
	}
	if len(seen) != n*(n-1) {
		t.Fatalf("%d steps, want %d", len(seen), n*(n-1))
	}
}
