package policy

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/spec"
)

// Where an endpoint's own rules change together with the sets that it belongs
// to, as when it is relabelled, comes or goes, there are two tables on the way.
// In the first, both the old and the new rules judge the endpoint, and the sets
// are the old ones; in the second, the sets are the new ones.
//
// Let e and i be what the endpoint's own egress and ingress rules allow, before
// (1) and after (2), and m what the other end allows by the sets, whose rules
// all allow. On the way e1∧m1 → e1∧e2∧m1 → e1∧e2∧(m1∨m2) → e1∧e2∧m2 → e2∧m2, what
// both ends of it deny is denied at each step, and what both allow is allowed;
// likewise with i. That holds for one endpoint at a time, as no connection has
// it at both ends, and where its own rules do not ask for what changes: whether
// it is a server that has a named port.

// via are the tables on the way, and false if the way is not open: something
// else changes as well.
func (c *compiler) via(live nft.Table, changed map[string]members) ([]nft.Table, bool) {
	own, one := lone(c, changed)
	if !one || !c.alike(live) || asksItself(live, own, changed) || asksItself(c.table, own, changed) {
		return nil, false
	}
	w := way{compiler: c, live: live, own: own, table: c.table, renamed: map[string]string{}}
	w.table.Chains, w.table.Sets = slices.Clone(c.table.Chains), slices.Clone(c.table.Sets)
	for _, f := range spec.Families {
		for _, d := range spec.Directions {
			if !w.both(side{Direction: d, family: f}) {
				return nil, false
			}
		}
		w.isolate("isolated" + number(f))
		w.isolate("isolated_ingress" + number(f))
	}
	w.rename()
	after := w.table
	before := after
	before.Sets = slices.Clone(after.Sets)
	for i, s := range before.Sets {
		if base := baseName(s.Name); c.lives(base) != nil && s.Name == base+c.suffix[base] {
			if have, there := live.Set(s.Name); there {
				before.Sets[i].Elements = have.Elements
			}
		}
	}
	return []nft.Table{nft.Merge(before), nft.Merge(after)}, true
}

// lone finds the addresses that change in sets, and says whether they can be
// one endpoint's: one in each family.
func lone(c *compiler, changed map[string]members) (map[nft.Data]bool, bool) {
	own := map[nft.Data]bool{}
	count := map[int]int{}
	for name, d := range changed {
		n := addressLength(c.lives(name))
		for _, k := range slices.Concat(d.added, d.removed) {
			if a := k[:min(n, len(k))]; !own[a] {
				own[a] = true
				count[n]++
			}
		}
	}
	for _, n := range count {
		if n > 1 {
			return nil, false
		}
	}
	return own, true
}

// asksItself says that the ingress rules of an endpoint look up a set of named
// ports that changes. What changes there is its own.
func asksItself(t nft.Table, own map[nft.Data]bool, changed map[string]members) bool {
	for _, f := range spec.Families {
		dispatch, _ := inUse(t, side{Direction: spec.Ingress, family: f}.prefix())
		for _, e := range dispatch.Elements {
			if !own[e.Key] {
				continue
			}
			for set := range lookedUpFrom(t, e.Verdict.Chain) {
				if _, ok := changed[baseName(set)]; ok && strings.HasPrefix(set, "named") {
					return true
				}
			}
		}
	}
	return false
}

// ofEndpoints are the names of what base chains find endpoints by. Host endpoints
// are found by other maps: what becomes of these is not for the way to mend.
var ofEndpoints = regexp.MustCompile(`\b((?:egress|ingress|isolated|isolated_ingress|local|claimed)[46])-[0-9a-f]{20}\b`)

// alike says that the base chains and those beside them are the same but for the
// names of what they find endpoints by.
func (c *compiler) alike(live nft.Table) bool {
	text := func(t nft.Table) string {
		var b strings.Builder
		for _, chain := range t.Chains {
			if strings.HasPrefix(chain.Name, "policy_") {
				b.WriteString(chain.Name + "\n")
				for _, r := range chain.Rules {
					b.WriteString(r.String() + "\n")
				}
			}
		}
		return ofEndpoints.ReplaceAllString(b.String(), "$1")
	}
	return text(c.table) == text(live)
}

// way is a table on the way, being made.
type way struct {
	*compiler
	live    nft.Table
	own     map[nft.Data]bool // the addresses that change
	table   nft.Table
	renamed map[string]string // maps and sets in base chains
}

// inUse is the map or set of the kind in a table's base chains.
func inUse(t nft.Table, prefix string) (nft.Set, bool) {
	used := lookedUp(t)
	for _, s := range t.Sets {
		if strings.HasPrefix(s.Name, prefix+"-") && used[s.Name] {
			return s, true
		}
	}
	return nft.Set{}, false
}

// both has the old and the new rules of a side judge the endpoint that changes.
// It fails if those of another one change.
func (w *way) both(s side) bool {
	want, wanted := inUse(w.compiler.table, s.prefix())
	have, there := inUse(w.live, s.prefix())
	if wanted != there {
		return false // a base chain has a rule more, or less
	}
	if !wanted {
		return true
	}
	verdicts := map[nft.Data]nft.Verdict{}
	old := map[nft.Data]nft.Verdict{}
	for _, e := range have.Elements {
		old[e.Key] = e.Verdict
	}
	for _, e := range want.Elements {
		verdicts[e.Key] = e.Verdict
	}
	for key, before := range old {
		after, stays := verdicts[key]
		switch {
		case stays && after == before:
		case !w.own[key]:
			return false
		case stays:
			verdicts[key] = nft.Jump(w.conjunction(s, before.Chain, after.Chain))
		default:
			w.keep(before.Chain, s, false)
			verdicts[key] = before
		}
	}
	for key := range verdicts {
		if _, was := old[key]; !was && !w.own[key] {
			return false
		}
	}
	elements := make([]nft.Element, 0, len(verdicts))
	for _, key := range slices.Sorted(maps.Keys(verdicts)) {
		elements = append(elements, key.Maps(verdicts[key]))
	}
	w.replace(want, elements)
	return true
}

// conjunction makes a chain that allows what both chains allow.
func (w *way) conjunction(s side, before, after string) string {
	// The old one has to come back here when it allows.
	before = w.keep(before, s, s.allowed() == nft.Accept)
	return w.add(s.prefix(), []nft.Rule{
		nft.NewRule("the rules from before", nft.Do(nft.Jump(before))),
		nft.NewRule("the rules to come", nft.Do(nft.Goto(after))),
	})
}

// keep takes over a chain of the live table with all that it needs. Where it is
// to return, it does so where it accepts now.
func (w *way) keep(name string, s side, returns bool) string {
	c, ok := w.live.Chain(name)
	if !ok {
		return name
	}
	rules := make([]nft.Rule, len(c.Rules))
	for i, r := range c.Rules {
		r.Exprs = slices.Clone(r.Exprs)
		for k, e := range r.Exprs {
			switch e := e.(type) {
			case nft.Verdict:
				if e.Chain != "" {
					e.Chain = w.keep(e.Chain, s, returns)
					r.Exprs[k] = e
				} else if returns && e == nft.Accept {
					r.Exprs[k] = nft.Return
				}
			case nft.Lookup:
				if set, ok := w.live.Set(e.Set); ok {
					e.Set = w.keepSet(set, s, returns)
					r.Exprs[k] = e
				}
			case nft.CounterRef:
				w.table.Counters = append(slices.Clip(w.table.Counters), e.Name)
			}
		}
		rules[i] = r
	}
	if !returns {
		if _, there := w.table.Chain(name); !there {
			w.table.Chains = append(w.table.Chains, nft.Chain{Name: name, Rules: rules})
		}
		return name
	}
	return w.add(s.prefix(), rules)
}

// keepSet takes over a set, or a verdict map with the chains that it leads to.
func (w *way) keepSet(set nft.Set, s side, returns bool) string {
	if set.Verdicts {
		set.Elements = slices.Clone(set.Elements)
		for i := range set.Elements {
			v := &set.Elements[i].Verdict
			v.Chain = w.keep(v.Chain, s, returns)
		}
	}
	if set.Verdicts && returns {
		prefix, _, _ := strings.Cut(set.Name, "-")
		set.Name = contentName(prefix, set)
	}
	if !slices.ContainsFunc(w.table.Sets, func(o nft.Set) bool { return o.Name == set.Name }) {
		w.table.Sets = append(w.table.Sets, set)
	}
	return set.Name
}

// add makes a chain under a name that is a hash of its rules.
func (w *way) add(prefix string, rules []nft.Rule) string {
	name := chainName(prefix, rules)
	if _, there := w.table.Chain(name); !there {
		w.table.Chains = append(w.table.Chains, nft.Chain{Name: name, Rules: rules})
	}
	return name
}

// isolate keeps isolated who was, and who will be.
func (w *way) isolate(prefix string) {
	want, wanted := inUse(w.compiler.table, prefix)
	have, there := inUse(w.live, prefix)
	if wanted && there {
		w.replace(want, sorted(slices.Concat(want.Elements, have.Elements)))
	}
}

// replace puts other elements in the place of a set's, under another name.
func (w *way) replace(s nft.Set, elements []nft.Element) {
	prefix, _, _ := strings.Cut(s.Name, "-")
	old := s.Name
	s.Elements = elements
	s.Name = contentName(prefix, s)
	if s.Name == old {
		return
	}
	w.renamed[old] = s.Name
	if i := slices.IndexFunc(w.table.Sets, func(o nft.Set) bool { return o.Name == old }); i >= 0 {
		w.table.Sets[i] = s
	}
}

// rename has the rules look up the sets that were put in the place of others.
func (w *way) rename() {
	for i, c := range w.table.Chains {
		if !strings.HasPrefix(c.Name, "policy_") {
			continue
		}
		rules := slices.Clone(c.Rules)
		for k, r := range rules {
			r.Exprs = slices.Clone(r.Exprs)
			for n, e := range r.Exprs {
				if l, ok := e.(nft.Lookup); ok && w.renamed[l.Set] != "" {
					l.Set = w.renamed[l.Set]
					r.Exprs[n] = l
				}
			}
			rules[k] = r
		}
		w.table.Chains[i].Rules = rules
	}
}
