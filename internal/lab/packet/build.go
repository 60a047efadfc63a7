// Package packet builds the packets that probes are made of, and those by which
// a host could lie: Ethernet, ARP, IPv4 and IPv6 with fragments and extension
// headers, ICMP, neighbour discovery, UDP, SCTP and VXLAN. It dissects what
// probes are made of. It is pure.
package packet

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"

	"github.com/poldernet/polder/spec"
)

// EtherTypes (IEEE 802 numbers, linux/if_ether.h).
const (
	EtherIPv4 = 0x0800
	EtherARP  = 0x0806
	EtherIPv6 = 0x86dd
	EtherVLAN = 0x8100 // 802.1Q tag
	EtherQinQ = 0x88a8 // 802.1ad tag
)

// IP protocol numbers (IANA).
const (
	ICMP   = 1
	TCP    = 6
	UDP    = 17
	ICMPv6 = 58
	SCTP   = 132
)

// Header lengths in bytes.
const (
	IPv4HeaderLen = 20 // without options
	IPv6HeaderLen = 40
	TCPHeaderLen  = 20 // without options
	UDPHeaderLen  = 8

	etherHeaderLen = 14
	vlanTagLen     = 4
	vxlanHeaderLen = 8
	sctpHeaderLen  = 12
)

// hopLimit is the TTL of packets that are built here, Linux's default.
const hopLimit = 64

// Ethernet is a frame, without padding and check sequence.
func Ethernet(src, dst spec.MAC, etherType uint16, payload []byte) []byte {
	b := make([]byte, 0, etherHeaderLen+len(payload))
	b = append(b, dst[:]...)
	b = append(b, src[:]...)
	b = binary.BigEndian.AppendUint16(b, etherType)
	return append(b, payload...)
}

// VLAN puts an 802.1Q or 802.1ad tag of that VLAN into a frame.
func VLAN(tagType, id uint16, frame []byte) []byte {
	const addresses = 12
	b := make([]byte, 0, len(frame)+vlanTagLen)
	b = append(b, frame[:addresses]...)
	b = binary.BigEndian.AppendUint16(b, tagType)
	b = binary.BigEndian.AppendUint16(b, id&0x0fff)
	return append(b, frame[addresses:]...)
}

// IP is an IP packet of the addresses' family (RFC 791, RFC 8200) with DF set.
// The addresses must be of one family.
func IP(src, dst netip.Addr, protocol uint8, payload []byte) []byte {
	if src.Is4() {
		b := make([]byte, IPv4HeaderLen, IPv4HeaderLen+len(payload))
		b[0] = 4<<4 | IPv4HeaderLen/4
		binary.BigEndian.PutUint16(b[2:], uint16(IPv4HeaderLen+len(payload)))
		b[6] = 0x40 // DF
		b[8], b[9] = hopLimit, protocol
		copy(b[12:], src.AsSlice())
		copy(b[16:], dst.AsSlice())
		binary.BigEndian.PutUint16(b[10:], fold(sum(0, b)))
		return append(b, payload...)
	}
	b := make([]byte, IPv6HeaderLen, IPv6HeaderLen+len(payload))
	b[0] = 6 << 4
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	b[6], b[7] = protocol, hopLimit
	copy(b[8:], src.AsSlice())
	copy(b[24:], dst.AsSlice())
	return append(b, payload...)
}

// NewUDP is an IP packet with a UDP datagram (RFC 768).
func NewUDP(src, dst netip.AddrPort, payload []byte) []byte {
	b := make([]byte, UDPHeaderLen, UDPHeaderLen+len(payload))
	binary.BigEndian.PutUint16(b[0:], src.Port())
	binary.BigEndian.PutUint16(b[2:], dst.Port())
	binary.BigEndian.PutUint16(b[4:], uint16(UDPHeaderLen+len(payload)))
	b = append(b, payload...)
	check := fold(pseudo(src.Addr(), dst.Addr(), UDP, len(b)) + sum(0, b))
	if check == 0 {
		check = 0xffff // zero means that there is none
	}
	binary.BigEndian.PutUint16(b[6:], check)
	return IP(src.Addr(), dst.Addr(), UDP, b)
}

// NewSYN is an IP packet with the TCP segment that opens a connection (RFC 9293),
// and data in it, which receivers may keep for when the connection is there.
func NewSYN(src, dst netip.AddrPort, data []byte) []byte {
	b := make([]byte, TCPHeaderLen, TCPHeaderLen+len(data))
	binary.BigEndian.PutUint16(b[0:], src.Port())
	binary.BigEndian.PutUint16(b[2:], dst.Port())
	b[7] = 1 // sequence number
	b[12], b[13] = TCPHeaderLen/4<<4, tcpSYN
	binary.BigEndian.PutUint16(b[14:], 65535) // window
	b = append(b, data...)
	binary.BigEndian.PutUint16(b[16:], fold(pseudo(src.Addr(), dst.Addr(), TCP, len(b))+sum(0, b)))
	return IP(src.Addr(), dst.Addr(), TCP, b)
}

const tcpSYN = 0x02

// Echo is an ICMP echo request of the family (RFC 792, RFC 4443) with its
// header, not the packet's. Its checksum covers ICMP only for IPv4; for IPv6
// the kernel fills it in on a raw socket (RFC 3542, section 3.1).
func Echo(f spec.Family, id, sequence uint16, data []byte) []byte {
	b := make([]byte, 8, 8+len(data))
	b[0] = EchoRequest(f)
	binary.BigEndian.PutUint16(b[4:], id)
	binary.BigEndian.PutUint16(b[6:], sequence)
	b = append(b, data...)
	if f == spec.IPv4 {
		binary.BigEndian.PutUint16(b[2:], fold(sum(0, b)))
	}
	return b
}

// EchoRequest is the ICMP type of an echo request.
func EchoRequest(f spec.Family) uint8 {
	if f == spec.IPv4 {
		return 8
	}
	return 128
}

// EchoReply is the ICMP type of the answer.
func EchoReply(f spec.Family) uint8 {
	if f == spec.IPv4 {
		return 0
	}
	return 129
}

// NewVXLAN is the payload of a UDP datagram that carries a frame (RFC 7348,
// section 5).
func NewVXLAN(vni uint32, frame []byte) []byte {
	b := make([]byte, vxlanHeaderLen, vxlanHeaderLen+len(frame))
	b[0] = vxlanFlagVNI
	binary.BigEndian.PutUint32(b[4:], vni<<8)
	return append(b, frame...)
}

const vxlanFlagVNI = 0x08 // the I flag: the VNI is valid

// The parts of an SCTP packet that NewSCTPInit makes (RFC 9260).
const (
	sctpInit = 1
	// The upper bits say: skip a parameter that is not known, do not report
	// it (section 3.2.1).
	sctpParameter = 0x8000 | 0x3e7f
)

// NewSCTPInit is an SCTP packet that opens an association (RFC 9260, section
// 3.3.2), with its header, not the IP packet's. The data travels in a
// parameter that receivers skip.
func NewSCTPInit(srcPort, dstPort uint16, data []byte) []byte {
	parameter := binary.BigEndian.AppendUint16(nil, sctpParameter)
	parameter = binary.BigEndian.AppendUint16(parameter, uint16(4+len(data)))
	parameter = append(parameter, data...)

	chunk := []byte{sctpInit, 0}
	chunk = binary.BigEndian.AppendUint16(chunk, uint16(20+len(parameter)))
	chunk = binary.BigEndian.AppendUint32(chunk, 1)     // initiate tag, must not be zero
	chunk = binary.BigEndian.AppendUint32(chunk, 65536) // receiver window
	chunk = binary.BigEndian.AppendUint16(chunk, 1)     // outbound streams
	chunk = binary.BigEndian.AppendUint16(chunk, 1)     // inbound streams
	chunk = binary.BigEndian.AppendUint32(chunk, 1)     // initial TSN
	chunk = append(chunk, parameter...)
	for len(chunk)%4 != 0 {
		chunk = append(chunk, 0) // padding, not counted in the lengths
	}

	b := make([]byte, sctpHeaderLen, sctpHeaderLen+len(chunk))
	binary.BigEndian.PutUint16(b[0:], srcPort)
	binary.BigEndian.PutUint16(b[2:], dstPort)
	b = append(b, chunk...)
	// The verification tag of an INIT is zero. CRC32c is sent with its bytes
	// reversed (RFC 9260, appendix A).
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// pseudo is the sum over the pseudo header of an upper-layer checksum (RFC
// 768, RFC 8200 section 8.1). Both families sum the same fields.
func pseudo(src, dst netip.Addr, protocol uint8, length int) uint32 {
	s := sum(0, src.AsSlice())
	s = sum(s, dst.AsSlice())
	return s + uint32(protocol) + uint32(length)
}

// sum adds up 16-bit words (RFC 1071). At most 64 KiB are summed, so that 32
// bits hold the carries.
func sum(s uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return s
}

func fold(s uint32) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}
