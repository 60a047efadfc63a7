package nft

import (
	"cmp"
	"slices"
)

// Damage is something that somebody with nft(8) may do to a table.
type Damage struct {
	Script string // for nft -f
	tx     transaction
}

// Do does it. It is one of Damages of the model as it is.
func (m *Model) Do(process string, d Damage) error {
	if err := m.run(d.tx); err != nil {
		return err
	}
	m.commits[len(m.commits)-1].Process = process
	return nil
}

// Damages are those that the present state of a table allows, in an order that
// depends on nothing else.
func (m *Model) Damages(id TableID) []Damage {
	t, there := m.tables.Table(id)
	if !there {
		return nil
	}
	var all []Damage
	add := func(ops ...op) {
		var tx transaction
		for _, o := range ops {
			tx = append(tx, step{id, o})
		}
		if modelOf(m.tables).run(tx) == nil {
			all = append(all, Damage{tx.String(), tx})
		}
	}
	add(delTable{})
	add(addChain{name: "theirs"}, addRule{"theirs", NewRule("", Do(Drop))})
	add(addCounter{"theirs"})
	for _, c := range t.Chains {
		add(delChain{c.Name})
		add(flushChain{c.Name})
		add(addRule{c.Name, NewRule("", Do(Drop))})
		if c.Base != nil && c.Base.Policy == PolicyAccept {
			base := *c.Base
			base.Policy = PolicyDrop
			add(setPolicy{c.Name, base})
		}
	}
	for _, s := range t.Sets {
		add(delSet{s})
		for _, e := range s.Elements[:min(len(s.Elements), 3)] {
			add(delElements{s, []Element{e}})
		}
	}
	for _, c := range t.Counters {
		add(delObject{Object{c, objectCounter}})
	}
	slices.SortFunc(all, func(a, b Damage) int { return cmp.Compare(a.Script, b.Script) })
	return all
}
