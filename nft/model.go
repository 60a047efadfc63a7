package nft

import (
	"fmt"
	"slices"
)

// modelRuleset is a ruleset on which operations can be run, with the kernel's rules:
// what an operation refers to must be there, what it makes must not, and what
// it deletes must not be referred to. It tells what a transaction will leave
// behind, so that a commit can check what it finds.
type modelRuleset map[TableID]*modelTable

type modelTable struct {
	exists   bool
	dormant  bool
	chains   map[string]*Chain
	sets     map[string]*modelSet
	counters map[string]bool
	objects  map[Object]bool
}

type modelSet struct {
	schema   Set // without elements
	elements map[Data]Element
}

// modelOf is a model that stands at a ruleset.
func modelOf(rs Ruleset) modelRuleset {
	m := modelRuleset{}
	for _, t := range rs {
		mt := m.table(t.ID())
		mt.exists, mt.dormant = true, t.Dormant
		for _, c := range t.Chains {
			c.Rules = slices.Clone(c.Rules)
			mt.chains[c.Name] = &c
		}
		for _, s := range t.Sets {
			ms := &modelSet{schema: s, elements: make(map[Data]Element, len(s.Elements))}
			ms.schema.Elements = nil
			for _, e := range s.Elements {
				ms.elements[e.Key] = e
			}
			mt.sets[s.Name] = ms
		}
		for _, c := range t.Counters {
			mt.counters[c] = true
		}
		for _, o := range t.Objects {
			mt.objects[o] = true
		}
	}
	return m
}

func (m modelRuleset) table(id TableID) *modelTable {
	if m[id] == nil {
		m[id] = emptyModelTable()
	}
	return m[id]
}

func emptyModelTable() *modelTable {
	return &modelTable{
		chains: map[string]*Chain{}, sets: map[string]*modelSet{},
		counters: map[string]bool{}, objects: map[Object]bool{},
	}
}

// run runs a transaction. The model is spoilt if it fails.
func (m modelRuleset) run(tx transaction) error {
	for _, s := range tx {
		if err := s.op.run(m.table(s.table)); err != nil {
			return fmt.Errorf("%s: %w", s.op.text(s.table), err)
		}
	}
	return nil
}

// ruleset is what the model stands at, canonical.
func (m modelRuleset) ruleset() Ruleset {
	var rs Ruleset
	for id, mt := range m {
		if !mt.exists {
			continue
		}
		t := Table{Family: id.Family, Name: id.Name, Dormant: mt.dormant}
		for _, c := range mt.chains {
			t.Chains = append(t.Chains, *c)
		}
		for _, ms := range mt.sets {
			s := ms.schema
			for _, e := range ms.elements {
				s.Elements = append(s.Elements, e)
			}
			t.Sets = append(t.Sets, s)
		}
		for c := range mt.counters {
			t.Counters = append(t.Counters, c)
		}
		for o := range mt.objects {
			t.Objects = append(t.Objects, o)
		}
		rs = append(rs, t.canonical())
	}
	return rs
}

// equalRulesets compares canonical rulesets.
func equalRulesets(a, b Ruleset) bool {
	if len(a) != len(b) {
		return false
	}
	for _, t := range a {
		o, ok := b.Table(t.ID())
		if !ok || t.Dormant != o.Dormant || !slices.EqualFunc(t.Chains, o.Chains, Chain.Equal) ||
			!slices.EqualFunc(t.Sets, o.Sets, Set.Equal) || !slices.Equal(t.Counters, o.Counters) || !slices.Equal(t.Objects, o.Objects) {
			return false
		}
	}
	return true
}

func (addTable) run(t *modelTable) error {
	t.exists, t.dormant = true, false
	return nil
}

func (delTable) run(t *modelTable) error {
	if !t.exists {
		return fmt.Errorf("no such table")
	}
	*t = *emptyModelTable()
	return nil
}

func (o addChain) run(t *modelTable) error {
	if !t.exists {
		return fmt.Errorf("no such table")
	}
	if t.chains[o.name] != nil {
		return fmt.Errorf("the chain exists")
	}
	t.chains[o.name] = &Chain{Name: o.name, Base: o.base}
	return nil
}

func (o setPolicy) run(t *modelTable) error {
	c := t.chains[o.name]
	if c == nil || c.Base == nil {
		return fmt.Errorf("no such base chain")
	}
	c.Base = &o.base
	return nil
}

func (o delChain) run(t *modelTable) error {
	if t.chains[o.name] == nil {
		return fmt.Errorf("no such chain")
	}
	if user := t.userOfChain(o.name); user != "" {
		return fmt.Errorf("%s refers to it", user)
	}
	delete(t.chains, o.name)
	return nil
}

func (o flushChain) run(t *modelTable) error {
	if t.chains[o.name] == nil {
		return fmt.Errorf("no such chain")
	}
	t.chains[o.name].Rules = nil
	return nil
}

func (o addRule) run(t *modelTable) error {
	c := t.chains[o.chain]
	if c == nil {
		return fmt.Errorf("no such chain")
	}
	for _, e := range o.rule.Exprs {
		switch e := e.(type) {
		case Lookup:
			if t.sets[e.Set] == nil || t.sets[e.Set].schema.Verdicts != e.Verdict {
				return fmt.Errorf("no such set %s", e.Set)
			}
		case Verdict:
			if err := t.target(e); err != nil {
				return err
			}
		case CounterRef:
			if !t.counters[e.Name] {
				return fmt.Errorf("no such counter %s", e.Name)
			}
		}
	}
	c.Rules = append(c.Rules, o.rule)
	return nil
}

// target checks that what a verdict jumps to is there.
func (t *modelTable) target(v Verdict) error {
	if v.Chain == "" {
		return nil
	}
	if c := t.chains[v.Chain]; c == nil || c.Base != nil {
		return fmt.Errorf("no such regular chain %s", v.Chain)
	}
	return nil
}

func (o addSet) run(t *modelTable) error {
	if !t.exists {
		return fmt.Errorf("no such table")
	}
	if t.sets[o.set.Name] != nil {
		return fmt.Errorf("the set exists")
	}
	s := &modelSet{schema: o.set, elements: map[Data]Element{}}
	s.schema.Elements = nil
	t.sets[o.set.Name] = s
	return nil
}

func (o delSet) run(t *modelTable) error {
	if t.sets[o.set.Name] == nil {
		return fmt.Errorf("no such set")
	}
	if user := t.userOfSet(o.set.Name); user != "" {
		return fmt.Errorf("%s refers to it", user)
	}
	delete(t.sets, o.set.Name)
	return nil
}

func (o addElements) run(t *modelTable) error {
	s := t.sets[o.set.Name]
	if s == nil {
		return fmt.Errorf("no such set")
	}
	for _, e := range o.elements {
		if _, there := s.elements[e.Key]; there {
			return fmt.Errorf("element %s exists", s.schema.element(e))
		}
		if err := t.target(e.Verdict); err != nil {
			return err
		}
		s.elements[e.Key] = e
	}
	return nil
}

func (o delElements) run(t *modelTable) error {
	s := t.sets[o.set.Name]
	if s == nil {
		return fmt.Errorf("no such set")
	}
	for _, e := range o.elements {
		if _, there := s.elements[e.Key]; !there {
			return fmt.Errorf("no element %s", s.schema.element(e))
		}
		delete(s.elements, e.Key)
	}
	return nil
}

func (o addCounter) run(t *modelTable) error {
	t.counters[o.name] = true
	return nil
}

func (o delObject) run(t *modelTable) error {
	if o.object.Type != objectCounter {
		delete(t.objects, o.object)
		return nil
	}
	for _, c := range t.chains {
		if refers(*c, CounterRef{o.object.Name}) {
			return fmt.Errorf("chain %s refers to it", c.Name)
		}
	}
	delete(t.counters, o.object.Name)
	return nil
}

// userOfChain names something that jumps to a chain, other than itself.
func (t *modelTable) userOfChain(name string) string {
	for _, c := range t.chains {
		if c.Name != name && (refers(*c, Jump(name)) || refers(*c, Goto(name))) {
			return "chain " + c.Name
		}
	}
	for _, s := range t.sets {
		for _, e := range s.elements {
			if e.Verdict.Chain == name {
				return "map " + s.schema.Name
			}
		}
	}
	return ""
}

// userOfSet names a chain with a rule that looks a set up.
func (t *modelTable) userOfSet(name string) string {
	for _, c := range t.chains {
		if looksUp(*c, name) {
			return "chain " + c.Name
		}
	}
	return ""
}

func refers(c Chain, to Expr) bool {
	return slices.ContainsFunc(c.Rules, func(r Rule) bool { return slices.Contains(r.Exprs, to) })
}

func looksUp(c Chain, set string) bool {
	return slices.ContainsFunc(c.Rules, func(r Rule) bool {
		return slices.ContainsFunc(r.Exprs, func(e Expr) bool {
			l, ok := e.(Lookup)
			return ok && l.Set == set
		})
	})
}
