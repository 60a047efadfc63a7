package agree

import (
	"fmt"
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
			c := policy.Compile(model(t, after), host(after.Node(n)), table)
			transition{t, before, after, table, append(c.Via, c.Table)}.check(rapid.Uint64().Draw(t, "flows"))
			before, table = after, c.Table
		}
	})
}

// transition is the way of a node from one world to another.
type transition struct {
	t             *rapid.T
	before, after *spec.Spec
	from          nft.Table
	stops         []nft.Table // the last one is the other world's
}

// states are the rulesets on the way, and for each the last one that a packet can
// meet that began with it: none is on its way over both the last commit of a
// switch and a retirement, see nft.Plan.
func (w transition) states() (states []nft.Table, until []int, plan *nft.Plan) {
	stops := make([]nft.Ruleset, len(w.stops))
	for i, s := range w.stops {
		stops[i] = nft.Ruleset{s}
	}
	plan = nft.Through(nft.Ruleset{w.from}, stops...)
	steps, err := plan.Steps()
	if err != nil {
		w.t.Fatalf("%v\nin the plan\n%s", err, plan)
	}
	states, until = append(states, w.from), make([]int, 1+len(steps))
	begun, stage := 0, ""
	for i, s := range steps {
		if s.Stage == "retire" && stage != s.Stage {
			for ; begun < i; begun++ {
				until[begun] = i
			}
		}
		table, _ := s.Ruleset.Table(w.from.ID())
		states, stage = append(states, table), s.Stage
	}
	for ; begun < len(until); begun++ {
		until[begun] = len(steps)
	}
	return states, until, plan
}

func (w transition) check(seed uint64) {
	states, until, plan := w.states()
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
					o := judge(began, until[began])
					if first.Accepted && len(o.Dropped) > 0 || !first.Accepted && o.Accepted {
						w.t.Fatalf("%s\n%+v, %s: before and after, accepted is %t; of a packet that meets state %d first, also the other (%v)\n%s\n%s\n# before\n%s\n# after\n%s\n%s",
							f, nat, p.hook, first.Accepted, began, o.Dropped, w.from, plan, world.HCL(w.before), world.HCL(w.after), fmt.Sprintf("%+v", p.packet))
					}
				}
			}
		}
	}
}
