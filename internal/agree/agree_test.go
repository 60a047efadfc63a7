package agree

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/poldernet/polder/internal/verdict"
	"github.com/poldernet/polder/internal/world"
	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

// mostFlows bounds the flows that are asked for of one world.
const mostFlows = 200

// The evaluator, and an interpreter of what the compiler makes for each node,
// say the same of every flow, also of its answers, and whatever NAT does to it.
func TestEvaluatorAndRulesAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sp := world.Draw(t)
		drawBackend(t, sp)
		m := model(t, sp)
		rules := map[string]nft.Table{}
		for _, n := range sp.Nodes {
			h := host(n)
			h.Links = vteps(sp)
			rules[n.Name] = policy.Compile(m, h, nft.Table{}).Table
		}
		compare(t, sp, m, rules, rapid.Uint64().Draw(t, "flows"))
	})
}

func model(t *rapid.T, sp *spec.Spec) *policy.Model {
	m, diags := policy.New(sp)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return m
}

// drawBackend has VXLAN carry what goes between subnets, or not.
func drawBackend(t *rapid.T, sp *spec.Spec) {
	kind := rapid.IntRange(0, 3).Draw(t, "backend")
	if kind == 0 {
		return // host-gw
	}
	n := *sp.Network
	n.Backend = spec.Backend{
		Type: spec.VXLAN, VNI: 1, Port: 8472, DirectRouting: kind > 1,
		Device: spec.PerFamily[string]{IPv4: "polder.1", IPv6: "polder-v6.1"},
	}
	sp.Network = &n
	for i, node := range sp.Nodes {
		c := *node
		c.Addresses = slices.Clone(c.Addresses)
		for k, a := range c.Addresses {
			bits := map[bool]int{true: 24, false: 64}[a.Addr.Is4()]
			if kind == 3 {
				bits = a.Addr.BitLen() // each on a link of its own
			}
			c.Addresses[k].Link = netip.PrefixFrom(a.Addr, bits)
		}
		sp.Nodes[i] = &c
	}
	// Endpoints and host endpoints name nodes, and do not refer to them.
}

// vteps are the interfaces by which VXLAN leaves a node.
func vteps(sp *spec.Spec) []string {
	if sp.Network.Backend.Type != spec.VXLAN {
		return nil
	}
	return []string{sp.Network.Backend.Device.IPv4, sp.Network.Backend.Device.IPv6}
}

func host(n *spec.Node) policy.Host { return policy.Host{Node: n, Bridge: world.Bridge} }

// disagreement begins the report of one.
const disagreement = "the evaluator and the rules disagree"

// compare holds the evaluator and the rules of the nodes together.
func compare(t *rapid.T, sp *spec.Spec, m *policy.Model, tables map[string]nft.Table, seed uint64) {
	rules := map[string]*verdict.Rules{}
	for name, table := range tables {
		loaded, err := verdict.Load(nft.Ruleset{table})
		if err != nil {
			t.Fatalf("%v\nof\n%s", err, table)
		}
		rules[name] = loaded
	}
	for i, f := range flows(sp, mostFlows, seed) {
		d := m.Evaluate(f.Flow)
		nat := translations[i%len(translations)]
		for _, answers := range []bool{false, true} {
			for _, p := range passages(f, nat, answers) {
				v, err := rules[p.node.Name].Judge(p.hook, &p.packet)
				if err != nil {
					t.Fatalf("%v\nof\n%s", err, tables[p.node.Name])
				}
				if v.Accepted != (allows(d, p.node) || answers && kept(sp)) {
					t.Fatalf(disagreement+" on %s: %s\nanswers: %t, %+v; evaluated, egress: %s (%s), ingress: %s (%s); accepted at %s: %t (dropped by %s)\n%s\n%s",
						p.node.Name, f, answers, nat, d.Sides[0].Verdict, d.Sides[0].Reason, d.Sides[1].Verdict, d.Sides[1].Reason,
						p.hook, v.Accepted, v.Dropped, world.HCL(sp), text(tables))
				}
			}
		}
	}
}

// kept says that connections that are open are not judged.
func kept(sp *spec.Spec) bool { return sp.Enforcement.Established == spec.Keep }

// allows says that a node lets a flow pass at its end or ends of it.
func allows(d policy.Decision, n *spec.Node) bool {
	for _, s := range d.Sides {
		on := s.Subject.Node == n || s.Subject.Endpoint != nil && s.Subject.Endpoint.Node == n.Name
		if on && s.Verdict != spec.Allow {
			return false
		}
	}
	return true
}

func text(tables map[string]nft.Table) string {
	var b strings.Builder
	for _, name := range world.Nodes {
		fmt.Fprintf(&b, "# %s\n%s", name, tables[name])
	}
	return b.String()
}
