package nflog

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/poldernet/polder/spec"
)

// Packet is what the headers of a packet say.
type Packet struct {
	From, To netip.Addr
	Protocol uint8 // behind IPv6's extension headers
	// Whole says that the header of the protocol is there, so that what follows
	// is. It is not in the fragments after the first, nor where what was reported
	// of the packet ends before it.
	Whole            bool
	Fragment         bool   // not the first
	FromPort, ToPort uint16 // TCP, UDP, SCTP, UDP-Lite and DCCP
	Flags            Flags  // TCP
	Type, Code       uint8  // ICMP and ICMPv6
}

// HasPorts says whether the protocol has ports in the first four bytes of its
// header.
func (p *Packet) HasPorts() bool {
	switch p.Protocol {
	case spec.ProtocolTCP, spec.ProtocolUDP, spec.ProtocolSCTP, protocolDCCP, protocolUDPLite:
		return true
	}
	return false
}

// IsICMP says that the protocol is ICMP or ICMPv6.
func (p *Packet) IsICMP() bool {
	return p.Protocol == spec.ProtocolICMP || p.Protocol == spec.ProtocolICMPv6
}

// Flags are those of TCP, by their bits in its header (RFC 9293, section 3.1).
type Flags uint8

// flagNames are nft's names of the flags, from the lowest bit.
var flagNames = [8]string{"fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr"}

// Names are the flags that are set.
func (f Flags) Names() []string {
	var list []string
	for i, name := range flagNames {
		if f&(1<<i) != 0 {
			list = append(list, name)
		}
	}
	return list
}

var errNotIP = errors.New("neither IPv4 nor IPv6")

// Dissect reads the headers of a packet of which the beginning is there. An
// error says that not even its addresses are.
func Dissect(b []byte) (Packet, error) {
	if len(b) == 0 {
		return Packet{}, ErrShort
	}
	switch b[0] >> 4 {
	case 4:
		return dissectIPv4(b)
	case 6:
		return dissectIPv6(b)
	}
	return Packet{}, errNotIP
}

// ipv4Length is the length of IPv4's header without options (RFC 791).
const ipv4Length = 20

func dissectIPv4(b []byte) (Packet, error) {
	if len(b) < ipv4Length {
		return Packet{}, ErrShort
	}
	p := Packet{From: netip.AddrFrom4([4]byte(b[12:16])), To: netip.AddrFrom4([4]byte(b[16:20])), Protocol: b[9]}
	header := int(b[0]&0x0f) * 4
	if p.Fragment = binary.BigEndian.Uint16(b[6:])&0x1fff != 0; !p.Fragment && ipv4Length <= header && header <= len(b) {
		p.transport(b[header:])
	}
	return p, nil
}

// ipv6Length is the length of IPv6's header (RFC 8200).
const ipv6Length = 40

// Next headers that are extension headers: they have the form of RFC 6564, but
// for the fragment header, which has no length, and the authentication header,
// whose length is in another unit.
const (
	nextHopByHop    = 0
	nextRouting     = 43
	nextFragment    = 44
	nextAuth        = 51
	nextDestination = 60
	nextMobility    = 135
	nextHIP         = 139
	nextShim6       = 140
)

// Further protocols with ports.
const (
	protocolDCCP    = 33
	protocolUDPLite = 136
)

func dissectIPv6(b []byte) (Packet, error) {
	if len(b) < ipv6Length {
		return Packet{}, ErrShort
	}
	p := Packet{From: netip.AddrFrom16([16]byte(b[8:24])), To: netip.AddrFrom16([16]byte(b[24:40])), Protocol: b[6]}
	for b = b[ipv6Length:]; ; {
		var length int
		switch p.Protocol {
		case nextHopByHop, nextRouting, nextDestination, nextMobility, nextHIP, nextShim6:
			if len(b) < 2 {
				return p, nil
			}
			length = (int(b[1]) + 1) * 8
		case nextAuth:
			if len(b) < 2 {
				return p, nil
			}
			length = (int(b[1]) + 2) * 4
		case nextFragment:
			length = 8
			if len(b) < length {
				return p, nil
			}
			p.Fragment = binary.BigEndian.Uint16(b[2:])&^7 != 0
		default:
			if !p.Fragment {
				p.transport(b)
			}
			return p, nil
		}
		if length > len(b) {
			return p, nil // the next header is known to be one, but not which is behind it
		}
		next := b[0]
		b = b[length:]
		p.Protocol = next
		if p.Fragment {
			// What follows in this fragment is not a header.
			return p, nil
		}
	}
}

// transport reads the header of the protocol.
func (p *Packet) transport(b []byte) {
	switch {
	case p.Protocol == spec.ProtocolTCP:
		if len(b) < 14 {
			return
		}
		p.Flags = Flags(b[13])
	case p.HasPorts():
		if len(b) < 4 {
			return
		}
	case p.IsICMP():
		if len(b) < 2 {
			return
		}
		p.Type, p.Code = b[0], b[1]
	}
	if p.HasPorts() {
		p.FromPort, p.ToPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	}
	p.Whole = true
}
