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
	TypeARPOp       Type = "arp_op"
	TypeInetProto   Type = "inet_proto"
	TypeInetService Type = "inet_service"
	TypeICMPType    Type = "icmp_type"
	TypeICMPv6Type  Type = "icmpv6_type"
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
	TypeARPOp:       {11, 2, false},
	TypeInetProto:   {12, 1, false},
	TypeInetService: {13, 2, false},
	TypeICMPType:    {14, 1, false},
	TypeICMPv6Type:  {29, 1, false},
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
	case TypeARPOp:
		return formatName(arpOpNames, uint64(binary.BigEndian.Uint16(b)), "%d")
	case TypeInetProto:
		return formatName(protoNames, uint64(b[0]), "%d")
	case TypeICMPType:
		return formatName(icmpTypeNames, uint64(b[0]), "%d")
	case TypeICMPv6Type:
		return formatName(icmpv6TypeNames, uint64(b[0]), "%d")
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
	return t.number(first) + "-" + t.number(last)
}

// number is a value as an end of a range, where nft(8) uses no names.
func (t Type) number(d Data) string {
	if info, ok := typeInfos[t]; !ok || len(d) != info.length {
		return t.format(d)
	}
	switch b := []byte(d); t {
	case TypeEtherType:
		return fmt.Sprintf("0x%04x", binary.BigEndian.Uint16(b))
	case TypeARPOp:
		return strconv.Itoa(int(binary.BigEndian.Uint16(b)))
	case TypeInetProto, TypeICMPType, TypeICMPv6Type:
		return strconv.Itoa(int(b[0]))
	}
	return t.format(d)
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

// ones is the number of bits that are set.
func ones(d Data) int {
	n := 0
	for i := range len(d) {
		n += bits.OnesCount8(d[i])
	}
	return n
}

// maskLength is the number of leading ones of a mask that has no others.
func maskLength(mask Data) (int, bool) {
	n := ones(mask)
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
	arpOpNames     = map[uint64]string{1: "request", 2: "reply", 3: "rrequest", 4: "rreply", 8: "inrequest", 9: "inreply", 10: "nak"}
	limitUnits     = map[uint64]string{1: "second", 60: "minute", 3600: "hour", 86400: "day", 604800: "week"}
	icmpTypeNames  = map[uint64]string{
		0: "echo-reply", 3: "destination-unreachable", 4: "source-quench", 5: "redirect", 8: "echo-request",
		9: "router-advertisement", 10: "router-solicitation", 11: "time-exceeded", 12: "parameter-problem",
		13: "timestamp-request", 14: "timestamp-reply", 15: "info-request", 16: "info-reply",
		17: "address-mask-request", 18: "address-mask-reply",
	}
	icmpv6TypeNames = map[uint64]string{
		1: "destination-unreachable", 2: "packet-too-big", 3: "time-exceeded", 4: "parameter-problem",
		128: "echo-request", 129: "echo-reply", 130: "mld-listener-query", 131: "mld-listener-report", 132: "mld-listener-done",
		133: "nd-router-solicit", 134: "nd-router-advert",
		135: "nd-neighbor-solicit", 136: "nd-neighbor-advert", //nolint:misspell // nft(8)'s words
		137: "nd-redirect", 138: "router-renumbering",
		141: "ind-neighbor-solicit", 142: "ind-neighbor-advert", //nolint:misspell // nft(8)'s words
		143: "mld2-listener-report",
	}
)

func formatName(names map[uint64]string, n uint64, format string) string {
	if name, ok := names[n]; ok {
		return name
	}
	return fmt.Sprintf(format, n)
}
