package policy

import (
	"net/netip"

	"github.com/hashicorp/hcl/v2"

	"github.com/poldernet/polder/spec"
)

// Flow is a connection by its own tuple: the client's own address, as it is
// before any SNAT, and the server's own address and port, as they are after any
// DNAT. What is sent back belongs to it.
type Flow struct {
	From, To netip.Addr
	Protocol uint8  // IPPROTO_*
	Port     uint16 // of the server; 0 for protocols without ports
	// Type and Code are those of the message that begins the conversation, for
	// ICMP and ICMPv6.
	Type, Code uint8
	// FromInterface and ToInterface are the interfaces of nodes by which the
	// flow leaves the one and enters the other; "": not known, but for what the
	// spec says. They matter where a node has several host endpoints, or one that
	// is not about all interfaces.
	FromInterface, ToInterface string
}

// Party is who has an address: an endpoint, a node, or, with neither, somebody
// outside.
type Party struct {
	Address  netip.Addr
	Endpoint *spec.Endpoint
	Node     *spec.Node
}

// Decision is what becomes of a flow, and why.
type Decision struct {
	Flow     Flow
	From, To Party
	Verdict  spec.Action // Allow, where both sides allow, or Deny
	Sides    [2]Side     // egress of From, ingress of To
}

// Reason says why a side came to its verdict.
type Reason string

// The reasons. Only the first four are verdicts of policies.
const (
	ReasonRule        Reason = "rule"           // a rule matched
	ReasonDefault     Reason = "default_action" // no rule of the tier matched
	ReasonPassed      Reason = "passed"         // all tiers passed it on
	ReasonNotSelected Reason = "not_selected"   // no policy selects the subject

	ReasonFailsafe       Reason = "failsafe"         // of the host endpoint
	ReasonNoHostEndpoint Reason = "no_host_endpoint" // none is on the node's interface
	ReasonOwnNode        Reason = "own_node"         // between a node and an endpoint on it
	ReasonItself         Reason = "itself"           // it never leaves the endpoint, or the node
	ReasonTunnel         Reason = "tunnel"           // VXLAN between nodes
	ReasonOutside        Reason = "outside"          // policies are not about strangers
)

// Side is one end of a flow: how the policies of the party there judge it.
type Side struct {
	Direction spec.Direction
	Subject   Party
	// Host is the host endpoint whose policies judge a node's flow. Assumed says
	// that the flow's interface is not known, and another one may be none of it.
	Host    *spec.HostEndpoint
	Assumed bool

	Verdict spec.Action // Allow or Deny
	Reason  Reason
	// Failsafe is the service that allowed it, with ReasonFailsafe.
	Failsafe *spec.Service
	// Tiers are those that have a policy for the subject and were looked at. The
	// last one decided, where Reason is ReasonRule or ReasonDefault.
	Tiers []TierStep
}

// Isolated says that a policy for the subject was looked at.
func (s *Side) Isolated() bool { return len(s.Tiers) > 0 }

// TierStep is a tier that was looked at, with its policies for the subject up
// to the one that decided.
type TierStep struct {
	Tier     *spec.Tier
	Policies []Step
	// Action is what came of it: Allow, Deny or Pass. Default says that no rule
	// decided, so that it is the tier's default action.
	Action  spec.Action
	Default bool
}

// Step is a policy that was looked at, with its rules up to the one that
// decided.
type Step struct {
	Policy *spec.Policy
	Rules  []RuleStep
}

// RuleStep is a rule that was looked at. It matches where its peers and its
// services do.
type RuleStep struct {
	Rule  *spec.Rule
	Index int // among the policy's rules of the direction, from 0
	// PeerMatches says that the other party is one of the peers: Peer, where the
	// rule names any, by way of Set, where the peer selects network sets.
	PeerMatches bool
	Peer        *spec.Peer
	Set         *spec.NetworkSet
	// ServiceMatches says that the flow is of one of the services: Service, where
	// the rule names any.
	ServiceMatches bool
	Service        *spec.Service
}

// Matches says that the rule is about the flow.
func (r *RuleStep) Matches() bool { return r.PeerMatches && r.ServiceMatches }

// Decider is the rule that decided, and its policy; nil without one.
func (s *Side) Decider() (*Step, *RuleStep) {
	if s.Reason != ReasonRule {
		return nil, nil
	}
	t := &s.Tiers[len(s.Tiers)-1]
	p := &t.Policies[len(t.Policies)-1]
	return p, &p.Rules[len(p.Rules)-1]
}

// Range is the place in the file that decided: a rule, the first policy that
// isolates the subject in a tier that does, or the host endpoint with its
// failsafes. It is zero where no file says so.
func (s *Side) Range() hcl.Range {
	switch s.Reason {
	case ReasonRule:
		_, r := s.Decider()
		return r.Rule.Range
	case ReasonDefault:
		return s.Tiers[len(s.Tiers)-1].Policies[0].Policy.Range
	case ReasonFailsafe:
		return s.Host.Range
	case ReasonPassed, ReasonNotSelected, ReasonNoHostEndpoint, ReasonOwnNode, ReasonItself, ReasonTunnel, ReasonOutside:
	}
	return hcl.Range{}
}
