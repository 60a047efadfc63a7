package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
)

// batch is a transaction as the kernel takes it: messages between a beginning, which
// may have a guard, and an end. Numbers and names of attributes are those of
// <linux/netfilter/nf_tables.h>.
type batch struct {
	b     []byte
	from  int   // where the message begins that is being written
	steps []int // of the messages, by their sequence numbers less 1
	about func(step int) string
	err   error
}

// Flags and kinds of messages, <linux/netlink.h> and <linux/netfilter/nfnetlink.h>.
const (
	nlmRequest = 0x1
	nlmCreate  = 0x400
	nlmAppend  = 0x800

	nfnlBatchBegin = 0x10
	nfnlBatchEnd   = 0x11

	nlaNested = 0x8000
)

// encode writes a transaction, which the kernel takes in whichever generation.
func encode(tx transaction) (batch, error) {
	m := newBatch(func(i int) string { return brief(tx[i]) })
	for i, s := range tx {
		if m.step(i, s); m.err != nil {
			return m, fmt.Errorf("%s: %w", s.op.text(s.table), m.err)
		}
	}
	m.finish()
	return m, nil
}

// newBatch begins a transaction; about says what a step of it is about.
func newBatch(about func(step int) string) batch {
	const nfnlBatchGenID = 1
	m := batch{b: make([]byte, 0, 4096), about: about}
	m.message(nfnlBatchBegin, 0, 0, nfnlSubsysNFTables)
	m.number(nfnlBatchGenID, 0)
	m.end()
	return m
}

// finish ends it.
func (m *batch) finish() {
	m.message(nfnlBatchEnd, 0, 0, nfnlSubsysNFTables)
	m.end()
}

// guard has the kernel take it in one generation only.
func (m *batch) guard(g Generation) {
	binary.BigEndian.PutUint32(m.b[nlmsghdrLength+genmsgLength+4:], uint32(g))
}

// message begins a message.
func (m *batch) message(kind, flags uint16, proto byte, resource uint16) {
	m.from = len(m.b)
	m.b = binary.NativeEndian.AppendUint32(m.b, 0) // the length, see end
	m.b = binary.NativeEndian.AppendUint16(m.b, kind)
	m.b = binary.NativeEndian.AppendUint16(m.b, nlmRequest|flags)
	m.b = binary.NativeEndian.AppendUint32(m.b, uint32(len(m.steps)))
	m.b = binary.NativeEndian.AppendUint32(m.b, 0)
	m.b = binary.BigEndian.AppendUint16(append(m.b, proto, 0), resource)
}

func (m *batch) end() { binary.NativeEndian.PutUint32(m.b[m.from:], uint32(len(m.b)-m.from)) }

// nest begins an attribute that holds others, which close ends.
func (m *batch) nest(kind uint16) int {
	at := len(m.b)
	m.b = binary.NativeEndian.AppendUint16(m.b, 0)
	m.b = binary.NativeEndian.AppendUint16(m.b, nlaNested|kind)
	return at
}

func (m *batch) close(at int) {
	length := len(m.b) - at
	if length > math.MaxUint16 {
		m.err = errors.New("an attribute is too long")
	}
	binary.NativeEndian.PutUint16(m.b[at:], uint16(length))
}

// bytes writes an attribute, of which the data may come in parts.
func (m *batch) bytes(kind uint16, parts ...string) {
	at := len(m.b)
	m.b = binary.NativeEndian.AppendUint32(m.b, 0)
	for _, data := range parts {
		m.b = append(m.b, data...)
	}
	binary.NativeEndian.PutUint16(m.b[at:], uint16(len(m.b)-at))
	binary.NativeEndian.PutUint16(m.b[at+2:], kind)
	for len(m.b)%4 != 0 {
		m.b = append(m.b, 0)
	}
}

func (m *batch) text(kind uint16, s string) { m.bytes(kind, s, "\x00") }

func (m *batch) number(kind uint16, n uint32) {
	m.b = binary.NativeEndian.AppendUint16(m.b, 8)
	m.b = binary.NativeEndian.AppendUint16(m.b, kind)
	m.b = binary.BigEndian.AppendUint32(m.b, n)
}

func (m *batch) long(kind uint16, n uint64) {
	m.bytes(kind, string(binary.BigEndian.AppendUint64(nil, n)))
}

// value is data as a nested attribute.
func (m *batch) value(kind uint16, d Data) {
	const nftaDataValue = 1
	at := m.nest(kind)
	m.bytes(nftaDataValue, string(d))
	m.close(at)
}

func (m *batch) verdict(kind uint16, v Verdict) {
	const nftaDataVerdict, nftaVerdictCode, nftaVerdictChain = 2, 1, 2
	at := m.nest(kind)
	inner := m.nest(nftaDataVerdict)
	m.number(nftaVerdictCode, uint32(v.Kind))
	if v.Chain != "" {
		m.text(nftaVerdictChain, v.Chain)
	}
	m.close(inner)
	m.close(at)
}

// object begins a message about an object of a table, whose name is attribute 1 in
// all of them.
func (m *batch) object(i int, id TableID, kind, flags uint16) {
	m.steps = append(m.steps, i)
	m.message(nfnlSubsysNFTables<<8|kind, flags, protos[id.Family], 0)
	m.text(1, id.Name)
}

// Of NFT_MSG_DELRULE, and of NFT_MSG_NEWRULE.
const (
	delRule = 8
	ofChain = 2
)

// step writes the messages of an operation.
func (m *batch) step(i int, s step) {
	const (
		newTable, delTableKind = 0, 2
		newChain, delChainKind = 3, 5
		newRule                = 6
		newSet, delSetKind     = 9, 11
		newElements, delElems  = 12, 14
		newObject, delObj      = 18, 20

		name = 2 // of a set or object
	)
	switch o := s.op.(type) {
	case addTable:
		const nftaTableFlags = 2
		m.object(i, s.table, newTable, nlmCreate)
		m.number(nftaTableFlags, 0)
	case delTable:
		m.object(i, s.table, delTableKind, 0)
	case addChain:
		m.object(i, s.table, newChain, nlmCreate)
		m.chain(o.name, o.base)
	case setPolicy:
		m.object(i, s.table, newChain, nlmCreate)
		m.chain(o.name, &o.base)
	case delChain:
		m.object(i, s.table, delChainKind, 0)
		m.chain(o.name, nil)
	case flushChain:
		m.object(i, s.table, delRule, 0)
		m.text(ofChain, o.name)
	case addRule:
		m.object(i, s.table, newRule, nlmCreate|nlmAppend)
		m.text(ofChain, o.chain)
		m.rule(o.rule)
	case addSet:
		m.object(i, s.table, newSet, nlmCreate)
		m.text(name, o.set.Name)
		m.set(o.set)
	case delSet:
		m.object(i, s.table, delSetKind, 0)
		m.text(name, o.set.Name)
	case addElements:
		m.elements(i, s.table, newElements, nlmCreate, o.set, o.elements)
	case delElements:
		m.elements(i, s.table, delElems, 0, o.set, o.elements)
	case addCounter:
		const nftaObjType, nftaObjData = 3, 4
		m.object(i, s.table, newObject, nlmCreate)
		m.text(name, o.name)
		m.number(nftaObjType, objectCounter)
		m.close(m.nest(nftaObjData))
	case delObject:
		const nftaObjType = 3
		m.object(i, s.table, delObj, 0)
		m.text(name, o.object.Name)
		m.number(nftaObjType, o.object.Type)
	default:
		m.err = fmt.Errorf("operation %T has no message", o)
	}
	m.end()
}

func (m *batch) chain(name string, base *Base) {
	const nftaChainName, nftaChainHook, nftaChainPolicy, nftaChainType, nftaHookHooknum, nftaHookPriority = 3, 4, 5, 7, 1, 2
	m.text(nftaChainName, name)
	if base == nil {
		return
	}
	hook := slices.Index(hooks(Family("")), base.Hook)
	if hook < 0 {
		m.err = fmt.Errorf("there is no hook %q", base.Hook)
	}
	at := m.nest(nftaChainHook)
	m.number(nftaHookHooknum, uint32(hook))
	m.number(nftaHookPriority, uint32(base.Priority))
	m.close(at)
	accept := uint32(1) // NF_ACCEPT
	if base.Policy == PolicyDrop {
		accept = 0
	}
	m.number(nftaChainPolicy, accept)
	m.text(nftaChainType, base.Type)
}

func (m *batch) set(s Set) {
	const (
		nftaSetFlags, nftaSetKeyType, nftaSetKeyLen = 3, 4, 5
		nftaSetDataType, nftaSetDesc, nftaSetID     = 6, 9, 10
		nftaSetUserdata                             = 13
		nftaSetDescConcat, nftaSetFieldLen          = 2, 1
		keyByteOrder, hostOrder, networkOrder       = 0, 1, 2 // of libnftnl's include/udata.h
	)
	var number, flags uint32
	for _, t := range s.Key {
		info, ok := typeInfos[t]
		if !ok {
			m.err = fmt.Errorf("there is no type %q", t)
		}
		number = number<<typeBits | info.number
	}
	// The flag selects the set type that knows ranges in several fields. A
	// concatenation without ranges is one long key.
	concat := s.Interval && len(s.Key) > 1
	for _, f := range []struct {
		is   bool
		flag uint32
	}{{s.Interval, setInterval}, {s.Verdicts, setMap}, {concat, setConcat}} {
		if f.is {
			flags |= f.flag
		}
	}
	switch {
	case s.Other != "":
		m.err = fmt.Errorf("a set with %s cannot be written", s.Other)
		return
	case len(s.Key) == 0:
		m.err = errors.New("a set needs a key")
	}
	if m.err != nil {
		return
	}
	m.number(nftaSetFlags, flags)
	m.number(nftaSetKeyType, number)
	m.number(nftaSetKeyLen, uint32(keyLength(s.Key)))
	m.number(nftaSetID, uint32(len(m.steps))) // asked for; sets are found by their names
	if s.Verdicts {
		m.number(nftaSetDataType, dataVerdict)
	}
	if concat {
		desc := m.nest(nftaSetDesc)
		fields := m.nest(nftaSetDescConcat)
		for _, t := range s.Key {
			at := m.nest(listElement)
			m.number(nftaSetFieldLen, uint32(typeInfos[t].length))
			m.close(at)
		}
		m.close(fields)
		m.close(desc)
	}
	// nft(8) prints garbage without.
	order := byte(0)
	switch {
	case s.Interval:
		order = networkOrder
	case len(s.Key) == 1 && typeInfos[s.Key[0]].host:
		order = hostOrder
	}
	if order != 0 {
		m.bytes(nftaSetUserdata, string(binary.NativeEndian.AppendUint32([]byte{keyByteOrder, 4}, uint32(order))))
	}
}

// listElement is NFTA_LIST_ELEM.
const listElement = 1

// mostBytes bounds the elements of a message, in bytes: the length of an attribute has
// 16 bits.
const mostBytes = math.MaxUint16 - 1024

// elements writes elements, in as many messages as it takes. In a single-field interval
// set an element is two: its first key and, unless that is beyond the largest, the one
// behind its last.
func (m *batch) elements(i int, id TableID, kind, flags uint16, s Set, list []Element) {
	const nftaElemListSet, nftaElemListElements, intervalEnd = 2, 3, 1
	for len(list) > 0 && m.err == nil {
		m.object(i, id, kind, flags)
		m.text(nftaElemListSet, s.Name)
		at := m.nest(nftaElemListElements)
		for len(list) > 0 && len(m.b)-at < mostBytes {
			e := list[0]
			list = list[1:]
			switch {
			case s.Interval && len(s.Key) == 1:
				behind := successor(e.last())
				m.element(s, e, "", 0, behind == "")
				if behind != "" {
					m.element(Set{}, Exact(behind), "", intervalEnd, false)
				}
			case s.Interval:
				m.element(s, e, e.last(), 0, false)
			default:
				m.element(s, e, "", 0, false)
			}
		}
		m.close(at)
		if len(list) > 0 {
			m.end()
		}
	}
}

// element writes one element. One that is open reaches to the largest key: nft(8) then
// prints that one.
func (m *batch) element(s Set, e Element, end Data, flags uint32, open bool) {
	const (
		nftaSetElemKey, nftaSetElemData, nftaSetElemFlags = 1, 2, 3
		nftaSetElemUserdata, nftaSetElemKeyEnd            = 6, 10
		elementFlags, intervalOpen                        = 1, 1 // of libnftnl's include/udata.h
	)
	at := m.nest(listElement)
	m.value(nftaSetElemKey, e.Key)
	if end != "" {
		m.value(nftaSetElemKeyEnd, end)
	}
	if flags != 0 {
		m.number(nftaSetElemFlags, flags)
	}
	if s.Verdicts {
		m.verdict(nftaSetElemData, e.Verdict)
	}
	if open {
		m.bytes(nftaSetElemUserdata, string(binary.NativeEndian.AppendUint32([]byte{elementFlags, 4}, intervalOpen)))
	}
	m.close(at)
}
