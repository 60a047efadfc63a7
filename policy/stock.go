package policy

import (
	"cmp"
	"maps"
	"slices"

	"github.com/poldernet/polder/nft"
)

// kind is what tells objects of a kind apart.
type kind[T any] struct {
	name func(T) string
	same func(a, b T) bool // of two with one name
}

var (
	chainKind = kind[nft.Chain]{func(c nft.Chain) string { return c.Name }, nft.Chain.Equal}
	// These say by their names what they are.
	setKind     = kind[nft.Set]{func(s nft.Set) string { return s.Name }, func(_, _ nft.Set) bool { return true }}
	livingKind  = kind[*livingSet]{func(s *livingSet) string { return s.name }, func(_, _ *livingSet) bool { return true }}
	counterKind = kind[*namedCounter]{func(n *namedCounter) string { return n.name }, func(a, b *namedCounter) bool { return *a == *b }}
)

// stock are the objects of a kind that pieces come to, each of them once, in the order
// of their names.
type stock[T any] struct {
	kind[T]
	list []T            // is not changed any more: tables share it
	by   map[string]int // of how many pieces; of the latest stock made of this one
}

// changed is the stock with what has come, and without what of that which is gone
// nobody else has.
func (s stock[T]) changed(come, gone []*piece, of func(*piece) []T) stock[T] {
	changed := map[string]*T{} // nil: less often
	for _, p := range gone {
		for _, o := range of(p) {
			s.by[s.name(o)]--
			changed[s.name(o)] = nil
		}
	}
	for _, p := range come {
		list := of(p)
		for i, o := range list {
			s.by[s.name(o)]++
			changed[s.name(o)] = &list[i]
		}
	}
	before, list, differs := s.list, make([]T, 0, len(s.list)+len(changed)), false
	for _, name := range slices.Sorted(maps.Keys(changed)) {
		at, there := slices.BinarySearchFunc(before, name, s.compare)
		list = append(list, before[:at]...)
		before = before[at:]
		o := changed[name]
		switch {
		case there && (o == nil && s.by[name] > 0 || o != nil && s.same(*o, before[0])):
			list = append(list, before[0])
		case o != nil:
			list, differs = append(list, *o), true
		default:
			differs = true
			delete(s.by, name)
		}
		if there {
			before = before[1:]
		}
	}
	if differs {
		s.list = append(list, before...)
	}
	return s
}

func (s stock[T]) compare(o T, name string) int { return cmp.Compare(s.name(o), name) }

// find finds an object by its name.
func (s stock[T]) find(name string) (T, bool) {
	if at, there := slices.BinarySearchFunc(s.list, name, s.compare); there {
		return s.list[at], true
	}
	var none T
	return none, false
}

// within says that another stock has all of it.
func (s stock[T]) within(o stock[T]) bool {
	return !slices.ContainsFunc(s.list, func(want T) bool {
		have, there := o.find(s.name(want))
		return !there || !s.same(want, have)
	})
}
