package policy

import (
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
	for _, t := range m.tiers {
		for _, p := range t.policies {
			c := newCompiler(m, host, nil)
			for _, s := range c.sides(p) {
				c.named("trial", append(rules(c.policy(s, p, nft.Return)), c.otherwise(s, stage{t.Tier, []*spec.Policy{p}}, nft.Return)...))
			}
			if len(c.table.Chains) > 0 {
				c.fill()
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
		for _, e := range c.m.spec.Endpoints {
			if e.Node == c.host.Node.Name && c.m.selects(p, e) {
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
