package overlay

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// The layout of rtnetlink messages (netlink(7), rtnetlink.h). Neighbours, FDB
// rows, nexthop objects and routes come by the thousand, so they are written
// here, many to a system call; to write links and addresses, which are few, is
// left to the library. Everything is read here, since a reading and a
// notification have to say the same.

// message is one rtnetlink request without its header.
type message struct {
	kind  uint16 // RTM_*
	flags uint16 // NLM_F_*, without NLM_F_REQUEST
	body  []byte // the fixed part and the attributes
}

const (
	headerLen = 16 // struct nlmsghdr
	attrLen   = 4  // struct rtattr
)

func align4(n int) int { return (n + 3) &^ 3 }

// appendMessage appends the message as it goes over the wire.
func appendMessage(b []byte, m message, seq uint32) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(headerLen+len(m.body)))
	b = binary.NativeEndian.AppendUint16(b, m.kind)
	b = binary.NativeEndian.AppendUint16(b, m.flags|flagRequest)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, 0) // port ID: the kernel knows
	b = append(b, m.body...)
	return pad4(b)
}

func appendAttr(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(attrLen+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	return pad4(append(b, value...))
}

func appendAttr32(b []byte, kind uint16, value uint32) []byte {
	var v [4]byte
	binary.NativeEndian.PutUint32(v[:], value)
	return appendAttr(b, kind, v[:])
}

func appendAddr(b []byte, kind uint16, a netip.Addr) []byte {
	return appendAttr(b, kind, a.AsSlice())
}

func pad4(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// eachMessage walks over the messages of one datagram.
func eachMessage(b []byte, fn func(kind, flags uint16, seq uint32, body []byte) error) error {
	for len(b) > 0 {
		if len(b) < headerLen {
			return fmt.Errorf("netlink datagram ends inside a header, %d bytes left", len(b))
		}
		n := int(binary.NativeEndian.Uint32(b))
		if n < headerLen || n > len(b) {
			return fmt.Errorf("netlink message of %d bytes in a datagram of %d", n, len(b))
		}
		kind, flags := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:])
		if err := fn(kind, flags, binary.NativeEndian.Uint32(b[8:]), b[headerLen:n]); err != nil {
			return err
		}
		b = b[min(align4(n), len(b)):]
	}
	return nil
}

// nestedFlags are the two high bits of an attribute's type: nested, and in
// network byte order.
const nestedFlags = 0xc000

// nestedFlag marks a nested attribute (netlink.h, NLA_F_NESTED).
const nestedFlag = 0x8000

// eachAttr walks over attributes.
func eachAttr(b []byte, fn func(kind uint16, value []byte)) error {
	for len(b) > 0 {
		if len(b) < attrLen {
			return fmt.Errorf("attribute list ends inside a header, %d bytes left", len(b))
		}
		n := int(binary.NativeEndian.Uint16(b))
		if n < attrLen || n > len(b) {
			return fmt.Errorf("attribute of %d bytes in a list of %d", n, len(b))
		}
		fn(binary.NativeEndian.Uint16(b[2:])&^nestedFlags, b[attrLen:n])
		b = b[min(align4(n), len(b)):]
	}
	return nil
}

// addrFrom reads an address attribute of either family.
func addrFrom(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}

func uint32From(b []byte) uint32 {
	if len(b) != 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(b)
}
