package spec

import (
	"net/netip"
	"strconv"

	"github.com/hashicorp/hcl/v2"
)

// Spec is one validated description of a cluster's network. It is the same
// value on every node. Nodes and endpoints are sorted by name, so that nothing
// depends on the order in which files list them.
type Spec struct {
	Cluster string
	Network *Network // nil: polder makes no pod network
	// Kubernetes is where there are workloads and policies beside the files; nil:
	// nowhere.
	Kubernetes *Kubernetes
	Nodes      []*Node
	Endpoints  []*Endpoint

	// What follows is about policies: who may reach whom.
	Namespaces    []*Namespace
	NetworkSets   []*NetworkSet
	Tiers         []*Tier   // in their order; DefaultTier is always among them
	Policies      []*Policy // by name
	HostEndpoints []*HostEndpoint
	Checks        []*Check    // in the order of the files
	Manifests     []*Manifest // in the order in which they are named
	Enforcement   Enforcement
}

// NodesBeside says that there may be nodes that are in no file.
func (s *Spec) NodesBeside() bool { return s.Kubernetes != nil }

// Node is the node of that name, or nil.
func (s *Spec) Node(name string) *Node {
	for _, n := range s.Nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// Kubernetes is the `kubernetes` block: the API server that a daemon takes nodes,
// namespaces, pods and NetworkPolicies from.
type Kubernetes struct {
	Kubeconfig string // a file's name; "": credentials of the pod that polder runs in
	Context    string // of the kubeconfig; "": its current one
}

// Network is the `network` block: the pod network that polder makes.
type Network struct {
	Pods       []PodRange // one per pod family, IPv4 first; never empty
	MTU        int        // of the pods, in bytes; 0: from the underlay
	Bridge     Bridge
	Backend    Backend
	Masquerade *Masquerade // nil: no NAT
	Underlay   Underlay    // default for nodes without one of their own
	Compat     Compat
	Range      hcl.Range
}

// PodRange is the address range of the pods in one family.
type PodRange struct {
	CIDR      netip.Prefix
	SubnetLen int        // prefix length of a node's subnet
	SubnetMin netip.Addr // base of the first subnet that a node may get
	SubnetMax netip.Addr // base of the last one
}

// Family is the range's address family.
func (r PodRange) Family() Family { return FamilyOf(r.CIDR.Addr()) }

// holds says that a prefix lies in the range.
func (r PodRange) holds(p netip.Prefix) bool {
	return p.Bits() >= r.CIDR.Bits() && r.CIDR.Contains(p.Addr())
}

// PodRange is the range of a family.
func (n *Network) PodRange(f Family) (PodRange, bool) {
	for _, r := range n.Pods {
		if r.Family() == f {
			return r, true
		}
	}
	return PodRange{}, false
}

// Bridge is the `bridge` block: the node's bridge that pods are attached to.
type Bridge struct {
	Name        string // at most 15 bytes (IFNAMSIZ less the NUL)
	HairpinMode bool   // a port may send a frame back out where it came in
}

// BackendType says how packets cross from node to node.
type BackendType string

// The backends.
const (
	VXLAN  BackendType = "vxlan"   // RFC 7348, static entries
	HostGW BackendType = "host-gw" // a plain route through the peer's address
)

// Backend is the `backend` block.
type Backend struct {
	Type          BackendType
	VNI           uint32            // 24 bits
	Port          uint16            // UDP destination port of VXLAN
	DirectRouting bool              // plain routes to peers on the same link
	AcceptDirect  bool              // accept what peers send by plain routes; DirectRouting implies it
	Device        PerFamily[string] // VTEP name by underlay family
}

// Compat says with whom the pod network is shared, by nodes of Kubernetes that
// publish and read what that one does.
type Compat string

// CompatFlannel is flannel, with its manager of subnets by Kubernetes.
const CompatFlannel Compat = "flannel"

// Masquerade is the `masquerade` block: pods reach the outside with the node's
// address.
type Masquerade struct {
	Except      []netip.Prefix // destinations that see the pod's own address
	RandomFully bool           // choose source ports at random
}

// Underlay chooses the interface that carries traffic between nodes. At most
// one field is set. None: the interface that holds the node's address.
type Underlay struct {
	Interface string     // by name
	Address   netip.Addr // by an address that it holds
	RouteTo   netip.Addr // by the route to this address
}

// IsZero says that no choice was made.
func (u Underlay) IsZero() bool { return u == Underlay{} }

// Node is a `node` block.
type Node struct {
	Name      string
	Addresses []NodeAddress // at most one per family, IPv4 first
	Subnets   []netip.Prefix
	VTEPMAC   PerFamily[MAC] // by underlay family; zero: derived
	Underlay  Underlay       // zero: the network's
	Range     hcl.Range
}

// NodeAddress is an address under which the other nodes reach a node.
type NodeAddress struct {
	Addr netip.Addr
	// Link is the prefix of the node's link. It is not valid where the file
	// gives the address without a prefix length.
	Link netip.Prefix
}

// Address is the node's underlay address of a family.
func (n *Node) Address(f Family) (NodeAddress, bool) {
	for _, a := range n.Addresses {
		if FamilyOf(a.Addr) == f {
			return a, true
		}
	}
	return NodeAddress{}, false
}

// Subnet is the node's pod subnet of a family.
func (n *Node) Subnet(f Family) (netip.Prefix, bool) {
	for _, p := range n.Subnets {
		if FamilyOf(p.Addr()) == f {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// Endpoint is an `endpoint` block: a workload attached to a node's bridge.
type Endpoint struct {
	Name      string
	Node      string
	Namespace string
	Interface string // of the node, to be a port of the bridge; "": attached by others
	MAC       MAC    // of the workload; zero: unknown
	Addresses []netip.Addr
	Labels    map[string]string
	Ports     map[string]Port
	Range     hcl.Range
}

// Port is a named port of an endpoint.
type Port struct {
	Number   uint16
	Protocol string // "tcp", "udp" or "sctp"
}

// String is "8080/tcp".
func (p Port) String() string { return strconv.Itoa(int(p.Number)) + "/" + p.Protocol }

// UnderlayFamily says which underlay carries the pods of a family: the same
// family where every node has an address of it, the other one otherwise. IPv6
// pods thus ride an IPv4-only underlay, inside VXLAN. With nodes of a cluster it is
// always the same family: one that comes without an address would move the pods of
// all others.
func (s *Spec) UnderlayFamily(pods Family) Family {
	if s.NodesBeside() {
		return pods
	}
	for _, n := range s.Nodes {
		if _, ok := n.Address(pods); !ok {
			return pods.Other()
		}
	}
	return pods
}

// VTEPMAC is the MAC of a node's VTEP over an underlay family: the one that
// the file gives, or one computed from cluster, VNI, family and node name.
func (s *Spec) VTEPMAC(n *Node, underlay Family) MAC {
	if m := n.VTEPMAC.Get(underlay); !m.IsZero() {
		return m
	}
	return deriveMAC("vtep", s.Cluster, strconv.FormatUint(uint64(s.Network.Backend.VNI), 10), underlay.String(), n.Name)
}

// BridgeMAC is the fixed MAC of a node's bridge. Left alone, a bridge changes
// its MAC as ports come and go, and pods lose their gateway until ARP expires.
func (s *Spec) BridgeMAC(n *Node) MAC {
	return deriveMAC("bridge", s.Cluster, s.Network.Bridge.Name, n.Name)
}
