// Package world draws small clusters with policies, for properties that must
// hold in all of them: few addresses, labels and numbers, so that what could be
// confused meets. A world is printed as a spec file.
package world

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"pgregory.net/rapid"

	"github.com/poldernet/polder/spec"
	"github.com/poldernet/polder/spec/selector"
)

// Nodes are the names of the nodes of every world.
var Nodes = []string{"n1", "n2"}

// Link is the interface by which the nodes of every world reach each other and
// the outside, and Bridge the one that their endpoints are attached to.
const (
	Link   = "eth0"
	Bridge = "cni0"
)

// Draw draws a world.
func Draw(t *rapid.T) *spec.Spec {
	sp := &spec.Spec{
		Cluster: "world", Network: network(), Nodes: nodes(),
		Tiers:       []*spec.Tier{{Name: spec.DefaultTier, Order: spec.DefaultTierOrder, DefaultAction: spec.Deny}},
		Enforcement: spec.Enforcement{Established: spec.Recheck, Unclaimed: spec.UnclaimedOutside, Bridge: Bridge, LogGroup: 87, LogRate: 10},
	}
	for i := range endpoints.Draw(t, "endpoints") {
		sp.Endpoints = append(sp.Endpoints, drawEndpoint(t, i))
	}
	for _, name := range namespaceNames {
		if rare.Draw(t, "namespace") {
			sp.Namespaces = append(sp.Namespaces, &spec.Namespace{Name: name, Labels: drawLabels(t)})
		}
	}
	for i := range networkSets.Draw(t, "network sets") {
		sp.NetworkSets = append(sp.NetworkSets, drawNetworkSet(t, i))
	}
	drawTiers(t, sp)
	for i := range policies.Draw(t, "policies") {
		sp.Policies = append(sp.Policies, drawPolicy(t, sp, policyNames[i]))
	}
	if rare.Draw(t, "networkpolicy") {
		sp.Policies = append(sp.Policies, drawNetworkPolicy(t))
	}
	byName(sp.Policies, func(p *spec.Policy) string { return p.Name })
	for _, node := range Nodes {
		for _, link := range links {
			if rare.Draw(t, "host endpoint") {
				sp.HostEndpoints = append(sp.HostEndpoints, drawHostEndpoint(t, node, link))
			}
		}
	}
	byName(sp.HostEndpoints, func(h *spec.HostEndpoint) string { return h.Name })
	sp.Enforcement.LogDrops = rare.Draw(t, "log_drops")
	if rare.Draw(t, "keep") {
		sp.Enforcement.Established = spec.Keep
	}
	if rare.Draw(t, "drop") {
		sp.Enforcement.Unclaimed = spec.UnclaimedDrop
	}
	return sp
}

// Names come in another order than they are drawn in, so that an order by name
// is not that of drawing.
var (
	policyNames    = []string{"d", "b", "e", "a", "c"}
	tierNames      = []string{"t", "s"}
	namespaceNames = []string{"default", "shop"}
	labelNames     = []string{"app", "zone"}
	portNames      = []string{"http", "dns"}
	links          = []string{Link, "eth1", spec.AllInterfaces}
)

// mostEndpoints is how many a world can have.
const mostEndpoints = 6

// Generators. Small numbers are simple ones: a world shrinks to few of
// everything.
var (
	endpoints   = rapid.IntRange(0, mostEndpoints)
	howMany     = rapid.SampledFrom([]int{1, 2, 1, 0})
	networkSets = rapid.IntRange(0, 2)
	policies    = rapid.SampledFrom([]int{2, 3, 4, 5, 1, 0})
	rulesEach   = rapid.SampledFrom([]int{2, 1, 3, 0})
	upToThree   = rapid.IntRange(0, 3)
	upToTwo     = rapid.IntRange(0, 2)
	often       = rapid.Bool()
	rare        = rapid.Map(rapid.IntRange(0, 5), func(n int) bool { return n == 5 })
	node        = rapid.SampledFrom(Nodes)
	namespace   = rapid.SampledFrom(namespaceNames)
	labelValue  = rapid.SampledFrom([]string{"", "a", "b", "ab"})
	port        = rapid.SampledFrom([]uint16{53, 80, 81, 82, 1, 65535})
	portName    = rapid.SampledFrom(portNames)
	protocol    = rapid.SampledFrom([]string{"tcp", "udp", "sctp"})
	order       = rapid.SampledFrom([]float64{-1, 0, 0.5, 1, 10, spec.DefaultTierOrder})
	action      = rapid.SampledFrom([]spec.Action{spec.Allow, spec.Deny, spec.Pass, spec.Log})
	kind        = rapid.IntRange(0, 5)
	bits        = rapid.SampledFrom([]int{0, 1, 8, 23, 24, 29, 30, 31, 32})
	family      = rapid.SampledFrom(spec.Families[:])
	index       = rapid.IntRange(0, 7)
)

func byName[T any](list []T, name func(T) string) {
	slices.SortFunc(list, func(a, b T) int { return cmp.Compare(name(a), name(b)) })
}

func network() *spec.Network {
	return &spec.Network{
		Pods: []spec.PodRange{
			{CIDR: netip.MustParsePrefix("10.244.0.0/16"), SubnetLen: 24, SubnetMin: netip.MustParseAddr("10.244.1.0"), SubnetMax: netip.MustParseAddr("10.244.255.0")},
			{CIDR: netip.MustParsePrefix("fd00:10:244::/48"), SubnetLen: 64, SubnetMin: netip.MustParseAddr("fd00:10:244:1::"), SubnetMax: netip.MustParseAddr("fd00:10:244:ffff::")},
		},
		Bridge:  spec.Bridge{Name: Bridge},
		Backend: spec.Backend{Type: spec.HostGW},
	}
}

func nodes() []*spec.Node {
	var list []*spec.Node
	for i, name := range Nodes {
		list = append(list, &spec.Node{
			Name: name,
			Addresses: []spec.NodeAddress{
				{Addr: netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", 11+i))},
				{Addr: netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", 11+i))},
			},
			Subnets: []netip.Prefix{
				netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", 1+i)),
				netip.MustParsePrefix(fmt.Sprintf("fd00:10:244:%d::/64", 1+i)),
			},
		})
	}
	return list
}

func endpointName(i int) string { return fmt.Sprintf("e%d", i) }

// drawEndpoint draws an endpoint, with up to two addresses of each family.
func drawEndpoint(t *rapid.T, i int) *spec.Endpoint {
	e := &spec.Endpoint{Name: endpointName(i), Node: node.Draw(t, "node"), Namespace: namespace.Draw(t, "namespace"), Labels: drawLabels(t)}
	n := slices.Index(Nodes, e.Node) + 1
	for k := range howMany.Draw(t, "IPv4 addresses") {
		e.Addresses = append(e.Addresses, netip.AddrFrom4([4]byte{10, 244, byte(n), byte(4 + 2*i + k)}))
	}
	for k := range howMany.Draw(t, "IPv6 addresses") {
		e.Addresses = append(e.Addresses, netip.AddrFrom16([16]byte{0: 0xfd, 3: 0x10, 4: 2, 5: 0x44, 7: byte(n), 15: byte(4 + 2*i + k)}))
	}
	e.Ports = drawPorts(t)
	return e
}

func drawPorts(t *rapid.T) map[string]spec.Port {
	var ports map[string]spec.Port
	for _, name := range portNames {
		if !often.Draw(t, name) {
			continue
		}
		if ports == nil {
			ports = map[string]spec.Port{}
		}
		ports[name] = spec.Port{Number: port.Draw(t, "number"), Protocol: protocol.Draw(t, "protocol")}
	}
	return ports
}

// drawLabels draws labels, of which each may be absent, or empty.
func drawLabels(t *rapid.T) map[string]string {
	var labels map[string]string
	for _, name := range labelNames {
		if !often.Draw(t, name) {
			continue
		}
		if labels == nil {
			labels = map[string]string{}
		}
		labels[name] = labelValue.Draw(t, "value")
	}
	return labels
}

func drawNetworkSet(t *rapid.T, i int) *spec.NetworkSet {
	s := &spec.NetworkSet{Name: fmt.Sprintf("set%d", i), Labels: drawLabels(t)}
	for range upToThree.Draw(t, "cidrs") {
		s.CIDRs = with(s.CIDRs, drawPrefix(t, family.Draw(t, "family")))
	}
	return s
}

// with is a list with one more prefix: sorted and each once, as it is loaded.
func with(list []netip.Prefix, p netip.Prefix) []netip.Prefix {
	list = append(slices.Clip(list), p)
	slices.SortFunc(list, netip.Prefix.Compare)
	return slices.Compact(list)
}

// bases are addresses that lie in prefixes: those of endpoints, nodes and the
// outside, and the ends of the families.
var bases = spec.PerFamily[[]netip.Addr]{
	IPv4: addresses("10.244.1.4", "10.244.1.7", "10.244.2.6", "192.0.2.11", "198.51.100.7", "198.51.100.0", "0.0.0.0", "255.255.255.255"),
	IPv6: addresses("fd00:10:244:1::4", "fd00:10:244:1::7", "fd00:10:244:2::6", "2001:db8::11", "2001:db8:7::7", "2001:db8:7::", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
}

func addresses(list ...string) []netip.Addr {
	out := make([]netip.Addr, len(list))
	for i, a := range list {
		out[i] = netip.MustParseAddr(a)
	}
	return out
}

// drawPrefix draws a prefix: all addresses of the family, a few, or one.
func drawPrefix(t *rapid.T, f spec.Family) netip.Prefix {
	a := bases.Get(f)[index.Draw(t, "base")]
	n := bits.Draw(t, "bits")
	if f == spec.IPv6 && n > 1 {
		n += 96 // the same number of addresses
	}
	return netip.PrefixFrom(a, n).Masked()
}

func drawTiers(t *rapid.T, sp *spec.Spec) {
	def := sp.Tiers[0]
	for i := range upToTwo.Draw(t, "tiers") {
		tier := &spec.Tier{Name: tierNames[i], Order: order.Draw(t, "order"), DefaultAction: spec.Deny}
		if often.Draw(t, "pass") {
			tier.DefaultAction = spec.Pass
		}
		sp.Tiers = append(sp.Tiers, tier)
	}
	if rare.Draw(t, "declared") {
		def.Order = order.Draw(t, "order")
	}
	if rare.Draw(t, "pass") {
		def.DefaultAction = spec.Pass
	}
	sortTiers(sp)
}

// sortTiers puts tiers into their order.
func sortTiers(sp *spec.Spec) {
	slices.SortFunc(sp.Tiers, func(a, b *spec.Tier) int {
		return cmp.Or(cmp.Compare(a.Order, b.Order), cmp.Compare(a.Name, b.Name))
	})
}

func drawHostEndpoint(t *rapid.T, node, link string) *spec.HostEndpoint {
	name := link
	if link == spec.AllInterfaces {
		name = "any"
	}
	return &spec.HostEndpoint{
		Name: node + "-" + name, Node: node, Interface: link, Labels: drawLabels(t), Ports: drawPorts(t),
		FailsafeInbound: drawFailsafes(t), FailsafeOutbound: drawFailsafes(t),
	}
}

func drawFailsafes(t *rapid.T) []spec.Service {
	list := []spec.Service{}
	for range upToTwo.Draw(t, "failsafes") {
		list = append(list, drawPortRange(t))
	}
	return list
}

// selectors are parsed once.
var selectors sync.Map

// parse parses the text of a selector.
func parse(t *rapid.T, text string) *selector.Selector {
	if s, ok := selectors.Load(text); ok {
		return s.(*selector.Selector)
	}
	s, err := selector.Parse(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	selectors.Store(text, s)
	return s
}

// clone is a deep copy of what Edit changes.
func clone(sp *spec.Spec) *spec.Spec {
	c := *sp
	c.Endpoints = cloned(sp.Endpoints)
	for _, e := range c.Endpoints {
		e.Labels, e.Ports, e.Addresses = maps.Clone(e.Labels), maps.Clone(e.Ports), slices.Clone(e.Addresses)
	}
	c.Namespaces, c.NetworkSets, c.Tiers = cloned(sp.Namespaces), cloned(sp.NetworkSets), cloned(sp.Tiers)
	c.Policies, c.HostEndpoints = cloned(sp.Policies), cloned(sp.HostEndpoints)
	for _, p := range c.Policies {
		p.Ingress, p.Egress = slices.Clone(p.Ingress), slices.Clone(p.Egress)
	}
	return &c
}

func cloned[T any](list []*T) []*T {
	out := make([]*T, len(list))
	for i, v := range list {
		c := *v
		out[i] = &c
	}
	return out
}
