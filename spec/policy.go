package spec

import (
	"net/netip"

	"github.com/hashicorp/hcl/v2"

	"github.com/poldernet/polder/spec/selector"
)

// Action is what a rule does with the connections that it matches.
type Action string

// The actions. A log rule does not decide: the next rule is looked at.
const (
	Allow Action = "allow"
	Deny  Action = "deny"
	Pass  Action = "pass" // the next tier decides
	Log   Action = "log"
)

// Direction says at which end of a connection a policy stands: ingress is
// about connections that others open to the selected endpoint, egress about
// those that it opens.
type Direction string

// The directions.
const (
	Ingress Direction = "ingress"
	Egress  Direction = "egress"
)

// Directions are both, in the order in which they are shown.
var Directions = []Direction{Ingress, Egress}

// DefaultTier is the tier that is always there, in which policies stand that
// name none.
const DefaultTier = "default"

// DefaultTierOrder is the default tier's order where the file does not declare
// it, as in Calico.
const DefaultTierOrder = 1_000_000

// Tier is a `tier` block. An endpoint's policies are looked at tier by tier.
type Tier struct {
	Name  string
	Order float64 // smaller comes first; ties by name
	// DefaultAction is what becomes of a connection that no rule of the tier's
	// policies decided, where one of these selects the endpoint: Deny or Pass.
	DefaultAction Action
	Range         hcl.Range
}

// PolicyKind says which front end a policy came by. With the name it
// identifies the policy.
type PolicyKind string

// The kinds.
const (
	KindPolicy        PolicyKind = "policy"        // a block of the file
	KindNetworkPolicy PolicyKind = "networkpolicy" // networking.k8s.io/v1
)

// Policy is a list of rules for the endpoints that it selects.
//
// An endpoint that a policy selects for a direction is isolated in that
// direction: what no rule decides, the tier's default action does.
type Policy struct {
	Kind PolicyKind
	// Name is the block's; a NetworkPolicy's is NAMESPACE/NAME.
	Name string
	Tier string
	// Order is the policy's place in its tier; nil: behind all that have one.
	// Ties are broken by Name, then Kind.
	Order *float64
	// Namespace restricts the policy to the endpoints of one namespace; ""
	// does not. It also is the namespace that the rules' selectors are about
	// where they name none.
	Namespace         string
	Selector          *selector.Selector // of endpoints; nil: none
	NamespaceSelector *selector.Selector // of their namespaces; nil: any
	HostSelector      *selector.Selector // of host endpoints; nil: none
	// Types are the directions in which the policy isolates.
	Types           []Direction
	Ingress, Egress []Rule
	Range           hcl.Range
}

// ID is what identifies the policy among all: "policy db",
// "networkpolicy shop/db".
func (p *Policy) ID() string { return string(p.Kind) + " " + p.Name }

// Applies says that the policy isolates in a direction.
func (p *Policy) Applies(d Direction) bool {
	for _, t := range p.Types {
		if t == d {
			return true
		}
	}
	return false
}

// Rules are the policy's rules for a direction.
func (p *Policy) Rules(d Direction) []Rule {
	if d == Ingress {
		return p.Ingress
	}
	return p.Egress
}

// Rule decides about connections with certain peers by certain services. Both
// must match.
type Rule struct {
	Action Action
	// Peers are the other ends, any of which matches. Nil: every peer. An empty
	// list that is not nil matches none: it is what is left of peers that could
	// not be understood.
	Peers []Peer
	// Services are the protocols and ports, any of which matches. Nil: every
	// protocol. An empty list that is not nil matches none.
	Services []Service
	Range    hcl.Range
}

// Peer is the other end of a connection. Exactly one kind is set: Endpoints,
// Block, NetworkSet, Node or Any.
type Peer struct {
	Endpoints  *PeerSelector
	Block      *Block
	NetworkSet string
	Node       string
	Any        bool
	Range      hcl.Range
}

// PeerSelector selects endpoints, and network sets, by labels.
type PeerSelector struct {
	Selector *selector.Selector // nil: all
	// Namespaces selects by the labels of namespaces. Nil: endpoints of the
	// policy's namespace where it has one, else endpoints of all namespaces and
	// network sets, which are in none.
	Namespaces *selector.Selector
}

// Block is a range of addresses with holes in it, whoever has them.
type Block struct {
	CIDR   netip.Prefix
	Except []netip.Prefix // inside CIDR; they may overlap
}

// Contains says that an address is in the block.
func (b *Block) Contains(a netip.Addr) bool {
	if !b.CIDR.Contains(a) {
		return false
	}
	for _, e := range b.Except {
		if e.Contains(a) {
			return false
		}
	}
	return true
}

// Namespace is a `namespace` block: labels for the endpoints in it. Namespaces
// that no block declares exist all the same.
type Namespace struct {
	Name   string
	Labels map[string]string
	Range  hcl.Range
}

// NamespaceLabel is the label that every namespace has, with its name as the
// value, as Kubernetes gives it.
const NamespaceLabel = "kubernetes.io/metadata.name"

// NetworkSet is a `network_set` block: addresses outside the cluster under a
// name, and with labels.
type NetworkSet struct {
	Name   string
	CIDRs  []netip.Prefix
	Labels map[string]string
	Range  hcl.Range
}

// HostEndpoint is a `host_endpoint` block: a node's own end of what passes an
// interface. Policies select it by HostSelector only.
type HostEndpoint struct {
	Name      string
	Node      string
	Interface string // AllInterfaces: every one but loopback and those that lead to pods
	Labels    map[string]string
	Ports     map[string]Port
	// FailsafeInbound and FailsafeOutbound are services that no policy can take
	// away, so that nobody locks himself out. They have no Name, and are never
	// nil.
	FailsafeInbound, FailsafeOutbound []Service
	Range                             hcl.Range
}

// AllInterfaces stands for the interfaces of a node that do not lead to pods.
const AllInterfaces = "*"

// Check is a `check` block: what is expected of the policies.
type Check struct {
	Name     string
	From, To End
	// Services are what To is asked for, each with one port at most and without
	// a Name: names of ports are resolved. More than one only for ICMP, where
	// each is of another family: the one of the addresses' family counts.
	Services []Service
	Expect   Action // Allow or Deny
	Range    hcl.Range
}

// Manifest is a file of Kubernetes objects in YAML that the spec names.
type Manifest struct {
	Name string // path, as messages show it
	Text []byte
}

// Established says what a change of policies does to connections that are
// open.
type Established string

// The modes.
const (
	Recheck Established = "recheck" // they are judged as if they were new
	Keep    Established = "keep"    // they stay open
)

// Unclaimed says what becomes of what comes from a port of the bridge under an
// address that no endpoint has.
type Unclaimed string

// The modes.
const (
	UnclaimedOutside Unclaimed = "outside" // it is a stranger, as an address outside the cluster is
	UnclaimedDrop    Unclaimed = "drop"
)

// Enforcement is the `enforcement` block: how policies are enforced.
type Enforcement struct {
	Established Established
	Unclaimed   Unclaimed
	// Bridge is the bridge that endpoints' interfaces are ports of.
	Bridge string
	// LogDrops has what policies deny logged, by a rule or by a tier's default
	// action.
	LogDrops bool
	// LogGroup is the NFLOG group of `log` rules and drops.
	LogGroup uint16
	// LogRate bounds the messages of each rule, in messages a second.
	LogRate int
	Range   hcl.Range
}
