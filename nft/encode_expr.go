package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// rule writes a rule's expressions and comment.
func (m *batch) rule(r Rule) {
	const nftaRuleExpressions, nftaRuleUserdata, comment = 4, 7, 0 // of libnftnl's include/udata.h
	at := m.nest(nftaRuleExpressions)
	for _, e := range r.Exprs {
		in := m.nest(listElement)
		m.expr(e)
		m.close(in)
	}
	m.close(at)
	switch {
	case len(r.Comment) > MaxComment:
		m.err = fmt.Errorf("the comment has %d bytes, more than %d", len(r.Comment), MaxComment)
	case r.Comment != "":
		m.bytes(nftaRuleUserdata, string([]byte{comment, byte(len(r.Comment) + 1)}), r.Comment, "\x00")
	}
}

// expr writes an expression: its name, and its operands. The numbers of these are those
// of enum nft_*_attributes.
func (m *batch) expr(e Expr) {
	const nftaExprName, nftaExprData = 1, 2
	var at int
	is := func(name string) {
		m.text(nftaExprName, name)
		at = m.nest(nftaExprData)
	}
	switch e := e.(type) {
	case Payload:
		const dreg, base, offset, length = 1, 2, 3, 4
		is("payload")
		m.number(dreg, e.Reg.number())
		m.number(base, uint32(e.Base))
		m.number(offset, e.Offset)
		m.number(length, e.Len)
	case Meta:
		const dreg, key = 1, 2
		is("meta")
		m.number(key, uint32(e.Key))
		m.number(dreg, e.Reg.number())
	case MetaSet:
		const key, sreg = 2, 3
		is("meta")
		m.number(key, uint32(e.Key))
		m.number(sreg, e.Reg.number())
	case CT:
		const dreg, key, direction = 1, 2, 3
		is("ct")
		m.number(key, uint32(e.Key))
		m.number(dreg, e.Reg.number())
		if e.Dir != NoDirection {
			m.bytes(direction, string([]byte{byte(e.Dir - 1)}))
		}
	case FIB:
		const dreg, result, flags = 1, 2, 3
		is("fib")
		m.number(dreg, e.Reg.number())
		m.number(result, uint32(e.Result))
		m.number(flags, uint32(e.Flags))
	case Bitwise:
		const sreg, dreg, length, mask, xor = 1, 2, 3, 4, 5
		is("bitwise")
		m.number(sreg, e.Reg.number())
		m.number(dreg, e.Dst.number())
		m.number(length, uint32(len(e.Mask)))
		m.value(mask, e.Mask)
		m.value(xor, e.Xor)
	case Cmp:
		const sreg, op, data = 1, 2, 3
		is("cmp")
		m.number(sreg, e.Reg.number())
		m.number(op, uint32(e.Op))
		m.value(data, e.Data)
	case Lookup:
		const set, sreg, dreg, flags, invert = 1, 2, 3, 5, 1
		is("lookup")
		m.text(set, e.Set)
		m.number(sreg, e.Reg.number())
		if e.Verdict {
			m.number(dreg, regVerdict)
		}
		if e.Invert {
			m.number(flags, invert)
		}
	case Verdict:
		const dreg, data = 1, 2
		is("immediate")
		m.number(dreg, regVerdict)
		m.verdict(data, e)
	case Counter:
		is("counter")
	case CounterRef:
		const kind, name = 1, 2
		is("objref")
		m.number(kind, objectCounter)
		m.text(name, e.Name)
	case Limit:
		const rate, unit, burst, kind, packets = 1, 2, 3, 4, 0
		is("limit")
		m.long(rate, e.Rate)
		m.long(unit, uint64(e.Unit))
		m.number(burst, e.Burst)
		m.number(kind, packets)
		if e.Burst == 0 {
			m.err = errors.New("a limit without a burst cannot be written")
		}
	case Log:
		is("log")
		m.log(e)
	case Masquerade:
		const flags = 1
		is("masq")
		if e.Flags != 0 {
			m.number(flags, uint32(e.Flags))
		}
	case Notrack:
		is("notrack")
	default:
		m.err = fmt.Errorf("expression %T cannot be written", e)
		return
	}
	m.close(at)
}

// maxPrefix is NF_LOG_PREFIXLEN less the NUL.
const maxPrefix = 127

func (m *batch) log(l Log) {
	const group, prefix, snaplen = 1, 2, 3
	if len(l.Prefix) > maxPrefix {
		m.err = fmt.Errorf("the log prefix has %d bytes, more than %d", len(l.Prefix), maxPrefix)
	}
	m.bytes(group, string(binary.BigEndian.AppendUint16(nil, l.Group)))
	if l.Prefix != "" {
		m.text(prefix, l.Prefix)
	}
	if l.Snaplen != 0 {
		m.number(snaplen, l.Snaplen)
	}
}
