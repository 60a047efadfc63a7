package guard

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/spec"
)

var update = flag.Bool("update", false, "write the golden files anew")

func prefix(format string, args ...any) netip.Prefix {
	return netip.MustParsePrefix(fmt.Sprintf(format, args...))
}

// twoNodes is a dual-stack cluster of two nodes on one link, with a pod or two
// on each.
func twoNodes(backend spec.BackendType, m *spec.Masquerade) *spec.Spec {
	s := &spec.Spec{Cluster: "test", Network: &spec.Network{
		Pods: []spec.PodRange{
			{CIDR: prefix("10.244.0.0/16"), SubnetLen: 24},
			{CIDR: prefix("fd00:10:244::/48"), SubnetLen: 64},
		},
		Bridge:     spec.Bridge{Name: "cni0"},
		Backend:    spec.Backend{Type: backend, VNI: 7, Port: 8472},
		Masquerade: m,
	}}
	for k := 1; k <= 2; k++ {
		n := &spec.Node{Name: fmt.Sprintf("n%d", k), Subnets: []netip.Prefix{
			prefix("10.244.%d.0/24", k), prefix("fd00:10:244:%d::/64", k),
		}}
		for _, p := range []netip.Prefix{prefix("192.0.2.1%d/24", k), prefix("2001:db8:1::1%d/64", k)} {
			n.Addresses = append(n.Addresses, spec.NodeAddress{Addr: p.Addr(), Link: p.Masked()})
		}
		s.Nodes = append(s.Nodes, n)
		for host, name := range map[int]string{5: "web", 6: "db"} {
			s.Endpoints = append(s.Endpoints, &spec.Endpoint{
				Name: fmt.Sprintf("%s-%d", name, k), Node: n.Name, Interface: fmt.Sprintf("veth-%s-%d", name, k),
				MAC: spec.MAC{2, 0, 0, 0xaa, byte(k), byte(host)},
				Addresses: []netip.Addr{
					prefix("10.244.%d.%d/32", k, host).Addr(), prefix("fd00:10:244:%d::%d/128", k, host).Addr(),
				},
			})
		}
	}
	return s
}

// accepting is a cluster that accepts what comes directly.
func accepting(s *spec.Spec) *spec.Spec {
	s.Network.Backend.AcceptDirect = true
	return s
}

var testLinks = Links{
	Bridge:   "cni0",
	VTEPs:    spec.PerFamily[string]{IPv4: "vx4", IPv6: "vx6"},
	Underlay: spec.PerFamily[string]{IPv4: "eth0", IPv6: "eth0"},
	Local:    spec.PerFamily[netip.Addr]{IPv4: netip.MustParseAddr("192.0.2.11"), IPv6: netip.MustParseAddr("2001:db8:1::11")},
}

func TestCompileGolden(t *testing.T) {
	hostGW := testLinks
	hostGW.VTEPs = spec.PerFamily[string]{}
	v4underlay := twoNodes(spec.VXLAN, &spec.Masquerade{})
	for _, n := range v4underlay.Nodes {
		n.Addresses = n.Addresses[:1]
	}
	v4links := testLinks
	v4links.VTEPs.IPv6, v4links.Underlay.IPv6, v4links.Local.IPv6 = "", "", netip.Addr{}
	beside := testLinks
	beside.Routed = []string{"cali1", "cali2"}
	translated := testLinks // on the way from the address that the peers know
	translated.Local.IPv4 = netip.MustParseAddr("10.0.0.5")
	for name, c := range map[string]struct {
		spec  *spec.Spec
		links Links
	}{
		"vxlan-translated": {twoNodes(spec.VXLAN, &spec.Masquerade{}), translated},
		"vxlan":            {twoNodes(spec.VXLAN, &spec.Masquerade{}), testLinks},
		"vxlan-unnated":    {twoNodes(spec.VXLAN, nil), testLinks},
		"vxlan-excepted":   {twoNodes(spec.VXLAN, &spec.Masquerade{Except: []netip.Prefix{prefix("192.0.2.11/32"), prefix("2001:db8:1::12/128")}}), testLinks},
		"vxlan-ipv4only":   {v4underlay, v4links},
		"vxlan-accepting":  {accepting(twoNodes(spec.VXLAN, &spec.Masquerade{})), testLinks},
		"vxlan-routed":     {twoNodes(spec.VXLAN, &spec.Masquerade{}), beside},
		"host-gw":          {twoNodes(spec.HostGW, nil), hostGW},
	} {
		t.Run(name, func(t *testing.T) {
			text := Compile(c.spec, c.spec.Nodes[0], c.links).String()
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

// Without a network there is nothing to guard; the table must not exist for it.
func TestNoNetworkNoGuard(t *testing.T) {
	if table := Compile(&spec.Spec{}, &spec.Node{}, Links{}); !table.Empty() {
		t.Errorf("got\n%s", table)
	}
}

// The order in which a file lists its nodes is not a difference.
func TestOrderOfNodesMeansNothing(t *testing.T) {
	s := twoNodes(spec.VXLAN, nil)
	before := Compile(s, s.Node("n1"), testLinks)
	slices.Reverse(s.Nodes)
	if p := nft.Diff(nft.Ruleset{Compile(s, s.Node("n1"), testLinks)}, nft.Ruleset{before}); !p.Empty() {
		t.Errorf("the reversed file differs:\n%s", p)
	}
}
