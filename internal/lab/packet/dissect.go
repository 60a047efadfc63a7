package packet

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/poldernet/polder/spec"
)

// Packet is what a frame holds, as far as it could be understood.
type Packet struct {
	EtherSrc, EtherDst spec.MAC
	Src, Dst           netip.Addr
	Protocol           uint8
	SrcPort, DstPort   uint16 // of TCP, UDP and SCTP
	Payload            []byte // behind the UDP header, else behind the IP header
}

// The reasons why a frame cannot be dissected.
var (
	errShort    = errors.New("frame is cut short")
	errNotIP    = errors.New("frame does not carry IP")
	errFragment = errors.New("packet is a later fragment")
)

// Dissect reads an Ethernet frame with an IP packet, under any number of VLAN
// tags. Bytes behind the packet's own length (padding) are left out.
func Dissect(frame []byte) (p Packet, err error) {
	if len(frame) < etherHeaderLen {
		return p, errShort
	}
	p.EtherDst, p.EtherSrc = spec.MAC(frame[0:6]), spec.MAC(frame[6:12])
	etherType, rest := binary.BigEndian.Uint16(frame[12:]), frame[etherHeaderLen:]
	for etherType == EtherVLAN || etherType == EtherQinQ {
		if len(rest) < vlanTagLen {
			return p, errShort
		}
		etherType, rest = binary.BigEndian.Uint16(rest[2:]), rest[vlanTagLen:]
	}
	switch etherType {
	case EtherIPv4:
		err = p.dissectIPv4(rest)
	case EtherIPv6:
		err = p.dissectIPv6(rest)
	default:
		err = errNotIP
	}
	return p, err
}

func (p *Packet) dissectIPv4(b []byte) error {
	if len(b) < IPv4HeaderLen {
		return errShort
	}
	header, total := int(b[0]&0x0f)*4, int(binary.BigEndian.Uint16(b[2:]))
	if b[0]>>4 != 4 || header < IPv4HeaderLen || total < header {
		return errNotIP
	}
	if len(b) < total {
		return errShort
	}
	p.Protocol = b[9]
	p.Src, p.Dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	if binary.BigEndian.Uint16(b[6:])&0x1fff != 0 {
		return errFragment
	}
	return p.dissectTransport(b[header:total])
}

// dissectIPv6 reads no extension headers: the probes have none.
func (p *Packet) dissectIPv6(b []byte) error {
	if len(b) < IPv6HeaderLen {
		return errShort
	}
	if b[0]>>4 != 6 {
		return errNotIP
	}
	total := IPv6HeaderLen + int(binary.BigEndian.Uint16(b[4:]))
	if len(b) < total {
		return errShort
	}
	p.Protocol = b[6]
	p.Src, p.Dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	return p.dissectTransport(b[IPv6HeaderLen:total])
}

func (p *Packet) dissectTransport(b []byte) error {
	p.Payload = b
	switch p.Protocol {
	case TCP, UDP, SCTP:
		if len(b) < UDPHeaderLen {
			return errShort
		}
		p.SrcPort, p.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	}
	if p.Protocol == UDP {
		p.Payload = b[UDPHeaderLen:]
	}
	return nil
}

// VXLAN is the frame inside the packet, if that is VXLAN to the port, with its
// network identifier (RFC 7348).
func (p Packet) VXLAN(port uint16) (vni uint32, frame []byte, ok bool) {
	if p.Protocol != UDP || p.DstPort != port || len(p.Payload) < vxlanHeaderLen || p.Payload[0]&vxlanFlagVNI == 0 {
		return 0, nil, false
	}
	return binary.BigEndian.Uint32(p.Payload[4:]) >> 8, p.Payload[vxlanHeaderLen:], true
}
