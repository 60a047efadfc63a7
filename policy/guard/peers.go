package guard

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/spec"
)

// Peers are the other nodes, as members of the guard's sets.
type Peers struct {
	addresses spec.PerFamily[[]nft.Element] // of the underlay
	subnets   spec.PerFamily[[]nft.Element] // of pods
}

// Exchange is the same with some nodes that have become others, seen from the node of
// that name: those that are gone or have changed, as they were, and those that have come
// or changed, as they are. A set whose members stay is the same array.
func (p Peers) Exchange(own string, gone, come []*spec.Node) Peers {
	for _, f := range spec.Families {
		p.addresses.Set(f, exchange(p.addresses.Get(f), addresses(own, gone, f), addresses(own, come, f)))
		p.subnets.Set(f, exchange(p.subnets.Get(f), subnets(own, gone, f), subnets(own, come, f)))
	}
	return p
}

func addresses(own string, nodes []*spec.Node, f spec.Family) []nft.Element {
	list := make([]nft.Element, 0, len(nodes))
	for _, n := range nodes {
		if a, ok := n.Address(f); ok && n.Name != own {
			list = append(list, nft.Exact(nft.Addr(a.Addr)))
		}
	}
	slices.SortFunc(list, compare)
	return list
}

func subnets(own string, nodes []*spec.Node, f spec.Family) []nft.Element {
	list := make([]netip.Prefix, 0, len(nodes))
	for _, n := range nodes {
		if s, ok := n.Subnet(f); ok && n.Name != own {
			list = append(list, s)
		}
	}
	return nft.PrefixElements(list)
}

func compare(a, b nft.Element) int { return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.To, b.To)) }

// exchange is a list with other members. All lists are in order.
func exchange(list, gone, come []nft.Element) []nft.Element {
	if slices.Equal(gone, come) {
		return list
	}
	next := make([]nft.Element, 0, max(0, len(list)-len(gone))+len(come))
	for _, e := range list {
		if len(gone) > 0 && gone[0] == e {
			gone = gone[1:]
			continue
		}
		for len(come) > 0 && compare(come[0], e) < 0 {
			next, come = append(next, come[0]), come[1:]
		}
		next = append(next, e)
	}
	return append(next, come...)
}
