package policy_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

// drawWorld is the world with policies of all that a spec can say.
func drawWorld(t *rapid.T, actions ...spec.Action) *spec.Spec {
	s := world()
	s.Tiers = append(s.Tiers, tier("early", 10, rapid.SampledFrom([]spec.Action{spec.Deny, spec.Pass}).Draw(t, "default")), tier("early-too", 10, spec.Pass))
	s.NetworkSets = []*spec.NetworkSet{
		{Name: "office", Labels: map[string]string{"zone": "office"}, CIDRs: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8:7::/48")}},
		{Name: "odd", Labels: map[string]string{"pod": "a"}, CIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.10/31"), netip.MustParsePrefix("198.51.100.128/25")}},
	}
	s.HostEndpoints = []*spec.HostEndpoint{
		{Name: "h1", Node: "n1", Interface: spec.AllInterfaces, Labels: map[string]string{"host": "one"}, FailsafeInbound: []spec.Service{tcp(22)}, FailsafeOutbound: []spec.Service{udp(53)}},
	}
	for i, e := range s.Endpoints {
		if rapid.Bool().Draw(t, "role") {
			e.Labels["role"] = rapid.SampledFrom([]string{"", "web"}).Draw(t, "value")
		}
		e.Ports["web"] = spec.Port{Number: uint16(8080 + i%2), Protocol: rapid.SampledFrom([]string{"tcp", "udp"}).Draw(t, "protocol")}
	}
	for i := range rapid.IntRange(0, 6).Draw(t, "policies") {
		s.Policies = append(s.Policies, drawPolicy(t, fmt.Sprintf("p%d", i), actions))
	}
	return s
}

var selectors = []string{"all()", "pod == 'a'", "pod != 'a'", "has(role)", "role == ''", "role in {'web'}", "role not in {'web'}", "pod == 'b' || role == 'web'", "zone == 'office'"}

func drawSelector(t *rapid.T, label string) string {
	return rapid.SampledFrom(selectors).Draw(t, label)
}

func drawPolicy(t *rapid.T, name string, actions []spec.Action) *spec.Policy {
	if rapid.Bool().Draw(t, "kubernetes") {
		p := kube(rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "namespace")+"/"+name, drawSelector(t, "selector"))
		drawRules(t, p, []spec.Action{spec.Allow})
		return p
	}
	p := block(name, rapid.SampledFrom([]string{"default", "early", "early-too"}).Draw(t, "tier"), float64(rapid.IntRange(0, 2).Draw(t, "order")), drawSelector(t, "selector"))
	if rapid.Bool().Draw(t, "unordered") {
		p.Order = nil
	}
	switch rapid.IntRange(0, 3).Draw(t, "about") {
	case 0:
		p.Namespace = rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "namespace")
	case 1:
		p.NamespaceSelector = sel("ns != 'y'")
	case 2:
		p.HostSelector = sel("host == 'one'")
	}
	drawRules(t, p, actions)
	return p
}

func drawRules(t *rapid.T, p *spec.Policy, actions []spec.Action) {
	for _, d := range spec.Directions {
		if !rapid.Bool().Draw(t, string(d)) {
			continue
		}
		p.Types = append(p.Types, d)
		for range rapid.IntRange(0, 3).Draw(t, "rules") {
			rules(p, d, does(rapid.SampledFrom(actions).Draw(t, "action"), drawPeers(t), drawServices(t)...))
		}
	}
}

func drawPeers(t *rapid.T) []spec.Peer {
	if rapid.Bool().Draw(t, "every peer") {
		return nil
	}
	list := []spec.Peer{}
	for range rapid.IntRange(0, 2).Draw(t, "peers") {
		list = append(list, rapid.OneOf(
			rapid.Custom(func(t *rapid.T) spec.Peer { return pods(drawSelector(t, "peer")) }),
			rapid.Custom(func(t *rapid.T) spec.Peer {
				return podsIn(rapid.SampledFrom([]string{"all()", "ns == 'x'", "ns != 'x'"}).Draw(t, "in"), drawSelector(t, "peer"))
			}),
			rapid.SampledFrom([]spec.Peer{
				{Any: true}, {Node: "n1"}, {Node: "n2"}, {NetworkSet: "office"}, {NetworkSet: "odd"},
				cidr("0.0.0.0/0", "10.244.1.0/24", "198.51.100.64/26"), cidr("::/0"), cidr("10.244.1.20/30", "10.244.1.21/32"),
				cidr("fd00:10:244::/48", "fd00:10:244:2::/64"), cidr("192.0.2.0/24", "192.0.2.12/32"), cidr("203.0.113.0/24"),
			}),
		).Draw(t, "kind"))
	}
	return list
}

func drawServices(t *rapid.T) []spec.Service {
	return rapid.SliceOfN(rapid.SampledFrom([]spec.Service{
		tcp(80), udp(80), ports(spec.ProtocolTCP, 80, 90), ports(spec.ProtocolTCP, 1, 65535), {Protocol: spec.ProtocolUDP}, ports(spec.ProtocolSCTP, 65535, 65535),
		named(0, "web"), named(spec.ProtocolTCP, "web"), named(spec.ProtocolUDP, "serve-81-udp"), named(0, "nothing"), {Protocol: 47},
		{Protocol: spec.ProtocolICMP}, {Protocol: spec.ProtocolICMP, ICMP: &spec.ICMP{Type: 8}}, {Protocol: spec.ProtocolICMPv6, ICMP: &spec.ICMP{Type: 128, Code: new(uint8)}},
	}), 0, 3).Draw(t, "services")
}

var anyAction = []spec.Action{spec.Allow, spec.Deny, spec.Pass, spec.Log}

// drawFlow is a flow between two of the addresses.
func drawFlow(t *rapid.T, addresses []netip.Addr) policy.Flow {
	f := policy.Flow{From: rapid.SampledFrom(addresses).Draw(t, "from")}
	f.To = rapid.SampledFrom(slices.DeleteFunc(slices.Clone(addresses), func(a netip.Addr) bool { return a.Is4() != f.From.Is4() })).Draw(t, "to")
	drawService(t, &f)
	return f
}

func drawService(t *rapid.T, f *policy.Flow) {
	icmp := uint8(spec.ProtocolICMP)
	if f.From.Is6() {
		icmp = spec.ProtocolICMPv6
	}
	f.Protocol = rapid.SampledFrom([]uint8{spec.ProtocolTCP, spec.ProtocolUDP, spec.ProtocolSCTP, icmp, 47, 50}).Draw(t, "protocol")
	switch f.Protocol {
	case icmp:
		f.Type, f.Code = rapid.SampledFrom([]uint8{8, 13, 128, 139}).Draw(t, "type"), rapid.Uint8Range(0, 1).Draw(t, "code")
	case 47, 50:
	default:
		f.Port = rapid.SampledFrom([]uint16{1, 22, 53, 79, 80, 81, 90, 91, 8080, 8081, 8472, 65535}).Draw(t, "port")
	}
}

// everybody are addresses of all kinds.
func everybody(s *spec.Spec) []netip.Addr {
	var list []netip.Addr
	for _, e := range s.Endpoints {
		list = append(list, e.Addresses...)
	}
	for _, n := range s.Nodes {
		list = append(list, policy.NodeAddresses(n)...)
	}
	for _, text := range []string{"203.0.113.1", "198.51.100.1", "198.51.100.65", "198.51.100.200", "8.8.8.8", "2001:db8:7::1", "3fff::1", "192.0.2.77"} {
		list = append(list, netip.MustParseAddr(text))
	}
	return list
}

// In what order a file declares things does not matter.
func TestOrderOfDeclarationDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawWorld(t, anyAction...)
		shuffled := *s
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		shuffled.Policies, shuffled.Tiers = permuted(r, s.Policies), permuted(r, s.Tiers)
		shuffled.Endpoints, shuffled.NetworkSets, shuffled.Nodes = permuted(r, s.Endpoints), permuted(r, s.NetworkSets), permuted(r, s.Nodes)
		shuffled.Namespaces = permuted(r, s.Namespaces)
		one, other := model(t, s), model(t, &shuffled)
		for range 20 {
			f := drawFlow(t, everybody(s))
			if a, b := one.Evaluate(f), other.Evaluate(f); !policy.Alike(&a, &b) {
				t.Fatalf("%+v: %s and %s, %s and %s", f, a.Sides[0].Why(), a.Sides[1].Why(), b.Sides[0].Why(), b.Sides[1].Why())
			}
		}
	})
}

func permuted[T any](r *rand.Rand, list []T) []T {
	list = slices.Clone(list)
	r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

// Where all rules allow, and tiers deny the rest, one more allows no less; and
// one more policy that isolates denies no less where it has no rule.
func TestAllowOnlyIsMonotonous(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawWorld(t, spec.Allow)
		for _, p := range s.Policies {
			p.Tier = spec.DefaultTier
		}
		if len(s.Policies) == 0 {
			return
		}
		more := *s
		more.Policies = slices.Clone(s.Policies)
		i := rapid.IntRange(0, len(s.Policies)-1).Draw(t, "policy")
		p := *s.Policies[i]
		if len(p.Types) == 0 {
			return
		}
		d := rapid.SampledFrom(p.Types).Draw(t, "direction")
		p.Ingress, p.Egress = slices.Clone(p.Ingress), slices.Clone(p.Egress)
		more.Policies[i] = rules(&p, d, allow(drawPeers(t), drawServices(t)...))
		less := *s
		less.Policies = append(slices.Clone(s.Policies), block("isolate", spec.DefaultTier, 0, drawSelector(t, "isolated"), spec.Directions...))
		before, after, isolated := model(t, s), model(t, &more), model(t, &less)
		for range 20 {
			f := drawFlow(t, everybody(s))
			if before.Evaluate(f).Verdict == spec.Allow && after.Evaluate(f).Verdict == spec.Deny {
				t.Fatalf("%+v: one more rule that allows denies it", f)
			}
			if before.Evaluate(f).Verdict == spec.Deny && isolated.Evaluate(f).Verdict == spec.Allow {
				t.Fatalf("%+v: a policy without rules allows it", f)
			}
		}
	})
}

// The verdict is that of the path that the decision shows.
func TestPathLeadsToVerdict(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawWorld(t, anyAction...)
		m := model(t, s)
		f := drawFlow(t, everybody(s))
		d := m.Evaluate(f)
		if (d.Verdict == spec.Allow) != (d.Sides[0].Verdict == spec.Allow && d.Sides[1].Verdict == spec.Allow) {
			t.Fatalf("%+v: %s of %s and %s", f, d.Verdict, d.Sides[0].Verdict, d.Sides[1].Verdict)
		}
		for _, side := range d.Sides {
			for i, tier := range side.Tiers {
				last := i == len(side.Tiers)-1
				if (tier.Action != spec.Pass) && (!last || tier.Action != side.Verdict) {
					t.Fatalf("%+v: tier %d of %d has %s", f, i, len(side.Tiers), tier.Action)
				}
				for j, p := range tier.Policies {
					for k, r := range p.Rules {
						decides := r.Matches() && r.Rule.Action != spec.Log
						end := j == len(tier.Policies)-1 && k == len(p.Rules)-1 && !tier.Default
						if decides != end || decides && r.Rule.Action != tier.Action {
							t.Fatalf("%+v: rule %d of %s matches: %v", f, k, p.Policy.ID(), decides)
						}
					}
				}
			}
			if p, r := side.Decider(); (p != nil) != (side.Reason == policy.ReasonRule) || r != nil && !r.Matches() {
				t.Fatalf("%+v: %s without a rule", f, side.Reason)
			}
		}
	})
}

// The matrix says of any flow between members what the evaluator does.
func TestMatrixIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawWorld(t, anyAction...)
		m := model(t, s)
		x := m.Matrix()
		for range 20 {
			i, j := rapid.IntRange(0, len(x.Groups)-1).Draw(t, "row"), rapid.IntRange(0, len(x.Groups)-1).Draw(t, "column")
			from, to := drawMember(t, s, x.Groups[i]), drawMember(t, s, x.Groups[j])
			if x.Cells[i][j].Empty || from.name == to.name || from.kind != spec.EndAddress && to.kind != spec.EndAddress && from.kind != to.kind && from.node == to.node {
				continue
			}
			family := rapid.SampledFrom(spec.Families[:]).Draw(t, "family")
			reach := x.Cells[i][j].Reach.Get(family)
			var f policy.Flow
			verdict := spec.Deny
			first := true
			for _, f.From = range from.addresses {
				for _, f.To = range to.addresses {
					if spec.FamilyOf(f.From) != family || spec.FamilyOf(f.To) != family {
						continue
					}
					if first {
						drawService(t, &f)
						first = false
					}
					if m.Evaluate(f).Verdict == spec.Allow {
						verdict = spec.Allow
					}
				}
			}
			if first {
				continue
			}
			if got := said(reach, f); got != verdict {
				t.Fatalf("%s to %s, %+v: %s by the matrix (%s), and %s", from.name, to.name, f, got, x.Cells[i][j], verdict)
			}
		}
	})
}

// member is one of a group.
type member struct {
	kind       spec.EndKind
	name, node string
	addresses  []netip.Addr
}

func drawMember(t *rapid.T, s *spec.Spec, g policy.Group) member {
	name := rapid.SampledFrom(g.Members).Draw(t, "member")
	m := member{kind: g.Kind, name: name}
	switch g.Kind {
	case spec.EndEndpoint:
		m.node, m.addresses = endpoint(s, name).Node, endpoint(s, name).Addresses
	case spec.EndNode:
		m.node, m.addresses = name, policy.NodeAddresses(s.Node(name))
	case spec.EndOutside:
		m.kind, m.addresses = spec.EndAddress, []netip.Addr{netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("3fff::1")}
	case spec.EndAddress:
		if strings.Contains(name, "/") {
			m.addresses = []netip.Addr{netip.MustParsePrefix(name).Addr().Next()}
		}
	}
	return m
}

// said is what a matrix says of a flow.
func said(r *policy.Reach, f policy.Flow) spec.Action {
	in := func(list []policy.Span, protocol uint8) bool {
		n := f.Port
		if f.Protocol == spec.ProtocolICMP || f.Protocol == spec.ProtocolICMPv6 {
			n = uint16(f.Type)<<8 | uint16(f.Code)
		}
		return slices.ContainsFunc(list, func(s policy.Span) bool {
			return s.Protocol == protocol && (protocol == 0 || s.First <= n && n <= s.Last)
		})
	}
	for _, protocol := range []uint8{f.Protocol, 0} {
		switch allowed, denied := in(r.Allowed, protocol), in(r.Denied, protocol); {
		case allowed && denied:
			return "both"
		case allowed:
			return spec.Allow
		case denied:
			return spec.Deny
		}
	}
	return "neither"
}
