package view

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

// Explanation is what becomes of connections, and why, as `explain --json`
// prints it.
type Explanation struct {
	FormatVersion string `json:"format_version"`
	Type          string `json:"type"` // "explanation"
	From          string `json:"from"`
	To            string `json:"to"`
	Service       string `json:"service"`
	Verdict       string `json:"verdict"` // "allow", "deny", or "mixed": it depends on the addresses
	Cases         []Case `json:"cases"`   // of several only where the reasons differ
}

// Case is the connections that are judged by the same reasons. What is said of
// rules that do not match is said about the first.
type Case struct {
	Verdict spec.Action `json:"verdict"`
	Flows   []Flow      `json:"flows"`
	Sides   []Side      `json:"sides"` // egress, ingress
}

// Flow is a connection.
type Flow struct {
	From    string `json:"from"`
	To      string `json:"to"`
	Service string `json:"service"`
}

// Side is how the policies at one end judge.
type Side struct {
	Direction spec.Direction `json:"direction"`
	Subject   string         `json:"subject"` // endpoint.NAME, node.NAME, an address, outside
	Node      string         `json:"node,omitempty"`
	// HostEndpoint judges for a node. It is assumed where the node has several
	// and the interface is not known.
	HostEndpoint string        `json:"host_endpoint,omitempty"`
	Assumed      bool          `json:"assumed,omitempty"`
	Verdict      spec.Action   `json:"verdict"`
	Reason       policy.Reason `json:"reason"`
	Why          string        `json:"why"`
	Tiers        []Tier        `json:"tiers"`
	// Source is the line that decided.
	Source *Source `json:"source,omitempty"`
}

// Tier is a tier that was looked at.
type Tier struct {
	Name     string      `json:"name"`
	Action   spec.Action `json:"action"`  // that came of it
	Default  bool        `json:"default"` // it is the default action
	Policies []Policy    `json:"policies"`
}

// Policy is a policy that was looked at, up to the rule that decided.
type Policy struct {
	Kind  spec.PolicyKind `json:"kind"`
	Name  string          `json:"name"`
	Range *Range          `json:"range,omitempty"`
	Rules []Rule          `json:"rules"`
}

// Rule is a rule that was looked at.
type Rule struct {
	Number         int         `json:"number"` // from 1
	Action         spec.Action `json:"action"`
	Text           string      `json:"text"`
	Matches        bool        `json:"matches"`
	PeerMatches    bool        `json:"peer_matches"`
	Peer           string      `json:"peer,omitempty"` // of the rule's, that matches
	NetworkSet     string      `json:"network_set,omitempty"`
	ServiceMatches bool        `json:"service_matches"`
	Service        string      `json:"service,omitempty"` // of the rule's, that matches
	Range          *Range      `json:"range,omitempty"`
	Several        bool        `json:"several,omitempty"` // what matches is one of several
}

// Source is a line of a file.
type Source struct {
	Range
	Context string `json:"context,omitempty"` // the block that it is in
	Line    string `json:"line,omitempty"`
	Mark    string `json:"mark,omitempty"` // under the part of the line
}

// NewExplanation is the model of an answer. The config has the source lines.
func NewExplanation(config *spec.Config, q policy.Question, decisions []policy.Decision) Explanation {
	e := Explanation{
		FormatVersion: FormatVersion, Type: "explanation",
		From: q.From.String(), To: q.To.String(), Service: q.Service(),
		Verdict: string(decisions[0].Verdict),
	}
	var first []*policy.Decision
	for i := range decisions {
		d := &decisions[i]
		if string(d.Verdict) != e.Verdict {
			e.Verdict = "mixed"
		}
		f := Flow{From: d.Flow.From.String(), To: d.Flow.To.String(), Service: d.Flow.Service().String()}
		known := false
		for j, other := range first {
			if policy.Alike(other, d) {
				e.Cases[j].Flows = append(e.Cases[j].Flows, f)
				known = true
				break
			}
		}
		if !known {
			first = append(first, d)
			e.Cases = append(e.Cases, Case{Verdict: d.Verdict, Flows: []Flow{f}, Sides: []Side{
				newSide(config, &d.Sides[0], q.From), newSide(config, &d.Sides[1], q.To),
			}})
		}
	}
	return e
}

func newSide(config *spec.Config, s *policy.Side, end spec.End) Side {
	side := Side{
		Direction: s.Direction, Subject: s.Subject.String(), Assumed: s.Assumed,
		Verdict: s.Verdict, Reason: s.Reason, Why: s.Why(), Tiers: []Tier{},
	}
	switch {
	case end.Kind == spec.EndOutside:
		side.Subject = end.String()
	case s.Subject.Endpoint != nil:
		side.Node = s.Subject.Endpoint.Node
	}
	if s.Host != nil {
		side.HostEndpoint = s.Host.Name
	}
	for i := range s.Tiers {
		side.Tiers = append(side.Tiers, newTier(&s.Tiers[i], s.Direction))
	}
	if rng := newRange(s.Range()); rng != nil {
		side.Source = &Source{Range: *rng}
		if e, ok := config.Excerpt(s.Range()); ok {
			side.Source.Context, side.Source.Line, side.Source.Mark = e.Context, e.Line, e.Mark
		}
	}
	return side
}

func newTier(t *policy.TierStep, d spec.Direction) Tier {
	tier := Tier{Name: t.Tier.Name, Action: t.Action, Default: t.Default, Policies: []Policy{}}
	for _, p := range t.Policies {
		model := Policy{Kind: p.Policy.Kind, Name: p.Policy.Name, Range: newRange(p.Policy.Range), Rules: []Rule{}}
		for i := range p.Rules {
			model.Rules = append(model.Rules, newRule(&p.Rules[i], d))
		}
		tier.Policies = append(tier.Policies, model)
	}
	return tier
}

func newRule(r *policy.RuleStep, d spec.Direction) Rule {
	rule := Rule{
		Number: r.Index + 1, Action: r.Rule.Action, Text: policy.Describe(r.Rule, d), Matches: r.Matches(),
		PeerMatches: r.PeerMatches, ServiceMatches: r.ServiceMatches, Range: newRange(r.Rule.Range),
		Several: len(r.Rule.Peers) > 1 || len(r.Rule.Services) > 1,
	}
	if r.Peer != nil {
		rule.Peer = policy.PeerText(r.Peer)
	}
	if r.Set != nil {
		rule.NetworkSet = r.Set.Name
	}
	if r.Service != nil {
		rule.Service = r.Service.String()
	}
	return rule
}

// newRange is a range of a file, or nil where there is none.
func newRange(r hcl.Range) *Range {
	if r.Filename == "" {
		return nil
	}
	return &Range{Filename: r.Filename, Start: Position(r.Start), End: Position(r.End)}
}

// WriteText renders the explanation: the verdict, and for each end the rules
// that were looked at and the line that decided.
func (e Explanation) WriteText(w io.Writer, t Text) error {
	var b bytes.Buffer
	verdict := t.good("Allowed")
	switch e.Verdict {
	case string(spec.Deny):
		verdict = t.bad("Denied")
	case "mixed":
		verdict = t.warn("It depends")
	}
	fmt.Fprintf(&b, "%s: %s from %s to %s\n", verdict, e.Service, e.From, e.To)
	for _, c := range e.Cases {
		b.WriteString("\n")
		c.writeText(&b, t, len(e.Cases) > 1)
	}
	return flush(w, &b)
}

func (c Case) writeText(b *bytes.Buffer, t Text, several bool) {
	const most = 3
	var flows []string
	for i, f := range c.Flows {
		if i == most && !t.Verbose {
			flows = append(flows, fmt.Sprintf("and %d more", len(c.Flows)-most))
			break
		}
		flows = append(flows, f.From+" -> "+f.To)
	}
	line := strings.Join(flows, ", ")
	if several {
		line += ": " + paintVerdict(t, c.Verdict, past(c.Verdict))
	}
	b.WriteString(line + "\n")
	for _, s := range c.Sides {
		b.WriteString("\n")
		s.writeText(b, t)
	}
}

func past(a spec.Action) string {
	if a == spec.Allow {
		return "allowed"
	}
	return "denied"
}

func paintVerdict(t Text, a spec.Action, s string) string {
	if a == spec.Allow {
		return t.good(s)
	}
	return t.bad(s)
}

func (s Side) writeText(b *bytes.Buffer, t Text) {
	about := ""
	switch {
	case s.Assumed:
		about = ", assumed to be by host endpoint " + s.HostEndpoint
	case s.HostEndpoint != "":
		about = " by host endpoint " + s.HostEndpoint
	case s.Node != "":
		about = " on " + s.Node
	}
	verdict := past(s.Verdict)
	fmt.Fprintf(b, "%s of %s%s: %s%s\n", t.bold(string(s.Direction)), t.bold(s.Subject), about,
		paintVerdict(t, s.Verdict, verdict), strings.TrimPrefix(s.Why, verdict))
	width := 0
	for _, tier := range s.Tiers {
		for _, p := range tier.Policies {
			for _, r := range p.Rules {
				width = max(width, min(len(r.Text), ruleWidth))
			}
		}
	}
	for i, tier := range s.Tiers {
		tier.writeText(b, t, width, i == len(s.Tiers)-1)
	}
	s.Source.writeText(b, t)
}

// ruleWidth is how far the texts of rules are aligned.
const ruleWidth = 60

func (tier Tier) writeText(b *bytes.Buffer, t Text, width int, last bool) {
	came := ""
	switch {
	case tier.Default && tier.Action == spec.Pass:
		came = ": no rule matches, passed on by default"
	case tier.Default:
		came = ": no rule matches, denied by default"
	case tier.Action == spec.Pass:
		came = ": passed on"
	}
	fmt.Fprintf(b, "  tier %s%s\n", tier.Name, came)
	for i, p := range tier.Policies {
		p.writeText(b, t, width, last && !tier.Default && i == len(tier.Policies)-1)
	}
}

func (p Policy) writeText(b *bytes.Buffer, t Text, width int, decided bool) {
	place := ""
	if p.Range != nil {
		place = "  " + t.faint(p.Range.String())
	}
	name := p.Name
	if p.Kind != spec.KindPolicy {
		name = string(p.Kind) + " " + name
	}
	fmt.Fprintf(b, "    %s%s\n", name, place)
	if len(p.Rules) == 0 {
		fmt.Fprintf(b, "         %s\n", t.faint("no rules"))
	}
	const most = 8
	hidden := 0
	for i, r := range p.Rules {
		if !t.Verbose && !r.Matches && i >= most {
			hidden++
			continue
		}
		mark := " "
		if decided && i == len(p.Rules)-1 {
			mark = ">"
		}
		fmt.Fprintf(b, "     %s %2d  %-*s  %s\n", mark, r.Number, width, r.Text, r.result(t))
	}
	if hidden > 0 {
		fmt.Fprintf(b, "         %s\n", t.faint(count(hidden, "more rule")+" looked at that did not match (--verbose shows them)"))
	}
}

// result says what came of comparing a rule.
func (r Rule) result(t Text) string {
	switch {
	case r.Matches && r.NetworkSet != "":
		return "matches by network_set " + r.NetworkSet
	case r.Matches && r.Several:
		return strings.TrimRight("matches by "+strings.TrimPrefix(r.Peer+", "+r.Service, ", "), ", ")
	case r.Matches:
		return "matches"
	case !r.PeerMatches && !r.ServiceMatches:
		return t.faint("another peer and service")
	case !r.PeerMatches:
		return t.faint("another peer")
	}
	return t.faint("another service")
}

func (s *Source) writeText(b *bytes.Buffer, t Text) {
	if s == nil || s.Line == "" {
		return
	}
	in := ""
	if s.Context != "" {
		in = ", in " + s.Context
	}
	number := fmt.Sprintf("%4d: ", s.Start.Line)
	fmt.Fprintf(b, "  on %s line %d%s:\n  %s%s\n  %s%s\n", s.Filename, s.Start.Line, in,
		number, s.Line, strings.Repeat(" ", len(number)), t.warn(s.Mark))
}
