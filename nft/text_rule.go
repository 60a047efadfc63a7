package nft

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"github.com/poldernet/polder/spec"
)

// String is the rule in nft(8) syntax. Expressions that no sequence of words
// stands for are printed in angle brackets.
func (r Rule) String() string {
	w := ruleWriter{exprs: r.Exprs}
	for w.pos < len(w.exprs) {
		w.next()
	}
	if r.Comment != "" {
		w.words = append(w.words, `comment "`+r.Comment+`"`) // nft(8) knows no escapes
	}
	return strings.Join(w.words, " ")
}

// operand is what a register holds, in words.
type operand struct {
	name   string
	format func(Data) string
	addr   Type // of an address, which can be compared with a prefix
	length int  // bytes that were loaded
	mask   Data // "": all bits
}

// ruleWriter turns expressions back to words, from left to right.
type ruleWriter struct {
	exprs []Expr
	pos   int
	words []string
	regs  [16]*operand
	// What the matches so far say about the packet. The meaning of a payload
	// load depends on it.
	nfproto, l4proto byte
}

func (w *ruleWriter) say(format string, args ...any) {
	w.words = append(w.words, fmt.Sprintf(format, args...))
}

func (w *ruleWriter) next() {
	e := w.exprs[w.pos]
	w.pos++
	switch e := e.(type) {
	case Payload:
		w.load(e.Reg, w.payload(e))
	case Meta:
		w.load(e.Reg, metaOperand(e.Key))
	case CT:
		w.load(e.Reg, ctOperand(e))
	case FIB:
		w.load(e.Reg, fibOperand(e))
	case Bitwise:
		w.bitwise(e)
	case Cmp:
		w.cmp(e)
	case Lookup:
		w.lookup(e)
	case Verdict:
		w.say("%s", e)
	case Counter:
		w.say("counter")
	case CounterRef:
		w.say("counter name %q", e.Name)
	case Masquerade:
		w.masquerade(e)
	case Notrack:
		w.say("notrack")
	case Unknown:
		w.say("<%s %s>", e.Name, hex.EncodeToString([]byte(e.Data)))
	}
}

func (w *ruleWriter) load(r Register, o operand) {
	if int(r) < len(w.regs) {
		w.regs[r] = &o
	}
}

// take is the operand in a register.
func (w *ruleWriter) take(r Register) operand {
	if int(r) < len(w.regs) && w.regs[r] != nil {
		return *w.regs[r]
	}
	return operand{name: fmt.Sprintf("<register %d>", r), format: hexText}
}

func hexText(d Data) string { return "0x" + hex.EncodeToString([]byte(d)) }

func (w *ruleWriter) bitwise(e Bitwise) {
	o := w.take(e.Reg)
	if strings.Trim(string(e.Xor), "\x00") != "" || o.mask != "" {
		o.name = fmt.Sprintf("<%s & %s ^ %s>", o.name, hexText(e.Mask), hexText(e.Xor))
	} else {
		o.mask = e.Mask
	}
	w.load(e.Dst, o)
}

func (w *ruleWriter) cmp(e Cmp) {
	o := w.take(e.Reg)
	op := map[CmpOp]string{Eq: "", Neq: "!= ", Lt: "< ", Lte: "<= ", Gt: "> ", Gte: ">= "}[e.Op]
	if e.Op == Eq && w.understood(o, e.Data) {
		return
	}
	if next, ok := w.peek().(Cmp); ok && o.mask == "" && e.Op == Gte && next.Op == Lte && next.Reg == e.Reg {
		w.pos++
		w.say("%s %s-%s", o.name, o.format(e.Data), o.format(next.Data))
		return
	}
	switch {
	case o.addr != "" && (o.mask != "" || len(e.Data) < typeInfos[o.addr].length):
		w.say("%s %s%s", o.name, op, prefixText(o, e.Data))
	case o.mask == "":
		w.say("%s %s%s", o.name, op, o.format(e.Data))
	case o.name == "ct state" && e.Op == Neq && strings.Trim(string(e.Data), "\x00") == "":
		w.say("%s %s", o.name, o.format(o.mask))
	case o.name == "tcp flags":
		w.say("%s %s%s / %s", o.name, op, o.format(e.Data), o.format(o.mask))
	default:
		if op == "" {
			op = "== "
		}
		w.say("%s & %s %s%s", o.name, o.format(o.mask), op, o.format(e.Data))
	}
}

func (w *ruleWriter) peek() Expr {
	if w.pos < len(w.exprs) {
		return w.exprs[w.pos]
	}
	return nil
}

// understood says that a comparison only makes a later payload load mean
// something, so that nft(8) leaves it out: "meta nfproto ipv4 ip saddr ..." is
// "ip saddr ...".
func (w *ruleWriter) understood(o operand, d Data) bool {
	var base PayloadBase
	switch {
	case len(d) != 1 || o.mask != "":
		return false
	case o.name == "meta nfproto":
		w.nfproto, base = d[0], NetworkHeader
	case o.name == "meta l4proto":
		w.l4proto, base = d[0], TransportHeader
	default:
		return false
	}
	return slices.ContainsFunc(w.exprs[w.pos:], func(e Expr) bool {
		p, ok := e.(Payload)
		return ok && (p.Base == base || p.Base == TransportHeader && w.icmpFollows())
	})
}

// icmpFollows says that the rule goes on with the ICMP of the family, which to
// nft(8) implies the family.
func (w *ruleWriter) icmpFollows() bool {
	for _, f := range spec.Families {
		if fam := families.Get(f); fam.nfproto == w.nfproto {
			return slices.Contains(w.exprs[w.pos:], Expr(Cmp{Op: Eq, Data: Proto(fam.icmp)}))
		}
	}
	return false
}

// prefixText is the prefix that an address is compared with: by a mask, or by
// fewer bytes than an address has.
func prefixText(o operand, d Data) string {
	n := len(d) * 8
	if o.mask != "" {
		var ok bool
		if n, ok = maskLength(o.mask); !ok {
			return hexText(o.mask) + " " + hexText(d)
		}
	}
	full := make([]byte, typeInfos[o.addr].length)
	copy(full, d)
	return o.addr.format(Data(full)) + "/" + strconv.Itoa(n)
}

// lookup prints a look-up. In a concatenation the fields stand in consecutive
// registers; all that were loaded since the last match belong to it.
func (w *ruleWriter) lookup(e Lookup) {
	var fields []string
	for r := e.Reg; int(r) < len(w.regs) && w.regs[r] != nil; {
		o := w.regs[r]
		fields = append(fields, o.name)
		w.regs[r] = nil
		r += Register(max(1, padded(o.length)/4))
	}
	if len(fields) == 0 {
		fields = []string{w.take(e.Reg).name}
	}
	verb := ""
	switch {
	case e.Verdict:
		verb = "vmap "
	case e.Invert:
		verb = "!= "
	}
	w.say("%s %s@%s", strings.Join(fields, " . "), verb, e.Set)
}

func (w *ruleWriter) masquerade(e Masquerade) {
	text := "masquerade"
	if e.Flags&RandomFully != 0 {
		text += " fully-random"
	}
	if rest := e.Flags &^ RandomFully; rest != 0 {
		text += fmt.Sprintf(" <flags 0x%x>", uint32(rest))
	}
	w.say("%s", text)
}

// payload finds the name of the bytes that a load takes.
func (w *ruleWriter) payload(e Payload) operand {
	raw := operand{
		name:   fmt.Sprintf("@%s,%d,%d", [...]string{"ll", "nh", "th"}[min(e.Base, 2)], e.Offset*8, e.Len*8),
		format: hexText, length: int(e.Len),
	}
	switch e.Base {
	case NetworkHeader:
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
		case strings.HasPrefix(proto, "icmp") && e.Offset == 0 && e.Len == 1:
			return operand{name: proto + " type", format: byteNames(nil), length: 1}
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

func metaOperand(key MetaKey) operand {
	switch key {
	case MetaProtocol:
		return operand{name: "meta protocol", format: TypeEtherType.format, length: 2}
	case MetaMark:
		return operand{name: "meta mark", format: TypeMark.format, length: 4}
	case MetaIIFName:
		return operand{name: "iifname", format: interfaceText, length: 16}
	case MetaOIFName:
		return operand{name: "oifname", format: interfaceText, length: 16}
	case MetaNFProto:
		return operand{name: "meta nfproto", format: byteNames(map[uint64]string{2: "ipv4", 10: "ipv6"}), length: 1}
	case MetaL4Proto:
		return operand{name: "meta l4proto", format: TypeInetProto.format, length: 1}
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
	case CTState:
		return operand{name: "ct state", format: bitNames(ctStateNames), length: 4}
	case CTDirection:
		return operand{name: "ct direction", format: byteNames(map[uint64]string{0: "original", 1: "reply"}), length: 1}
	case CTProtoSrc, CTProtoDst:
		name := map[CTKey]string{CTProtoSrc: "proto-src", CTProtoDst: "proto-dst"}[e.Key]
		return operand{name: "ct " + dir + name, format: TypeInetService.format, length: 2}
	case CTSrcIPv4, CTDstIPv4:
		name := map[CTKey]string{CTSrcIPv4: "ip saddr", CTDstIPv4: "ip daddr"}[e.Key]
		return operand{name: "ct " + dir + name, format: TypeIPv4Addr.format, addr: TypeIPv4Addr, length: 4}
	case CTSrcIPv6, CTDstIPv6:
		name := map[CTKey]string{CTSrcIPv6: "ip6 saddr", CTDstIPv6: "ip6 daddr"}[e.Key]
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
