package policy

import (
	"slices"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/spec"
)

// Trial is what one policy is compiled to, by itself.
type Trial struct {
	Policy *spec.Policy
	// Table holds the policy's counters, its sets and a chain with its rules,
	// which nothing leads to.
	Table nft.Table
}

// Trials are those of the policies that select something on a node. When the
// kernel refuses a ruleset, they tell which of them it does not take.
func Trials(m *Model, host Host) []Trial {
	var list []Trial
	x := NewIndex(m, host)
	for _, t := range m.tiers {
		for _, p := range t.policies {
			c := newCompiler(x)
			for _, s := range c.sides(p) {
				c.named("trial", append(rules(c.policy(s, p, nft.Return)), c.otherwise(s, stage{t.Tier, []*spec.Policy{p}}, nft.Return)...))
			}
			if c.together(nothing()); len(c.chains.list) > 0 {
				list = append(list, Trial{p, c.finished()})
			}
		}
	}
	return list
}

// sides are those on which a policy judges something of the node.
func (c *compiler) sides(p *spec.Policy) []side {
	var list []side
	for _, d := range spec.Directions {
		if !p.Applies(d) {
			continue
		}
		var families spec.PerFamily[bool]
		for _, e := range c.x.own {
			if slices.Contains(e.identity.subjects, p) {
				for _, a := range e.Addresses {
					families.Set(spec.FamilyOf(a), true)
				}
			}
		}
		for _, f := range spec.Families {
			if families.Get(f) {
				list = append(list, side{d, f, false})
			}
			for _, h := range c.own() {
				if selectsHost(p, h) {
					list = append(list, side{d, f, true})
					break
				}
			}
		}
	}
	return list
}
