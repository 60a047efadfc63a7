package nft

import (
	"cmp"
	"slices"

	"github.com/poldernet/polder/internal/change"
)

// Diff computes what makes the desired ruleset of the observed one, object by
// object: tables, chains with their base properties and every operand of every
// rule, sets, and their elements. Tables that are observed but not desired are
// deleted, so observed must hold none but ours.
//
// A chain whose rules differ in anything is refilled; counters in its rules
// then begin at zero, named counters live on. Objects that do not differ are
// not touched.
func Diff(desired, observed Ruleset) *Plan {
	d := differ{}
	before := make(Ruleset, len(observed))
	for i, t := range observed {
		before[i] = t.canonical()
	}
	for _, id := range tableIDs(desired, before) {
		want, wanted := desired.Table(id)
		have, there := before.Table(id)
		switch {
		case wanted:
			t := tableDiff{differ: &d, id: id, want: want.canonical(), have: have}
			t.diff(there)
		default:
			d.retire = append(d.retire, step{id, delTable{}})
			d.changes = append(d.changes, deletedTable(have))
		}
	}
	p := &Plan{before: before, changes: d.changes}
	p.Prepare.transactions = pack(d.prepare)
	p.Switch.transactions = pack(d.extend)
	if len(d.swap) > 0 {
		p.Switch.transactions = append(p.Switch.transactions, d.swap.steps())
	}
	p.Switch.transactions = append(p.Switch.transactions, pack(d.wake)...)
	p.Retire.transactions = pack(d.retire)
	return p
}

func tableIDs(rulesets ...Ruleset) []TableID {
	var ids []TableID
	for _, rs := range rulesets {
		for _, t := range rs {
			ids = append(ids, t.ID())
		}
	}
	slices.SortFunc(ids, func(a, b TableID) int { return cmp.Compare(b.String(), a.String()) }) // inet before bridge
	return slices.Compact(ids)
}

// differ collects the steps of all tables.
type differ struct {
	prepare []step
	extend  []step     // members added to living sets
	swap    swapPhases // the one transaction of the switch
	// wake comes after it: in one transaction the kernel refuses a table that
	// wakes and a base chain that changes (nf_tables_api.c,
	// nft_table_pending_update). The rules are then right when they begin.
	wake    []step
	retire  []step
	changes []change.Change
}

// swapPhase orders the steps within the switch's main transaction, so that
// nothing is deleted while referred to and nothing referred to before it is
// there.
type swapPhase int

const (
	swapFlush    swapPhase = iota // rules that change or refer to what is replaced
	swapUnmap                     // map elements that change or go
	swapDelete                    // base chains that go, chains and sets that are replaced
	swapCreate                    // base chains, and what is replaced
	swapFill                      // elements of replaced sets
	swapRules                     // rules
	swapVerdicts                  // map elements
	swapPhaseEnd
)

type swapPhases map[swapPhase][]step

func (s swapPhases) steps() transaction {
	var tx transaction
	for phase := range swapPhaseEnd {
		tx = append(tx, s[phase]...)
	}
	return tx
}

// tableDiff compares one table.
type tableDiff struct {
	*differ
	id         TableID
	want, have Table
	replaced   replaced
}

// replaced are the objects that keep their name but cannot be changed in
// place.
type replaced struct {
	sets, chains map[string]bool
}

// touches says that a chain's rules refer to something that is replaced, so
// that they have to go before and come back after.
func (r replaced) touches(c Chain) bool {
	for _, rule := range c.Rules {
		for _, e := range rule.Exprs {
			switch e := e.(type) {
			case Lookup:
				if r.sets[e.Set] {
					return true
				}
			case Verdict:
				if r.chains[e.Chain] {
					return true
				}
			}
		}
	}
	return false
}

func (d *tableDiff) add(to *[]step, o op) { *to = append(*to, step{d.id, o}) }

func (d *tableDiff) swapIn(phase swapPhase, o op) {
	if d.swap == nil {
		d.swap = swapPhases{}
	}
	d.swap[phase] = append(d.swap[phase], step{d.id, o})
}

func (d *tableDiff) diff(there bool) {
	d.findReplaced()
	var fill, verdicts, retireSets []step // what must come after other steps of its stage
	if !there {
		d.add(&d.prepare, addTable{})
	} else if d.have.Dormant {
		d.add(&d.wake, addTable{})
	}
	d.changes = append(d.changes, d.tableChange(there)...)
	for _, c := range d.want.Counters {
		if !slices.Contains(d.have.Counters, c) {
			d.add(&d.prepare, addCounter{c})
		}
	}
	for _, s := range d.want.Sets {
		have, there := d.have.Set(s.Name)
		switch {
		case !there:
			d.add(&d.prepare, addSet{s})
			d.fillSet(&fill, &verdicts, s)
		case d.replaced.sets[s.Name]:
			d.replaceSet(s, have)
		default:
			d.diffElements(s, have)
		}
	}
	for _, c := range d.want.Chains {
		have, there := d.have.Chain(c.Name)
		d.diffChain(c, have, there, &fill)
	}
	for _, c := range d.have.Chains {
		if _, wanted := d.want.Chain(c.Name); !wanted {
			d.removeChain(c, &retireSets)
		}
	}
	d.prepare = append(append(d.prepare, fill...), verdicts...)
	for _, s := range d.have.Sets {
		if _, wanted := d.want.Set(s.Name); !wanted {
			d.removeSet(s)
		}
	}
	d.retire = append(d.retire, retireSets...)
	for _, c := range d.have.Counters {
		if !slices.Contains(d.want.Counters, c) {
			d.add(&d.retire, delObject{Object{c, objectCounter}})
		}
	}
	for _, o := range d.have.Objects {
		if !slices.Contains(d.want.Objects, o) {
			d.add(&d.retire, delObject{o})
		}
	}
}

// findReplaced finds the objects that have to be deleted and made anew under
// their name.
func (d *tableDiff) findReplaced() {
	d.replaced = replaced{sets: map[string]bool{}, chains: map[string]bool{}}
	for _, s := range d.want.Sets {
		if have, there := d.have.Set(s.Name); there && !s.sameSchema(have) {
			d.replaced.sets[s.Name] = true
		}
	}
	for _, c := range d.want.Chains {
		if have, there := d.have.Chain(c.Name); there && !sameHook(c.Base, have.Base) {
			d.replaced.chains[c.Name] = true
		}
	}
}

// sameHook says that a base chain can become another by its policy alone.
func sameHook(a, b *Base) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Type == b.Type && a.Hook == b.Hook && a.Priority == b.Priority
}
