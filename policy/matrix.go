package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/poldernet/polder/spec"
)

// Matrix is who reaches whom, and on what.
type Matrix struct {
	Groups []Group
	Cells  [][]Cell // by index of the group that begins, then of the other
}

// Group is ends that all policies treat alike.
type Group struct {
	Kind spec.EndKind
	// Members are names of endpoints or nodes. Others are one: "outside", the
	// network sets that have an address, or the smallest block that rules name.
	Members []string
	// ends are the members, in the same order.
	ends []matrixEnd
}

// matrixEnd is one end with an address for each way in which rules can take its
// addresses of a family.
type matrixEnd struct {
	endpoint  *spec.Endpoint
	node      *spec.Node
	addresses spec.PerFamily[[]netip.Addr]
}

// Cell is what passes from a member of one group to a member of another.
//
// That a node reaches the endpoints on it, and these are spared its host
// endpoints, is left out where there is a member on another node.
type Cell struct {
	// Empty says that there is nothing to tell: the only member would reach
	// itself, both are strangers, or they have no addresses of one family.
	Empty bool
	// Reach is by family: what passes between some addresses of both. A family
	// in which they have none is nil.
	Reach spec.PerFamily[*Reach]
}

// String is what passes, once where the families do not differ.
func (c Cell) String() string {
	a, b := c.Reach.IPv4, c.Reach.IPv6
	switch {
	case c.Empty:
		return ""
	case b == nil:
		return a.String()
	case a == nil:
		return b.String()
	}
	if both, ok := unite(*a, *b); ok {
		return both.String()
	}
	return fmt.Sprintf("ipv4: %s; ipv6: %s", a, b)
}

// Matrix judges all pairs of endpoints, nodes and strangers. Where a node has
// several host endpoints, it is about the one that Evaluate assumes.
func (m *Model) Matrix() *Matrix {
	x := &Matrix{Groups: m.groups()}
	for i := range x.Groups {
		row := make([]Cell, len(x.Groups))
		for j := range x.Groups {
			row[j] = m.cell(&x.Groups[i], &x.Groups[j])
		}
		x.Cells = append(x.Cells, row)
	}
	return x
}

// cell judges what passes between one pair of members, which stands for all.
func (m *Model) cell(from, to *Group) Cell {
	c := Cell{Empty: true}
	a, b := representatives(from, to)
	if a == nil || (a.endpoint == nil && a.node == nil && b.endpoint == nil && b.node == nil) {
		return c
	}
	about := m.about(a, b)
	for _, f := range spec.Families {
		if r := about.reach(f, a, b); r != nil {
			c.Reach.Set(f, r)
			c.Empty = false
		}
	}
	return c
}

// about is the model without the policies that select neither end. They are
// skipped anyway, and are most of them.
func (m *Model) about(a, b *matrixEnd) *Model {
	less := *m
	less.tiers = make([]tier, len(m.tiers))
	for i, t := range m.tiers {
		less.tiers[i].Tier = t.Tier
		for _, p := range t.policies {
			if m.isAboutEnd(p, a) || m.isAboutEnd(p, b) {
				less.tiers[i].policies = append(less.tiers[i].policies, p)
			}
		}
	}
	return &less
}

// representatives are a member of each group, two of them, and if possible not
// a node and an endpoint on it.
func representatives(from, to *Group) (a, b *matrixEnd) {
	for i := range from.ends {
		for j := range to.ends {
			if from == to && i == j {
				continue
			}
			a, b = &from.ends[i], &to.ends[j]
			if !runsOn(a.endpoint, b.node) && !runsOn(b.endpoint, a.node) {
				return a, b
			}
		}
	}
	return a, b
}

// reach judges all that can be asked for in a family, one flow of each part in
// which no rule that could decide tells flows apart.
func (m *Model) reach(f spec.Family, a, b *matrixEnd) *Reach {
	from, to := a.addresses.Get(f), b.addresses.Get(f)
	if len(from) == 0 || len(to) == 0 {
		return nil
	}
	r := &Reach{}
	spans := parts(f, m.critical(a, b))
	for _, s := range spans {
		flow := s.flow(spans)
		allowed := false
		for _, flow.From = range from {
			for _, flow.To = range to {
				allowed = allowed || m.Evaluate(flow).Verdict == spec.Allow
			}
		}
		if allowed {
			r.Allowed = appendSpan(r.Allowed, s)
		} else {
			r.Denied = appendSpan(r.Denied, s)
		}
	}
	r.Allowed, r.Denied = withoutLike(r.Allowed), withoutLike(r.Denied)
	return r
}

// critical are the spans that the policies at both ends tell apart.
func (m *Model) critical(a, b *matrixEnd) []Span {
	var list []Span
	add := func(services []spec.Service) {
		for _, s := range services {
			if s.Name == "" {
				list = append(list, spanOf(s))
			} else if b.endpoint != nil {
				if port, ok := b.endpoint.Ports[s.Name]; ok {
					list = append(list, Span{port.ProtocolNumber(), port.Number, port.Number})
				}
			}
		}
	}
	for _, t := range m.tiers {
		for _, p := range t.policies {
			if p.Applies(spec.Egress) && m.isAboutEnd(p, a) {
				for _, r := range p.Egress {
					add(r.Services)
				}
			}
			if p.Applies(spec.Ingress) && m.isAboutEnd(p, b) {
				for _, r := range p.Ingress {
					add(r.Services)
				}
			}
		}
	}
	for _, h := range m.spec.HostEndpoints {
		if a.node != nil && h.Node == a.node.Name {
			add(h.FailsafeOutbound)
		}
		if b.node != nil && h.Node == b.node.Name {
			add(h.FailsafeInbound)
		}
	}
	if n := m.spec.Network; n != nil && n.Backend.Type == spec.VXLAN {
		list = append(list, Span{spec.ProtocolUDP, n.Backend.Port, n.Backend.Port})
	}
	return list
}

// isAboutEnd says that a policy selects an endpoint, or a host endpoint of a
// node.
func (m *Model) isAboutEnd(p *spec.Policy, e *matrixEnd) bool {
	switch {
	case e.endpoint != nil:
		return m.isAbout(p, e.endpoint)
	case e.node != nil:
		h, _ := m.hostEndpoint(e.node.Name, "")
		return h != nil && isAboutHost(p, h)
	}
	return false
}

// groups puts together what policies cannot tell apart: endpoints, nodes, and
// strangers, of which those outside are the last.
func (m *Model) groups() []Group {
	g := grouping{model: m, at: make(map[string]int)}
	for _, e := range m.spec.Endpoints {
		g.add(spec.EndEndpoint, e.Name, matrixEnd{endpoint: e}, e.Addresses)
	}
	for _, n := range m.spec.Nodes {
		g.add(spec.EndNode, n.Name, matrixEnd{node: n}, NodeAddresses(n))
	}
	for _, s := range m.namedStrangers() {
		g.list = append(g.list, Group{Kind: spec.EndAddress, Members: []string{s.name}, ends: []matrixEnd{{addresses: s.addresses}}})
	}
	var outside matrixEnd
	for _, f := range spec.Families {
		if a := m.Outside(f); a.IsValid() {
			outside.addresses.Set(f, []netip.Addr{a})
		}
	}
	return append(g.list, Group{Kind: spec.EndOutside, Members: []string{string(spec.EndOutside)}, ends: []matrixEnd{outside}})
}

// grouping gathers ends under a text that says all that policies ask of them.
type grouping struct {
	model *Model
	list  []Group
	at    map[string]int // index in list
}

func (g *grouping) add(kind spec.EndKind, name string, e matrixEnd, addresses []netip.Addr) {
	var taken []string
	for _, f := range spec.Families {
		seen := make(map[string]bool)
		for _, a := range addresses {
			if spec.FamilyOf(a) != f {
				continue
			}
			if as := g.model.takenAs(a) + g.model.carriedAs(a); !seen[as] {
				seen[as] = true
				taken = append(taken, f.String()+as)
				e.addresses.Set(f, append(e.addresses.Get(f), a))
			}
		}
	}
	slices.Sort(taken)
	key := strings.Join(append(taken, string(kind), g.model.subjectOf(&e)), "\n")
	i, ok := g.at[key]
	if !ok {
		i = len(g.list)
		g.at[key] = i
		g.list = append(g.list, Group{Kind: kind})
	}
	g.list[i].Members = append(g.list[i].Members, name)
	g.list[i].ends = append(g.list[i].ends, e)
}

// takenAs says of which peers of rules an address is one.
func (m *Model) takenAs(a netip.Addr) string {
	var b strings.Builder
	party := m.party(a)
	for _, t := range m.tiers {
		for _, p := range t.policies {
			for _, d := range spec.Directions {
				for _, r := range p.Rules(d) {
					for i := range r.Peers {
						is, _ := m.isPeer(p, &r.Peers[i], party)
						b.WriteByte(bit(is))
					}
				}
			}
		}
	}
	return b.String()
}

// carriedAs says what the overlay asks of an address, where host endpoints may be
// about what it carries, or not.
func (m *Model) carriedAs(a netip.Addr) string {
	home := m.sender(a)
	if home == nil || len(m.spec.HostEndpoints) == 0 || m.spec.Network.Backend.Type != spec.VXLAN {
		return ""
	}
	link := ""
	if at, ok := home.Address(m.underlay.Get(spec.FamilyOf(a))); ok && m.spec.Network.Backend.DirectRouting {
		link = at.Link.Masked().String()
	}
	return " in a subnet " + link
}

// subjectOf says which policies are about an end, and what else about it they
// ask for.
func (m *Model) subjectOf(e *matrixEnd) string {
	var b strings.Builder
	named := make(map[string]bool)
	for _, t := range m.tiers {
		for _, p := range t.policies {
			b.WriteByte(bit(m.isAboutEnd(p, e)))
			for _, d := range spec.Directions {
				for _, r := range p.Rules(d) {
					for _, s := range r.Services {
						if s.Name != "" {
							named[s.Name] = true
						}
					}
				}
			}
		}
	}
	if e.endpoint != nil {
		var ports []string
		for name, port := range e.endpoint.Ports {
			if named[name] {
				ports = append(ports, " "+name+"="+port.String())
			}
		}
		slices.Sort(ports)
		b.WriteString(strings.Join(ports, ""))
	}
	if e.node != nil {
		if h, _ := m.hostEndpoint(e.node.Name, ""); h != nil {
			fmt.Fprint(&b, " host ", h.FailsafeInbound, h.FailsafeOutbound)
		}
	}
	return b.String()
}

func bit(is bool) byte {
	if is {
		return '1'
	}
	return '0'
}

// stranger is addresses that nobody in the spec has and that rules tell from
// those outside.
type stranger struct {
	name      string
	addresses spec.PerFamily[[]netip.Addr]
}

// namedStrangers are one of each kind of strangers that rules can tell apart,
// but for those outside.
func (m *Model) namedStrangers() []stranger {
	var list []stranger
	for _, f := range spec.Families {
		blocks := m.blocks(f)
		seen := map[string]bool{}
		if a := m.Outside(f); a.IsValid() {
			seen[m.takenAs(a)] = true
		}
		for _, a := range m.strangers(f, blocks) {
			as := m.takenAs(a)
			if seen[as] {
				continue
			}
			seen[as] = true
			name := m.strangerName(a, blocks)
			i := slices.IndexFunc(list, func(s stranger) bool { return s.name == name })
			if i < 0 {
				i = len(list)
				list = append(list, stranger{name: name})
			}
			list[i].addresses.Set(f, append(list[i].addresses.Get(f), a))
		}
	}
	slices.SortFunc(list, func(a, b stranger) int { return strings.Compare(a.name, b.name) })
	return list
}

// strangerName is that of the network sets that have an address, or else the
// smallest block that does.
func (m *Model) strangerName(a netip.Addr, blocks []netip.Prefix) string {
	var sets []string
	for _, s := range m.spec.NetworkSets {
		if isIn(s, a) {
			sets = append(sets, "network_set."+s.Name)
		}
	}
	if len(sets) > 0 {
		return strings.Join(sets, " and ")
	}
	var smallest netip.Prefix
	for _, p := range blocks {
		if p.Contains(a) && (!smallest.IsValid() || p.Bits() > smallest.Bits()) {
			smallest = p
		}
	}
	if !smallest.IsValid() {
		return a.String()
	}
	return BlockText(smallest)
}
