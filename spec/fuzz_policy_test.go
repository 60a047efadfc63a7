package spec

import (
	"cmp"
	"slices"
	"testing"
)

// checkPolicies checks what holds of the policies of every spec: whoever
// compiles or evaluates them does not look again.
func checkPolicies(t *testing.T, s *Spec) {
	t.Helper()
	tiers := make(map[string]bool)
	for _, tier := range s.Tiers {
		tiers[tier.Name] = true
		if tier.DefaultAction != Deny && tier.DefaultAction != Pass {
			t.Errorf("tier %+v", tier)
		}
	}
	sorted := slices.IsSortedFunc(s.Tiers, func(a, b *Tier) int {
		return cmp.Or(cmp.Compare(a.Order, b.Order), cmp.Compare(a.Name, b.Name))
	})
	if !tiers[DefaultTier] || len(tiers) != len(s.Tiers) || !sorted {
		t.Errorf("tiers %+v", s.Tiers)
	}
	sets := make(map[string]bool)
	for _, n := range s.NetworkSets {
		sets[n.Name] = true
		for _, p := range n.CIDRs {
			if p != p.Masked() || p.Addr().Is4In6() || p.Addr().Zone() != "" {
				t.Errorf("network set %+v", n)
			}
		}
	}
	names := make(map[string]bool)
	for _, p := range s.Policies {
		if !tiers[p.Tier] || names[p.Name] || len(p.Types) == 0 || p.Kind != KindPolicy {
			t.Errorf("policy %+v", p)
		}
		names[p.Name] = true
		if p.Selector == nil && p.HostSelector == nil || p.HostSelector != nil && p.Namespace != "" {
			t.Errorf("policy %s selects %+v", p.Name, p)
		}
		for _, d := range Directions {
			if len(p.Rules(d)) > 0 && !p.Applies(d) {
				t.Errorf("policy %s has rules without effect", p.Name)
			}
			for _, r := range p.Rules(d) {
				checkRule(t, s, r, sets)
			}
		}
	}
	for _, h := range s.HostEndpoints {
		if s.Node(h.Node) == nil || h.Interface == "" || h.FailsafeInbound == nil || h.FailsafeOutbound == nil {
			t.Errorf("host endpoint %+v", h)
		}
		for _, service := range slices.Concat(h.FailsafeInbound, h.FailsafeOutbound) {
			checkService(t, h.Name, service)
		}
	}
	for _, c := range s.Checks {
		checkAsked(t, s, c)
	}
	e := s.Enforcement
	if e.LogRate < 1 || e.Established != Recheck && e.Established != Keep || e.Unclaimed != UnclaimedOutside && e.Unclaimed != UnclaimedDrop {
		t.Errorf("enforcement %+v", e)
	}
}

func checkRule(t *testing.T, s *Spec, r Rule, sets map[string]bool) {
	t.Helper()
	if !slices.Contains([]Action{Allow, Deny, Pass, Log}, r.Action) || r.Services != nil && len(r.Services) == 0 {
		t.Errorf("rule %+v", r)
	}
	for _, service := range r.Services {
		checkService(t, "a rule", service)
	}
	for _, p := range r.Peers {
		kinds := 0
		for _, set := range []bool{p.Endpoints != nil, p.Block != nil, p.NetworkSet != "", p.Node != "", p.Any} {
			if set {
				kinds++
			}
		}
		if kinds != 1 || p.NetworkSet != "" && !sets[p.NetworkSet] || p.Node != "" && s.Node(p.Node) == nil {
			t.Errorf("peer %+v", p)
		}
		if p.Endpoints != nil && p.Endpoints.Selector == nil && p.Endpoints.Namespaces == nil {
			t.Errorf("peer %+v", p.Endpoints)
		}
		if p.Block == nil {
			continue
		}
		for _, hole := range p.Block.Except {
			if !p.Block.CIDR.Contains(hole.Addr()) || hole.Bits() <= p.Block.CIDR.Bits() {
				t.Errorf("block %+v", p.Block)
			}
		}
	}
}

func checkAsked(t *testing.T, s *Spec, c *Check) {
	t.Helper()
	if c.Expect != Allow && c.Expect != Deny || len(c.Services) == 0 {
		t.Errorf("check %+v", c)
	}
	for _, end := range []End{c.From, c.To} {
		there := slices.ContainsFunc(s.Endpoints, func(e *Endpoint) bool { return e.Name == end.Name && len(e.Addresses) > 0 })
		switch {
		case end.Kind == EndEndpoint && there, end.Kind == EndNode && s.Node(end.Name) != nil:
		case end.Kind == EndAddress && end.Address.IsValid(), end.Kind == EndOutside:
		default:
			t.Errorf("check %s has the end %+v", c.Name, end)
		}
	}
	for _, service := range c.Services {
		if service.Name != "" || service.Ports.First != service.Ports.Last {
			t.Errorf("check %s asks for %s", c.Name, service)
		}
	}
}
