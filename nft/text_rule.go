package nft

import (
	"cmp"
	"encoding/hex"
	"fmt"
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
	number func(Data) string // of the ends of a range, which have no names; nil: format
	addr   Type              // of an address, which can be compared with a prefix
	length int               // bytes that were loaded
	mask   Data              // "": all bits
	// xor is what is exclusive-ored behind the mask.
	xor Data
}

// bound is an end of a range.
func (o operand) bound(d Data) string {
	if o.number != nil {
		return o.number(d)
	}
	return o.format(d)
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
	case MetaSet:
		o := w.take(e.Reg)
		w.say("%s set %s", settableName(e.Key), o.computed())
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
	case Limit:
		w.limit(e)
	case Log:
		w.log(e)
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
	if o.mask != "" {
		o = operand{name: "<" + o.computed() + ">", format: hexText, length: o.length}
	}
	o.mask, o.xor = e.Mask, e.Xor
	w.load(e.Dst, o)
}

// computed is a value behind a bitwise operation in words: nft(8)'s &, ^ and |
// are one operation of the kernel's.
func (o operand) computed() string {
	text := o.name
	if o.mask == "" {
		return text
	}
	and, or, xor := []byte(o.mask), make([]byte, len(o.mask)), make([]byte, len(o.mask))
	for i := range min(len(o.mask), len(o.xor)) {
		or[i], xor[i] = o.xor[i]&^o.mask[i], o.xor[i]&o.mask[i]
		and[i] |= or[i]
	}
	if n, ok := maskLength(Data(and)); !ok || n < 8*len(and) {
		text += " & " + o.format(Data(and))
	}
	if !zero(Data(xor)) {
		text += " ^ " + o.format(Data(xor))
	}
	if !zero(Data(or)) {
		text += " | " + o.format(Data(or))
	}
	return text
}

func zero(d Data) bool { return strings.Trim(string(d), "\x00") == "" }

func (w *ruleWriter) cmp(e Cmp) {
	o := w.take(e.Reg)
	op := map[CmpOp]string{Eq: "", Neq: "!= ", Lt: "< ", Lte: "<= ", Gt: "> ", Gte: ">= "}[e.Op]
	if !zero(o.xor) {
		o = operand{name: "<" + o.computed() + ">", format: hexText, length: o.length}
	}
	if e.Op == Eq && w.understood(o, e.Data) {
		return
	}
	if next, ok := w.peek().(Cmp); ok && o.mask == "" && e.Op == Gte && next.Op == Lte && next.Reg == e.Reg {
		w.pos++
		w.say("%s %s-%s", o.name, o.bound(e.Data), o.bound(next.Data))
		return
	}
	flags := o.name == "ct state" || o.name == "tcp flags"
	switch {
	case o.addr != "" && (o.mask != "" || len(e.Data) < typeInfos[o.addr].length):
		w.say("%s %s%s", o.name, op, prefixText(o, e.Data))
	case flags && o.mask == "":
		w.say("%s %s%s", o.name, cmp.Or(op, "== "), wholeFlags(o, e.Data))
	case o.mask == "":
		w.say("%s %s%s", o.name, op, o.format(e.Data))
	case flags && e.Op == Neq && zero(e.Data):
		w.say("%s %s", o.name, o.format(o.mask))
	case flags && e.Op == Eq && zero(e.Data):
		w.say("%s ! %s", o.name, o.format(o.mask))
	case flags && (o.mask != e.Data || ones(e.Data) > 1):
		w.say("%s %s%s / %s", o.name, op, o.format(e.Data), o.format(o.mask))
	default:
		w.say("%s & %s %s%s", o.name, o.format(o.mask), cmp.Or(op, "== "), o.format(e.Data))
	}
}

// wholeFlags are flags that are compared with all bits: several are a number.
func wholeFlags(o operand, d Data) string {
	if ones(d) == 1 {
		return o.format(d)
	}
	return rawText(d)
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
	if o.mask != "" {
		return false
	}
	base := NetworkHeader
	switch {
	case o.name == "meta nfproto" && len(d) == 1:
		w.nfproto = d[0]
	case (o.name == "ether type" || o.name == "meta protocol") && etherProtos[d] != 0:
		w.nfproto = etherProtos[d]
	case o.name == "meta l4proto" && len(d) == 1:
		w.l4proto, base = d[0], TransportHeader
	default:
		return false
	}
	for _, e := range w.exprs[w.pos:] {
		if loadsProtocolOf(e, base) {
			return false // the next match says it better
		}
		p, ok := e.(Payload)
		if ok && (p.Base == base && !strings.HasPrefix(w.payload(p).name, "@") || p.Base == TransportHeader && w.icmpFollows()) {
			return true
		}
	}
	return false
}

// loadsProtocolOf says that an expression loads which protocol's header is at a
// base.
func loadsProtocolOf(e Expr, base PayloadBase) bool {
	if base == TransportHeader {
		return e == L4Proto().load(0)
	}
	return e == NFProto().load(0) || e == EtherType().load(0)
}

// etherProtos are the netfilter families (NFPROTO_*) of Ethernet types.
var etherProtos = map[Data]byte{
	Ether(EtherIPv4): families.IPv4.nfproto, Ether(EtherIPv6): families.IPv6.nfproto, Ether(EtherARP): nfprotoARP,
}

// nfprotoARP is NFPROTO_ARP.
const nfprotoARP = 3

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

// burstDefault is the burst that nft(8) leaves out (1.0.6; later ones say it).
const burstDefault = 5

func (w *ruleWriter) limit(e Limit) {
	unit := formatName(limitUnits, uint64(e.Unit), "<%d seconds>")
	text := fmt.Sprintf("limit rate %d/%s", e.Rate, unit)
	if e.Burst != burstDefault {
		text += fmt.Sprintf(" burst %d packets", e.Burst)
	}
	w.say("%s", text)
}

func (w *ruleWriter) log(e Log) {
	text := "log"
	if e.Prefix != "" {
		text += ` prefix "` + e.Prefix + `"`
	}
	text += fmt.Sprintf(" group %d", e.Group)
	if e.Snaplen != 0 {
		text += fmt.Sprintf(" snaplen %d", e.Snaplen)
	}
	w.say("%s", text)
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
