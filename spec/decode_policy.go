package spec

import (
	"math"
	"slices"

	"github.com/hashicorp/hcl/v2"

	"github.com/poldernet/polder/spec/selector"
)

// tier decodes a tier block into its instances.
func (decl *declarations) tier(d *decoder, b *hcl.Block) bool {
	return d.instantiate(tierBlock, b, func(s *section, id identity) {
		t := &tierDecl{place: id.place}
		t.Name, t.Range = id.name, b.DefRange
		order, st := s.order()
		switch {
		case order != nil:
			t.Order = *order
		case id.name == DefaultTier:
			t.Order = DefaultTierOrder
		case st == absent && id.known && !s.garbled:
			s.report(s.problem("Missing attribute", "%q is required for every tier but %q. %s", "order", DefaultTier, s.schema.attr("order").wanted()))
		}
		t.DefaultAction, _, _ = oneOf(s, "default_action", Deny, Deny, Pass)
		if id.known {
			decl.tiers = append(decl.tiers, t)
		}
	})
}

// order is the attribute of that name, or nil.
func (s *section) order() (*float64, state) {
	v, st := s.get("order")
	if st != known {
		return nil, st
	}
	order, _ := v.AsBigFloat().Float64()
	if math.IsInf(order, 0) {
		s.report(v.problem("Number out of range", "%q must be between %g and %g.", "order", -math.MaxFloat64, math.MaxFloat64))
		return nil, unknown
	}
	return &order, known
}

// policy decodes a policy block into its instances.
func (decl *declarations) policy(d *decoder, b *hcl.Block) bool {
	return d.instantiate(policyBlock, b, func(s *section, id identity) {
		p := &policyDecl{place: id.place}
		p.Kind, p.Name, p.Range = KindPolicy, id.name, b.DefRange
		tier, at, st := s.text("tier", DefaultTier)
		if p.Tier = tier; st == known && tier != DefaultTier {
			d.refer(tierBlock, tier, at)
		}
		p.Order, _ = s.order()
		s.selected(p)
		s.rules(p)
		if id.known {
			decl.policies = append(decl.policies, p)
		}
	})
}

// selected decodes what a policy selects.
func (s *section) selected(p *policyDecl) {
	namespace, at, namespaceState := s.text("namespace", "")
	if namespaceState == known && namespace == "" {
		namespaceState = absent
	}
	if namespaceState == known {
		p.Namespace = namespace
		if err := checkDNSLabel(namespace); err != nil {
			s.report(at.problem("Unsuitable namespace", "%q is no name for a namespace: %s.", namespace, err))
		}
	}
	var selectorState, hostState state
	var spacesAt, hostAt place
	p.Selector, _, selectorState = s.selector("selector")
	p.NamespaceSelector, spacesAt, _ = s.selector("namespace_selector")
	p.HostSelector, hostAt, hostState = s.selector("host_selector")
	if selectorState == absent && hostState == absent {
		p.Selector = selector.All()
	}
	if hostState != known {
		return
	}
	if namespaceState == known {
		s.report(hostAt.problem("Unsuitable host_selector", "Host endpoints are in no namespace, and the policy is of one (%s). Write two policies.", at))
	}
	if selectorState == absent && p.NamespaceSelector != nil {
		s.report(spacesAt.problem("Unsuitable namespace_selector", "With host_selector and no selector, the policy selects host endpoints only, which are in no namespace. With selector = \"all()\" it selects endpoints of these namespaces, too."))
	}
}

// rules decodes a policy's rules, and the directions in which it isolates.
func (s *section) rules(p *policyDecl) {
	for _, b := range s.blocks[ingressBlock.name] {
		p.Ingress = append(p.Ingress, s.rule(ingressBlock, fromBlock, b)...)
	}
	for _, b := range s.blocks[egressBlock.name] {
		p.Egress = append(p.Egress, s.rule(egressBlock, toBlock, b)...)
	}
	blocks := map[Direction]hcl.Blocks{Ingress: s.blocks[ingressBlock.name], Egress: s.blocks[egressBlock.name]}
	list, at, st := s.strings("types")
	switch st {
	case absent:
		// As in Calico. A rule that for_each makes no instance of counts: what
		// the policy isolates does not depend on values.
		if len(blocks[Ingress]) > 0 || len(blocks[Egress]) == 0 {
			p.Types = append(p.Types, Ingress)
		}
		if len(blocks[Egress]) > 0 {
			p.Types = append(p.Types, Egress)
		}
		return
	case known:
		if len(list) == 0 {
			s.report(at.problem("Unsuitable types", "A policy is about one direction at least. Leave types out to have those of its rules."))
			return
		}
	}
	understood := st == known
	for _, v := range list {
		d, ok := word(s, "types", v.AsString(), v.place, Directions)
		switch {
		case !ok:
			understood = false
		case slices.Contains(p.Types, d):
			s.report(v.problem("Unsuitable types", "%q is in the list already.", d))
		default:
			p.Types = append(p.Types, d)
		}
	}
	slices.SortFunc(p.Types, func(a, b Direction) int {
		return slices.Index(Directions, a) - slices.Index(Directions, b)
	})
	if !understood {
		return
	}
	for _, d := range Directions {
		for _, b := range blocks[d] {
			if !slices.Contains(p.Types, d) {
				s.report(place{rng: b.DefRange}.problem("Rule without effect", "The policy has an %s rule, and %q is not in its types (%s). Add it, or remove the rule.", d, d, at))
			}
		}
	}
}

// decodeEnforcement decodes the enforcement block, which may be missing.
func (d *decoder) decodeEnforcement(b *hcl.Block) enforcementDecl {
	const group, rate = 87, 10
	e := enforcementDecl{Enforcement: Enforcement{Established: Recheck, Unclaimed: UnclaimedOutside, Bridge: defaultBridge, LogGroup: group, LogRate: rate}}
	if b == nil {
		return e
	}
	s := d.open(enforcementBlock, b.Body, b.DefRange, d.ctx)
	e.Range = b.DefRange
	e.Established, _, _ = oneOf(s, "established", e.Established, Recheck, Keep)
	e.Unclaimed, _, _ = oneOf(s, "unclaimed", e.Unclaimed, UnclaimedOutside, UnclaimedDrop)
	e.Bridge, e.bridgeAt = s.ifName("bridge", e.Bridge)
	e.LogDrops = s.boolean("log_drops", false)
	n, _ := s.number("log_group", 0, math.MaxUint16, group)
	e.LogGroup = uint16(n)
	e.LogRate, _ = s.number("log_rate", 1, 10_000, rate)
	return e
}
