package policy

import (
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/poldernet/polder/policy/drop"
	"github.com/poldernet/polder/spec"
)

// Counter says what a named counter of the ruleset counts: the packets about
// which a rule of a policy decided, or about which no rule of a tier did, or that
// were dropped for another reason.
type Counter struct {
	Drop      drop.Reason // "": it is of a policy or a tier
	Direction spec.Direction
	Policy    *spec.Policy // nil: what the tier's default action decided
	Rule      int          // from 1, in the policy's rules of the direction
	Tier      *spec.Tier   // where Policy is nil
	Action    spec.Action
	Range     hcl.Range // of the rule, or of the tier

	key string // of the rule, among those of its policy and direction
}

// maxLegible is how much of a policy's name is in its counters' names. The rest
// is in the hash behind it.
const maxLegible = 40

// Name is the counter's name in the kernel, and the prefix of what its rule
// logs. It depends on what the rule says, not on where it stands: a counter
// outlives changes of the rules around its own, and of lines of the file.
func (c Counter) Name() string {
	if c.Drop != "" {
		return string(c.Drop)
	}
	what := c.Subject()
	id := what
	if c.Policy != nil {
		what, id = c.Policy.Name, c.Policy.ID()
	}
	return "c_" + legible(what) + "_" + string(c.Direction) + "_" + hash(id, string(c.Direction), c.key)[:12]
}

// Subject is the policy, by its ID, or the tier: "policy db", "tier default".
func (c Counter) Subject() string {
	switch {
	case c.Policy != nil:
		return c.Policy.ID()
	case c.Tier != nil:
		return "tier " + c.Tier.Name
	}
	return ""
}

// Isolating is the first policy of a tier that isolates an endpoint in a
// direction, and so brings it the tier's default action; nil if none does.
func (m *Model) Isolating(t *spec.Tier, d spec.Direction, e *spec.Endpoint) *spec.Policy {
	i, known := m.rank[t.Name]
	if !known {
		return nil
	}
	for _, p := range m.tiers[i].policies {
		if p.Applies(d) && m.selects(p, e) {
			return p
		}
	}
	return nil
}

// TierName is the tier in which it counts.
func (c Counter) TierName() string {
	switch {
	case c.Policy != nil:
		return c.Policy.Tier
	case c.Tier != nil:
		return c.Tier.Name
	}
	return ""
}

// Counters are those of a policy's rules in a direction, in order.
func Counters(p *spec.Policy, d spec.Direction) []Counter {
	rules := p.Rules(d)
	list := make([]Counter, len(rules))
	numbered := numbering{}
	for i := range rules {
		r := &rules[i]
		list[i] = Counter{
			Direction: d, Policy: p, Rule: i + 1, Action: r.Action, Range: r.Range, key: numbered.key(Describe(r, d)),
		}
	}
	return list
}

// DefaultCounter is that of a tier's default action in a direction. With
// another action it is another counter.
func DefaultCounter(t *spec.Tier, d spec.Direction) Counter {
	return Counter{Direction: d, Tier: t, Action: t.DefaultAction, Range: t.Range, key: string(t.DefaultAction)}
}

// Counters are all that the model's policies and tiers can have on any node, by
// name. A node has those of the policies that select something on it.
func (m *Model) Counters() map[string]Counter {
	all := map[string]Counter{}
	for _, t := range m.tiers {
		for _, d := range spec.Directions {
			c := DefaultCounter(t.Tier, d)
			all[c.Name()] = c
			for _, p := range t.policies {
				if !p.Applies(d) {
					continue
				}
				for _, c := range Counters(p, d) {
					all[c.Name()] = c
				}
			}
		}
	}
	return all
}

// legible is the beginning of a name in the characters that nft(8) takes for an
// object's name.
func legible(name string) string {
	text := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '-', r == '.':
			return r
		}
		return '_'
	}, name)
	return text[:min(len(text), maxLegible)]
}

// numbering tells apart the rules of a policy that say the same: it counts
// them, by what they say.
type numbering map[string]int

// key identifies a rule by its line. It is to be asked for every rule, in order.
func (n numbering) key(text string) string {
	n[text]++
	return fmt.Sprintf("%s#%d", text, n[text])
}
