package packet

import (
	"encoding/binary"
	"net/netip"

	"github.com/poldernet/polder/spec"
)

// ARP operations (RFC 826).
const (
	ARPRequest = 1
	ARPReply   = 2
)

// ARP is an ARP packet for IPv4 over Ethernet, without the frame's header.
func ARP(operation uint16, sender spec.MAC, senderIP netip.Addr, target spec.MAC, targetIP netip.Addr) []byte {
	b := []byte{0, 1, EtherIPv4 >> 8, EtherIPv4 & 0xff, 6, 4} // Ethernet, IPv4, and the lengths of their addresses
	b = binary.BigEndian.AppendUint16(b, operation)
	b = append(append(b, sender[:]...), senderIP.AsSlice()...)
	return append(append(b, target[:]...), targetIP.AsSlice()...)
}

// ICMPv6 types of neighbour discovery (RFC 4861) and of multicast listeners
// (RFC 3810).
const (
	RouterSolicit   = 133
	RouterAdvert    = 134
	NeighborSolicit = 135
	NeighborAdvert  = 136
	Redirect        = 137
	ListenerReport  = 143
)

// ICMP types by which IPv4 hosts are told of routers (RFC 792, RFC 1256).
const (
	RedirectIPv4     = 5
	RouterAdvertIPv4 = 9
)

// NewICMP is an IP packet with an ICMP or ICMPv6 message of the addresses'
// family: what follows the checksum is the body. Its hop limit is the one that
// neighbour discovery demands, 255.
func NewICMP(src, dst netip.Addr, typ, code uint8, body []byte) []byte {
	b := append([]byte{typ, code, 0, 0}, body...)
	protocol, pseudoSum := uint8(ICMP), uint32(0)
	if src.Is6() {
		protocol, pseudoSum = ICMPv6, pseudo(src, dst, ICMPv6, len(b))
	}
	binary.BigEndian.PutUint16(b[2:], fold(pseudoSum+sum(0, b)))
	p := IP(src, dst, protocol, b)
	const ndHopLimit = 255
	if src.Is6() {
		p[7] = ndHopLimit
		return p
	}
	p[8] = ndHopLimit
	binary.BigEndian.PutUint16(p[10:], 0)
	binary.BigEndian.PutUint16(p[10:], fold(sum(0, p[:IPv4HeaderLen])))
	return p
}

// Options of neighbour discovery that hold a link-layer address (RFC 4861,
// section 4.6.1).
const (
	SourceLinkAddr = 1
	TargetLinkAddr = 2
)

// NeighborBody is the body of a neighbour solicitation or advertisement about
// a target. The option is left out if it is zero.
func NeighborBody(flags uint32, target netip.Addr, option uint8, mac spec.MAC) []byte {
	b := binary.BigEndian.AppendUint32(nil, flags)
	b = append(b, target.AsSlice()...)
	if option != 0 {
		b = append(append(b, option, 1), mac[:]...) // length in units of 8 bytes
	}
	return b
}

// The flags of a neighbour advertisement (RFC 4861, section 4.4).
const (
	FlagSolicited = 0x40000000
	FlagOverride  = 0x20000000
)

// SolicitedNode is the multicast group in which a neighbour listens for
// solicitations about its address (RFC 4291, section 2.7.1).
func SolicitedNode(a netip.Addr) netip.Addr {
	group := netip.MustParseAddr("ff02::1:ff00:0").As16()
	b := a.As16()
	copy(group[13:], b[13:])
	return netip.AddrFrom16(group)
}

// MulticastMAC is the Ethernet address of an IP multicast group (RFC 1112,
// RFC 2464).
func MulticastMAC(group netip.Addr) spec.MAC {
	if group.Is4() {
		b := group.As4()
		return spec.MAC{0x01, 0x00, 0x5e, b[1] & 0x7f, b[2], b[3]}
	}
	b := group.As16()
	return spec.MAC{0x33, 0x33, b[12], b[13], b[14], b[15]}
}
