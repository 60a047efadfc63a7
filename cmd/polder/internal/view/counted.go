package view

import (
	"bytes"
	"fmt"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/policy/drop"
	"github.com/poldernet/polder/spec"
)

// Counted is what a node's kernel has counted. It is absent where it counts
// nothing: the rule is not in force there, or was not asked about.
type Counted struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// ShownDefault is what a tier's default action was for, in a direction.
type ShownDefault struct {
	Direction spec.Direction `json:"direction"`
	Counted   *Counted       `json:"counted,omitempty"`
}

// ShownDrop is what was dropped for another reason than a policy.
type ShownDrop struct {
	Reason  drop.Reason `json:"reason"`
	Text    string      `json:"text"`
	Counted Counted     `json:"counted"`
}

// CountDropped adds what the kernel has dropped for other reasons than policies.
func (m *Policies) CountDropped(values map[string]nft.CounterValue) {
	for _, r := range drop.Reasons() {
		if v, ok := values[string(r)]; ok {
			m.Dropped = append(m.Dropped, ShownDrop{r, r.Text(), Counted{v.Packets, v.Bytes}})
		}
	}
}

// writeDropped lists the reasons for which something was dropped.
func (m *Policies) writeDropped(b *bytes.Buffer, t Text) {
	if len(m.Dropped) == 0 {
		return
	}
	fmt.Fprintf(b, "\n%s\n", t.bold("dropped by no policy"))
	some := false
	for _, d := range m.Dropped {
		if d.Counted.Packets > 0 {
			some = true
			fmt.Fprintf(b, "  %-20s  %s%s\n", d.Reason, d.Text, m.counts(&d.Counted, t))
		}
	}
	if !some {
		fmt.Fprintf(b, "  %s\n", t.faint("nothing"))
	}
}

// Count adds what the kernel has counted, by the counters' names there.
func (m *Policies) Count(tiers []policy.Tier, values map[string]nft.CounterValue) {
	counted := func(c policy.Counter) *Counted {
		if v, ok := values[c.Name()]; ok {
			return &Counted{v.Packets, v.Bytes}
		}
		return nil
	}
	shown := make(map[string]*ShownPolicy, len(m.Policies))
	for i := range m.Policies {
		p := &m.Policies[i]
		shown[string(p.Kind)+" "+p.Name] = p
	}
	for i, t := range tiers {
		for _, d := range spec.Directions {
			m.Tiers[i].Defaults = append(m.Tiers[i].Defaults, ShownDefault{d, counted(policy.DefaultCounter(t.Tier, d))})
		}
		for _, s := range t.Policies {
			p := shown[s.ID()]
			if p == nil {
				continue // its name was not given
			}
			for _, of := range []struct {
				rules     []ShownRule
				direction spec.Direction
			}{{p.Ingress, spec.Ingress}, {p.Egress, spec.Egress}} {
				counters := policy.Counters(s.Policy, of.direction)
				for j := range of.rules {
					of.rules[j].Counted = counted(counters[j])
				}
			}
		}
	}
}

// counted says that counters were asked for.
func (m *Policies) counted() bool { return len(m.Tiers) > 0 && len(m.Tiers[0].Defaults) > 0 }

// counts is what was counted, behind what it was counted of.
func (m *Policies) counts(c *Counted, t Text) string {
	switch {
	case !m.counted():
		return ""
	case c == nil:
		return "  " + t.faint("(not in force here)")
	}
	return fmt.Sprintf("  (%s, %s)", count64(c.Packets, "packet"), count64(c.Bytes, "byte"))
}

func count64(n uint64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
