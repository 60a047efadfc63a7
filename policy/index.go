package policy

import (
	"cmp"
	"iter"
	"maps"
	"net/netip"
	"reflect"
	"slices"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/spec"
)

// Index is a model that changes, and what it is compiled to on one node. An
// event costs what it changes: endpoints that have the same namespace, labels
// and named ports are one identity; scopes are found by what an identity has,
// and identities by what a scope asks for; what the rules of a policy and the
// chain of a list of policies are is remembered. One goroutine at a time.
//
// Values that were given to an Index are not changed any more.
type Index struct {
	host Host
	// m is the model as it stands, but for its endpoints, and for the policies
	// of its tiers.
	m        *Model
	declared map[string]bool // namespaces

	population
	own        []*member          // the node's endpoints, by name
	identified map[*identity]bool // those that the node's endpoints have

	policies     map[string]*spec.Policy // by ID
	serials      map[*spec.Policy]uint64
	serial       uint64
	subjects     register[*spec.Policy] // by whom they select
	hostPolicies []*spec.Policy         // that may select host endpoints, in order

	living  map[string]*memberSet // by name without suffix
	scopes  register[*memberSet]
	touched map[*memberSet]bool // whose members have changed since the latest table

	pieces map[pieceKey]*piece
	suffix map[string]string // of living sets, by name without it
	round  uint64
	dirty  bool      // something else than members may have changed
	now    *compiler // what it was compiled to
	given  *compiler // what Compile gave last; nil: nothing yet

	// Remake is how many members living sets have, together, that are not worth to
	// be changed by way of other tables: with fewer they are made anew. The one
	// costs waits for the packets that are on their way, the other time for each
	// member.
	Remake int
}

// RemakeFew is an Index's Remake for who waits for changes: to write a member
// costs some 20 µs, and one wait 10 ms and more.
const RemakeFew = 1000

// NewIndex makes the index of a model as seen from a node.
func NewIndex(m *Model, host Host) *Index {
	x := &Index{
		host: host, declared: map[string]bool{},
		population: newPopulation(len(m.spec.Endpoints)), identified: map[*identity]bool{},
		policies: make(map[string]*spec.Policy, len(m.spec.Policies)), serials: make(map[*spec.Policy]uint64, len(m.spec.Policies)),
		subjects: register[*spec.Policy]{},
		living:   map[string]*memberSet{}, scopes: register[*memberSet]{}, touched: map[*memberSet]bool{},
		pieces: map[pieceKey]*piece{}, suffix: map[string]string{},
	}
	x.m = &Model{namespaces: maps.Clone(m.namespaces)}
	x.SetFrame(m.spec)
	for _, ns := range m.spec.Namespaces {
		x.declared[ns.Name] = true
	}
	for _, t := range m.tiers {
		for _, p := range t.policies {
			x.SetPolicy(p)
		}
	}
	for _, e := range m.spec.Endpoints {
		x.SetEndpoint(e)
	}
	return x
}

// Node is the name of the node.
func (x *Index) Node() string { return x.host.Node.Name }

// NameOf is the name of an endpoint that has an address, "" if none has.
func (x *Index) NameOf(a netip.Addr) string {
	if owners := x.owners[a]; len(owners) > 0 {
		return owners[0].Name
	}
	return ""
}

// Beside is a spec with the endpoints of the node, as the index has them.
func (x *Index) Beside(sp *spec.Spec) *spec.Spec {
	own := *sp
	own.Endpoints = make([]*spec.Endpoint, len(x.own))
	for i, e := range x.own {
		own.Endpoints[i] = e.Endpoint
	}
	return &own
}

// SetHost changes what the rules know of the node. It has to stay the same one.
func (x *Index) SetHost(h Host) {
	if !reflect.DeepEqual(x.host, h) {
		x.host = h
		x.anew()
	}
}

// SetFrame changes all but endpoints, namespaces and policies to what it is in
// a spec: tiers, network sets, nodes, host endpoints and how policies are
// enforced.
func (x *Index) SetFrame(sp *spec.Spec) {
	m, _ := New(frame(sp))
	m.namespaces = x.m.namespaces
	x.m = m
	slices.SortFunc(x.hostPolicies, m.compare)
	for i := range x.identified {
		slices.SortFunc(i.subjects, m.compare)
	}
	x.anew()
}

// anew has everything compiled anew, but for the members of living sets.
func (x *Index) anew() {
	clear(x.pieces)
	x.dirty = true
}

// SetEndpoint takes an endpoint in, or changes the one of its name.
func (x *Index) SetEndpoint(e *spec.Endpoint) {
	old := x.endpoints[e.Name]
	i := x.identity(e)
	own := e.Node == x.host.Node.Name
	if old != nil && old.identity == i && own == x.owns(old) && slices.Equal(old.Addresses, e.Addresses) {
		old.Endpoint = e
		return
	}
	// The new one comes before the old one goes: what both are stays.
	n := &member{Endpoint: e, identity: i}
	for _, s := range i.sets {
		for _, k := range s.keys(e) {
			if !x.has(s, k) {
				x.note(s, k, true)
			}
		}
	}
	x.attach(n)
	x.endpoints[e.Name] = n
	var before, after []*spec.Policy
	if own {
		if i.own++; i.own == 1 {
			i.subjects, x.identified[i] = x.selecting(i), true
		}
		after = i.subjects
		at, _ := slices.BinarySearchFunc(x.own, e.Name, func(m *member, name string) int { return cmp.Compare(m.Name, name) })
		x.own = slices.Insert(x.own, at, n)
	}
	if old != nil {
		if x.owns(old) {
			before = old.identity.subjects
		}
		x.remove(old)
	}
	if old == nil || own != x.owns(old) || !slices.Equal(before, after) || !slices.Equal(old.Addresses, e.Addresses) {
		x.dirty = x.dirty || own || old != nil && x.owns(old)
	}
}

// DeleteEndpoint takes an endpoint out.
func (x *Index) DeleteEndpoint(name string) {
	if e := x.endpoints[name]; e != nil {
		delete(x.endpoints, name)
		x.dirty = x.dirty || x.owns(e)
		x.remove(e)
	}
}

func (x *Index) owns(e *member) bool { return e.Node == x.host.Node.Name }

func (x *Index) remove(e *member) {
	x.detach(e)
	i := e.identity
	for _, s := range i.sets {
		for _, k := range s.keys(e.Endpoint) {
			if !x.has(s, k) {
				x.note(s, k, false)
			}
		}
	}
	if x.owns(e) {
		x.own = slices.DeleteFunc(x.own, func(o *member) bool { return o == e })
		if i.own--; i.own == 0 {
			i.subjects = nil
			delete(x.identified, i)
		}
	}
	if len(i.endpoints) > 0 {
		return
	}
	for _, s := range i.sets {
		delete(s.identities, i)
	}
	x.drop(i)
	if ns := i.like.Namespace; x.inNamespace[ns] == nil && !x.declared[ns] {
		delete(x.m.namespaces, ns)
	}
}

// identity is an endpoint's. A new one finds its sets.
func (x *Index) identity(e *spec.Endpoint) *identity {
	i, isNew := x.identify(e)
	if !isNew {
		return i
	}
	if x.m.namespaces[e.Namespace] == nil {
		x.m.namespaces[e.Namespace] = namespaceLabels(e.Namespace, nil)
	}
	if len(x.living) > 0 {
		for s := range x.belonging(i) {
			x.join(i, s)
		}
	}
	return i
}

// belonging are the living sets that an identity belongs to.
func (x *Index) belonging(i *identity) map[*memberSet]bool {
	sets := map[*memberSet]bool{}
	x.scopes.candidates(x.m, &i.like, func(s *memberSet) {
		if !sets[s] && x.m.withinAny(s.scopes, &i.like) {
			sets[s] = true
		}
	})
	return sets
}

func (m *Model) withinAny(list []scope, e *spec.Endpoint) bool {
	return slices.ContainsFunc(list, func(s scope) bool { return m.within(s, e) })
}

// join makes the endpoints of an identity members of a set.
func (x *Index) join(i *identity, s *memberSet) {
	for _, e := range i.endpoints {
		for _, k := range s.keys(e.Endpoint) {
			if !x.has(s, k) {
				x.note(s, k, true)
			}
		}
	}
	s.identities[i] = true
	i.sets = append(i.sets, s)
}

// part ends that.
func (x *Index) part(i *identity, s *memberSet) {
	delete(s.identities, i)
	i.sets = slices.DeleteFunc(i.sets, func(o *memberSet) bool { return o == s })
	for _, e := range i.endpoints {
		for _, k := range s.keys(e.Endpoint) {
			if !x.has(s, k) {
				x.note(s, k, false)
			}
		}
	}
}

// has says that somebody gives a set a key. An address may be two endpoints'
// for a while: that of one that ends, and that of one that begins.
func (x *Index) has(s *memberSet, k nft.Data) bool {
	n := addressLength(s.livingSet)
	a, _ := netip.AddrFromSlice([]byte(k[:n]))
	for _, e := range x.owners[a] {
		if s.identities[e.identity] && (len(k) == n || slices.Contains(s.keys(e.Endpoint), k)) {
			return true
		}
	}
	return false
}

func (x *Index) note(s *memberSet, k nft.Data, is bool) {
	s.note(k, is)
	if s.given != "" {
		x.touched[s] = true
	}
}

// SetNamespace changes the labels of a namespace.
func (x *Index) SetNamespace(ns *spec.Namespace) {
	x.declared[ns.Name] = true
	x.relabel(ns.Name, ns.Labels)
}

// DeleteNamespace takes a namespace's labels away. It exists as long as
// endpoints are in it.
func (x *Index) DeleteNamespace(name string) {
	delete(x.declared, name)
	x.relabel(name, nil)
	if x.inNamespace[name] == nil {
		delete(x.m.namespaces, name)
	}
}

func (x *Index) relabel(name string, given map[string]string) {
	labels := namespaceLabels(name, given)
	if maps.Equal(labels, x.m.namespaces[name]) {
		return
	}
	x.m.namespaces[name] = labels
	p := x.inNamespace[name]
	if p == nil {
		return
	}
	for _, i := range p.list {
		sets := x.belonging(i)
		for _, s := range slices.Clone(i.sets) {
			if !sets[s] {
				x.part(i, s)
			}
		}
		for s := range sets {
			if !s.identities[i] {
				x.join(i, s)
			}
		}
		if i.own > 0 {
			x.judge(i, x.selecting(i))
		}
	}
}

// judge gives an identity of the node's endpoints the policies that select it.
func (x *Index) judge(i *identity, subjects []*spec.Policy) {
	x.dirty = x.dirty || !slices.Equal(i.subjects, subjects)
	i.subjects = subjects
}

// selecting are the policies that select an identity, in order.
func (x *Index) selecting(i *identity) []*spec.Policy {
	var list []*spec.Policy
	x.subjects.candidates(x.m, &i.like, func(p *spec.Policy) {
		if x.m.selects(p, &i.like) {
			list = append(list, p)
		}
	})
	slices.SortFunc(list, x.m.compare)
	return slices.Compact(list)
}

// SetPolicy takes a policy in, or changes the one of its ID.
func (x *Index) SetPolicy(p *spec.Policy) {
	old := x.policies[p.ID()]
	if old == p {
		return
	}
	if old != nil {
		x.unlist(old)
	}
	x.serial++
	x.policies[p.ID()], x.serials[p] = p, x.serial
	if p.Selector != nil {
		x.subjects.add(p, subjectScope(p))
	}
	if p.HostSelector != nil {
		x.hostPolicies = x.m.insert(x.hostPolicies, p)
		x.dirty = true
	}
	for i := range x.identified {
		subjects := slices.DeleteFunc(slices.Clone(i.subjects), func(o *spec.Policy) bool { return o == old })
		if x.m.selects(p, &i.like) {
			subjects = x.m.insert(subjects, p)
		}
		x.judge(i, subjects)
	}
}

// insert puts a policy in its place in a list that is in order.
func (m *Model) insert(list []*spec.Policy, p *spec.Policy) []*spec.Policy {
	at, _ := slices.BinarySearchFunc(list, p, m.compare)
	return slices.Insert(list, at, p)
}

// DeletePolicy takes a policy out.
func (x *Index) DeletePolicy(id string) {
	p := x.policies[id]
	if p == nil {
		return
	}
	x.unlist(p)
	delete(x.policies, id)
	for i := range x.identified {
		x.judge(i, slices.DeleteFunc(slices.Clone(i.subjects), func(o *spec.Policy) bool { return o == p }))
	}
}

func (x *Index) unlist(p *spec.Policy) {
	delete(x.serials, p)
	if p.Selector != nil {
		x.subjects.remove(p, subjectScope(p))
	}
	if p.HostSelector != nil {
		x.hostPolicies = slices.DeleteFunc(x.hostPolicies, func(o *spec.Policy) bool { return o == p })
		x.dirty = true
	}
}

// settle compiles what has to be.
func (x *Index) settle() *compiler {
	if x.now == nil || x.dirty {
		c := newCompiler(x)
		c.base()
		last := x.now
		if last == nil {
			last = nothing()
		}
		c.together(last)
		x.forget()
		for _, s := range c.living.list {
			if x.living[s.name] == nil {
				x.enlist(s)
			}
		}
		x.now, x.dirty = c, false
	}
	return x.now
}

// enlist begins to keep the members of a set.
func (x *Index) enlist(s *livingSet) {
	m := &memberSet{livingSet: s, identities: x.members(s)}
	for i := range m.identities {
		i.sets = append(i.sets, m)
	}
	x.living[s.name] = m
	x.scopes.add(m, s.scopes...)
}

// delist ends that.
func (x *Index) delist(m *memberSet) {
	for i := range m.identities {
		i.sets = slices.DeleteFunc(i.sets, func(o *memberSet) bool { return o == m })
	}
	delete(x.living, m.name)
	delete(x.touched, m)
	x.scopes.remove(m, m.scopes...)
}

// members are the identities that belong to a set.
func (x *Index) members(s *livingSet) map[*identity]bool {
	found := map[*identity]bool{}
	for _, one := range s.scopes {
		x.search(x.m, one, func(i *identity) {
			if !found[i] && x.m.within(one, &i.like) {
				found[i] = true
			}
		})
	}
	return found
}

// elements are the elements of a set.
func (x *Index) elements(s *livingSet) []nft.Element {
	if m := x.living[s.name]; m != nil {
		return m.list()
	}
	return elementsOf(s, maps.Keys(x.members(s)))
}

func elementsOf(s *livingSet, identities iter.Seq[*identity]) []nft.Element {
	list := []nft.Element{}
	for i := range identities {
		for _, e := range i.endpoints {
			for _, k := range s.keys(e.Endpoint) {
				list = append(list, nft.Exact(k))
			}
		}
	}
	return sorted(list)
}
