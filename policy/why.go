package policy

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/poldernet/polder/spec"
)

// String is the party as a check names it.
func (p Party) String() string {
	switch {
	case p.Endpoint != nil:
		return spec.End{Kind: spec.EndEndpoint, Name: p.Endpoint.Name}.String()
	case p.Node != nil:
		return spec.End{Kind: spec.EndNode, Name: p.Node.Name}.String()
	}
	return p.Address.String()
}

// Service is what the flow asks for.
func (f Flow) Service() spec.Service {
	s := spec.Service{Protocol: f.Protocol, Ports: spec.PortRange{First: f.Port, Last: f.Port}}
	if f.Protocol == spec.ProtocolICMP || f.Protocol == spec.ProtocolICMPv6 {
		s.ICMP = &spec.ICMP{Type: f.Type}
		if f.Code != 0 {
			s.ICMP.Code = &f.Code
		}
	}
	return s
}

// BlockText is a block as a rule has it: a block of one address is an address.
func BlockText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// Why is the verdict with its reason, in one line: "denied by rule 2 of policy
// db (polder.hcl:12)".
func (s *Side) Why() string {
	switch s.Reason {
	case ReasonRule:
		p, r := s.Decider()
		return fmt.Sprintf("%s by rule %d of %s%s", s.past(), r.Index+1, p.Policy.ID(), at(r.Rule.Range))
	case ReasonDefault:
		t := &s.Tiers[len(s.Tiers)-1]
		return fmt.Sprintf("%s by tier %s: no rule of %s matches", s.past(), t.Tier.Name, t.names())
	case ReasonPassed:
		return s.past() + ": no rule denies it, and the last tier passes it on"
	case ReasonNotSelected:
		what := "it"
		if s.Host != nil {
			what = "host endpoint " + s.Host.Name
		}
		return fmt.Sprintf("%s: no policy selects %s for %s", s.past(), what, s.Direction)
	case ReasonFailsafe:
		return fmt.Sprintf("%s by failsafe %s of host endpoint %s%s", s.past(), s.Failsafe, s.Host.Name, at(s.Host.Range))
	case ReasonNoHostEndpoint:
		return s.past() + ": the node has no host endpoint there"
	case ReasonOwnNode:
		if s.Direction == spec.Ingress && s.Subject.Endpoint != nil {
			return s.past() + ": an endpoint's own node always reaches it"
		}
		return s.past() + ": host endpoints are not about endpoints on the same node"
	case ReasonItself:
		if s.Subject.Node != nil {
			return s.past() + ": it does not leave the node"
		}
		return s.past() + ": it does not leave the endpoint"
	case ReasonTunnel:
		return s.past() + ": it is the tunnel between nodes"
	case ReasonOutside:
		return s.past() + ": no policy is about who is outside"
	}
	return s.past()
}

func (s *Side) past() string {
	if s.Verdict == spec.Allow {
		return "allowed"
	}
	return "denied"
}

// names are the policies of a tier, each with its place, the first few of many.
func (t *TierStep) names() string {
	const most = 3
	var list []string
	for i, p := range t.Policies {
		if i == most {
			list = append(list, fmt.Sprintf("%d more", len(t.Policies)-most))
			break
		}
		list = append(list, p.Policy.ID()+at(p.Policy.Range))
	}
	return strings.Join(list, ", ")
}

// at is a place in a file, in brackets, or nothing.
func at(r hcl.Range) string {
	if r.Filename == "" {
		return ""
	}
	return fmt.Sprintf(" (%s)", spec.FileLine(r))
}

// Alike says that two decisions have the same reasons at both ends. The rules
// that do not decide may differ in why they do not match.
func Alike(a, b *Decision) bool {
	for i := range a.Sides {
		s, t := &a.Sides[i], &b.Sides[i]
		if s.Subject.Endpoint != t.Subject.Endpoint || s.Subject.Node != t.Subject.Node || s.Host != t.Host || s.Why() != t.Why() {
			return false
		}
	}
	return true
}
