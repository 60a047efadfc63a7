package packet

import "encoding/binary"

// IPv6 extension headers (RFC 8200, section 4).
const (
	HopByHop     = 0
	FragmentNext = 44
	DestOptions  = 60
)

// Extend puts an IPv6 extension header of 8 bytes or more into a packet, in
// front of what its IPv6 header is followed by. The header holds padding only.
func Extend(packet []byte, header uint8, length int) []byte {
	ext := make([]byte, length)
	ext[0], ext[1] = packet[6], uint8(length/8-1)
	// PadN (section 4.2), as many as are needed for its length of one byte. It
	// has two bytes at least.
	for at := 2; at < length; {
		n := min(length-at, 2+0xff)
		if length-at-n == 1 {
			n--
		}
		ext[at], ext[at+1] = 1, uint8(n-2)
		at += n
	}
	return insert(packet, header, ext)
}

// ExtendIPv4 puts options into an IPv4 header that has none, 4 bytes that do
// nothing (RFC 791, section 3.1).
func ExtendIPv4(packet []byte) []byte {
	const noOperation = 1
	b := append([]byte(nil), packet[:IPv4HeaderLen]...)
	b = append(b, noOperation, noOperation, noOperation, noOperation)
	b[0]++ // words of the header
	binary.BigEndian.PutUint16(b[2:], uint16(len(packet)+4))
	binary.BigEndian.PutUint16(b[10:], 0)
	binary.BigEndian.PutUint16(b[10:], fold(sum(0, b)))
	return append(b, packet[IPv4HeaderLen:]...)
}

// insert puts an extension header behind the IPv6 header.
func insert(packet []byte, header uint8, ext []byte) []byte {
	b := append([]byte(nil), packet[:IPv6HeaderLen]...)
	b[6] = header
	b = append(append(b, ext...), packet[IPv6HeaderLen:]...)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)-IPv6HeaderLen))
	return b
}

// Fragments cuts what follows a packet's IP header into fragments of a number
// of bytes, a multiple of 8 (RFC 791, RFC 8200 section 4.5).
func Fragments(packet []byte, size int) [][]byte {
	headerLen := IPv6HeaderLen
	if packet[0]>>4 == 4 {
		headerLen = IPv4HeaderLen
	}
	var list [][]byte
	header, payload := packet[:headerLen], packet[headerLen:]
	for at := 0; at < len(payload); at += size {
		n := min(size, len(payload)-at)
		b := append(append([]byte(nil), header...), payload[at:at+n]...)
		more := at+n < len(payload)
		if headerLen == IPv4HeaderLen {
			list = append(list, fragmentIPv4(b, at, more))
		} else {
			list = append(list, fragmentIPv6(b, at, more))
		}
	}
	return list
}

// fragmentID tells the fragments of one packet from those of another.
const fragmentID = 0x4d21

func fragmentIPv4(b []byte, offset int, more bool) []byte {
	field := uint16(offset / 8)
	if more {
		field |= 0x2000
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	binary.BigEndian.PutUint16(b[4:], fragmentID)
	binary.BigEndian.PutUint16(b[6:], field) // without DF
	binary.BigEndian.PutUint16(b[10:], 0)
	binary.BigEndian.PutUint16(b[10:], fold(sum(0, b[:IPv4HeaderLen])))
	return b
}

func fragmentIPv6(b []byte, offset int, more bool) []byte {
	ext := make([]byte, 8)
	ext[0] = b[6]
	field := uint16(offset) // the offset is a multiple of 8, whose low bits are flags
	if more {
		field |= 1
	}
	binary.BigEndian.PutUint16(ext[2:], field)
	binary.BigEndian.PutUint32(ext[4:], fragmentID)
	return insert(b, FragmentNext, ext)
}
