package policy

import (
	"cmp"
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/spec"
)

// identity is what policies see of endpoints: a namespace, labels, named ports.
// Endpoints have the same sets and policies if they have the same identity.
type identity struct {
	like      spec.Endpoint // namespace, labels and ports
	key       string
	endpoints []*member
	postings  []place
	sets      []*memberSet // to which it belongs
	// own counts the endpoints that are the node's. As long as there are any,
	// subjects are the policies that select them, in order.
	own      int
	subjects []*spec.Policy
}

// member is an endpoint of an index.
type member struct {
	*spec.Endpoint
	identity *identity
	at       int // in identity.endpoints
}

// posting is a list of identities that have something in common.
type posting struct{ list []*identity }

// place is where an identity stands in a posting.
type place struct {
	of *posting
	at int
}

func (i *identity) enter(p *posting) {
	i.postings = append(i.postings, place{p, len(p.list)})
	p.list = append(p.list, i)
}

// leave leaves all postings. The last of each takes the place that is free.
func (i *identity) leave() {
	for _, p := range i.postings {
		last := len(p.of.list) - 1
		moved := p.of.list[last]
		p.of.list[p.at], p.of.list[last] = moved, nil
		p.of.list = p.of.list[:last]
		for k := range moved.postings {
			if moved.postings[k].of == p.of {
				moved.postings[k].at = p.at
			}
		}
	}
	i.postings = nil
}

// population is the inventory of an index by identities.
type population struct {
	endpoints  map[string]*member
	owners     map[netip.Addr][]*member
	identities map[string]*identity
	// Of the identities, those with something: a namespace, a label and its
	// value, a named port.
	inNamespace map[string]*posting
	withLabel   map[[2]string]*posting
	withPort    map[string]*posting
	buffer      []byte
}

func newPopulation(endpoints int) population {
	return population{
		endpoints: make(map[string]*member, endpoints), owners: make(map[netip.Addr][]*member, endpoints), identities: map[string]*identity{},
		inNamespace: map[string]*posting{}, withLabel: map[[2]string]*posting{}, withPort: map[string]*posting{},
	}
}

// identityKey is a text that two endpoints have in common that have the same
// identity. It is overwritten by the next call.
func (x *population) identityKey(e *spec.Endpoint) []byte {
	b := x.buffer[:0]
	text := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	text(e.Namespace)
	b = binary.AppendUvarint(b, uint64(len(e.Labels)))
	for _, k := range sortedKeys(e.Labels) {
		text(k)
		text(e.Labels[k])
	}
	for _, k := range sortedKeys(e.Ports) {
		text(k)
		text(e.Ports[k].Protocol)
		b = binary.AppendUvarint(b, uint64(e.Ports[k].Number))
	}
	x.buffer = b
	return b
}

func sortedKeys[V any](m map[string]V) []string {
	var few [8]string
	keys := few[:0]
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// identify finds an endpoint's identity. The second result says that it is new.
func (x *population) identify(e *spec.Endpoint) (*identity, bool) {
	key := x.identityKey(e)
	if i := x.identities[string(key)]; i != nil {
		return i, false
	}
	i := &identity{key: string(key), like: spec.Endpoint{Namespace: e.Namespace, Labels: e.Labels, Ports: e.Ports}}
	x.identities[i.key] = i
	enter(i, x.inNamespace, e.Namespace)
	for k, v := range e.Labels {
		enter(i, x.withLabel, [2]string{k, v})
	}
	for name := range e.Ports {
		enter(i, x.withPort, name)
	}
	return i, true
}

func enter[K comparable](i *identity, m map[K]*posting, key K) {
	p := m[key]
	if p == nil {
		p = &posting{}
		m[key] = p
	}
	i.enter(p)
}

// drop forgets an identity that no endpoint has.
func (x *population) drop(i *identity) {
	i.leave()
	delete(x.identities, i.key)
	dropEmpty(x.inNamespace, i.like.Namespace)
	for k, v := range i.like.Labels {
		dropEmpty(x.withLabel, [2]string{k, v})
	}
	for name := range i.like.Ports {
		dropEmpty(x.withPort, name)
	}
}

func dropEmpty[K comparable](m map[K]*posting, key K) {
	if p := m[key]; p != nil && len(p.list) == 0 {
		delete(m, key)
	}
}

// attach gives an endpoint its place.
func (x *population) attach(e *member) {
	e.at = len(e.identity.endpoints)
	e.identity.endpoints = append(e.identity.endpoints, e)
	for _, a := range e.Addresses {
		x.owners[a] = append(x.owners[a], e)
	}
}

// detach takes an endpoint out.
func (x *population) detach(e *member) {
	list := e.identity.endpoints
	last := len(list) - 1
	list[e.at], list[last].at = list[last], e.at
	list[last] = nil
	e.identity.endpoints = list[:last]
	for _, a := range e.Addresses {
		owners := slices.DeleteFunc(x.owners[a], func(o *member) bool { return o == e })
		if x.owners[a] = owners; len(owners) == 0 {
			delete(x.owners, a)
		}
	}
}

// search gives the identities that may be in a scope: those of the shortest
// lists that hold all which are.
func (x *population) search(m *Model, s scope, yield func(*identity)) {
	each := func(lists []*posting) {
		for _, p := range lists {
			for _, i := range p.list {
				yield(i)
			}
		}
	}
	if s.port != "" {
		each(found(x.withPort, []string{s.port}))
		return
	}
	var shortest []*posting
	size := -1
	offer := func(lists []*posting) {
		n := 0
		for _, p := range lists {
			n += len(p.list)
		}
		if size < 0 || n < size {
			shortest, size = lists, n
		}
	}
	for _, r := range s.labels.Restrictions() {
		if r.Values != nil {
			keys := make([][2]string, len(r.Values))
			for i, v := range r.Values {
				keys[i] = [2]string{r.Key, v}
			}
			offer(found(x.withLabel, keys))
		}
	}
	if places, ok := s.places(); ok {
		offer(found(x.inNamespace, places))
	} else if s.namespaces != nil {
		var places []string
		for name := range x.inNamespace {
			if s.namespaces.Matches(m.namespaces[name]) {
				places = append(places, name)
			}
		}
		offer(found(x.inNamespace, places))
	}
	if size >= 0 {
		each(shortest)
		return
	}
	for _, i := range x.identities {
		yield(i)
	}
}

// found are the postings of keys that have one.
func found[K comparable](m map[K]*posting, keys []K) []*posting {
	var list []*posting
	for _, k := range keys {
		if p := m[k]; p != nil {
			list = append(list, p)
		}
	}
	return list
}

// memberSet is a living set with its members.
type memberSet struct {
	*livingSet
	identities map[*identity]bool
	// elements are those of a moment, and since is what has changed after it:
	// keys that are there now, or are not. Nil elements: nobody has asked.
	elements []nft.Element
	since    map[nft.Data]bool
	// given is the name under which the latest table has the set, and changed what
	// has changed since: keys that are there now, or are not.
	given   string
	changed map[nft.Data]bool
}

// note notes that a key has become a member, or has ceased to be one.
func (s *memberSet) note(k nft.Data, is bool) {
	if s.elements != nil {
		if flip(&s.since, k, is); len(s.since) > 64+len(s.elements)/4 {
			s.elements, s.since = nil, nil // nobody has asked for long
		}
	}
	if s.given != "" {
		flip(&s.changed, k, is)
	}
}

func flip(m *map[nft.Data]bool, k nft.Data, is bool) {
	if was, ok := (*m)[k]; ok && was != is {
		delete(*m, k) // it is what it was
		return
	}
	if *m == nil {
		*m = map[nft.Data]bool{}
	}
	(*m)[k] = is
}

// list is the set's elements, in order.
func (s *memberSet) list() []nft.Element {
	switch {
	case s.elements == nil:
		s.elements = elementsOf(s.livingSet, maps.Keys(s.identities))
	case len(s.since) > 0:
		added, removed := sides(s.since)
		s.elements = merge(s.elements, added, removed)
		s.since = nil
	}
	return s.elements
}

// sides tells what is there from what is not, in order.
func sides(m map[nft.Data]bool) (there, gone []nft.Element) {
	for k, is := range m {
		if is {
			there = append(there, nft.Exact(k))
		} else {
			gone = append(gone, nft.Exact(k))
		}
	}
	return sorted(there), sorted(gone)
}

// merge is a list of elements with some added, and others, which are in it,
// removed. All are in order.
func merge(list, added, removed []nft.Element) []nft.Element {
	out := make([]nft.Element, 0, len(list)+len(added)-len(removed))
	for len(list) > 0 || len(added) > 0 {
		switch {
		case len(list) == 0 || len(added) > 0 && added[0].Key < list[0].Key:
			out, added = append(out, added[0]), added[1:]
		case len(removed) > 0 && removed[0].Key == list[0].Key:
			list, removed = list[1:], removed[1:]
		default:
			// Until the next change all stays.
			n := len(list)
			for _, next := range [][]nft.Element{added, removed} {
				if len(next) > 0 {
					at, _ := slices.BinarySearchFunc(list, next[0].Key, func(e nft.Element, k nft.Data) int { return cmp.Compare(e.Key, k) })
					n = min(n, at)
				}
			}
			out, list = append(out, list[:n]...), list[n:]
		}
	}
	return out
}
