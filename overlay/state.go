// Package overlay makes a node's pod network: the bridge, the VTEPs, and what
// leads to the peers. Compile computes what should be, as values; the kernel
// files read what is; Diff compares the two. Only the kernel_*_linux.go files
// know netlink.
package overlay

import (
	"net/netip"

	"github.com/poldernet/polder/spec"
)

// Protocol is the route protocol (rtm_protocol, rtnetlink(7)) on every route
// and nexthop object of ours. 87 is unassigned in iproute2's rt_protos.
const Protocol = 87

// State is the part of a node's network that polder answers for: as it should
// be (from Compile) or as it is (from a Reader). An observed state also holds
// foreign objects where they matter: those that polder would adopt or that
// stand in its way.
type State struct {
	Links      map[string]Link            // by name
	Ports      map[string]Port            // by the port's link name
	Addresses  map[AddressKey]Address     //
	Neighbours map[NeighbourKey]Neighbour // of VTEPs, permanent
	FDB        map[FDBKey]struct{}        // of VTEPs, "self permanent"
	NextHops   map[uint32]NextHop         // by nexthop object ID
	Routes     map[netip.Prefix]Route     // main table
	Sysctls    map[string]string          // by dotted name, "net.ipv4.ip_forward"
}

// Link is a bridge or a VTEP.
type Link struct {
	Name string
	Type LinkType
	// Alias is the ifalias. It carries our mark, see Mark.
	Alias string
	MAC   spec.MAC
	MTU   int // bytes
	Up    bool
	VXLAN VXLAN // zero for a bridge
}

// LinkType is a link's rtnetlink kind (IFLA_INFO_KIND).
type LinkType string

// The link types that polder makes.
const (
	Bridge LinkType = "bridge"
	VXLAN_ LinkType = "vxlan"
)

// VXLAN is what makes a VTEP. None of it can be changed in place: a difference
// replaces the link.
type VXLAN struct {
	VNI      uint32
	Port     uint16
	Local    netip.Addr
	Device   string // the underlay interface
	Learning bool
}

// Port is a port of our bridge.
type Port struct {
	Link    string
	Master  string
	Hairpin bool
}

// AddressKey identifies an address of a link.
type AddressKey struct {
	Link   string
	Prefix netip.Prefix // the address with its prefix length
}

// Address is what an AddressKey does not say. Addresses of ours never go
// through duplicate address detection: a tentative gateway answers nobody for
// a second or two.
type Address struct {
	Tentative bool // observed only: detection is running, or has failed
}

// NeighbourKey identifies a neighbour entry of a VTEP.
type NeighbourKey struct {
	Link string
	Addr netip.Addr
}

// Neighbour is a neighbour entry.
type Neighbour struct {
	MAC       spec.MAC
	Permanent bool
}

// FDBKey identifies a row of a VTEP's forwarding database. The destination is
// part of the key: a second row for one MAC is a row of its own, and stale.
type FDBKey struct {
	Link string
	MAC  spec.MAC
	Dst  netip.Addr
}

// NextHop is a nexthop object (RTM_NEWNEXTHOP). One for each peer and pod
// family; routes refer to it by ID. That keeps the kernel's work linear in the
// number of peers, and lets a peer change its path (VXLAN, direct) by one
// atomic write.
type NextHop struct {
	Gateway  netip.Addr
	Link     string
	OnLink   bool
	Protocol uint8
}

// Route is a route of the main table.
type Route struct {
	NextHop  uint32 // nexthop object ID; 0: Gateway and Link say it
	Gateway  netip.Addr
	Link     string
	OnLink   bool
	Protocol uint8
}
