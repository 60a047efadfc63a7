package nft

import (
	"encoding/binary"
	"slices"

	"github.com/poldernet/polder/spec"
)

// EtherType is the type in the Ethernet header. Of a frame with a VLAN tag it
// is the tag's, where `meta protocol` looks behind the tag. For the bridge
// family, as the other fields of the Ethernet header.
func EtherType() Field { return payload(LinkHeader, 12, 2) }

// The Ethernet types that a pod may send.
const (
	EtherIPv4 uint16 = 0x0800
	EtherARP  uint16 = 0x0806
	EtherIPv6 uint16 = 0x86dd
)

// EtherTypeOf is the Ethernet type of a family's packets.
func EtherTypeOf(f spec.Family) uint16 {
	return spec.PerFamily[uint16]{IPv4: EtherIPv4, IPv6: EtherIPv6}.Get(f)
}

// Ether is an Ethernet type as data.
func Ether(t uint16) Data { return Data(binary.BigEndian.AppendUint16(nil, t)) }

// MAC is a MAC as data.
func MAC(m spec.MAC) Data { return Data(m[:]) }

// EtherSaddr is the source MAC in the Ethernet header, EtherDaddr the
// destination.
func EtherSaddr() Field { return payload(LinkHeader, 6, 6) }

// EtherDaddr is the destination MAC in the Ethernet header.
func EtherDaddr() Field { return payload(LinkHeader, 0, 6) }

// ARPOperation is the operation of an ARP packet (ares_op$op, RFC 826), 2 bytes.
func ARPOperation() Field { return arp(6, 2) }

// ARPSenderMAC is the MAC that the sender of an ARP packet claims.
func ARPSenderMAC() Field { return arp(8, 6) }

// ARPSenderIP is the IPv4 address that the sender of an ARP packet claims.
func ARPSenderIP() Field { return arp(14, 4) }

// ARPTargetIP is the IPv4 address that an ARP packet asks for.
func ARPTargetIP() Field { return arp(24, 4) }

// arp is a field of an ARP packet for IPv4 on Ethernet.
func arp(offset, length uint32) Field {
	return payload(NetworkHeader, offset, length, EtherType().Is(Ether(EtherARP)))
}

// Bare is a field without the match that the packet is of the field's family;
// that the packet has the field's transport protocol is still matched. It is
// for chains in which the family is known: in the bridge family those that an
// `ether type` led to, where `meta nfproto` has no IP family to tell
// (NFPROTO_BRIDGE, nft_meta_get_eval in net/netfilter/nft_meta.c).
func Bare(f Field) Field {
	f.needs = slices.DeleteFunc(slices.Clone(f.needs), func(s Statement) bool {
		return s.exprs[0] == NFProto().load(0) || s.exprs[0] == EtherType().load(0)
	})
	if start := f.start; start != nil {
		f.start = func(n int) Field { return Bare(start(n)) }
	}
	return f
}
