package nft

import (
	"net/netip"
	"slices"

	"github.com/poldernet/polder/spec"
)

// Statement is a part of a rule: a match, or something to do. The constructors
// below yield the expressions that nft(8) would for the same words, so that a
// rule and its text mean the same.
type Statement struct {
	// needs are matches that must stand before: a look at the IPv4 header
	// needs an IPv4 packet. A rule states each of them once.
	needs []Statement
	exprs []Expr
}

// NewRule makes a rule of statements.
func NewRule(comment string, statements ...Statement) Rule {
	r := Rule{Comment: comment}
	for _, s := range statements {
		for _, need := range s.needs {
			if !containsRun(r.Exprs, need.exprs) {
				r.Exprs = append(r.Exprs, need.exprs...)
			}
		}
		r.Exprs = append(r.Exprs, s.exprs...)
	}
	return r
}

func containsRun(list, run []Expr) bool {
	for i := range len(list) - len(run) + 1 {
		if slices.Equal(list[i:i+len(run)], run) {
			return true
		}
	}
	return false
}

// Do is what to do with a packet that the rule's matches let through.
func Do(actions ...Expr) Statement { return Statement{exprs: actions} }

// Field is something of a packet that can be matched.
type Field struct {
	needs  []Statement
	load   func(Register) Expr
	length int    // bytes in the register
	rest   []part // further fields of a concatenation
	// start, of a field of the packet, is the field's first n bytes.
	start func(n int) Field
}

type part struct {
	load   func(Register) Expr
	length int
}

// Is matches packets whose field has the value.
func (f Field) Is(d Data) Statement { return f.compare(Eq, d) }

// IsNot matches packets whose field has another value.
func (f Field) IsNot(d Data) Statement { return f.compare(Neq, d) }

// Between matches packets whose field has a value from first to last.
func (f Field) Between(first, last Data) Statement {
	return f.then(Cmp{Op: Gte, Data: first}, Cmp{Op: Lte, Data: last})
}

// InPrefix matches packets whose field, an address, is in a prefix.
func (f Field) InPrefix(p netip.Prefix) Statement { return f.prefix(Eq, p) }

// NotInPrefix matches packets whose field, an address, is outside a prefix.
func (f Field) NotInPrefix(p netip.Prefix) Statement { return f.prefix(Neq, p) }

// prefix compares whole bytes of the packet as such, without a mask, as nft(8)
// does.
func (f Field) prefix(op CmpOp, p netip.Prefix) Statement {
	first, _ := bounds(p)
	if n := p.Bits(); f.start != nil && n%8 == 0 && n > 0 {
		return f.start(n/8).compare(op, first[:n/8])
	}
	mask := make([]byte, len(first))
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return f.masked(op, Data(mask), first)
}

// In matches packets whose field is in a set.
func (f Field) In(set string) Statement { return f.then(Lookup{Set: set}) }

// NotIn matches packets whose field is not in a set.
func (f Field) NotIn(set string) Statement { return f.then(Lookup{Set: set, Invert: true}) }

// VMap ends the rule with the verdict that a verdict map has for the field. If
// it has none, the rule does not match.
func (f Field) VMap(name string) Statement { return f.then(Lookup{Set: name, Verdict: true}) }

// Masked matches packets whose field has the value in the bits of mask.
func (f Field) Masked(mask, value Data) Statement { return f.masked(Eq, mask, value) }

func (f Field) masked(op CmpOp, mask, value Data) Statement {
	if n, ok := maskLength(mask); ok && n == 8*len(mask) {
		return f.compare(op, value)
	}
	return f.then(bitwise(mask), Cmp{Op: op, Data: value})
}

func bitwise(mask Data) Bitwise {
	return Bitwise{Mask: mask, Xor: Data(make([]byte, len(mask)))}
}

func (f Field) compare(op CmpOp, d Data) Statement { return f.then(Cmp{Op: op, Data: d}) }

func (f Field) then(exprs ...Expr) Statement {
	s := Statement{needs: f.needs, exprs: []Expr{f.load(0)}}
	reg := Register(padded(f.length) / 4)
	for _, p := range f.rest {
		s.exprs = append(s.exprs, p.load(reg))
		reg += Register(padded(p.length) / 4)
	}
	s.exprs = append(s.exprs, exprs...)
	return s
}

// Concat joins fields to one key.
func Concat(first Field, more ...Field) Field {
	f := first
	f.needs, f.rest, f.start = slices.Clone(f.needs), slices.Clone(f.rest), nil
	for _, m := range more {
		f.needs = append(f.needs, m.needs...)
		f.rest = append(f.rest, part{m.load, m.length})
		f.rest = append(f.rest, m.rest...)
	}
	return f
}

// family is what the rules of an address family need.
type family struct {
	nfproto      byte
	saddr, daddr uint32 // offsets in the IP header
	addrLen      uint32
	icmp         byte // IPPROTO_ICMP*
}

var families = spec.PerFamily[family]{
	IPv4: family{nfproto: 2, saddr: 12, daddr: 16, addrLen: 4, icmp: 1},
	IPv6: family{nfproto: 10, saddr: 8, daddr: 24, addrLen: 16, icmp: 58},
}

// AddrType is the key type of a family's addresses.
func AddrType(f spec.Family) Type {
	if f == spec.IPv4 {
		return TypeIPv4Addr
	}
	return TypeIPv6Addr
}

// Saddr is the source address in the IP header, Daddr the destination.
func Saddr(f spec.Family) Field { return addressAt(f, families.Get(f).saddr) }

// Daddr is the destination address in the IP header.
func Daddr(f spec.Family) Field { return addressAt(f, families.Get(f).daddr) }

func addressAt(f spec.Family, offset uint32) Field {
	fam := families.Get(f)
	ip := NFProto().Is(Proto(fam.nfproto))
	address := payload(NetworkHeader, offset, fam.addrLen, ip)
	address.start = func(n int) Field { return payload(NetworkHeader, offset, uint32(n), ip) }
	return address
}

func payload(base PayloadBase, offset, length uint32, needs ...Statement) Field {
	return Field{needs: needs, length: int(length), load: func(r Register) Expr {
		return Payload{Base: base, Offset: offset, Len: length, Reg: r}
	}}
}

// NFProto is the packet's netfilter family (NFPROTO_*).
func NFProto() Field { return meta(MetaNFProto, 1) }

// L4Proto is the packet's transport protocol (IPPROTO_*), behind IPv6
// extension headers too.
func L4Proto() Field { return meta(MetaL4Proto, 1) }

// Mark is the packet's fwmark.
func Mark() Field { return meta(MetaMark, 4) }

// SetMark sets bits of the packet's fwmark and leaves the others.
func SetMark(bits uint32) Statement { return mark(bits, bits) }

// ClearMark clears bits of the packet's fwmark and leaves the others.
func ClearMark(bits uint32) Statement { return mark(bits, 0) }

// mark makes bits of the fwmark those of value.
func mark(bits, value uint32) Statement {
	return Mark().then(Bitwise{Mask: Number(^bits), Xor: Number(value)}, MetaSet{Key: MetaMark})
}

// IIFName is the name of the interface that the packet came in by; a packet
// that crosses a bridge has the bridge's in the inet family.
func IIFName() Field { return meta(MetaIIFName, 16) }

// PacketType says for whom the frame around the packet was (PACKET_*,
// <linux/if_packet.h>): this host, all, many, or another one.
func PacketType() Field { return meta(MetaPktType, 1) }

// ToHost is the PacketType of what was sent to this host's own MAC.
const ToHost Data = "\x00"

// OIFName is the name of the interface that the packet leaves by.
func OIFName() Field { return meta(MetaOIFName, 16) }

// IIFKind and OIFKind are what ip-link(8) calls the type of the interface that
// the packet came in by, and leaves by.
func IIFKind() Field { return meta(MetaIIFKind, 16) }

// OIFKind is described at IIFKind.
func OIFKind() Field { return meta(MetaOIFKind, 16) }

// KindBridge is the kind of a bridge.
const KindBridge Data = "bridge\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

func meta(key MetaKey, length int) Field {
	return Field{length: length, load: func(r Register) Expr { return Meta{Key: key, Reg: r} }}
}

// SaddrUnroutable matches packets whose source the host would not reach
// through the interface that they came in by: `fib saddr . iif oif missing`.
func SaddrUnroutable() Statement {
	f := Field{length: 4, load: func(r Register) Expr {
		return FIB{Result: FIBOIF, Flags: FIBSaddr | FIBIIF | FIBPresent, Reg: r}
	}}
	return f.Is(Number(0))
}

// DaddrLocal matches packets to an address of the host's own.
func DaddrLocal() Statement {
	f := Field{length: 4, load: func(r Register) Expr { return FIB{Result: FIBAddrType, Flags: FIBDaddr, Reg: r} }}
	return f.Is(Number(rtnLocal))
}
