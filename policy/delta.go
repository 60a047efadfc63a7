package policy

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/poldernet/polder/nft"
)

// Delta is how a table differs from one before it.
type Delta struct {
	// Members are what comes to living sets that stay, and what leaves them, by
	// the set's name in the table.
	Members map[string]MemberDelta
	// Before holds the chains, sets and counters that go or change, as they
	// were, and After those that come or change.
	Before, After nft.Table
}

// MemberDelta is how the elements of a set differ, in order.
type MemberDelta struct {
	Key            []nft.Type
	Added, Removed []nft.Element
}

// Structural says that more than members differs.
func (d Delta) Structural() bool { return !d.Before.Empty() || !d.After.Empty() }

// Empty says that nothing differs.
func (d Delta) Empty() bool { return len(d.Members) == 0 && !d.Structural() }

// Changes is what has changed since the last call, or since the index was made.
// What is not used any more is forgotten with it.
func (x *Index) Changes() Delta {
	d := x.difference()
	x.tell()
	return d
}

// tell notes that what there is has been told.
func (x *Index) tell() {
	c := x.now
	for _, m := range x.living {
		if c.living[m.name] == nil {
			x.delist(m)
			continue
		}
		m.told, m.untold = m.name+x.suffix[m.name], nil
	}
	maps.DeleteFunc(x.suffix, func(name, _ string) bool { return x.living[name] == nil })
	clear(x.touched)
	x.told = c
}

// difference is what Changes will tell.
func (x *Index) difference() Delta {
	c := x.settle()
	empty := nft.Table{Family: nft.INet, Name: nft.TableName}
	d := Delta{Before: empty, After: empty}
	for m := range x.touched {
		if name := m.name + x.suffix[m.name]; c.living[m.name] != nil && m.told == name && len(m.untold) > 0 {
			if d.Members == nil {
				d.Members = map[string]MemberDelta{}
			}
			added, removed := sides(m.untold)
			d.Members[name] = MemberDelta{m.key, added, removed}
		}
	}
	if c == x.told {
		return d
	}
	was := x.told
	if was == nil {
		was = &compiler{}
	}
	for name, chain := range c.chains {
		old, there := was.chains[name]
		if there && (!strings.HasPrefix(name, "policy_") || chain.Equal(old)) {
			continue // named by its content, or equal
		}
		d.After.Chains = append(d.After.Chains, chain)
		if there {
			d.Before.Chains = append(d.Before.Chains, old)
		}
	}
	for name, chain := range was.chains {
		if _, stays := c.chains[name]; !stays {
			d.Before.Chains = append(d.Before.Chains, chain)
		}
	}
	d.After.Sets, d.Before.Sets = onlyIn(c.sets, was.sets), onlyIn(was.sets, c.sets)
	for _, m := range x.living {
		name := ""
		if c.living[m.name] != nil {
			name = m.name + x.suffix[m.name]
		}
		if name == m.told {
			continue
		}
		if name != "" {
			d.After.Sets = append(d.After.Sets, nft.Set{Name: name, Key: m.key, Elements: m.list()})
		}
		if m.told != "" {
			d.Before.Sets = append(d.Before.Sets, nft.Set{Name: m.told, Key: m.key, Elements: m.before()})
		}
	}
	d.After.Counters = append(d.After.Counters, onlyNames(c.out, was.out)...)
	d.Before.Counters = onlyNames(was.out, c.out)
	return d
}

func onlyIn(a, b map[string]nft.Set) []nft.Set {
	var list []nft.Set
	for name, s := range a {
		if _, both := b[name]; !both {
			list = append(list, s)
		}
	}
	return list
}

func onlyNames(a, b map[string]Counter) []string {
	var list []string
	for name := range a {
		if _, both := b[name]; !both {
			list = append(list, name)
		}
	}
	return list
}

// Reverse leads back.
func (d Delta) Reverse() Delta {
	r := Delta{Before: d.After, After: d.Before}
	if d.Members != nil {
		r.Members = make(map[string]MemberDelta, len(d.Members))
	}
	for name, m := range d.Members {
		r.Members[name] = MemberDelta{m.Key, m.Removed, m.Added}
	}
	return r
}

// Apply makes of a table the one that differs from it by the delta.
func (d Delta) Apply(t nft.Table) nft.Table {
	chains, sets, counters := map[string]nft.Chain{}, map[string]nft.Set{}, map[string]bool{}
	for _, c := range t.Chains {
		chains[c.Name] = c
	}
	for _, s := range t.Sets {
		if m, ok := d.Members[s.Name]; ok {
			s.Elements = merge(s.Elements, m.Added, m.Removed)
		}
		sets[s.Name] = s
	}
	for _, c := range t.Counters {
		counters[c] = true
	}
	for _, c := range d.Before.Chains {
		delete(chains, c.Name)
	}
	for _, s := range d.Before.Sets {
		delete(sets, s.Name)
	}
	for _, c := range d.Before.Counters {
		delete(counters, c)
	}
	for _, c := range d.After.Chains {
		chains[c.Name] = c
	}
	for _, s := range d.After.Sets {
		sets[s.Name] = s
	}
	for _, c := range d.After.Counters {
		counters[c] = true
	}
	t.Chains, t.Sets, t.Counters = nil, nil, nil
	for _, name := range slices.Sorted(maps.Keys(chains)) {
		t.Chains = append(t.Chains, chains[name])
	}
	for _, name := range slices.Sorted(maps.Keys(sets)) {
		t.Sets = append(t.Sets, sets[name])
	}
	t.Counters = slices.Sorted(maps.Keys(counters))
	return t
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
