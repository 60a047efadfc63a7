package spec

import (
	"cmp"
	"net/netip"
	"slices"
)

// Members is what Join comes to while candidates come and go. Where one of them
// claims nothing that another one claims, neither before nor after, nothing becomes of
// the others, and they are not looked at. The zero value has no candidates.
type Members struct {
	candidates map[string]Candidate

	// Of the latest Join:
	spec  *Spec // nil: something has changed since, of which all have to be asked
	own   string
	nodes []*Node
	out   []LeftOut
	// claims are by how many candidates something is claimed, and subnets are all
	// that are, in order. tangled says that some of these overlap.
	claims  map[possession]int
	subnets []netip.Prefix
	tangled bool
}

// possession is an address, or a MAC of a family, that only one node can have.
type possession struct {
	addr   netip.Addr
	mac    MAC
	family Family // of the MAC
}

// Set changes candidates, by their names. nil is for one that is gone.
func (m *Members) Set(changes map[string]*Candidate) {
	if m.candidates == nil {
		m.candidates = make(map[string]Candidate, len(changes))
	}
	for name, c := range changes {
		old, there := m.candidates[name]
		if c == nil {
			delete(m.candidates, name)
		} else {
			m.candidates[name] = *c
		}
		if m.spec == nil || !there && c == nil || there && c != nil && old == *c {
			continue
		}
		if there && !m.claim(&old, -1) || c != nil && !m.claim(c, 1) {
			m.spec = nil
			continue
		}
		m.replace(name, c)
	}
}

// Candidate is the one of that name.
func (m *Members) Candidate(name string) (Candidate, bool) {
	c, there := m.candidates[name]
	return c, there
}

// Join is what Join of a spec finds of the candidates. A node that it has found before,
// and that is the same, has the same address; what it has returned is never changed.
func (m *Members) Join(sp *Spec, own string) ([]*Node, []LeftOut) {
	if m.spec == sp && m.own == own {
		return m.nodes, m.out
	}
	list := make([]Candidate, 0, len(m.candidates))
	for _, c := range m.candidates {
		list = append(list, c)
	}
	before := m.nodes
	m.spec, m.own = sp, own
	m.nodes, m.out = sp.Join(list, own)
	for i, n := range m.nodes {
		for len(before) > 0 && before[0].Name < n.Name {
			before = before[1:]
		}
		if len(before) > 0 && before[0].same(n) {
			m.nodes[i] = before[0]
		}
	}
	m.claims, m.subnets, m.tangled = make(map[possession]int, 2*len(list)), m.subnets[:0], false
	for i := range list {
		m.note(&list[i], 1)
		m.subnets = append(m.subnets, m.claimed(&list[i])...)
	}
	slices.SortFunc(m.subnets, netip.Prefix.Compare)
	for i := range max(len(m.subnets), 1) - 1 {
		m.tangled = m.tangled || m.subnets[i].Overlaps(m.subnets[i+1])
	}
	return m.nodes, m.out
}

// With is what Join of a spec finds where one candidate is as given, whatever there is
// of its name. All are looked at.
func (m *Members) With(c Candidate, sp *Spec, own string) ([]*Node, []LeftOut) {
	list := make([]Candidate, 0, len(m.candidates)+1)
	for name, there := range m.candidates {
		if name != c.Name {
			list = append(list, there)
		}
	}
	return sp.Join(append(list, c), own)
}

// same says that both nodes are one, but for where they are written.
func (n *Node) same(o *Node) bool {
	return n == o || n.Name == o.Name && slices.Equal(n.Addresses, o.Addresses) && slices.Equal(n.Subnets, o.Subnets) &&
		n.VTEPMAC == o.VTEPMAC && n.Underlay == o.Underlay && n.Range == o.Range
}

// replace makes of one candidate what it comes to where nobody else claims anything of
// what it claims.
func (m *Members) replace(name string, c *Candidate) {
	j := newJoiner(m.spec, m.own)
	if c != nil {
		j.take(c)
	}
	at, there := slices.BinarySearchFunc(m.nodes, name, func(n *Node, name string) int { return cmp.Compare(n.Name, name) })
	end := at
	if there {
		end++
	}
	if !slices.EqualFunc(m.nodes[at:end], j.nodes, (*Node).same) {
		m.nodes = slices.Concat(m.nodes[:at], j.nodes, m.nodes[end:])
	}
	if len(j.out) > 0 || slices.ContainsFunc(m.out, func(l LeftOut) bool { return l.Node == name }) {
		m.out = append(slices.DeleteFunc(slices.Clone(m.out), func(l LeftOut) bool { return l.Node == name }), j.out...)
		slices.SortFunc(m.out, LeftOut.Compare)
	}
}

// claim takes note of what a candidate claims, or (by -1) no longer does. It reports
// false where another one may claim something of that.
func (m *Members) claim(c *Candidate, by int) bool {
	if len(m.spec.Nodes) > 0 || m.tangled {
		return false
	}
	if !m.note(c, by) {
		return false
	}
	for _, p := range m.claimed(c) {
		at, there := slices.BinarySearchFunc(m.subnets, p, netip.Prefix.Compare)
		if by < 0 {
			m.subnets = slices.Delete(m.subnets, at, at+1)
			continue
		}
		if there || at > 0 && m.subnets[at-1].Overlaps(p) || at < len(m.subnets) && m.subnets[at].Overlaps(p) {
			return false
		}
		m.subnets = slices.Insert(m.subnets, at, p)
	}
	return true
}

// note counts who claims addresses and MACs, and reports whether it is nobody else.
func (m *Members) note(c *Candidate, by int) bool {
	if m.spec.Network == nil {
		return true
	}
	alone := true
	count := func(k possession) {
		if m.claims[k] += by; m.claims[k] == 0 {
			delete(m.claims, k)
		}
		alone = alone && m.claims[k] == max(by, 0)
	}
	j := newJoiner(m.spec, m.own)
	says := j.published(c)
	for _, f := range Families {
		if a := j.address(c, says, f); a.IsValid() {
			count(possession{addr: a})
		}
		if _, of := m.spec.Network.PodRange(f); of && j.vtep() {
			if mac := j.mac(c, says, f); !mac.IsZero() {
				count(possession{mac: mac, family: f})
			}
		}
	}
	return alone
}

// claimed are the subnets that a candidate may get. Of two that overlap, they are
// next to each other in order, or others that overlap are.
func (m *Members) claimed(c *Candidate) (list []netip.Prefix) {
	if m.spec.Network == nil {
		return nil
	}
	for _, r := range m.spec.Network.Pods {
		if p := c.Subnets.Get(r.Family()); p.IsValid() && r.holds(p) {
			list = append(list, p)
		}
	}
	return list
}
