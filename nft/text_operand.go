package nft

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/bits"
	"strconv"
	"strings"

	"github.com/poldernet/polder/spec"
)

// payload finds the name of the bytes that a load takes.
func (w *ruleWriter) payload(e Payload) operand {
	raw := operand{
		name:   fmt.Sprintf("@%s,%d,%d", [...]string{"ll", "nh", "th"}[min(e.Base, 2)], e.Offset*8, e.Len*8),
		format: rawText, length: int(e.Len),
	}
	switch e.Base {
	case LinkHeader:
		if o, ok := linkOperands[[2]uint32{e.Offset, e.Len}]; ok {
			return o
		}
	case NetworkHeader:
		if o, ok := arpOperands[[2]uint32{e.Offset, e.Len}]; ok && w.nfproto == nfprotoARP {
			return o
		}
		for _, f := range spec.Families {
			fam, word := families.Get(f), map[spec.Family]string{spec.IPv4: "ip", spec.IPv6: "ip6"}[f]
			if w.nfproto != fam.nfproto || e.Len > fam.addrLen {
				continue
			}
			o := operand{format: AddrType(f).format, addr: AddrType(f), length: int(e.Len)}
			switch e.Offset {
			case fam.saddr:
				o.name = word + " saddr"
				return o
			case fam.daddr:
				o.name = word + " daddr"
				return o
			}
		}
	case TransportHeader:
		proto, known := protoNames[uint64(w.l4proto)]
		proto = strings.Replace(proto, "ipv6-icmp", "icmpv6", 1)
		switch {
		case !known:
		case strings.HasPrefix(proto, "icmp"):
			if e.Offset == 0 && e.Len == 1 {
				return typed(proto+" type", Type(proto+"_type"))
			}
		case proto == "tcp" && e.Offset == 13 && e.Len == 1:
			return operand{name: "tcp flags", format: bitNames(tcpFlagNames), length: 1}
		case e.Offset == 0 && e.Len == 2:
			return operand{name: proto + " sport", format: TypeInetService.format, length: 2}
		case e.Offset == 2 && e.Len == 2:
			return operand{name: proto + " dport", format: TypeInetService.format, length: 2}
		}
	}
	return raw
}

// rawText prints bytes of the packet that have no name as one number.
func rawText(d Data) string {
	digits := strings.TrimLeft(hex.EncodeToString([]byte(d)), "0")
	if digits == "" {
		digits = "0"
	}
	return "0x" + digits
}

// typed is an operand of a type, whole.
func typed(name string, t Type) operand {
	return operand{name: name, format: t.format, number: t.number, length: typeInfos[t].length}
}

// linkOperands are fields of the Ethernet header, arpOperands those of an ARP
// packet, by offset and length.
var (
	linkOperands = map[[2]uint32]operand{
		{0, 6}:  typed("ether daddr", TypeEtherAddr),
		{6, 6}:  typed("ether saddr", TypeEtherAddr),
		{12, 2}: typed("ether type", TypeEtherType),
	}
	arpOperands = map[[2]uint32]operand{
		{6, 2}:  typed("arp operation", TypeARPOp),
		{8, 6}:  typed("arp saddr ether", TypeEtherAddr),
		{14, 4}: typed("arp saddr ip", TypeIPv4Addr),
		{24, 4}: typed("arp daddr ip", TypeIPv4Addr),
	}
)

// settableName is the name of a property that is written.
func settableName(key MetaKey) string {
	return formatName(map[uint64]string{uint64(MetaMark): "meta mark"}, uint64(key), "<meta %d>")
}

func metaOperand(key MetaKey) operand {
	switch key {
	case MetaProtocol:
		return typed("meta protocol", TypeEtherType)
	case MetaMark:
		return typed("meta mark", TypeMark)
	case MetaIIFName:
		return operand{name: "iifname", format: interfaceText, length: 16}
	case MetaOIFName:
		return operand{name: "oifname", format: interfaceText, length: 16}
	case MetaIIFKind:
		return operand{name: "meta iifkind", format: interfaceText, length: 16}
	case MetaOIFKind:
		return operand{name: "meta oifkind", format: interfaceText, length: 16}
	case MetaNFProto:
		return operand{name: "meta nfproto", format: byteNames(map[uint64]string{2: "ipv4", 10: "ipv6"}), length: 1}
	case MetaL4Proto:
		return typed("meta l4proto", TypeInetProto)
	case MetaPktType:
		return operand{name: "meta pkttype", format: byteNames(map[uint64]string{0: "host", 1: "broadcast", 2: "multicast", 3: "other"}), length: 1}
	}
	return operand{name: fmt.Sprintf("<meta %d>", key), format: hexText, length: 4}
}

// interfaceText prints a name; fewer than 16 bytes are the beginning of one.
func interfaceText(d Data) string {
	text := strings.TrimRight(string(d), "\x00")
	if len(d) < typeInfos[TypeIfName].length {
		text += "*"
	}
	return strconv.Quote(text)
}

func ctOperand(e CT) operand {
	dir := map[Direction]string{Original: "original ", Reply: "reply "}[e.Dir]
	switch e.Key {
	case CTKeyState:
		return operand{name: "ct state", format: bitNames(ctStateNames), length: 4}
	case CTKeyDirection:
		return operand{name: "ct direction", format: byteNames(map[uint64]string{0: "original", 1: "reply"}), length: 1}
	case CTKeyProtoSrc, CTKeyProtoDst:
		name := map[CTKey]string{CTKeyProtoSrc: "proto-src", CTKeyProtoDst: "proto-dst"}[e.Key]
		return operand{name: "ct " + dir + name, format: TypeInetService.format, length: 2}
	case CTKeySrcIPv4, CTKeyDstIPv4:
		name := map[CTKey]string{CTKeySrcIPv4: "ip saddr", CTKeyDstIPv4: "ip daddr"}[e.Key]
		return operand{name: "ct " + dir + name, format: TypeIPv4Addr.format, addr: TypeIPv4Addr, length: 4}
	case CTKeySrcIPv6, CTKeyDstIPv6:
		name := map[CTKey]string{CTKeySrcIPv6: "ip6 saddr", CTKeyDstIPv6: "ip6 daddr"}[e.Key]
		return operand{name: "ct " + dir + name, format: TypeIPv6Addr.format, addr: TypeIPv6Addr, length: 16}
	}
	return operand{name: fmt.Sprintf("<ct %s%d>", dir, e.Key), format: hexText, length: 4}
}

func fibOperand(e FIB) operand {
	var in []string
	for _, f := range []struct {
		flag FIBFlags
		name string
	}{{FIBSaddr, "saddr"}, {FIBDaddr, "daddr"}, {1 << 2, "mark"}, {FIBIIF, "iif"}, {1 << 4, "oif"}} {
		if e.Flags&f.flag != 0 {
			in = append(in, f.name)
		}
	}
	result := formatName(map[uint64]string{1: "oif", 2: "oifname", 3: "type"}, uint64(e.Result), "<result %d>")
	o := operand{name: "fib " + strings.Join(in, " . ") + " " + result, format: hexText, length: 4}
	switch {
	case e.Flags&FIBPresent != 0:
		o.format = hostNames(map[uint64]string{0: "missing", 1: "exists"})
	case e.Result == FIBAddrType:
		o.format = hostNames(map[uint64]string{1: "unicast", 2: "local", 3: "broadcast"})
	}
	return o
}

// Names of single bits, lowest first, "" for those without.
var (
	tcpFlagNames = []string{"fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr"}
	ctStateNames = []string{"invalid", "established", "related", "new", "", "", "untracked"}
)

// bitNames prints a number in the host's byte order as the names of its bits.
func bitNames(names []string) func(Data) string {
	return func(d Data) string {
		var b [4]byte
		switch len(d) {
		case 1:
			b = [4]byte(binary.NativeEndian.AppendUint32(nil, uint32(d[0])))
		case 4:
			b = [4]byte([]byte(d))
		default:
			return hexText(d)
		}
		var set []string
		for n := binary.NativeEndian.Uint32(b[:]); n != 0; n &= n - 1 {
			i := bits.TrailingZeros32(n)
			if i >= len(names) || names[i] == "" {
				return hexText(d)
			}
			set = append(set, names[i])
		}
		if len(set) == 0 {
			return "0x0"
		}
		return strings.Join(set, ",")
	}
}

// byteNames prints a byte by a name, or as a decimal number.
func byteNames(names map[uint64]string) func(Data) string {
	return func(d Data) string {
		if len(d) != 1 {
			return hexText(d)
		}
		return formatName(names, uint64(d[0]), "%d")
	}
}

// hostNames prints a 32-bit number in the host's byte order by a name, or as a
// decimal number.
func hostNames(names map[uint64]string) func(Data) string {
	return func(d Data) string {
		if len(d) != 4 {
			return hexText(d)
		}
		return formatName(names, uint64(binary.NativeEndian.Uint32([]byte(d))), "%d")
	}
}
