package policy

import (
	"net/netip"
	"slices"
	"strconv"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/spec"
)

// match is one way in which a part of a rule can match.
type match struct {
	statements []nft.Statement
	set        string // the living set among them, without its suffix; "": none

	service // that they are about
	// beyond are the statements without those about that.
	beyond []nft.Statement
}

// anything matches without a look.
var anything = []match{{}}

// peer is the address of the other end, on the connection's own tuple: of the
// client as it is before any translation of its address, of the server as it is
// after any of its.
func (s side) peer() nft.Field {
	if s.Direction == spec.Ingress {
		return nft.CTOriginalSaddr(s.family)
	}
	return nft.CTReplySaddr(s.family)
}

// peers are the ways in which a rule's peers can match in a family: the exact
// addresses of endpoints, in a set that lives with them, and ranges of
// addresses, in one that is what it is. Nothing is what matches nothing.
func (c *compiler) peers(s side, p *spec.Policy, r *spec.Rule) []match {
	if r.Peers == nil {
		return anything
	}
	var selected []scope
	var fixed []addrRange
	add := func(list []addrRange) {
		for _, a := range list {
			if spec.FamilyOf(a.first) == s.family {
				fixed = append(fixed, a)
			}
		}
	}
	for _, peer := range r.Peers {
		switch {
		case peer.Any:
			return anything
		case peer.Block != nil:
			add(ranges(peer.Block))
		case peer.Node != "":
			for _, a := range c.m.addressesOf(peer.Node) {
				add([]addrRange{{a, a}})
			}
		case peer.NetworkSet != "":
			add(c.m.rangesOf(c.m.sets[peer.NetworkSet]))
		case peer.Endpoints != nil:
			selected = append(selected, peerScope(p, peer.Endpoints))
			if peerSets(p, peer.Endpoints) {
				for _, set := range c.m.spec.NetworkSets {
					if peer.Endpoints.Selector == nil || peer.Endpoints.Selector.Matches(set.Labels) {
						add(c.m.rangesOf(set))
					}
				}
			}
		}
	}
	fixed = merged(fixed)
	if len(fixed) == 1 && fixed[0].everything() {
		return anything
	}
	var out []match
	if len(selected) > 0 {
		name := c.selected(s.family, selected)
		out = append(out, match{statements: []nft.Statement{s.peer().In(name + c.suffix[name])}, set: name})
	}
	if len(fixed) > 0 {
		set := nft.Set{Key: []nft.Type{nft.AddrType(s.family)}, Interval: true, Elements: elements(fixed)}
		out = append(out, match{statements: []nft.Statement{s.peer().In(c.content("cidrs"+number(s.family), set))}})
	}
	return out
}

// addressesOf are the addresses by which a node of that name speaks.
func (m *Model) addressesOf(node string) []netip.Addr {
	if n := m.spec.Node(node); n != nil {
		return NodeAddresses(n)
	}
	return nil
}

// rangesOf are the addresses of a network set; nil is the set that is not there.
func (m *Model) rangesOf(s *spec.NetworkSet) []addrRange {
	if s == nil {
		return nil
	}
	list := make([]addrRange, len(s.CIDRs))
	for i, p := range s.CIDRs {
		list[i] = rangeOf(p)
	}
	return list
}

// icmp is the protocol number of a family's ICMP.
func icmp(f spec.Family) uint8 {
	if f == spec.IPv4 {
		return 1
	}
	return 58
}

// withPorts are the protocols of which endpoints have named ports.
var withPorts = []uint8{nft.TCP, nft.UDP, nft.SCTP}

// services are the ways in which a rule's services can match in a family.
func (c *compiler) services(s side, r *spec.Rule) []match {
	if r.Services == nil {
		return anything
	}
	var out []match
	ports := map[uint8][]spec.PortRange{}
	var order []uint8
	for _, v := range r.Services {
		switch {
		case v.Name != "":
			for _, number := range withPorts {
				if v.Protocol == 0 || v.Protocol == number {
					out = append(out, c.namedPort(s, v.Name, number))
				}
			}
		case v.Protocol == icmp(s.family.Other()):
			// A type of the other family's ICMP, or all of it.
		case v.ICMP != nil:
			first := uint16(v.ICMP.Type) << 8
			message := nft.CTOriginalDport().Between(nft.Port(first), nft.Port(first|0xff))
			if v.ICMP.Code != nil {
				message = nft.CTOriginalDport().Is(nft.Port(first | uint16(*v.ICMP.Code)))
			}
			out = append(out, of(v.Protocol, message))
		default:
			if ports[v.Protocol] == nil {
				order = append(order, v.Protocol)
			}
			ports[v.Protocol] = append(ports[v.Protocol], v.Ports)
		}
	}
	for _, number := range order {
		m := of(number)
		switch list := mergedPorts(ports[number]); {
		case len(list) > 1:
			m = m.at(list, nft.CTReplySport().In(c.content("ports", portSet(list))))
		case list[0].IsZero():
		case list[0].First == list[0].Last:
			m = m.at(list, nft.CTReplySport().Is(nft.Port(list[0].First)))
		default:
			m = m.at(list, nft.CTReplySport().Between(nft.Port(list[0].First), nft.Port(list[0].Last)))
		}
		out = append(out, m)
	}
	return out
}

// of matches a protocol, and what else is said.
func of(protocol uint8, beyond ...nft.Statement) match {
	is := nft.L4Proto().Is(nft.Proto(protocol))
	return match{statements: append([]nft.Statement{is}, beyond...), service: service{protocol: protocol}, beyond: beyond}
}

// at narrows a match of a protocol to ports.
func (m match) at(ports []spec.PortRange, are nft.Statement) match {
	m.statements, m.ports = append(m.statements, are), ports
	return m
}

func portSet(list []spec.PortRange) nft.Set {
	s := nft.Set{Key: []nft.Type{nft.TypeInetService}, Interval: true}
	for _, r := range list {
		e := nft.Exact(nft.Port(r.First))
		if r.First != r.Last {
			e.To = nft.Port(r.Last)
		}
		s.Elements = append(s.Elements, e)
	}
	return s
}

// namedPort matches the servers that have a port of that name, each with the
// number that it gives it.
func (c *compiler) namedPort(s side, name string, protocol uint8) match {
	set := c.ports(s.family, name, protocol)
	m := of(protocol, nft.Concat(nft.CTReplySaddr(s.family), nft.CTReplySport()).In(set+c.suffix[set]))
	m.set = set
	return m
}

// livingSet is a set whose members come and go with endpoints and their labels,
// while the rules that use it stay. Its name stands for who belongs to it.
type livingSet struct {
	name   string // without suffix
	key    []nft.Type
	scopes []scope                         // its members are in one of them
	keys   func(*spec.Endpoint) []nft.Data // of a member
}

// selected is the set of the addresses of endpoints that are in one of the
// scopes.
func (c *compiler) selected(f spec.Family, list []scope) string {
	texts := make([]string, len(list))
	for i, s := range list {
		texts[i] = s.text()
	}
	slices.Sort(texts)
	return c.live(livingSet{
		name:   "peers" + number(f) + "-" + hash(slices.Compact(texts)...),
		key:    []nft.Type{nft.AddrType(f)},
		scopes: list,
		keys: func(e *spec.Endpoint) []nft.Data {
			var keys []nft.Data
			for _, a := range e.Addresses {
				if spec.FamilyOf(a) == f {
					keys = append(keys, nft.Addr(a))
				}
			}
			return keys
		},
	})
}

// ports is the set of the endpoints' addresses with the number that each gives
// to a named port of a protocol.
func (c *compiler) ports(f spec.Family, name string, protocol uint8) string {
	return c.live(livingSet{
		name:   "named" + number(f) + "-" + hash(name, strconv.Itoa(int(protocol))),
		key:    []nft.Type{nft.AddrType(f), nft.TypeInetService},
		scopes: []scope{{port: name, protocol: protocol}},
		keys: func(e *spec.Endpoint) []nft.Data {
			var keys []nft.Data
			for _, a := range e.Addresses {
				if spec.FamilyOf(a) == f {
					keys = append(keys, nft.Tuple(nft.Addr(a), nft.Port(e.Ports[name].Number)))
				}
			}
			return keys
		},
	})
}

// protocolNumber is the number of a named port's protocol.
func protocolNumber(name string) uint8 {
	switch name {
	case "tcp":
		return nft.TCP
	case "udp":
		return nft.UDP
	}
	return nft.SCTP
}

// live notes a living set and returns its name.
func (c *compiler) live(s livingSet) string {
	c.piece.living = append(c.piece.living, &s)
	return s.name
}
