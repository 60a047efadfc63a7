package view

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

// Policies are tiers and policies, as `policy show --json` prints them, in the
// order in which they are looked at.
type Policies struct {
	FormatVersion string        `json:"format_version"`
	Type          string        `json:"type"`           // "policies"
	Node          string        `json:"node,omitempty"` // on which is what is selected; absent: on any
	Tiers         []ShownTier   `json:"tiers"`
	Policies      []ShownPolicy `json:"policies"`
	// Dropped is what no policy has decided about. It is there where counters were
	// asked for, and no policy was.
	Dropped []ShownDrop `json:"dropped,omitempty"`
}

// ShownTier is a tier.
type ShownTier struct {
	Name          string      `json:"name"`
	Order         float64     `json:"order"`
	DefaultAction spec.Action `json:"default_action"`
	// Defaults are there where counters were asked for.
	Defaults []ShownDefault `json:"defaults,omitempty"`
}

// ShownPolicy is a policy with its rules and with what it selects.
type ShownPolicy struct {
	Kind          spec.PolicyKind  `json:"kind"`
	Name          string           `json:"name"`
	Tier          string           `json:"tier"`
	Order         *float64         `json:"order"` // null: behind all that have one
	Types         []spec.Direction `json:"types"`
	Endpoints     []string         `json:"endpoints"`
	HostEndpoints []string         `json:"host_endpoints"`
	Ingress       []ShownRule      `json:"ingress"`
	Egress        []ShownRule      `json:"egress"`
	Range         *Range           `json:"range,omitempty"`
}

// ShownRule is a rule in words.
type ShownRule struct {
	Number int         `json:"number"` // from 1
	Action spec.Action `json:"action"`
	Text   string      `json:"text"`
	Range  *Range      `json:"range,omitempty"`
	// Counted is there where counters were asked for.
	Counted *Counted `json:"counted,omitempty"`
}

// NewPolicies is the model of tiers and of those of their policies that have a
// name, or of all where no name is given.
func NewPolicies(tiers []policy.Tier, names ...string) Policies {
	m := Policies{FormatVersion: FormatVersion, Type: "policies", Tiers: []ShownTier{}, Policies: []ShownPolicy{}}
	wanted := make(map[string]bool, len(names))
	for _, n := range names {
		wanted[n] = true
	}
	for _, t := range tiers {
		m.Tiers = append(m.Tiers, ShownTier{Name: t.Name, Order: t.Order, DefaultAction: t.DefaultAction})
		for _, p := range t.Policies {
			if len(names) > 0 && !wanted[p.Name] {
				continue
			}
			shown := ShownPolicy{
				Kind: p.Kind, Name: p.Name, Tier: t.Name, Order: p.Order, Types: orEmpty(p.Types), Endpoints: []string{}, HostEndpoints: []string{},
				Ingress: newRules(p.Policy, spec.Ingress), Egress: newRules(p.Policy, spec.Egress), Range: newRange(p.Range),
			}
			for _, e := range p.Endpoints {
				shown.Endpoints = append(shown.Endpoints, e.Name)
			}
			for _, h := range p.HostEndpoints {
				shown.HostEndpoints = append(shown.HostEndpoints, h.Name)
			}
			m.Policies = append(m.Policies, shown)
		}
	}
	return m
}

// newRules are the rules that have an effect: those of the policy's types.
func newRules(p *spec.Policy, d spec.Direction) []ShownRule {
	list := []ShownRule{}
	if !p.Applies(d) {
		return list
	}
	rules := p.Rules(d)
	for i := range rules {
		list = append(list, ShownRule{Number: i + 1, Action: rules[i].Action, Text: policy.Describe(&rules[i], d), Range: newRange(rules[i].Range)})
	}
	return list
}

// WriteText renders the policies tier by tier, and what was dropped beside them.
func (m Policies) WriteText(w io.Writer, t Text) error {
	var b bytes.Buffer
	for i, tier := range m.Tiers {
		if i > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "%s  %s\n", t.bold("tier "+tier.Name), t.faint(fmt.Sprintf("order %s, default action %s", orderText(&tier.Order), tier.DefaultAction)))
		for _, d := range tier.Defaults {
			fmt.Fprintf(&b, "  %-7s %s%s\n", d.Direction, tier.DefaultAction, m.counts(d.Counted, t))
		}
		for _, p := range m.Policies {
			if p.Tier == tier.Name {
				p.writeText(&b, t, &m)
			}
		}
	}
	m.writeDropped(&b, t)
	return flush(w, &b)
}

func (p ShownPolicy) writeText(b *bytes.Buffer, t Text, m *Policies) {
	notes := []string{"order " + orderText(p.Order)}
	if p.Range != nil {
		notes = append(notes, p.Range.String())
	}
	fmt.Fprintf(b, "  %s  %s\n", t.bold(string(p.Kind)+" "+p.Name), t.faint(strings.Join(notes, ", ")))
	fmt.Fprintf(b, "    selects %s\n", p.selected(t, m.Node))
	for _, d := range p.Types {
		rules := p.Ingress
		if d == spec.Egress {
			rules = p.Egress
		}
		if len(rules) == 0 {
			fmt.Fprintf(b, "    %-7s     %s\n", d, t.faint("no rules"))
		}
		for _, r := range rules {
			fmt.Fprintf(b, "    %-7s %2d  %s%s\n", d, r.Number, r.Text, m.counts(r.Counted, t))
		}
	}
}

// selected lists what the policy selects, the first few of many.
func (p ShownPolicy) selected(t Text, node string) string {
	const most = 8
	list := append([]string{}, p.Endpoints...)
	for _, h := range p.HostEndpoints {
		list = append(list, "host endpoint "+h)
	}
	switch {
	case len(list) == 0 && node != "":
		return t.faint("nothing on " + node)
	case len(list) == 0:
		return t.warn("nothing")
	case len(list) > most && !t.Verbose:
		return fmt.Sprintf("%s and %d more (--verbose shows them)", strings.Join(list[:most], ", "), len(list)-most)
	}
	return strings.Join(list, ", ")
}

func orderText(order *float64) string {
	if order == nil {
		return "none"
	}
	return strconv.FormatFloat(*order, 'f', -1, 64)
}
