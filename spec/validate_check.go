package spec

import (
	"maps"
	"slices"
)

// checkEnds checks that there can be the connection that a check is about, and
// resolves the name of its port.
func (v *validator) checkEnds(c *checkDecl, endpoints map[string]*endpointDecl) {
	if c.From.Kind == EndOutside && c.To.Kind == EndOutside {
		v.report(c.toAt.problem("Unsuitable check", "Policies are about endpoints and nodes, and both ends are outside."))
		return
	}
	v.resolvePort(c, endpoints)
	from, fromKnown := v.families(c.From, c.fromAt, endpoints)
	to, toKnown := v.families(c.To, c.toAt, endpoints)
	if !fromKnown || !toKnown || len(c.Services) == 0 {
		return
	}
	common := func(f Family) bool { return slices.Contains(from, f) && slices.Contains(to, f) }
	if !common(IPv4) && !common(IPv6) {
		v.report(c.toAt.problem("No common family", "%s and %s have no addresses of one family.", c.From, c.To))
		return
	}
	if !slices.ContainsFunc(c.Services, func(s Service) bool {
		return common(IPv4) && s.Protocol != ProtocolICMPv6 || common(IPv6) && s.Protocol != ProtocolICMP
	}) {
		v.report(c.portAt.problem("No common family", "%s and %s have no addresses of the family that %s is of.", c.From, c.To, c.Services[0]))
	}
}

// families are those in which an end has addresses. It returns false if that is
// not known.
func (v *validator) families(end End, at place, endpoints map[string]*endpointDecl) ([]Family, bool) {
	var out []Family
	add := func(f Family) {
		if !slices.Contains(out, f) {
			out = append(out, f)
		}
	}
	switch end.Kind {
	case EndOutside:
		return Families[:], true
	case EndAddress:
		return []Family{FamilyOf(end.Address)}, true
	case EndNode:
		n := v.byName[end.Name]
		if n == nil || !n.addressesKnown || !n.subnetsKnown {
			return nil, false
		}
		for _, a := range n.Addresses {
			add(FamilyOf(a.Addr))
		}
		for _, p := range n.Subnets {
			add(FamilyOf(p.Addr()))
		}
	case EndEndpoint:
		e := endpoints[end.Name]
		if e == nil || !e.whole {
			return nil, false
		}
		if len(e.Addresses) == 0 {
			v.report(at.problem("Endpoint without an address", "What becomes of a connection depends on its addresses, and endpoint %s has none (%s).", e.Name, e.place))
			return nil, false
		}
		for _, a := range e.Addresses {
			add(FamilyOf(a))
		}
	default:
		return nil, false
	}
	return out, true
}

// resolvePort replaces the name of a port by what it stands for where the
// connection goes. Where that cannot be told, the check asks for nothing.
func (v *validator) resolvePort(c *checkDecl, endpoints map[string]*endpointDecl) {
	if len(c.Services) != 1 || c.Services[0].Name == "" {
		return
	}
	asked := c.Services[0]
	c.Services = nil
	var ports map[string]Port
	switch c.To.Kind {
	case EndEndpoint:
		e := endpoints[c.To.Name]
		if e == nil || !e.whole {
			return
		}
		ports = e.Ports
	case EndNode:
		if v.byName[c.To.Name] == nil || v.hidden[hostEndpointBlock] {
			return
		}
		ports = make(map[string]Port)
		for _, h := range v.hostEndpoints {
			if h.Node != c.To.Name {
				continue
			}
			if !h.portsKnown {
				return
			}
			maps.Copy(ports, h.Ports)
		}
	case EndAddress, EndOutside:
	default:
		return
	}
	port, ok := ports[asked.Name]
	switch {
	case !ok:
		hint := didYouMean(asked.Name, slices.Sorted(maps.Keys(ports)))
		if c.To.Kind == EndNode {
			hint += " The named ports of a node are those of its host endpoints."
		}
		v.report(c.portAt.problem("No such port", "%s has no port named %q.%s", c.To, asked.Name, hint))
	case asked.Protocol != 0 && asked.Protocol != port.ProtocolNumber():
		v.report(c.portAt.problem("No such port", "The port %q of %s is %s.", asked.Name, c.To, port))
	default:
		c.Services = []Service{{Protocol: port.ProtocolNumber(), Ports: PortRange{port.Number, port.Number}}}
	}
}
