package overlay

import (
	"fmt"
	"net/netip"

	"github.com/hashicorp/hcl/v2"

	"github.com/poldernet/polder/spec"
)

// cluster describes a spec for tests: nodes n1… on one link.
type cluster struct {
	nodes    int
	families []spec.Family // of the pods
	underlay []spec.Family
	backend  spec.Backend
	mtu      int
	bridge   string
	first    int // number of the first subnet
}

func vxlan() spec.Backend {
	return spec.Backend{Type: spec.VXLAN, VNI: 1, Port: 8472, Device: spec.PerFamily[string]{IPv4: "polder.1", IPv6: "polder-v6.1"}}
}

func direct() spec.Backend {
	b := vxlan()
	b.DirectRouting, b.AcceptDirect = true, true
	return b
}

func hostGW() spec.Backend { return spec.Backend{Type: spec.HostGW} }

var (
	onlyIPv4 = []spec.Family{spec.IPv4}
	onlyIPv6 = []spec.Family{spec.IPv6}
	dual     = spec.Families[:]
)

func nodeAddress(f spec.Family, i int) netip.Addr {
	if f == spec.IPv4 {
		return netip.AddrFrom4([4]byte{192, 0, byte(2 + i>>8), byte(10 + i)})
	}
	return netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", 0x10+i))
}

func linkPrefix(f spec.Family) netip.Prefix {
	if f == spec.IPv4 {
		return netip.MustParsePrefix("192.0.2.0/24")
	}
	return netip.MustParsePrefix("2001:db8::/64")
}

func podSubnet(f spec.Family, i int) netip.Prefix {
	if f == spec.IPv4 {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(244 + i>>8), byte(i), 0}), 24)
	}
	return netip.MustParsePrefix(fmt.Sprintf("fd00:10:244:%x::/64", i))
}

func (c cluster) spec() *spec.Spec {
	if c.bridge == "" {
		c.bridge = "cni0"
	}
	if c.first == 0 {
		c.first = 1
	}
	sp := &spec.Spec{Cluster: "test", Network: &spec.Network{
		Range:   line(2),
		MTU:     c.mtu,
		Bridge:  spec.Bridge{Name: c.bridge, HairpinMode: true},
		Backend: c.backend,
	}}
	for _, f := range c.families {
		cidr := netip.MustParsePrefix("10.128.0.0/9")
		if f == spec.IPv6 {
			cidr = netip.MustParsePrefix("fd00:10:244::/48")
		}
		sp.Network.Pods = append(sp.Network.Pods, spec.PodRange{CIDR: cidr})
	}
	for i := range c.nodes {
		n := &spec.Node{Name: fmt.Sprintf("n%d", i+1), Range: line(11 + i)}
		for _, f := range c.underlay {
			n.Addresses = append(n.Addresses, spec.NodeAddress{Addr: nodeAddress(f, i+1), Link: linkPrefix(f)})
		}
		for _, f := range c.families {
			n.Subnets = append(n.Subnets, podSubnet(f, c.first+i))
		}
		sp.Nodes = append(sp.Nodes, n)
	}
	return sp
}

// line is where a block of the spec stands.
func line(number int) hcl.Range {
	return hcl.Range{Filename: "polder.hcl", Start: hcl.Pos{Line: number, Column: 1}, End: hcl.Pos{Line: number, Column: 9}}
}

// facts are those of node n1 on a quiet host.
func (c cluster) facts() Facts {
	eth0 := HostLink{Link: Link{Name: "eth0", MTU: 1500, Up: true}}
	f := Facts{
		Paths:           map[netip.Addr]HostPath{},
		AddressProtocol: true,
		IPv6:            true,
		BridgeNetfilter: true,
	}
	for _, family := range c.underlay {
		eth0.Addresses = append(eth0.Addresses, netip.PrefixFrom(nodeAddress(family, 1), linkPrefix(family).Bits()))
		for i := 2; i <= c.nodes; i++ {
			f.Paths[nodeAddress(family, i)] = HostPath{Link: "eth0"}
		}
	}
	f.Links = map[string]HostLink{"eth0": eth0}
	return f
}
