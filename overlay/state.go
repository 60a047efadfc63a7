// Package overlay makes a node's pod network: the bridge, the VTEPs, and what
// leads to the peers. Compile computes what should be, as values; a Reader
// reads what is; Diff compares the two; a Writer makes the difference. Only
// the kernel_*_linux.go files know netlink.
package overlay

import (
	"net/netip"

	"github.com/poldernet/polder/spec"
)

// Protocol is the protocol number on every route (rtm_protocol), nexthop
// object (nh_protocol) and address (IFA_PROTO, Linux 5.18) of ours. 87 is
// unassigned in rtnetlink.h and in iproute2's rt_protos.
const Protocol = 87

// Protocols of rtnetlink.h that mean something to us.
const (
	protocolKernel = 2 // RTPROT_KERNEL: made by the kernel with an address
	protocolBoot   = 3 // RTPROT_BOOT: what ip(8) and flannel leave
)

// State is the part of a node's network that polder answers for: as it should
// be (from Compile) or as it is (from a Reader). An observed state also holds
// foreign objects where they matter: those that polder would adopt, or that
// stand in its way.
type State struct {
	Links      map[string]Link            // by name
	Ports      map[string]Port            // by the port's own link name
	Addresses  map[AddressKey]Address     // of our links, without link-local ones
	Neighbours map[NeighbourKey]Neighbour // of VTEPs
	Proxies    map[NeighbourKey]Proxy     // of the bridge
	FDB        map[FDBKey]FDBEntry        // of VTEPs
	NextHops   map[uint32]NextHop         // by nexthop object ID
	Routes     map[RouteKey]Route         // of the main table
	// Duplicates are observed routes beyond the first of a key: the kernel
	// keeps several where somebody appended.
	Duplicates []RouteEntry
	Sysctls    map[string]string // by path below /proc/sys: "net/ipv4/ip_forward"
}

// NewState is a state without objects, with room for those of so many peers.
func NewState(peers int) State {
	return State{
		Links:      map[string]Link{},
		Ports:      map[string]Port{},
		Addresses:  map[AddressKey]Address{},
		Neighbours: make(map[NeighbourKey]Neighbour, peers),
		Proxies:    map[NeighbourKey]Proxy{},
		FDB:        make(map[FDBKey]FDBEntry, peers),
		NextHops:   make(map[uint32]NextHop, peers),
		Routes:     make(map[RouteKey]Route, peers),
		Sysctls:    map[string]string{},
	}
}

// Link is a bridge or a VTEP. An observed link of another type may stand where
// one of ours should be.
type Link struct {
	Name  string
	Type  LinkType
	Alias string // ifalias; it carries our mark, see Mark
	MAC   spec.MAC
	MTU   int // bytes
	Up    bool
	VXLAN VXLAN // zero for a bridge

	// What can be written to the living link, and of ours is always zero. Of a
	// bridge: STP, because it holds a new port back for twice the forward delay,
	// and VLANFiltering, because it drops what is in no VLAN of the port. Of a
	// VTEP: TTL, because a small one does not reach a peer behind a router (0:
	// the host's default), and DF (VXLAN_DF_*), because an underlay with a smaller
	// MTU on the way then drops what it would fragment.
	STP           bool
	VLANFiltering bool
	TTL           uint8
	DF            uint8
}

// LinkType is a link's rtnetlink kind (IFLA_INFO_KIND), "" for hardware.
type LinkType string

// The types of links that polder makes.
const (
	TypeBridge LinkType = "bridge"
	TypeVXLAN  LinkType = "vxlan"
)

// VXLAN is what makes a VTEP. The kernel can change none of it in place, so a
// difference replaces the link. TOS, flow label, the range of source ports, the
// outer UDP checksum over IPv4 and ageing are not looked at: no packet is lost
// by them.
type VXLAN struct {
	VNI      uint32
	Port     uint16
	Local    netip.Addr // source address of outer packets
	Device   string     // the underlay interface
	Learning bool       // never ours: entries are static
	// Other is observed only: a feature that ours never have (multicast group,
	// L2 or L3 miss notifications, proxy, RSC, GBP, GPE, external control, a
	// limit of FDB rows, the packet's own TTL), or packets that peers do not
	// take (UDP without a checksum over IPv6, remote checksum offload).
	Other bool
	// External is observed only: the device takes what arrives for its port,
	// of any VNI and both families (IFLA_VXLAN_COLLECT_METADATA).
	External bool
}

// Port is a port of a bridge.
type Port struct {
	Master  string // the bridge; "": none
	Hairpin bool   // IFLA_BRPORT_MODE: a frame may leave where it came in
	Up      bool
	Limits  PortLimits
}

// PortLimits are what a bridge withholds from a port, and from those of the
// spec's endpoints never: each cuts off a workload that looks connected.
type PortLimits struct {
	Isolated   bool // IFLA_BRPORT_ISOLATED: nothing to other isolated ports
	Locked     bool // IFLA_BRPORT_LOCKED: nothing from a MAC without an FDB entry
	NoLearning bool // IFLA_BRPORT_LEARNING is off
	NoFlood    bool // broadcast (ARP), multicast (ND) or unknown unicast is not sent to it
}

// AddressKey identifies an address of a link.
type AddressKey struct {
	Link   string
	Prefix netip.Prefix // the address with its prefix length, not masked
}

// Address is what an AddressKey leaves open. Ours never go through duplicate
// address detection: a tentative gateway answers nobody for a second or two.
type Address struct {
	Protocol  uint8 // IFA_PROTO; 0 where the kernel does not keep it
	Tentative bool  // observed only: detection is under way, or has failed
	Expires   bool  // observed only: it has a lifetime, and goes when that ends
}

// NeighbourKey identifies a neighbour entry of a VTEP, or a proxy of the bridge.
type NeighbourKey struct {
	Link string
	Addr netip.Addr
}

// Neighbour is a neighbour entry.
type Neighbour struct {
	MAC       spec.MAC
	Permanent bool // NUD_PERMANENT: never probed, never collected
}

// Proxy is a neighbour that the host answers for on a link (`ip neigh add proxy`).
type Proxy struct {
	Protocol uint8 // NDA_PROTOCOL, Linux 5.0
}

// FDBKey identifies a row of a VTEP's forwarding database. The destination is
// part of the key: a second row for one MAC is a row of its own, and stale.
type FDBKey struct {
	Link string
	MAC  spec.MAC
	Dst  netip.Addr
}

// FDBEntry is what an FDBKey leaves open.
type FDBEntry struct {
	Permanent bool
	// Other is observed only: the row sends to a UDP port, VNI or interface
	// other than the VTEP's own, or by a nexthop object. The kernel writes
	// nothing over the latter, and of the former a flood entry has several
	// for one destination; so all rows of the MAC go together.
	Other bool
}

// NextHop is a nexthop object (RTM_NEWNEXTHOP, Linux 5.3): one for each peer
// and pod family. Routes refer to it by ID. It keeps the kernel's work linear
// in the number of peers, where routes with gateways of their own on one
// device are quadratic, and a peer changes its path (VXLAN, direct) by one
// atomic write.
type NextHop struct {
	Gateway  netip.Addr
	Link     string
	OnLink   bool
	Protocol uint8
	Other    bool // observed only: a group, a blackhole, or encapsulated
}

// RouteKey identifies a route as the kernel does when it replaces one.
type RouteKey struct {
	Dst    netip.Prefix
	TOS    uint8  // type of service, IPv4; of ours 0
	Metric uint32 // of ours IPv4: 0; IPv6: 1024, which is what the kernel makes of 0
}

// Route is what a RouteKey leaves open. An IPv6 route's preference (RFC 4191)
// is not part of it: it ranks default routers, and routes of one key have one.
type Route struct {
	NextHop  uint32     // nexthop object ID; 0: Gateway and Link say it
	Gateway  netip.Addr // not valid: on the link itself
	Link     string
	OnLink   bool
	Protocol uint8
	Source   netip.Addr // preferred source; of the kernel's own routes, IPv4
	Other    bool       // observed only: multipath, not unicast, or with metrics (an MTU) of its own
}

// RouteEntry is a route with its key.
type RouteEntry struct {
	RouteKey
	Route
}

// connectedMetric is the metric of the route that the kernel makes with an
// address: ipv6/addrconf.c's IP6_RT_PRIO_ADDRCONF for IPv6.
func connectedMetric(f spec.Family) uint32 {
	if f == spec.IPv6 {
		return 256
	}
	return 0
}

// defaultMetric is the metric with which the kernel keeps a route that was
// given none: ip6_fib.h's IP6_RT_PRIO_USER for IPv6.
func defaultMetric(f spec.Family) uint32 {
	if f == spec.IPv6 {
		return 1024
	}
	return 0
}
