package spec

import (
	"net/netip"

	"github.com/hashicorp/hcl/v2"
)

// rule decodes an ingress or egress block into its instances.
func (s *section) rule(schema, peerSchema *block, b *hcl.Block) []Rule {
	outer := s.open(schema, b.Body, b.DefRange, s.ctx)
	instances, _ := outer.instances()
	var rules []Rule
	for _, inst := range instances {
		rs := *outer
		rs.ctx = inst.ctx
		r := Rule{Range: b.DefRange}
		r.Action, _, _ = oneOf(&rs, "action", "", Allow, Deny, Pass, Log)
		for _, b := range rs.blocks[peerSchema.name] {
			if r.Peers == nil {
				// Where for_each makes no instance, there are no peers, which
				// is not the same as every peer.
				r.Peers = []Peer{}
			}
			r.Peers = append(r.Peers, rs.peers(peerSchema, b)...)
		}
		r.Services = rs.services()
		rules = append(rules, r)
	}
	return rules
}

// services decodes the protocols and ports of a rule.
func (s *section) services() []Service {
	var out []Service
	var given []string
	var last place
	note := func(name string, at place, st state) {
		if st == known {
			given, last = append(given, name), at
		}
	}
	ports, at, st := s.strings("ports")
	note("ports", at, st)
	s.notEmpty("ports", ports, at, st)
	for _, v := range ports {
		service, err := parsePorts(v.AsString())
		if err != nil {
			s.report(v.problem("Unsuitable port", "ports cannot have %q: %s.", v.AsString(), err))
			continue
		}
		out = append(out, service)
	}
	protocol, at, st := s.text("protocol", "")
	note("protocol", at, st)
	if st == known {
		number, err := parseProtocol(protocol)
		if err != nil {
			s.report(at.problem("Unsuitable protocol", "%q is no protocol: %s.", protocol, err))
		}
		out = append(out, Service{Protocol: number})
	}
	messages, at, st := s.strings("icmp")
	note("icmp", at, st)
	s.notEmpty("icmp", messages, at, st)
	for _, v := range messages {
		services, err := parseICMP(v.AsString())
		if err != nil {
			s.report(v.problem("Unsuitable ICMP type", "icmp cannot have %q: %s.", v.AsString(), err))
			continue
		}
		out = append(out, services...)
	}
	if len(given) > 1 {
		s.report(last.problem("Unsuitable rule", "A rule has one of ports, protocol and icmp, and this one has %s. Write one rule for each.", enumerate(given)))
	}
	return out
}

// notEmpty refuses an empty list, which could be taken for nothing or for all.
func (s *section) notEmpty(name string, list []value, at place, st state) {
	if st == known && len(list) == 0 {
		s.report(at.problem("Empty list", "A rule with no %s matches nothing. Leave %s out for every protocol, or the rule.", name, name))
	}
}

// peers decodes a from or to block into its instances.
func (s *section) peers(schema *block, b *hcl.Block) []Peer {
	outer := s.open(schema, b.Body, b.DefRange, s.ctx)
	instances, _ := outer.instances()
	var peers []Peer
	for _, inst := range instances {
		ps := *outer
		ps.ctx = inst.ctx
		peers = append(peers, ps.peer())
	}
	return peers
}

// peer decodes one peer.
func (s *section) peer() Peer {
	p := Peer{Range: s.rng}
	var given []string
	var last place
	unclear := s.garbled // one of the kinds may have been meant
	note := func(name string, at place, st state) {
		switch st {
		case known:
			given, last = append(given, name), at
		case unknown:
			unclear = true
		}
	}
	byLabels, at, st := s.selector("selector")
	note("selector", at, st)
	namespaces, at, spacesState := s.selector("namespace_selector")
	if st == absent { // else it belongs to the selector
		note("namespace_selector", at, spacesState)
	}
	if byLabels != nil || namespaces != nil {
		p.Endpoints = &PeerSelector{Selector: byLabels, Namespaces: namespaces}
	}
	at, st = s.peerBlock(&p)
	note("cidr", at, st)
	for _, ref := range []struct {
		to  *block
		out *string
	}{{networkSetBlock, &p.NetworkSet}, {nodeBlock, &p.Node}} {
		name, at, st := s.text(ref.to.name, "")
		note(ref.to.name, at, st)
		if st == known {
			*ref.out = name
			s.refer(ref.to, name, at)
		}
	}
	if v, st := s.get("any"); st == unknown || st == known && v.True() {
		note("any", v.place, st)
		p.Any = true
	}
	const choose = "A peer is chosen by selector, namespace_selector or both; or by one of cidr, network_set, node and any = true"
	switch {
	case len(given) > 1:
		s.report(last.problem("Unsuitable peer", "%s. This one has %s. Write one block for each.", choose, enumerate(given)))
	case len(given) == 0 && !unclear:
		s.report(s.problem("Unsuitable peer", "%s. This one has none of them.", choose))
	}
	return p
}

// peerBlock decodes a peer's range of addresses with its holes.
func (s *section) peerBlock(p *Peer) (place, state) {
	cidr, st := s.get("cidr")
	var whole netip.Prefix
	if st == known {
		whole, _ = s.block(cidr)
		p.Block = &Block{CIDR: whole}
	}
	holes, at, holesState := s.strings("except")
	if st == absent && holesState != absent {
		s.report(at.problem("Unsuitable peer", "except is a part of cidr, which is missing."))
		return at, unknown
	}
	for _, v := range holes {
		hole, ok := s.block(v)
		if !ok || !whole.IsValid() {
			continue
		}
		const summary = "Unsuitable exception"
		family := FamilyOf(whole.Addr())
		switch {
		case FamilyOf(hole.Addr()) != family:
			s.report(v.problem(summary, "%s is of %s, and cidr %s of %s.", hole, family.Other().proper(), whole, family.proper()))
		case !whole.Overlaps(hole):
			s.report(v.problem(summary, "%s is not in cidr %s.", hole, whole))
		case hole.Bits() <= whole.Bits():
			s.report(v.problem(summary, "%s leaves nothing of cidr %s.", hole, whole))
		default:
			p.Block.Except = append(p.Block.Except, hole)
		}
	}
	return cidr.place, st
}
