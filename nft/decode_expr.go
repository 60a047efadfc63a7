package nft

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// decodeExpr reads one expression of a rule. One that is not exactly of a form
// that we write comes out as Unknown, with its bytes.
func decodeExpr(b []byte) (Expr, error) {
	const (
		nftaExprName = 1
		nftaExprData = 2
	)
	var f, d fields
	if err := f.parse(b); err != nil {
		return nil, fmt.Errorf("expression: %w", err)
	}
	name := f.text(nftaExprName)
	if err := d.parse(f[nftaExprData]); err != nil {
		return nil, fmt.Errorf("expression %s: %w", name, err)
	}
	if decode, ok := exprDecoders[name]; ok {
		if e := decode(&d); e != nil {
			return e, nil
		}
	}
	return Unknown{name, Data(f[nftaExprData])}, nil
}

// exprDecoders make an expression of its attributes, or nil if there are
// others than we write. In the lists of what is allowed, the numbers are those
// of enum nft_*_attributes.
var exprDecoders = map[string]func(*fields) Expr{
	"payload":   decodePayload,
	"meta":      decodeMeta,
	"ct":        decodeCT,
	"limit":     decodeLimit,
	"log":       decodeLog,
	"fib":       decodeFIB,
	"bitwise":   decodeBitwise,
	"cmp":       decodeCmp,
	"lookup":    decodeLookup,
	"immediate": decodeImmediate,
	"objref":    decodeObjref,
	"masq":      decodeMasq,
	"counter":   func(*fields) Expr { return Counter{} },
	"notrack":   func(*fields) Expr { return Notrack{} },
}

func decodePayload(f *fields) Expr {
	const dreg, base, offset, length = 1, 2, 3, 4
	reg, ok := f.register(dreg)
	if !ok || !f.only(dreg, base, offset, length) {
		return nil
	}
	return Payload{PayloadBase(f.number(base)), f.number(offset), f.number(length), reg}
}

func decodeMeta(f *fields) Expr {
	const dreg, key, sreg = 1, 2, 3
	if reg, ok := f.register(dreg); ok && f.only(dreg, key) {
		return Meta{MetaKey(f.number(key)), reg}
	}
	if reg, ok := f.register(sreg); ok && f.only(sreg, key) {
		return MetaSet{MetaKey(f.number(key)), reg}
	}
	return nil
}

func decodeCT(f *fields) Expr {
	const dreg, key, direction = 1, 2, 3
	reg, ok := f.register(dreg)
	if !ok || !f.only(dreg, key, direction) {
		return nil
	}
	e := CT{Key: CTKey(f.number(key)), Reg: reg}
	if f[direction] != nil {
		if len(f[direction]) != 1 || f[direction][0] > 1 {
			return nil
		}
		e.Dir = Direction(f[direction][0]) + 1
	}
	return e
}

func decodeFIB(f *fields) Expr {
	const dreg, result, flags = 1, 2, 3
	reg, ok := f.register(dreg)
	if !ok || !f.only(dreg, result, flags) {
		return nil
	}
	return FIB{FIBResult(f.number(result)), FIBFlags(f.number(flags)), reg}
}

func decodeBitwise(f *fields) Expr {
	const sreg, dreg, length, mask, xor, op = 1, 2, 3, 4, 5, 6
	src, ok1 := f.register(sreg)
	dst, ok2 := f.register(dreg)
	m, ok3 := f.value(mask)
	x, ok4 := f.value(xor)
	if !ok1 || !ok2 || !ok3 || !ok4 || !f.only(sreg, dreg, length, mask, xor, op) ||
		f.number(op) != 0 || int(f.number(length)) != len(m) || len(m) != len(x) { // NFT_BITWISE_MASK_XOR is 0
		return nil
	}
	return Bitwise{src, dst, m, x}
}

func decodeCmp(f *fields) Expr {
	const sreg, op, data = 1, 2, 3
	reg, ok1 := f.register(sreg)
	d, ok2 := f.value(data)
	if !ok1 || !ok2 || !f.only(sreg, op, data) {
		return nil
	}
	return Cmp{CmpOp(f.number(op)), reg, d}
}

func decodeLookup(f *fields) Expr {
	const set, sreg, dreg, setID, flags, invert = 1, 2, 3, 4, 5, 1
	reg, ok := f.register(sreg)
	if !ok || !f.only(set, sreg, dreg, setID, flags) || f.number(flags)&^invert != 0 {
		return nil
	}
	if f[dreg] != nil && f.number(dreg) != regVerdict {
		return nil
	}
	return Lookup{Set: f.text(set), Reg: reg, Invert: f.number(flags) == invert, Verdict: f[dreg] != nil}
}

// decodeImmediate reads a verdict; immediate loads of values are none of ours.
func decodeImmediate(f *fields) Expr {
	const dreg, data = 1, 2
	if !f.only(dreg, data) || len(f[dreg]) != 4 || f.number(dreg) != regVerdict {
		return nil
	}
	_, v, err := decodeData(f[data])
	if err != nil || v == nil {
		return nil
	}
	return *v
}

func decodeObjref(f *fields) Expr {
	const immType, immName = 1, 2
	if !f.only(immType, immName) || f.number(immType) != objectCounter {
		return nil
	}
	return CounterRef{f.text(immName)}
}

// decodeLimit reads a limit of packets; those of bytes and those that are true
// beyond the limit are none of ours.
func decodeLimit(f *fields) Expr {
	const rate, unit, burst, kind, flags, pad, packets = 1, 2, 3, 4, 5, 6, 0
	if !f.only(rate, unit, burst, kind, flags, pad) || f.number(kind) != packets || f.number(flags) != 0 {
		return nil
	}
	return Limit{f.long(rate), LimitUnit(f.long(unit)), f.number(burst)}
}

// decodeLog reads a log to an nflog group; those to the kernel's log, and those
// that collect packets, are none of ours.
func decodeLog(f *fields) Expr {
	const group, prefix, snaplen, threshold = 1, 2, 3, 4
	if !f.only(group, prefix, snaplen, threshold) || len(f[group]) != 2 || f[snaplen] != nil && f.number(snaplen) == 0 {
		return nil
	}
	if len(f[threshold]) != 0 && string(f[threshold]) != "\x00\x00" {
		return nil
	}
	return Log{binary.BigEndian.Uint16(f[group]), f.text(prefix), f.number(snaplen)}
}

func decodeMasq(f *fields) Expr {
	const flags = 1
	if !f.only(flags) {
		return nil
	}
	return Masquerade{MasqFlags(f.number(flags))}
}

// regVerdict is NFT_REG_VERDICT.
const regVerdict = 0

// Numbers of registers: 1 to 4 are the 16-byte ones (NFT_REG_1..), 8 to 23 the
// 4-byte ones (NFT_REG32_00..) in the same memory.
const (
	reg1   = 1
	reg32  = 8
	regEnd = 24
)

// register is a data register.
func (f *fields) register(kind int) (Register, bool) {
	if len(f[kind]) != 4 {
		return 0, false
	}
	switch n := f.number(kind); {
	case n >= reg1 && n < reg1+4:
		return Register(n-reg1) * 4, true
	case n >= reg32 && n < regEnd:
		return Register(n - reg32), true
	}
	return 0, false
}

// number is the kernel's number of a register.
func (r Register) number() uint32 {
	if r%4 == 0 {
		return reg1 + uint32(r)/4
	}
	return reg32 + uint32(r)
}

// value is a nested value (struct nft_data).
func (f *fields) value(kind int) (Data, bool) {
	d, v, err := decodeData(f[kind])
	return d, err == nil && v == nil && len(d) > 0
}

// decodeData reads NFTA_DATA_VALUE or NFTA_DATA_VERDICT.
func decodeData(b []byte) (Data, *Verdict, error) {
	const nftaDataValue, nftaDataVerdict, nftaVerdictCode, nftaVerdictChain = 1, 2, 1, 2
	var f, v fields
	if err := f.parse(b); err != nil {
		return "", nil, err
	}
	if f[nftaDataVerdict] == nil {
		return Data(f[nftaDataValue]), nil, nil
	}
	if err := v.parse(f[nftaDataVerdict]); err != nil {
		return "", nil, err
	}
	if len(v[nftaVerdictCode]) != 4 {
		return "", nil, errShort
	}
	code := int32(binary.BigEndian.Uint32(v[nftaVerdictCode]))
	chain, _, _ := bytes.Cut(v[nftaVerdictChain], []byte{0})
	return "", &Verdict{VerdictKind(code), string(chain)}, nil
}
