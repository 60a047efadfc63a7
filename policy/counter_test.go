package policy_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"pgregory.net/rapid"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/policy/drop"
	"github.com/poldernet/polder/spec"
)

// Whatever a node's rules count or log is known by the model of the spec,
// without the node, or is a reason to drop something; and each rule, and each tier in a direction, has a name of
// its own, which nft(8) takes.
func TestCountersAreKnown(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawWorld(t, spec.Allow, spec.Deny, spec.Pass, spec.Log)
		s.Enforcement = spec.Enforcement{LogDrops: rapid.Bool().Draw(t, "log drops"), LogGroup: 87, LogRate: 10}
		m, diags := policy.New(s)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		known := m.Counters()
		want := 2 * len(s.Tiers)
		for _, p := range s.Policies {
			for _, d := range p.Types {
				want += len(p.Rules(d))
			}
		}
		if len(known) != want {
			t.Fatalf("%d rules and tiers have %d names", want, len(known))
		}
		for name, c := range known {
			if name != c.Name() || len(name)+len(" reply") >= 128 || strings.ContainsFunc(name, func(r rune) bool { return r > 'z' || r <= ' ' || r == '"' }) {
				t.Fatalf("%q is the name of %q", name, c.Name())
			}
		}
		for _, n := range s.Nodes {
			c := policy.Compile(m, policy.Host{Node: n, Bridge: "cni0"}, nft.Table{})
			counters := c.Counters()
			refers := func(name string) {
				if r := drop.Reason(name); slices.Contains(drop.Reasons(), r) {
					if counters[name].Drop != r {
						t.Fatalf("%q is %v on %s", name, counters[name], n.Name)
					}
				} else if k, ok := known[name]; !ok || fmt.Sprint(k) != fmt.Sprint(counters[name]) {
					t.Fatalf("%q is %v to the model, and %v on %s", name, k, counters[name], n.Name)
				}
				if !slices.Contains(c.Table.Counters, name) {
					t.Fatalf("there is no counter %q", name)
				}
			}
			for _, chain := range c.Table.Chains {
				for _, r := range chain.Rules {
					for _, e := range r.Exprs {
						switch e := e.(type) {
						case nft.CounterRef:
							refers(e.Name)
						case nft.Log:
							name, _ := policy.Logged(e.Prefix)
							refers(name)
						}
					}
				}
			}
		}
	})
}

// A counter's name stays where other rules come, go and move, and where lines
// do; it is another one where the rule says something else.
func TestCounterNamesStay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := block("p", "default", 1, "all()")
		for range rapid.IntRange(1, 6).Draw(t, "rules") {
			rules(p, spec.Ingress, does(rapid.SampledFrom([]spec.Action{spec.Allow, spec.Deny}).Draw(t, "action"), drawPeers(t), drawServices(t)...))
		}
		says := func(list []policy.Counter) map[string][]string {
			names := map[string][]string{}
			for _, c := range list {
				text := policy.Describe(&p.Ingress[c.Rule-1], spec.Ingress)
				names[text] = append(names[text], c.Name())
			}
			return names
		}
		before := says(policy.Counters(p, spec.Ingress))
		p.Ingress = rapid.Permutation(p.Ingress).Draw(t, "order")
		if rapid.Bool().Draw(t, "more") {
			p.Ingress = slices.Insert(p.Ingress, rapid.IntRange(0, len(p.Ingress)).Draw(t, "at"), spec.Rule{Action: spec.Log})
		}
		for i := range p.Ingress {
			p.Ingress[i].Range = hcl.Range{Filename: "moved.hcl", Start: hcl.Pos{Line: i}}
		}
		order := 7.0
		p.Order, p.Tier = &order, "early"
		after := says(policy.Counters(p, spec.Ingress))
		delete(after, "log")
		if fmt.Sprint(before) != fmt.Sprint(after) {
			t.Fatalf("%v became %v", before, after)
		}
		var all []string
		for _, names := range after {
			all = append(all, names...)
		}
		slices.Sort(all)
		if n := len(slices.Compact(slices.Clone(all))); n != len(all) {
			t.Fatalf("%d rules have %d names", len(all), n)
		}
		egress := block("p", "default", 1, "all()")
		egress.Egress = p.Ingress
		other := block("q", "default", 1, "all()")
		other.Ingress = p.Ingress
		for _, c := range slices.Concat(policy.Counters(egress, spec.Egress), policy.Counters(other, spec.Ingress)) {
			if slices.Contains(all, c.Name()) {
				t.Fatalf("%s is the name of another rule, too", c.Name())
			}
		}
	})
}

// What a tier's default action does is counted anew when it does something
// else.
func TestDefaultCounterIsOfAction(t *testing.T) {
	names := map[string]bool{}
	for _, action := range []spec.Action{spec.Deny, spec.Pass} {
		for _, d := range spec.Directions {
			names[policy.DefaultCounter(tier("t", 1, action), d).Name()] = true
		}
	}
	if len(names) != 4 {
		t.Error(names)
	}
}

// A packet that a rule matches in several ways is logged once, and all who come by
// the rule have one limit, in both families.
func TestLogRulesHaveOneLimit(t *testing.T) {
	p := block("p", "default", 1, "all()")
	p.Types = []spec.Direction{spec.Ingress}
	peers := []spec.Peer{pods("pod == 'a'"), cidr("10.0.0.0/8"), cidr("2001:db8::/32")}
	p.Ingress = []spec.Rule{does(spec.Log, peers, tcp(80), udp(80)), does(spec.Deny, peers, tcp(81), udp(81))}
	s := world(p)
	s.Enforcement = spec.Enforcement{LogDrops: true, LogGroup: 87, LogRate: 10}
	m, _ := policy.New(s)
	c := policy.Compile(m, policy.Host{Node: s.Nodes[0], Bridge: "cni0"}, nft.Table{})
	limits := 0
	for _, chain := range c.Table.Chains {
		for _, r := range chain.Rules {
			for _, e := range r.Exprs {
				if _, ok := e.(nft.Limit); ok {
					limits++
				}
			}
		}
	}
	if limits != 3 { // the rules', and the tier's
		t.Errorf("%d limits in\n%s", limits, nft.Ruleset{c.Table})
	}
}
