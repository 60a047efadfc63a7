package agree

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"net/netip"

	"github.com/poldernet/polder/internal/lab/packet"
	"github.com/poldernet/polder/spec"
)

// wire is a packet as it is sent.
type wire struct {
	src, dst   netip.AddrPort
	protocol   uint8
	flags      uint8 // TCP's
	typ, code  uint8 // ICMP's
	identifier uint16
}

// magic stands before a packet's identity.
var magic = []byte("polder:")

// packet is the IP packet with an identity in it.
func (w wire) packet(id uint32) []byte {
	data := binary.BigEndian.AppendUint32(bytes.Clone(magic), id)
	var b []byte
	ports := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, w.src.Port()), w.dst.Port())
	check := -1 // where the Internet checksum is
	switch w.protocol {
	case spec.ProtocolTCP:
		b = append(ports, 0, 0, 0, 100, 0, 0, 0, 0, 5<<4, w.flags, 0xff, 0xff, 0, 0, 0, 0)
		if w.flags&flagACK != 0 {
			b[11] = 101
		}
		b, check = append(b, data...), 16
	case spec.ProtocolUDP:
		b = append(ports, 0, byte(8+len(data)), 0, 0)
		b, check = append(b, data...), 6
	case spec.ProtocolSCTP:
		b = packet.NewSCTPInit(w.src.Port(), w.dst.Port(), data)
		if w.flags&flagACK != 0 { // an INIT ACK, which answers with the initiate tag
			b[12] = 2
			b[7] = 1
			clear(b[8:12])
			binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
		}
	case spec.ProtocolICMP, spec.ProtocolICMPv6:
		b = binary.BigEndian.AppendUint16([]byte{w.typ, w.code, 0, 0}, w.identifier)
		b, check = append(append(b, 0, 1), data...), 2
	default:
		b = append([]byte{0, 0, 0, 0}, data...)
	}
	if check >= 0 {
		binary.BigEndian.PutUint16(b[check:], w.checksum(b))
	}
	return packet.IP(w.src.Addr(), w.dst.Addr(), w.protocol, b)
}

// checksum is the Internet checksum, over a pseudo header but for ICMP.
func (w wire) checksum(b []byte) uint16 {
	var over []byte
	if w.protocol != spec.ProtocolICMP {
		over = append(append(over, w.src.Addr().AsSlice()...), w.dst.Addr().AsSlice()...)
		over = append(over, 0, w.protocol, byte(len(b)>>8), byte(len(b)))
	}
	over = append(over, b...)
	if len(over)%2 == 1 {
		over = append(over, 0)
	}
	var sum uint32
	for i := 0; i < len(over); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(over[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	if sum == 0xffff && w.protocol == spec.ProtocolUDP {
		return 0xffff // zero means that there is none
	}
	return ^uint16(sum)
}

// identity finds a packet's identity in what was received.
func identity(b []byte) (uint32, bool) {
	i := bytes.Index(b, magic)
	if i < 0 || len(b) < i+len(magic)+4 {
		return 0, false
	}
	return binary.BigEndian.Uint32(b[i+len(magic):]), true
}
