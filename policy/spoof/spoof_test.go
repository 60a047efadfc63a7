package spoof

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/spec"
)

var update = flag.Bool("update", false, "write the golden files anew")

// oneNode is a node with four endpoints on its bridge: two that are claimed
// with their MAC, one without, and one that is not claimed. A fifth one is
// on another node.
func oneNode() *spec.Spec {
	s := &spec.Spec{Cluster: "test", Network: &spec.Network{
		Pods: []spec.PodRange{
			{CIDR: netip.MustParsePrefix("10.244.0.0/16"), SubnetLen: 24},
			{CIDR: netip.MustParsePrefix("fd00:10:244::/48"), SubnetLen: 64},
		},
		Bridge:  spec.Bridge{Name: "cni0"},
		Backend: spec.Backend{Type: spec.VXLAN, VNI: 7, Port: 8472},
	}}
	node := &spec.Node{Name: "n1", Subnets: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:10:244:1::/64")}}
	for _, p := range []netip.Prefix{netip.MustParsePrefix("192.0.2.11/24"), netip.MustParsePrefix("2001:db8:1::11/64")} {
		node.Addresses = append(node.Addresses, spec.NodeAddress{Addr: p.Addr(), Link: p.Masked()})
	}
	s.Nodes = []*spec.Node{node}
	db, free, stray, web := pod("db", 6), pod("free", 7), pod("stray", 8), pod("web", 5)
	free.MAC, stray.Interface = spec.MAC{}, ""
	elsewhere := pod("web-2", 5)
	elsewhere.Node, elsewhere.Addresses = "n2", []netip.Addr{netip.MustParseAddr("10.244.2.5"), netip.MustParseAddr("fd00:10:244:2::5")}
	s.Endpoints = []*spec.Endpoint{db, free, stray, web, elsewhere}
	return s
}

func pod(name string, host int) *spec.Endpoint {
	return &spec.Endpoint{
		Name: name, Node: "n1", Interface: "veth-" + name, MAC: spec.MAC{2, 0, 0, 0xaa, 0, byte(host)},
		Addresses: []netip.Addr{
			netip.AddrFrom4([4]byte{10, 244, 1, byte(host)}),
			netip.AddrFrom16([16]byte{0: 0xfd, 3: 0x10, 4: 0x02, 5: 0x44, 7: 1, 15: byte(host)}),
		},
	}
}

// macOf is the MAC of a pod, whether the spec knows it or not.
func macOf(e *spec.Endpoint) spec.MAC {
	return spec.MAC{2, 0, 0, 0xaa, 0, e.Addresses[0].As4()[3]}
}

func TestCompileGolden(t *testing.T) {
	s := oneNode()
	unclaimed := oneNode()
	unclaimed.Endpoints = nil
	policyOnly := oneNode()
	policyOnly.Network, policyOnly.Nodes[0].Subnets = nil, nil
	for name, c := range map[string]struct {
		spec *spec.Spec
		host Host
	}{
		"claims":    {s, Host{}},
		"isolated":  {s, Host{Isolated: spec.PerFamily[[]netip.Addr]{IPv4: s.Endpoints[0].Addresses[:1], IPv6: s.Endpoints[0].Addresses[1:]}}},
		"unclaimed": {unclaimed, Host{}},
		"policy-only": {policyOnly, Host{
			MACs:      []spec.MAC{{2, 0, 0, 0, 1, 1}},
			Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.1")},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			text := Compile(c.spec, c.spec.Nodes[0], c.host).String()
			file := filepath.Join("testdata", name+".nft")
			if *update {
				if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if text != string(want) {
				t.Errorf("the text differs from %s (-update writes it anew):\n%s", file, text)
			}
		})
	}
}

// Where nothing is claimed and nobody is isolated the table must not exist.
func TestNothingClaimedNoTable(t *testing.T) {
	s := oneNode()
	s.Network, s.Endpoints = nil, nil
	if table := Compile(s, s.Nodes[0], Host{}); !table.Empty() {
		t.Errorf("got\n%s", table)
	}
}

// The order in which a file lists its endpoints is not a difference.
func TestOrderOfEndpointsMeansNothing(t *testing.T) {
	s := oneNode()
	before := Compile(s, s.Nodes[0], Host{})
	slices.Reverse(s.Endpoints)
	if p := nft.Diff(nft.Ruleset{Compile(s, s.Nodes[0], Host{})}, nft.Ruleset{before}); !p.Empty() {
		t.Errorf("the reversed file differs:\n%s", p)
	}
}
