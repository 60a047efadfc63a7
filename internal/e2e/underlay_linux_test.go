package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
)

// site is a spec for the lab of a cluster, written by its addresses.
type site struct {
	backend  string
	pods     families
	network  string    // more of the network block
	address  [2]string // n1's underlay address of each family
	node     string    // more of n1's block
	noPrefix bool
}

func (s site) spec(t *testing.T) *spec.Spec {
	t.Helper()
	if s.address[0] == "" {
		s.address = [2]string{"192.0.2.11", "2001:db8:2::11"}
	}
	length := [2]string{"/24", "/64"}
	if s.noPrefix {
		length = [2]string{}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "cluster = \"e2e\"\nnetwork {\n  pod_cidrs = %s\n  %s\n  %s\n}\n", s.pods.list("10.244.0.0/16", "fd00:10:244::/48"), s.backend, s.network)
	for i := 1; i <= 3; i++ {
		a, more := s.address, s.node
		if i > 1 {
			a, more = [2]string{fmt.Sprintf("192.0.2.1%d", i), fmt.Sprintf("2001:db8:2::1%d", i)}, ""
		}
		fmt.Fprintf(&b, "node \"n%d\" {\n  addresses = %s\n  subnets = %s\n  %s\n}\n", i, s.pods.list(a[0]+length[0], a[1]+length[1]),
			s.pods.list(fmt.Sprintf("10.244.%d.0/24", i), fmt.Sprintf("fd00:10:244:%d::/64", i)), more)
	}
	return load(t, b.String())
}

// second gives n1 another interface on the way to nobody.
const second = `ip link add eth9 type veth peer name wire9; ip link set wire9 up; ip link set eth9 mtu 1400 up
	ip addr add 198.51.100.11/24 dev eth9; ip -6 addr add 2001:db8:9::11/64 dev eth9 nodad`

// TestUnderlaySelection: the interface that carries the outer packets is chosen
// by name, by an address, by a route, or, without a word, by the node's own
// address; and the outer packets' source is an address that the interface has.
func TestUnderlaySelection(t *testing.T) {
	t.Parallel()
	translated := [2]string{"203.0.113.11", "2001:db8:ffff::11"}
	for _, c := range []struct {
		name, network, node string
		address             [2]string
		device              string
	}{
		{name: "by the node's address", device: "eth0"},
		{name: "by the node's address on another interface", address: [2]string{"198.51.100.11", "2001:db8:9::11"}, device: "eth9"},
		{name: "by name", network: `underlay { interface = "eth9" }`, device: "eth9"},
		{name: "by name, of the node", network: `underlay { interface = "eth9" }`, node: `underlay { interface = "eth0" }`, device: "eth0"},
		{name: "by address", node: `underlay { address = "198.51.100.11" }`, device: "eth9"},
		{name: "by address, IPv6", node: `underlay { address = "2001:db8:9::11" }`, device: "eth9"},
		{name: "by a route on the link", network: `underlay { route_to = "198.51.100.77" }`, device: "eth9"},
		{name: "by a route over a gateway", network: `underlay { route_to = "203.0.113.77" }`, device: "eth0"},
		{name: "by a route, IPv6", network: `underlay { route_to = "2001:db8:9::77" }`, device: "eth9"},
		{name: "translated, by name", address: translated, network: `underlay { interface = "eth9" }`, device: "eth9"},
		{name: "translated, by a route", address: translated, network: `underlay { route_to = "192.0.2.12" }`, device: "eth0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := up(t, cluster{backend: backendVXLAN, pods: dual})
			n.sh("n1", second)
			n.spec = site{backend: backendVXLAN, pods: dual, network: c.network, node: c.node, address: c.address}.spec(t)
			n.apply("n1", n.spec, reconcile.ModeApply)
			n.expectNothing(n.spec)
			local, mtu := [2]string{"192.0.2.11", "2001:db8:2::11"}, 1500
			if c.device == "eth9" {
				local, mtu = [2]string{"198.51.100.11", "2001:db8:9::11"}, 1400
			}
			for i, vtep := range []string{"polder.1", "polder-v6.1"} {
				got := n.sh("n1", "ip -d link show "+vtep)
				if !strings.Contains(got, "local "+local[i]+" dev "+c.device+" ") || !strings.Contains(got, fmt.Sprintf("mtu %d ", mtu-50-20*i)) {
					t.Errorf("want local %s dev %s mtu %d: %s", local[i], c.device, mtu-50-20*i, got)
				}
			}
			if got, want := n.sh("n1", "ip link show cni0"), fmt.Sprintf("mtu %d ", mtu-70); !strings.Contains(got, want) {
				t.Errorf("want %s: %s", want, got)
			}
		})
	}
}

// TestNoUnderlay: a host that has not what the spec chooses is told what it
// looked for and what to do.
func TestNoUnderlay(t *testing.T) {
	n := up(t, cluster{backend: backendVXLAN, pods: dual})
	n.sh("n1", second+"; ip link set eth9 down; ip route del default; ip link add bare type veth peer name bare2; ip link set bare up")
	for _, c := range []struct {
		network string
		address [2]string
		words   []string
	}{
		{"", [2]string{"203.0.113.11", "2001:db8:2::11"}, []string{"203.0.113.11", `node "n1"`, "underlay { interface"}},
		{`underlay { interface = "bond0" }`, [2]string{}, []string{`"bond0"`, "it has", "eth0", "eth9"}},
		{`underlay { interface = "bare" }`, [2]string{}, []string{"bare", "no ipv4 address"}},
		{`underlay { address = "192.0.2.200" }`, [2]string{}, []string{"192.0.2.200"}},
		{`underlay { route_to = "203.0.113.77" }`, [2]string{}, []string{"no route to 203.0.113.77"}},
		{`underlay { route_to = "192.0.2.11" }`, [2]string{}, []string{"192.0.2.11", "own"}},
	} {
		before := n.settled("n1")
		n.expectError("n1", site{backend: backendVXLAN, pods: dual, network: c.network, address: c.address}.spec(t), c.words...)
		if after := n.settled("n1"); after != before {
			t.Errorf("%s: the error came after\n%s", c.network, difference(before, after))
		}
	}
}

// TestMTU: pods have what the underlay leaves in every family that they have,
// and what does not fit is an error before anything is written.
func TestMTU(t *testing.T) {
	t.Parallel()
	n := up(t, cluster{backend: backendVXLAN, pods: dual})
	for _, c := range []struct {
		underlay int
		backend  string
		pods     families
		network  string
		mtu      [3]int // of cni0, polder.1 and polder-v6.1; 0: not there
		words    []string
	}{
		{underlay: 9000, backend: backendVXLAN, pods: dual, mtu: [3]int{8930, 8950, 8930}},
		{underlay: 9000, backend: backendVXLAN, pods: ipv4, mtu: [3]int{8950, 8950, 0}},
		{underlay: 1400, backend: backendVXLAN, pods: ipv6, mtu: [3]int{1330, 0, 1330}},
		{underlay: 1400, backend: backendDirect, pods: dual, mtu: [3]int{1330, 1350, 1330}},
		{underlay: 1350, backend: backendVXLAN, pods: dual, mtu: [3]int{1280, 1300, 1280}},
		{underlay: 1349, backend: backendVXLAN, pods: dual, words: []string{"eth0", "MTU 1349", "1279", "1280"}},
		{underlay: 1349, backend: backendVXLAN, pods: ipv4, mtu: [3]int{1299, 1299, 0}},
		{underlay: 600, backend: backendVXLAN, pods: ipv4, mtu: [3]int{550, 550, 0}},
		{underlay: 1500, backend: backendHostGW, pods: dual, mtu: [3]int{1500, 0, 0}},
		{underlay: 1500, backend: backendVXLAN, pods: dual, network: "mtu = 1400", mtu: [3]int{1400, 1400, 1400}},
		{underlay: 1500, backend: backendVXLAN, pods: dual, network: "mtu = 1431", words: []string{"mtu 1431", "eth0", "1500", "70", "1430"}},
		{underlay: 1500, backend: backendVXLAN, pods: ipv4, network: "mtu = 1451", words: []string{"mtu 1451", "1450"}},
		{underlay: 1500, backend: backendHostGW, pods: dual, network: "mtu = 1501", words: []string{"mtu 1501", "1500"}},
	} {
		n.sh("n1", fmt.Sprintf("ip link set eth0 mtu %d", c.underlay))
		if c.underlay < 1280 { // below which Linux forgets IPv6; back above it begins anew
			n.sh("n1", "ip addr show dev eth0 | grep -q 192.0.2.11")
		}
		sp := site{backend: c.backend, pods: c.pods, network: c.network}.spec(t)
		if c.words != nil {
			n.expectError("n1", sp, c.words...)
			continue
		}
		if c.underlay >= 1280 {
			n.sh("n1", "ip -6 addr replace 2001:db8:2::11/64 dev eth0 nodad")
		}
		n.apply("n1", sp, reconcile.ModeApply)
		n.expectNothing(sp)
		for i, link := range []string{"cni0", "polder.1", "polder-v6.1"} {
			want := ""
			if c.mtu[i] > 0 {
				want = fmt.Sprint(c.mtu[i])
			}
			if got := strings.TrimSpace(n.sh("n1", "ip -o link show "+link+" 2>/dev/null | sed 's/.* mtu \\([0-9]*\\).*/\\1/'")); got != want {
				t.Errorf("underlay %d, %s, %s: %s has %q, want %q", c.underlay, c.backend, c.pods, link, got, want)
			}
		}
	}
}
