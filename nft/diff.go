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
//
// Elements and rules that both rulesets share, in one array, are known to be equal
// at once: who makes a ruleset of another one and leaves most of it alone pays
// for what differs.
func Diff(desired, observed Ruleset) *Plan {
	d := differ{}
	for _, id := range tableIDs(desired, observed) {
		want, wanted := desired.Table(id)
		have, there := observed.Table(id)
		switch {
		case wanted:
			t := tableDiff{differ: &d, id: id}
			t.want, t.have = sideBySide(want, have)
			t.diff(there)
		default:
			d.removeTable(have)
		}
	}
	p := &Plan{before: observed, tell: d.told}
	swap := d.swap.steps()
	if d.joined(swap) {
		swap, d.prepare = append(slices.Clip(d.prepare), swap...), nil
	}
	p.Prepare.transactions = pack(d.prepare)
	p.Switch.transactions = pack(d.extend)
	if len(swap) > 0 {
		p.Switch.transactions = append(p.Switch.transactions, swap)
	}
	p.Switch.transactions = append(p.Switch.transactions, pack(d.wake)...)
	p.Retire.transactions = pack(d.retire)
	return p
}

// removeTable takes the base chains of a table off their hooks in the switch, and
// removes it when nobody runs its rules any more: they would not find the elements
// of its sets and maps, and drop what these let pass.
func (d *differ) removeTable(t Table) {
	d.tell(func() []change.Change { return []change.Change{deletedTable(t)} })
	table := tableDiff{differ: d, id: t.ID()}
	for _, c := range t.Chains {
		if c.Base != nil {
			table.swapIn(swapFlush, flushChain{c.Name})
			table.swapIn(swapDelete, delChain{c.Name})
		}
	}
	d.retire = append(d.retire, step{t.ID(), delTable{}})
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
	wake   []step
	retire []step
	told   []func() []change.Change
}

// joined says that what is prepared can be made by the transaction that switches to
// it: only the rules that it brings lead there, which packets that are on their way do
// not run. Elements that a map gets would lead them there; and where sets hold ranges,
// a packet that runs the new rules may still see them without their elements
// (nf_tables_commit calls nft_set_commit_update after the generation has begun).
func (d *differ) joined(swap transaction) bool {
	if len(swap) == 0 || len(d.extend) > 0 {
		return false
	}
	for _, s := range swap {
		if o, ok := s.op.(addElements); ok && o.set.Verdicts {
			return false
		}
	}
	for _, s := range d.prepare {
		if o, ok := s.op.(addElements); ok && o.set.Interval {
			return false
		}
	}
	return len(pack(append(slices.Clip(d.prepare), swap...))) == 1
}

// tell leaves a difference for display to be described when somebody asks.
func (d *differ) tell(what func() []change.Change) { d.told = append(d.told, what) }

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
	if len(r.sets)+len(r.chains) == 0 {
		return false
	}
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
	var goneCounters []string
	var goneSets []Set
	var goneChains []Chain
	if !there {
		d.add(&d.prepare, addTable{})
	} else if d.have.Dormant {
		d.add(&d.wake, addTable{})
	}
	d.tell(func() []change.Change { return d.tableChange(there) })
	inStep(d.want.Counters, d.have.Counters, itself, func(want, have *string) {
		switch {
		case have == nil:
			d.add(&d.prepare, addCounter{*want})
		case want == nil:
			goneCounters = append(goneCounters, *have)
		}
	})
	inStep(d.want.Sets, d.have.Sets, Set.key, func(want, have *Set) {
		switch {
		case want == nil:
			goneSets = append(goneSets, *have)
		case have == nil:
			d.add(&d.prepare, addSet{*want})
			d.fillSet(&fill, &verdicts, *want)
		case d.replaced.sets[want.Name]:
			d.replaceSet(*want, *have)
		default:
			d.diffElements(*want, *have)
		}
	})
	inStep(d.want.Chains, d.have.Chains, Chain.key, func(want, have *Chain) {
		switch {
		case want == nil:
			goneChains = append(goneChains, *have)
		case have == nil:
			d.diffChain(*want, Chain{}, false, &fill)
		default:
			d.diffChain(*want, *have, true, &fill)
		}
	})
	for _, c := range goneChains {
		d.removeChain(c, &retireSets)
	}
	d.prepare = append(append(d.prepare, fill...), verdicts...)
	for _, s := range goneSets {
		d.removeSet(s)
	}
	d.retire = append(d.retire, retireSets...)
	for _, c := range goneCounters {
		d.add(&d.retire, delObject{Object{c, objectCounter}})
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
	inStep(d.want.Sets, d.have.Sets, Set.key, func(want, have *Set) {
		if want != nil && have != nil && !want.sameSchema(*have) {
			d.replaced.sets[want.Name] = true
		}
	})
	inStep(d.want.Chains, d.have.Chains, Chain.key, func(want, have *Chain) {
		if want != nil && have != nil && !sameHook(want.Base, have.Base) {
			d.replaced.chains[want.Name] = true
		}
	})
}

// sameHook says that a base chain can become another by its policy alone.
func sameHook(a, b *Base) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Type == b.Type && a.Hook == b.Hook && a.Priority == b.Priority
}
