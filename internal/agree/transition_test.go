package agree

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/poldernet/polder/internal/verdict"
	"github.com/poldernet/polder/internal/world"
	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

// On the way from one world to another, a packet that both deny is denied and
// one that both allow is allowed: after each transaction, and also if it is on
// its way while transactions happen.
func TestTransitionsMixNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := world.Nodes[0]
		before := world.Draw(t)
		table := policy.Compile(model(t, before), host(before.Node(n)), nft.Table{}).Table
		for range rapid.IntRange(1, 3).Draw(t, "transitions") {
			after := world.Edit(t, before)
			next := policy.Compile(model(t, after), host(after.Node(n)), table).Table
			transition{t, before, after, table, next}.check(rapid.Uint64().Draw(t, "flows"))
			before, table = after, next
		}
	})
}

// transition is the way of a node from one world to another.
type transition struct {
	t             *rapid.T
	before, after *spec.Spec
	from, to      nft.Table
}

// states are the rulesets on the way. Where chains or maps are taken away, no
// packet that is on its way before the state retired is so behind it: the writer
// waits for it.
func (w transition) states() (states []nft.Table, retired int, plan *nft.Plan) {
	plan = nft.Diff(nft.Ruleset{w.to}, nft.Ruleset{w.from})
	steps, err := plan.Steps()
	if err != nil {
		w.t.Fatalf("%v\nin the plan\n%s", err, plan)
	}
	states = append(states, w.from)
	for _, s := range steps {
		table, _ := s.Ruleset.Table(w.to.ID())
		if states = append(states, table); s.Stage != "retire" {
			retired++
		}
	}
	if !retiresRules(states[retired], w.to) {
		retired = 0
	}
	return states, retired, plan
}

// retiresRules says that chains or maps of one ruleset are not in another.
func retiresRules(from, to nft.Table) bool {
	return slices.ContainsFunc(from.Chains, func(c nft.Chain) bool {
		_, there := to.Chain(c.Name)
		return !there
	}) || slices.ContainsFunc(from.Sets, func(s nft.Set) bool {
		_, there := to.Set(s.Name)
		return s.Verdicts && !there
	})
}

func (w transition) check(seed uint64) {
	states, retired, plan := w.states()
	history, err := verdict.LoadHistory(states)
	if err != nil {
		w.t.Fatal(err)
	}
	last := history.Len() - 1
	for _, sp := range []*spec.Spec{w.before, w.after} {
		for i, f := range flows(sp, mostFlows/2, seed) {
			nat := translations[i%len(translations)]
			for _, p := range passages(f, nat, i%8 >= 4) {
				if p.node.Name != world.Nodes[0] {
					continue
				}
				judge := func(began, last int) verdict.Outcomes {
					o, err := history.Judge(p.hook, &p.packet, began, last)
					if err != nil {
						w.t.Fatal(err)
					}
					return o
				}
				first, end := judge(0, 0), judge(last, last)
				if first.Accepted != end.Accepted {
					continue
				}
				for began := range last {
					until := last
					if began < retired {
						until = retired
					}
					o := judge(began, until)
					if first.Accepted && len(o.Dropped) > 0 || !first.Accepted && o.Accepted {
						w.t.Fatalf("%s\n%+v, %s: before and after, accepted is %t; of a packet that meets state %d first, also the other (%v)\n%s\n%s\n# before\n%s\n# after\n%s\n%s",
							f, nat, p.hook, first.Accepted, began, o.Dropped, w.from, plan, world.HCL(w.before), world.HCL(w.after), fmt.Sprintf("%+v", p.packet))
					}
				}
			}
		}
	}
}
