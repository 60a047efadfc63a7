package world

import (
	"fmt"
	"net/netip"
	"slices"

	"pgregory.net/rapid"

	"github.com/poldernet/polder/spec"
	"github.com/poldernet/polder/spec/selector"
)

func drawPolicy(t *rapid.T, sp *spec.Spec, name string) *spec.Policy {
	p := &spec.Policy{Kind: spec.KindPolicy, Name: name}
	p.Tier = sp.Tiers[min(upToTwo.Draw(t, "tier"), len(sp.Tiers)-1)].Name
	if often.Draw(t, "ordered") {
		o := order.Draw(t, "order")
		p.Order = &o
	}
	switch kind.Draw(t, "selects") {
	case 0:
		p.Selector = selector.All()
	case 1:
		p.HostSelector = drawSelector(t, labelNames)
	case 2:
		p.HostSelector, p.Selector = drawSelector(t, labelNames), drawSelector(t, labelNames)
		p.NamespaceSelector = drawNamespaceSelector(t)
	case 3:
		p.Selector, p.NamespaceSelector = drawSelector(t, labelNames), drawNamespaceSelector(t)
	default:
		p.Selector = drawSelector(t, labelNames)
		if often.Draw(t, "of a namespace") {
			p.Namespace = namespace.Draw(t, "namespace")
		}
	}
	switch upToTwo.Draw(t, "types") {
	case 0:
		p.Types = spec.Directions[:1:1]
	case 1:
		p.Types = spec.Directions[1:]
	default:
		p.Types = spec.Directions
	}
	for _, d := range p.Types {
		for range rulesEach.Draw(t, "rules") {
			*rules(p, d) = append(*rules(p, d), drawRule(t, sp))
		}
	}
	return p
}

// drawNetworkPolicy draws a policy that is no block of a file, but as Kubernetes
// has it. It may have lists that match nothing: what is left of something that
// could not be understood.
func drawNetworkPolicy(t *rapid.T) *spec.Policy {
	const kubernetes = 1000
	o := float64(kubernetes)
	ns := namespace.Draw(t, "namespace")
	p := &spec.Policy{
		Kind: spec.KindNetworkPolicy, Name: ns + "/c", Tier: spec.DefaultTier, Order: &o, Namespace: ns,
		Selector: drawSelector(t, labelNames), Types: spec.Directions,
	}
	for _, d := range p.Types {
		for range rulesEach.Draw(t, "rules") {
			r := spec.Rule{Action: spec.Allow}
			switch upToThree.Draw(t, "peers") {
			case 1:
				r.Peers = []spec.Peer{{Endpoints: &spec.PeerSelector{Selector: drawSelector(t, labelNames), Namespaces: drawNamespaceSelector(t)}}, {Block: drawBlock(t)}}
			case 2:
				r.Peers = []spec.Peer{{Endpoints: &spec.PeerSelector{Namespaces: drawSelector(t, namespaceLabels)}}}
			case 3:
				r.Peers = []spec.Peer{}
			}
			switch upToThree.Draw(t, "services") {
			case 1:
				r.Services = []spec.Service{drawPorted(t), drawPorted(t)}
			case 2:
				r.Services = []spec.Service{}
			}
			*rules(p, d) = append(*rules(p, d), r)
		}
	}
	return p
}

// rules are a policy's rules for a direction.
func rules(p *spec.Policy, d spec.Direction) *[]spec.Rule {
	if d == spec.Ingress {
		return &p.Ingress
	}
	return &p.Egress
}

func drawRule(t *rapid.T, sp *spec.Spec) spec.Rule {
	r := spec.Rule{Action: action.Draw(t, "action")}
	for range upToTwo.Draw(t, "peers") {
		r.Peers = append(r.Peers, drawPeer(t, sp))
	}
	r.Services = drawServices(t)
	return r
}

func drawPeer(t *rapid.T, sp *spec.Spec) spec.Peer {
	switch k := kind.Draw(t, "peer"); {
	case k == 0:
		return spec.Peer{Any: true}
	case k == 1:
		return spec.Peer{Node: node.Draw(t, "node")}
	case k == 2 && len(sp.NetworkSets) > 0:
		return spec.Peer{NetworkSet: sp.NetworkSets[upToTwo.Draw(t, "set")%len(sp.NetworkSets)].Name}
	case k <= 3:
		return spec.Peer{Block: drawBlock(t)}
	}
	s := &spec.PeerSelector{Selector: drawSelector(t, labelNames)}
	if rare.Draw(t, "of namespaces") {
		s.Namespaces = drawSelector(t, namespaceLabels)
	}
	return spec.Peer{Endpoints: s}
}

func drawBlock(t *rapid.T) *spec.Block {
	f := family.Draw(t, "family")
	b := &spec.Block{CIDR: drawPrefix(t, f)}
	for range upToTwo.Draw(t, "except") {
		if e := drawPrefix(t, f); b.CIDR.Contains(e.Addr()) && e.Bits() > b.CIDR.Bits() {
			b.Except = with(b.Except, e)
		}
	}
	return b
}

// drawServices draws what a rule of a file can have: ports, a protocol, or ICMP
// messages.
func drawServices(t *rapid.T) []spec.Service {
	var list []spec.Service
	switch upToThree.Draw(t, "services") {
	case 1:
		for range 1 + upToTwo.Draw(t, "ports") {
			list = append(list, drawPorted(t))
		}
	case 2:
		list = []spec.Service{{Protocol: rapid.SampledFrom([]uint8{spec.ProtocolTCP, 47, spec.ProtocolICMP, spec.ProtocolICMPv6}).Draw(t, "protocol")}}
	case 3:
		for range 1 + upToTwo.Draw(t, "icmp") {
			list = append(list, drawICMP(t))
		}
	}
	return list
}

func drawPorted(t *rapid.T) spec.Service {
	switch kind.Draw(t, "service") {
	case 0:
		return spec.Service{Name: portName.Draw(t, "name")}
	case 1:
		return spec.Service{Name: portName.Draw(t, "name"), Protocol: drawProtocol(t)}
	}
	return drawPortRange(t)
}

func drawPortRange(t *rapid.T) spec.Service {
	s := spec.Service{Protocol: drawProtocol(t)}
	if rare.Draw(t, "all ports") {
		return s
	}
	a, b := port.Draw(t, "first"), port.Draw(t, "last")
	s.Ports = spec.PortRange{First: min(a, b), Last: max(a, b)}
	return s
}

var numbers = map[string]uint8{"tcp": spec.ProtocolTCP, "udp": spec.ProtocolUDP, "sctp": spec.ProtocolSCTP}

func drawProtocol(t *rapid.T) uint8 { return numbers[protocol.Draw(t, "protocol")] }

func drawICMP(t *rapid.T) spec.Service {
	message := rapid.SampledFrom([]spec.Service{
		{Protocol: spec.ProtocolICMP, ICMP: &spec.ICMP{Type: 8}},
		{Protocol: spec.ProtocolICMPv6, ICMP: &spec.ICMP{Type: 128}},
		{Protocol: spec.ProtocolICMP, ICMP: &spec.ICMP{Type: 13}},
	}).Draw(t, "message")
	if rare.Draw(t, "with a code") {
		code := uint8(upToTwo.Draw(t, "code"))
		message.ICMP = &spec.ICMP{Type: message.ICMP.Type, Code: &code}
	}
	return message
}

var (
	namespaceLabels = append(slices.Clone(labelNames), spec.NamespaceLabel)
	tests           = []func(label, a, b string) string{
		func(l, a, _ string) string { return fmt.Sprintf("%s == '%s'", l, a) },
		func(l, a, _ string) string { return fmt.Sprintf("%s != '%s'", l, a) },
		func(l, _, _ string) string { return fmt.Sprintf("has(%s)", l) },
		func(l, a, b string) string { return fmt.Sprintf("%s in {'%s', '%s'}", l, a, b) },
		func(l, a, b string) string { return fmt.Sprintf("%s not in {'%s', '%s'}", l, a, b) },
		func(l, a, _ string) string { return fmt.Sprintf("%s contains '%s'", l, a) },
		func(l, a, _ string) string { return fmt.Sprintf("%s starts with '%s'", l, a) },
		func(l, a, _ string) string { return fmt.Sprintf("%s ends with '%s'", l, a) },
	}
	test = rapid.IntRange(0, len(tests)-1)
)

// drawNamespaceSelector draws a selector of namespaces, or none.
func drawNamespaceSelector(t *rapid.T) *selector.Selector {
	if often.Draw(t, "any namespace") {
		return nil
	}
	return drawSelector(t, namespaceLabels)
}

func drawSelector(t *rapid.T, labels []string) *selector.Selector {
	return parse(t, drawText(t, labels, 2))
}

// drawText draws the text of a selector, nested to a depth.
func drawText(t *rapid.T, labels []string, depth int) string {
	k := 0
	if depth > 0 {
		k = kind.Draw(t, "operator")
	}
	switch k {
	case 3:
		return "!(" + drawText(t, labels, depth-1) + ")"
	case 4:
		return "(" + drawText(t, labels, depth-1) + ") && (" + drawText(t, labels, depth-1) + ")"
	case 5:
		return "(" + drawText(t, labels, depth-1) + ") || (" + drawText(t, labels, depth-1) + ")"
	}
	if kind.Draw(t, "all") < 2 {
		return "all()"
	}
	label := labels[upToTwo.Draw(t, "label")%len(labels)]
	value := func() string {
		if label == spec.NamespaceLabel {
			return namespace.Draw(t, "value")
		}
		return labelValue.Draw(t, "value")
	}
	return tests[test.Draw(t, "test")](label, value(), value())
}

var outside = spec.PerFamily[netip.Addr]{IPv4: netip.MustParseAddr("198.51.100.7"), IPv6: netip.MustParseAddr("2001:db8:7::7")}

// Outside is an address that nobody in any world has.
func Outside(f spec.Family) netip.Addr { return outside.Get(f) }
