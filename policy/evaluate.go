package policy

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/poldernet/polder/spec"
)

// Evaluate judges a flow. It is written to be read: the rules that a node has
// are made by other code, and compared with what it says.
func (m *Model) Evaluate(f Flow) Decision {
	d := Decision{Flow: f, From: m.party(f.From), To: m.party(f.To), Verdict: spec.Deny}
	d.Sides = [2]Side{
		m.side(spec.Egress, f, d.From, d.To),
		m.side(spec.Ingress, f, d.To, d.From),
	}
	if d.Sides[0].Verdict == spec.Allow && d.Sides[1].Verdict == spec.Allow {
		d.Verdict = spec.Allow
	}
	return d
}

// party is who has an address. An endpoint that has a node's is an endpoint.
func (m *Model) party(a netip.Addr) Party {
	if e := m.endpoints[a]; e != nil {
		return Party{Address: a, Endpoint: e}
	}
	return Party{Address: a, Node: m.nodes[a]}
}

// side judges one end of a flow: subject's, with other at the other end.
func (m *Model) side(d spec.Direction, f Flow, subject, other Party) Side {
	s := Side{Direction: d, Subject: subject, Verdict: spec.Allow}
	switch {
	case subject.Endpoint == nil && subject.Node == nil:
		s.Reason = ReasonOutside
	case subject.Endpoint == other.Endpoint && subject.Node == other.Node:
		s.Reason = ReasonItself
	case d == spec.Ingress && runsOn(subject.Endpoint, other.Node):
		s.Reason = ReasonOwnNode // its probes must not fail
	case subject.Endpoint != nil:
		m.judge(&s, f, other, func(p *spec.Policy) bool { return m.isAbout(p, subject.Endpoint) })
	case runsOn(other.Endpoint, subject.Node):
		s.Reason = ReasonOwnNode // by the bridge, which has no host endpoint
	case m.isTunnel(f):
		s.Reason = ReasonTunnel // the guard sees to it
	default:
		m.judgeHost(&s, f, other)
	}
	return s
}

func runsOn(e *spec.Endpoint, n *spec.Node) bool { return e != nil && n != nil && e.Node == n.Name }

// isTunnel says that a flow between nodes is one that carries those of pods.
func (m *Model) isTunnel(f Flow) bool {
	n := m.spec.Network
	return n != nil && n.Backend.Type == spec.VXLAN && m.nodes[f.From] != nil && m.nodes[f.To] != nil &&
		f.Protocol == spec.ProtocolUDP && f.Port == n.Backend.Port
}

// judgeHost judges what passes an interface of a node.
func (m *Model) judgeHost(s *Side, f Flow, other Party) {
	name, failsafes := f.FromInterface, func(h *spec.HostEndpoint) []spec.Service { return h.FailsafeOutbound }
	if s.Direction == spec.Ingress {
		name, failsafes = f.ToInterface, func(h *spec.HostEndpoint) []spec.Service { return h.FailsafeInbound }
	}
	guess := false
	if name == "" {
		name, guess = m.vtep(f)
	}
	s.Host, s.Assumed = m.hostEndpoint(s.Subject.Node.Name, name)
	s.Assumed = s.Assumed || guess && s.Host != nil
	if s.Host == nil {
		s.Reason = ReasonNoHostEndpoint
		return
	}
	list := failsafes(s.Host)
	for i := range list {
		if m.isOf(f, &list[i]) {
			s.Reason, s.Failsafe = ReasonFailsafe, &list[i]
			return
		}
	}
	m.judge(s, f, other, func(p *spec.Policy) bool { return isAboutHost(p, s.Host) })
}

// hostEndpoint is the one of a node's interface. Where the interface is not
// known it is a guess if there are several.
func (m *Model) hostEndpoint(node, name string) (h *spec.HostEndpoint, guess bool) {
	var all []*spec.HostEndpoint
	for _, h := range m.spec.HostEndpoints {
		if h.Node == node {
			all = append(all, h)
		}
	}
	// The one for all interfaces is for those that have none of their own.
	slices.SortFunc(all, func(a, b *spec.HostEndpoint) int {
		return cmp.Or(wildcards(a)-wildcards(b), cmp.Compare(a.Name, b.Name))
	})
	if name == "" && len(all) > 0 {
		if last := all[len(all)-1]; last.Interface == spec.AllInterfaces {
			return last, len(all) > 1
		}
		return all[0], len(all) > 1
	}
	for _, h := range all {
		if h.Interface == name || h.Interface == spec.AllInterfaces && !m.isInside(name) {
			return h, false
		}
	}
	return nil, false
}

// isInside says that an interface is none that AllInterfaces stands for: it is
// loopback, or leads to pods.
func (m *Model) isInside(link string) bool {
	if link == "lo" || link == m.spec.Enforcement.Bridge {
		return true
	}
	n := m.spec.Network
	return n != nil && n.Backend.Type == spec.VXLAN && slices.ContainsFunc(n.Pods, func(r spec.PodRange) bool {
		return n.Backend.Device.Get(m.underlay.Get(r.Family())) == link
	})
}

// vtep is the interface by which a flow leaves a node and enters another one
// where VXLAN carries it in both directions: both ends are in the subnets of
// nodes, or the one that sends is a node, which masquerades what it sends to pods of
// others as its VTEP. With another end outside of these, answers and
// what they answer go by different interfaces, and the other one judges. It is ""
// where VXLAN does not carry it, and a guess where nodes that share a link do
// without and the spec does not say whether these two share one.
func (m *Model) vtep(f Flow) (name string, guess bool) {
	from, to := m.sender(f.From), m.home(f.To)
	if from == nil || to == nil || from == to || m.spec.Network.Backend.Type != spec.VXLAN {
		return "", false
	}
	backend := &m.spec.Network.Backend
	pods := spec.FamilyOf(f.To)
	underlay := m.underlay.Get(pods)
	if backend.DirectRouting && underlay == pods {
		a, _ := from.Address(underlay)
		b, _ := to.Address(underlay)
		switch {
		case !a.Link.IsValid() || !b.Link.IsValid():
			return "", true
		case a.Link.Contains(b.Addr) && b.Link.Contains(a.Addr):
			return "", false
		}
	}
	return backend.Device.Get(underlay), false
}

// sender is the node that sends to pods from one of its subnet's addresses, though
// it be by masquerading; nil: there is none.
func (m *Model) sender(a netip.Addr) *spec.Node {
	if n := m.home(a); n != nil || m.spec.Network == nil || m.spec.Network.Masquerade == nil {
		return n
	}
	return m.Node(a)
}

// home is the node in whose subnet an address is, or nil.
func (m *Model) home(a netip.Addr) *spec.Node {
	if m.spec.Network == nil {
		return nil
	}
	f := spec.FamilyOf(a)
	r, ok := m.spec.Network.PodRange(f)
	if !ok || !r.CIDR.Contains(a) {
		return nil
	}
	for _, bits := range m.lengths.Get(f) {
		n := m.nodes[netip.PrefixFrom(a, bits).Masked().Addr()] // by the VTEP's address
		if n == nil {
			continue
		}
		if subnet, ok := n.Subnet(f); ok && subnet.Contains(a) {
			return n
		}
	}
	return nil
}

func wildcards(h *spec.HostEndpoint) int {
	if h.Interface == spec.AllInterfaces {
		return 1
	}
	return 0
}

// judge looks at the tiers one by one: at those that have a policy that is
// about the subject, which isolates it.
func (m *Model) judge(s *Side, f Flow, other Party, isAbout func(*spec.Policy) bool) {
	s.Reason = ReasonNotSelected
	for _, t := range m.tiers {
		var policies []*spec.Policy
		for _, p := range t.policies {
			if p.Applies(s.Direction) && isAbout(p) {
				policies = append(policies, p)
			}
		}
		if len(policies) == 0 {
			continue
		}
		step := m.judgeTier(t.Tier, policies, s.Direction, f, other)
		s.Tiers = append(s.Tiers, step)
		if step.Action == spec.Pass {
			s.Reason = ReasonPassed
			continue
		}
		s.Reason, s.Verdict = ReasonRule, step.Action
		if step.Default {
			s.Reason = ReasonDefault
		}
		return
	}
}

// judgeTier looks at policies' rules, until one matches that decides.
func (m *Model) judgeTier(t *spec.Tier, policies []*spec.Policy, d spec.Direction, f Flow, other Party) TierStep {
	step := TierStep{Tier: t, Action: t.DefaultAction, Default: true}
	for _, p := range policies {
		seen := Step{Policy: p}
		rules := p.Rules(d)
		for i := range rules {
			r := m.look(p, &rules[i], f, other)
			r.Index = i
			seen.Rules = append(seen.Rules, r)
			if r.Matches() && r.Rule.Action != spec.Log {
				step.Policies = append(step.Policies, seen)
				step.Action, step.Default = r.Rule.Action, false
				return step
			}
		}
		step.Policies = append(step.Policies, seen)
	}
	return step
}

// isAbout says that a policy selects an endpoint.
func (m *Model) isAbout(p *spec.Policy, e *spec.Endpoint) bool {
	if p.Selector == nil || !p.Selector.Matches(e.Labels) {
		return false
	}
	if p.Namespace != "" && p.Namespace != e.Namespace {
		return false
	}
	return p.NamespaceSelector == nil || p.NamespaceSelector.Matches(m.namespaces[e.Namespace])
}

// isAboutHost says that a policy selects a host endpoint.
func isAboutHost(p *spec.Policy, h *spec.HostEndpoint) bool {
	return p.HostSelector != nil && p.HostSelector.Matches(h.Labels)
}

// look compares a rule with a flow.
func (m *Model) look(p *spec.Policy, r *spec.Rule, f Flow, other Party) RuleStep {
	step := RuleStep{Rule: r, PeerMatches: r.Peers == nil, ServiceMatches: r.Services == nil}
	for i := range r.Peers {
		if is, set := m.isPeer(p, &r.Peers[i], other); is {
			step.PeerMatches, step.Peer, step.Set = true, &r.Peers[i], set
			break
		}
	}
	for i := range r.Services {
		if m.isOf(f, &r.Services[i]) {
			step.ServiceMatches, step.Service = true, &r.Services[i]
			break
		}
	}
	return step
}

// isPeer says that a party is a peer of a policy's rule. Where a network set
// that has its address makes it one, it is returned.
func (m *Model) isPeer(p *spec.Policy, peer *spec.Peer, other Party) (bool, *spec.NetworkSet) {
	switch {
	case peer.Any:
		return true, nil
	case peer.Block != nil:
		return peer.Block.Contains(other.Address), nil
	case peer.NetworkSet != "":
		set := m.sets[peer.NetworkSet]
		return set != nil && isIn(set, other.Address), nil
	case peer.Node != "":
		n := m.nodes[other.Address]
		return n != nil && n.Name == peer.Node, nil
	case peer.Endpoints != nil:
		return m.isSelected(p, peer.Endpoints, other)
	}
	return false, nil
}

// isSelected says that labels make a party a peer: those of an endpoint, or of
// a network set. Such sets are in no namespace, and Kubernetes has none.
func (m *Model) isSelected(p *spec.Policy, s *spec.PeerSelector, other Party) (bool, *spec.NetworkSet) {
	if e := other.Endpoint; e != nil && (s.Selector == nil || s.Selector.Matches(e.Labels)) {
		switch {
		case s.Namespaces != nil && s.Namespaces.Matches(m.namespaces[e.Namespace]):
			return true, nil
		case s.Namespaces == nil && (p.Namespace == "" || p.Namespace == e.Namespace):
			return true, nil
		}
	}
	if p.Kind != spec.KindPolicy || p.Namespace != "" || s.Namespaces != nil {
		return false, nil
	}
	for _, set := range m.spec.NetworkSets {
		if (s.Selector == nil || s.Selector.Matches(set.Labels)) && isIn(set, other.Address) {
			return true, set
		}
	}
	return false, nil
}

func isIn(set *spec.NetworkSet, a netip.Addr) bool {
	return slices.ContainsFunc(set.CIDRs, func(p netip.Prefix) bool { return p.Contains(a) })
}

// isOf says that a flow is of a service. A name is that of a port of the
// endpoint that serves.
func (m *Model) isOf(f Flow, s *spec.Service) bool {
	if s.Name != "" {
		e := m.endpoints[f.To]
		if e == nil {
			return false
		}
		port, ok := e.Ports[s.Name]
		return ok && port.Number == f.Port && port.ProtocolNumber() == f.Protocol && (s.Protocol == 0 || s.Protocol == f.Protocol)
	}
	if s.Protocol != f.Protocol {
		return false
	}
	if s.ICMP != nil {
		return icmpOf(spec.FamilyOf(f.To)) == f.Protocol && s.ICMP.Type == f.Type && (s.ICMP.Code == nil || *s.ICMP.Code == f.Code)
	}
	return s.Ports.Contains(f.Port)
}

// icmpOf is the protocol of a family's control messages.
func icmpOf(f spec.Family) uint8 {
	if f == spec.IPv4 {
		return spec.ProtocolICMP
	}
	return spec.ProtocolICMPv6
}
