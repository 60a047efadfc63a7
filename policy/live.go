package policy

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/spec"
)

// Compile is what an Index of the model makes of it.
func Compile(m *Model, host Host, live nft.Table) Compiled {
	return NewIndex(m, host).Compile(live)
}

// Compile makes the rules that enforce the policies on a node, so that the way
// there from what is in force is safe: nothing passes on the way that neither
// the old nor the new policies allow, and nothing is lost that both do.
//
// Chains, maps, and sets of fixed content are named by a hash of their content:
// they are made and filled before anything refers to them, and are never
// changed. What switches from the old ones to the new are the rules of the base
// chains, and a packet sees these all in the old state or all in the new.
//
// The sets that live with the endpoints are named by who belongs to them, and
// members come and go in place, which is cheap. That is safe where the rules that
// use them are all of one mind (see harmless), and nothing else changes with
// them, or only the rules of the one endpoint that comes and goes (see via.go).
// Where it is not, the sets that change are made anew, under their names with a
// number behind it, and the chains that use them along.
//
// live is the table in the kernel, whatever else is in it. Where that is the one
// that Compile gave last, the very value and not one that was read back, it costs
// what has changed since.
func (x *Index) Compile(live nft.Table) Compiled {
	known := x.given != nil && x.given.table.Shares(live)
	var taken map[string]int
	var idle []string
	if !known {
		var suffix map[string]string
		if suffix, taken, idle = suffixes(live); !sameSuffixes(suffix, x.suffix) {
			x.suffix = suffix
			x.anew()
		}
	}
	c := x.settle()
	var changed map[string]members
	if known {
		changed = x.changed(c)
	} else {
		c.table = c.finished()
		changed = c.changed(live)
	}
	harmless := c.harmless(changed) && !slices.ContainsFunc(idle, func(name string) bool { _, ok := changed[name]; return ok })
	if len(changed) == 0 || harmless && (known && c.within(x.given) || !known && c.inForce(live)) {
		x.complete(c, changed)
		return x.give(c, nil)
	}
	if harmless && x.size(changed) >= x.Remake {
		x.complete(c, changed)
		if via, ok := c.via(live, changed); ok {
			return x.give(c, via)
		}
	}
	x.rename(changed, taken)
	c = x.settle()
	c.table = c.finished()
	return x.give(c, nil)
}

// give notes what is given.
func (x *Index) give(c *compiler, via []nft.Table) Compiled {
	if c != x.given { // else the sets have their names
		for _, m := range x.living {
			if c.lives(m.name) == nil {
				x.delist(m)
			} else {
				m.given = m.name + x.suffix[m.name]
			}
		}
		maps.DeleteFunc(x.suffix, func(name, _ string) bool { return x.living[name] == nil })
	}
	for m := range x.touched {
		m.changed = nil
	}
	clear(x.touched)
	x.given = c
	return Compiled{Table: c.table, Via: via, Counters: c.counted, Isolated: c.isolated}
}

// changed says how the members of living sets differ from the table given last, by
// their names without suffix.
func (x *Index) changed(c *compiler) map[string]members {
	changed := map[string]members{}
	for m := range x.touched {
		if c.lives(m.name) == nil || len(m.changed) == 0 {
			continue
		}
		added, removed := sides(m.changed)
		changed[m.name] = members{keysOf(added), keysOf(removed)}
	}
	return changed
}

// complete makes the table, if it is not made: of the one given last where only
// members differ.
func (x *Index) complete(c *compiler, changed map[string]members) {
	switch {
	case c.table.Name == "":
		c.table = c.finished()
	case c == x.given && len(changed) > 0:
		sets := slices.Clone(c.table.Sets)
		for name := range changed {
			at, _ := slices.BinarySearchFunc(sets, name+x.suffix[name], func(s nft.Set, name string) int { return cmp.Compare(s.Name, name) })
			sets[at].Elements = x.elements(c.lives(name))
		}
		c.table.Sets = sets
	}
}

func keysOf(list []nft.Element) []nft.Data {
	keys := make([]nft.Data, len(list))
	for i, e := range list {
		keys[i] = e.Key
	}
	return keys
}

// size is how many members sets have.
func (x *Index) size(sets map[string]members) int {
	n := 0
	for name := range sets {
		n += len(x.living[name].list())
	}
	return n
}

// rename gives living sets names that none has yet.
func (x *Index) rename(sets map[string]members, taken map[string]int) {
	names := make(map[string]bool, len(sets))
	suffix := maps.Clone(x.suffix)
	for name := range sets {
		n, _ := strconv.Atoi(strings.TrimPrefix(suffix[name], "_")) // none is 0
		suffix[name] = "_" + strconv.Itoa(max(n, taken[name])+1)
		names[name] = true
	}
	x.outdate(names)
	x.suffix = suffix
	x.dirty = true
}

// sameSuffixes says that sets have the same names, those that are not mentioned
// being without a suffix.
func sameSuffixes(a, b map[string]string) bool {
	for _, pair := range [][2]map[string]string{{a, b}, {b, a}} {
		for name, suffix := range pair[0] {
			if pair[1][name] != suffix {
				return false
			}
		}
	}
	return true
}

// use says that rules of a side with an action look a living set up.
type use struct {
	set    string // without suffix
	side   side
	action spec.Action
}

func (c *compiler) use(set string, s side, a spec.Action) {
	if set != "" {
		c.piece.uses = append(c.piece.uses, use{set, s, a})
	}
}

// suffixes finds the names under which the living sets are in force, by their
// names without a suffix, and the highest number that each has. Idle are those
// of which no rule uses any: what is left over holds, perhaps, what it did long
// ago.
func suffixes(live nft.Table) (suffix map[string]string, taken map[string]int, idle []string) {
	suffix, taken = map[string]string{}, map[string]int{}
	inUse := map[string]bool{}
	used := lookedUp(live)
	for _, s := range live.Sets {
		name, number, numbered := strings.Cut(s.Name, "_")
		if !strings.HasPrefix(name, "peers") && !strings.HasPrefix(name, "named") {
			continue
		}
		n, err := strconv.Atoi(number)
		if numbered && err != nil {
			continue // none of ours
		}
		taken[name] = max(taken[name], n)
		if inUse[name] {
			continue
		}
		inUse[name] = used[s.Name]
		suffix[name] = ""
		if numbered {
			suffix[name] = "_" + number
		}
	}
	for name, is := range inUse {
		if !is {
			idle = append(idle, name)
		}
	}
	return suffix, taken, idle
}

// lookedUp are the sets that rules look up to which a packet can come.
func lookedUp(t nft.Table) map[string]bool {
	var base []string
	for _, c := range t.Chains {
		if c.Base != nil {
			base = append(base, c.Name)
		}
	}
	return lookedUpFrom(t, base...)
}

// lookedUpFrom are those of rules to which a packet can come from chains.
func lookedUpFrom(t nft.Table, chains ...string) map[string]bool {
	used := map[string]bool{}
	seen := map[string]bool{}
	var visit func(nft.Chain)
	reach := func(name string) {
		if c, ok := t.Chain(name); ok && name != "" && !seen[name] {
			seen[name] = true
			visit(c)
		}
	}
	visit = func(c nft.Chain) {
		for _, r := range c.Rules {
			for _, e := range r.Exprs {
				switch e := e.(type) {
				case nft.Verdict:
					reach(e.Chain)
				case nft.Lookup:
					used[e.Set] = true
					if s, ok := t.Set(e.Set); ok && e.Verdict {
						for _, el := range s.Elements {
							reach(el.Verdict.Chain)
						}
					}
				}
			}
		}
	}
	for _, name := range chains {
		reach(name)
	}
	return used
}

// members are the keys that come to a living set, and those that leave it.
type members struct{ added, removed []nft.Data }

// changed are the living sets that are there and hold something else, by their
// names without suffix.
func (c *compiler) changed(live nft.Table) map[string]members {
	changed := map[string]members{}
	for _, s := range c.living.list {
		name := s.name + c.suffix[s.name]
		have, there := live.Set(name)
		if !there {
			continue
		}
		want, _ := c.table.Set(name)
		if d := difference(want.Elements, have.Elements); len(d.added)+len(d.removed) > 0 {
			changed[s.name] = d
		}
	}
	return changed
}

// difference compares elements in the order of their keys.
func difference(want, have []nft.Element) members {
	var d members
	for len(want) > 0 || len(have) > 0 {
		switch {
		case len(have) == 0 || len(want) > 0 && want[0].Key < have[0].Key:
			d.added, want = append(d.added, want[0].Key), want[1:]
		case len(want) == 0 || have[0].Key < want[0].Key:
			d.removed, have = append(d.removed, have[0].Key), have[1:]
		default:
			want, have = want[1:], have[1:]
		}
	}
	return d
}

// inForce says that the kernel holds all that was compiled, but for the members
// of living sets.
func (c *compiler) inForce(live nft.Table) bool {
	for _, want := range c.table.Chains {
		if have, ok := live.Chain(want.Name); !ok || !want.Equal(have) {
			return false
		}
	}
	for _, want := range c.table.Sets {
		have, ok := live.Set(want.Name)
		if c.lives(strings.TrimSuffix(want.Name, c.suffix[baseName(want.Name)])) != nil {
			continue
		}
		if !ok || !want.Equal(have) {
			return false
		}
	}
	return true
}

// within says that what was compiled earlier has all of it, but for the members of
// living sets.
func (c *compiler) within(o *compiler) bool {
	return c == o || c.chains.within(o.chains) && c.sets.within(o.sets)
}

// lives is the living set of a name without a suffix, nil if there is none.
func (c *compiler) lives(name string) *livingSet {
	s, _ := c.living.find(name)
	return s
}

// baseName is a living set's name without its suffix.
func baseName(name string) string {
	base, _, _ := strings.Cut(name, "_")
	return base
}

// harmless says that sets can change in place: members are added, and in a later
// transaction others are removed.
//
// A connection is allowed if its client's egress and its server's ingress allow
// it. If the rules that use the sets all deny, the more members there are the
// less is allowed: what both versions deny is denied while all members of either
// are there, and what neither denies is denied by none of them. If they all
// allow, the same holds on one side; but a connection may be denied by the egress
// alone before and by the ingress alone after, and be allowed in between. That
// needs two addresses that change, one at either end, of which one gains and one
// loses.
func (c *compiler) harmless(changed map[string]members) bool {
	actions := map[spec.Action]bool{}
	directions := map[spec.Direction]bool{}
	for _, p := range c.pieces {
		for _, u := range p.uses {
			if _, ok := changed[u.set]; ok {
				actions[u.action], directions[u.side.Direction] = true, true
			}
		}
	}
	switch {
	case len(actions) > 1 || actions[spec.Pass]:
		return false
	case actions[spec.Deny] || len(directions) < 2:
		return true
	}
	var added, removed bool
	addresses := map[int]map[nft.Data]bool{} // by length: the families do not meet
	for name, d := range changed {
		added, removed = added || len(d.added) > 0, removed || len(d.removed) > 0
		n := addressLength(c.lives(name))
		if addresses[n] == nil {
			addresses[n] = map[nft.Data]bool{}
		}
		for _, k := range slices.Concat(d.added, d.removed) {
			addresses[n][k[:min(n, len(k))]] = true
		}
	}
	one := !slices.ContainsFunc(slices.Collect(maps.Values(addresses)), func(s map[nft.Data]bool) bool { return len(s) > 1 })
	return !added || !removed || one
}

// addressLength is the length of the addresses in a living set's keys, in bytes.
func addressLength(s *livingSet) int { return keyAddress(s.key) }

// keyAddress is the length of the address with which keys of the types begin.
func keyAddress(key []nft.Type) int {
	if key[0] == nft.TypeIPv4Addr {
		return 4
	}
	return 16
}
