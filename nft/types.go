package nft

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/bits"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Type is the type of a key field, by its nft(8) name.
type Type string

// The types of the keys that we use.
const (
	TypeIPv4Addr    Type = "ipv4_addr"
	TypeIPv6Addr    Type = "ipv6_addr"
	TypeEtherAddr   Type = "ether_addr"
	TypeEtherType   Type = "ether_type"
	TypeInetProto   Type = "inet_proto"
	TypeInetService Type = "inet_service"
	TypeMark        Type = "mark"
	TypeIfName      Type = "ifname"
)

// typeInfo is what nft(8) and the kernel's user data know of a type. The
// number is nft's own (enum datatypes in its include/datatype.h); the kernel
// stores it without understanding it.
type typeInfo struct {
	number uint32
	length int  // bytes
	host   bool // in the host's byte order, to nft(8)
}

var typeInfos = map[Type]typeInfo{
	TypeIPv4Addr:    {7, 4, false},
	TypeIPv6Addr:    {8, 16, false},
	TypeEtherAddr:   {9, 6, false},
	TypeEtherType:   {10, 2, false},
	TypeInetProto:   {12, 1, false},
	TypeInetService: {13, 2, false},
	TypeMark:        {19, 4, true},
	TypeIfName:      {41, 16, true},
}

var typesByNumber = func() map[uint32]Type {
	m := make(map[uint32]Type, len(typeInfos))
	for t, info := range typeInfos {
		m[info.number] = t
	}
	return m
}()

// typeBits is the width of a field in the type number of a concatenation
// (TYPE_BITS in nft's include/datatype.h).
const typeBits = 6

// keyTypes takes the type number of a key apart. Types that we do not know come
// out as "type 27": they equal none of ours.
func keyTypes(number uint32) []Type {
	var key []Type
	for ; number != 0; number >>= typeBits {
		n := number & (1<<typeBits - 1)
		t, ok := typesByNumber[n]
		if !ok {
			t = Type("type " + strconv.FormatUint(uint64(n), 10))
		}
		key = append([]Type{t}, key...)
	}
	return key
}

// padded is the room of a field in a concatenation.
func padded(n int) int { return (n + 3) &^ 3 }

// keyLength is the length of a key in bytes.
func keyLength(key []Type) int {
	if len(key) == 1 {
		return typeInfos[key[0]].length
	}
	n := 0
	for _, t := range key {
		n += padded(typeInfos[t].length)
	}
	return n
}

// format is a value of the type in nft(8) syntax.
func (t Type) format(d Data) string {
	if info, ok := typeInfos[t]; !ok || len(d) != info.length {
		return "0x" + hex.EncodeToString([]byte(d))
	}
	switch b := []byte(d); t {
	case TypeIPv4Addr, TypeIPv6Addr:
		a, _ := netip.AddrFromSlice(b) // the length has been checked
		return a.String()
	case TypeEtherAddr:
		return net.HardwareAddr(b).String()
	case TypeEtherType:
		return formatName(etherTypeNames, uint64(binary.BigEndian.Uint16(b)), "0x%04x")
	case TypeInetProto:
		return formatName(protoNames, uint64(b[0]), "%d")
	case TypeInetService:
		return strconv.Itoa(int(binary.BigEndian.Uint16(b)))
	case TypeMark:
		return fmt.Sprintf("0x%08x", binary.NativeEndian.Uint32(b))
	case TypeIfName:
		return strconv.Quote(strings.TrimRight(string(d), "\x00"))
	}
	return "0x" + hex.EncodeToString([]byte(d))
}

// formatRange is a field from first to last in nft(8) syntax: a value, a
// prefix or a range.
func (t Type) formatRange(first, last Data) string {
	if first == last {
		return t.format(first)
	}
	// What the kernel told may have any length.
	if (t == TypeIPv4Addr || t == TypeIPv6Addr) && len(first) == len(last) {
		if n, ok := prefixLength(first, last); ok {
			return t.format(first) + "/" + strconv.Itoa(n)
		}
	}
	return t.format(first) + "-" + t.format(last)
}

// prefixLength is the length of the prefix that spans first to last, if one
// does.
func prefixLength(first, last Data) (int, bool) {
	n := 0
	for n < len(first)*8 && bit(first, n) == bit(last, n) {
		n++
	}
	for i := n; i < len(first)*8; i++ {
		if bit(first, i) != 0 || bit(last, i) != 1 {
			return 0, false
		}
	}
	return n, true
}

func bit(d Data, i int) byte { return d[i/8] >> (7 - i%8) & 1 }

// maskLength is the number of leading ones of a mask that has no others.
func maskLength(mask Data) (int, bool) {
	n := 0
	for i := range len(mask) {
		n += bits.OnesCount8(mask[i])
	}
	for i := range n {
		if bit(mask, i) == 0 {
			return 0, false
		}
	}
	return n, true
}

// Names are printed as nft(8) prints them; other values as numbers.
var (
	protoNames     = map[uint64]string{1: "icmp", 6: "tcp", 17: "udp", 58: "ipv6-icmp", 132: "sctp"}
	etherTypeNames = map[uint64]string{0x0800: "ip", 0x0806: "arp", 0x86dd: "ip6", 0x8100: "8021q", 0x88a8: "8021ad"}
)

func formatName(names map[uint64]string, n uint64, format string) string {
	if name, ok := names[n]; ok {
		return name
	}
	return fmt.Sprintf(format, n)
}
