package verdict

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/poldernet/polder/nft"
)

// Packet is what rules can ask of a packet of IPv4 or IPv6.
type Packet struct {
	In, Out string // interfaces; "": none, as at output and input
	Mark    uint32

	Src, Dst netip.Addr // of the IP header
	Protocol uint8      // IPPROTO_*
	// SrcPort and DstPort are those of TCP, UDP and SCTP.
	SrcPort, DstPort uint16
	TCPFlags         uint8
	// Type and Code are those of ICMP and ICMPv6.
	Type, Code uint8

	Conn Conn
}

// Conn is what connection tracking knows of a packet.
type Conn struct {
	// State is one of the nft.CTKeyState bits. Packets that are invalid or
	// untracked have no connection: nothing but their state can be asked.
	State uint32
	// Answers says that the packet goes in the direction of the replies.
	Answers bool
	// Original and Reply are the tuples of both directions, as they stand in
	// the table: each as its packets come in, before translations.
	Original, Reply Tuple
}

// Tuple identifies a direction of a connection.
type Tuple struct {
	Src, Dst netip.Addr
	// SrcPort and DstPort are ports, or ICMP's identifier and type<<8|code
	// (union nf_conntrack_man_proto, <linux/netfilter/nf_conntrack_tuple_common.h>);
	// 0 of other protocols.
	SrcPort, DstPort uint16
}

// IP protocols, and TCP's flags, as far as the offsets of headers differ.
const (
	icmp   = 1
	tcp    = 6
	udp    = 17
	icmpv6 = 58
	sctp   = 132
)

// Numbers of families, <linux/netfilter.h>, and their EtherTypes.
const (
	nfprotoIPv4 = 2
	nfprotoIPv6 = 10

	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd
)

// registers are what expressions load data into, 4 bytes a slot.
type registers [64]byte

// store puts data at a register. The rest of its last slot becomes zero, as the
// kernel's nft_reg_store8 and the payload's load make it.
func (r *registers) store(at nft.Register, data []byte) error {
	from := int(at) * 4
	to := from + (len(data)+3)&^3
	if to > len(r) {
		return fmt.Errorf("register %d takes no %d bytes", at, len(data))
	}
	clear(r[from+copy(r[from:to], data) : to])
	return nil
}

// load is n bytes from a register on.
func (r *registers) load(at nft.Register, n int) ([]byte, error) {
	from := int(at) * 4
	if from+n > len(r) {
		return nil, fmt.Errorf("register %d holds no %d bytes", at, n)
	}
	return r[from : from+n], nil
}

// meta loads a property of the packet.
func (p *Packet) meta(e nft.Meta, mark uint32, r *registers) error {
	var b [16]byte
	var n int
	switch e.Key {
	case nft.MetaProtocol:
		n = 2
		binary.BigEndian.PutUint16(b[:], p.pick(etherIPv4, etherIPv6))
	case nft.MetaMark:
		n = 4
		binary.NativeEndian.PutUint32(b[:], mark)
	case nft.MetaIIFName:
		n = len(b)
		copy(b[:], p.In)
	case nft.MetaOIFName:
		n = len(b)
		copy(b[:], p.Out)
	case nft.MetaNFProto:
		n = 1
		b[0] = byte(p.pick(nfprotoIPv4, nfprotoIPv6))
	case nft.MetaL4Proto:
		n = 1
		b[0] = p.Protocol
	default:
		return fmt.Errorf("unknown meta key %d", e.Key)
	}
	return r.store(e.Reg, b[:n])
}

// pick is the family's value.
func (p *Packet) pick(v4, v6 uint16) uint16 {
	if p.Src.Is4() {
		return v4
	}
	return v6
}

// region is a part of a header whose content is known.
type region struct {
	offset uint32
	data   []byte
}

// payload loads bytes of a header. What the packet says nothing about, as its
// TTL, cannot be loaded.
func (p *Packet) payload(e nft.Payload, r *registers) error {
	var buffer [32]byte
	var regions [3]region
	n := 0
	switch e.Base {
	case nft.NetworkHeader:
		src, dst := p.Src.As16(), p.Dst.As16()
		copy(buffer[:16], src[:])
		copy(buffer[16:], dst[:])
		if p.Src.Is4() {
			regions = [3]region{{9, []byte{p.Protocol}}, {12, buffer[12:16]}, {16, buffer[28:]}}
		} else {
			regions = [3]region{{6, []byte{p.Protocol}}, {8, buffer[:16]}, {24, buffer[16:]}}
		}
		n = 3
	case nft.TransportHeader:
		switch p.Protocol {
		case icmp, icmpv6:
			regions[0] = region{0, append(buffer[:0], p.Type, p.Code)}
			n = 1
		case tcp, udp, sctp:
			ports := binary.BigEndian.AppendUint16(buffer[:0], p.SrcPort)
			regions[0] = region{0, binary.BigEndian.AppendUint16(ports, p.DstPort)}
			n = 1
			if p.Protocol == tcp {
				regions[1] = region{13, []byte{p.TCPFlags}}
				n = 2
			}
		}
	}
	for _, g := range regions[:n] {
		if e.Offset >= g.offset && e.Offset+e.Len <= g.offset+uint32(len(g.data)) {
			from := e.Offset - g.offset
			return r.store(e.Reg, g.data[from:from+e.Len])
		}
	}
	return fmt.Errorf("unknown payload: %d bytes at %d of header %d in protocol %d", e.Len, e.Offset, e.Base, p.Protocol)
}

// ct loads a property of the packet's connection, and says whether it has it.
func (p *Packet) ct(e nft.CT, r *registers) (bool, error) {
	if e.Key == nft.CTKeyState {
		return true, r.store(e.Reg, binary.NativeEndian.AppendUint32(nil, p.Conn.State))
	}
	if p.Conn.State&(nft.CTStateInvalid|nft.CTStateUntracked) != 0 {
		return false, nil
	}
	if e.Key == nft.CTKeyDirection {
		b := byte(0)
		if p.Conn.Answers {
			b = 1
		}
		return true, r.store(e.Reg, []byte{b})
	}
	t := p.Conn.Original
	switch e.Dir {
	case nft.Original:
	case nft.Reply:
		t = p.Conn.Reply
	default:
		return false, fmt.Errorf("ct key %d needs a direction", e.Key)
	}
	address := func(a netip.Addr, v4 bool) (bool, error) {
		// The kernel asks for the family of the connection (nft_ct_get_eval).
		if p.Src.Is4() != v4 {
			return false, nil
		}
		return true, r.store(e.Reg, a.AsSlice())
	}
	switch e.Key {
	case nft.CTKeyProtoSrc:
		return true, r.store(e.Reg, binary.BigEndian.AppendUint16(nil, t.SrcPort))
	case nft.CTKeyProtoDst:
		return true, r.store(e.Reg, binary.BigEndian.AppendUint16(nil, t.DstPort))
	case nft.CTKeySrcIPv4:
		return address(t.Src, true)
	case nft.CTKeyDstIPv4:
		return address(t.Dst, true)
	case nft.CTKeySrcIPv6:
		return address(t.Src, false)
	case nft.CTKeyDstIPv6:
		return address(t.Dst, false)
	}
	return false, fmt.Errorf("unknown ct key %d", e.Key)
}
