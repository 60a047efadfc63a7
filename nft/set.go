package nft

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
)

// Set is a named set, or a named map from keys to verdicts. There are no
// anonymous sets: the kernel invents their names, and they cannot be changed.
type Set struct {
	Name string
	// Key are the fields of the key. More than one is a concatenation.
	Key []Type
	// Interval sets hold prefixes and ranges. A single-field one is a tree; a
	// concatenation with intervals costs a packet time linear in its members.
	Interval bool `json:",omitzero"`
	// Verdicts makes it a verdict map.
	Verdicts bool `json:",omitzero"`
	// Elements are sorted by key and do not overlap. Neighbours (two adjacent
	// /24) stay two elements: the kernel's auto-merge is never used.
	Elements []Element `json:",omitzero"`
	// Other describes properties read back that we never write ("timeout",
	// "size 3"). It is empty in a set of ours, so that any such property is a
	// difference.
	Other string `json:",omitzero"`
}

func (s Set) key() string { return s.Name }

// sameSchema says that one set could take the other's elements.
func (s Set) sameSchema(o Set) bool {
	return slices.Equal(s.Key, o.Key) && s.Interval == o.Interval && s.Verdicts == o.Verdicts && s.Other == o.Other
}

// Equal says that both sets are of one kind and hold the same. Elements of
// both are in canonical order.
func (s Set) Equal(o Set) bool {
	return s.Name == o.Name && s.sameSchema(o) && slices.Equal(s.Elements, o.Elements)
}

// Element is a member of a set: an exact key, or everything from Key to To.
type Element struct {
	Key Data
	// To is the last key that belongs to the element, field by field in a
	// concatenation. Empty: the element is exactly Key.
	To Data `json:",omitzero"`
	// Verdict is the value in a verdict map.
	Verdict Verdict `json:",omitzero"`
	// Other describes what we never write ("timeout"), as in a Set.
	Other string `json:",omitzero"`
}

// Exact is the element of one key.
func Exact(key Data) Element { return Element{Key: key} }

// PrefixElement is the element that holds the addresses of a prefix.
func PrefixElement(p netip.Prefix) Element {
	first, last := bounds(p)
	if first == last {
		return Exact(first)
	}
	return Element{Key: first, To: last}
}

// Maps is the element of a verdict map that gives the key d the verdict v.
func (d Data) Maps(v Verdict) Element { return Element{Key: d, Verdict: v} }

// PrefixElements are the elements of an interval set that holds the prefixes.
// A prefix inside another is left out, as the kernel refuses overlaps.
func PrefixElements(prefixes []netip.Prefix) []Element {
	// A prefix sorts before what it covers, and after both comes only what
	// neither covers or the wider one does, too.
	sorted := slices.SortedFunc(slices.Values(prefixes), netip.Prefix.Compare)
	out := make([]Element, 0, len(sorted))
	var last netip.Prefix
	for _, p := range sorted {
		if !last.IsValid() || !covers(last, p) {
			out = append(out, PrefixElement(p))
			last = p
		}
	}
	return canonicalElements(out)
}

func covers(outer, inner netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

// last is the last key of an element.
func (e Element) last() Data {
	if e.To == "" {
		return e.Key
	}
	return e.To
}

// overlaps says that some key belongs to both elements of a single-field set.
func (e Element) overlaps(o Element) bool { return e.Key <= o.last() && o.Key <= e.last() }

func compareElements(a, b Element) int {
	if c := strings.Compare(string(a.Key), string(b.Key)); c != 0 {
		return c // nearly always; cmp.Or would compare the rest as well
	}
	return cmp.Or(cmp.Compare(a.last(), b.last()),
		cmp.Compare(a.Verdict.Kind, b.Verdict.Kind), cmp.Compare(a.Verdict.Chain, b.Verdict.Chain), cmp.Compare(a.Other, b.Other))
}

func canonicalElements(list []Element) []Element {
	if slices.IsSortedFunc(list, func(a, b Element) int {
		return cmp.Or(compareElements(a, b), -1) // equal ones are not in order: they are duplicates
	}) {
		return list
	}
	list = slices.Clone(list)
	slices.SortFunc(list, compareElements)
	return slices.Compact(list)
}

// Data is the content of registers: a value in network byte order, except for
// the types that the kernel keeps in the host's (marks, interface indexes).
// Fields of a concatenation are padded to 4 bytes each. Data compares as the
// kernel compares keys, byte by byte.
type Data string

// Addr is an address as data.
func Addr(a netip.Addr) Data { return Data(a.AsSlice()) }

// Port is a transport port as data.
func Port(p uint16) Data { return Data(binary.BigEndian.AppendUint16(nil, p)) }

// Proto is an IP protocol number (IPPROTO_*) as data.
func Proto(p uint8) Data { return Data([]byte{p}) }

// IfName is an interface name as data: 16 bytes (IFNAMSIZ), padded with NUL.
func IfName(name string) Data {
	var b [16]byte
	copy(b[:], name)
	return Data(b[:])
}

// Number is a 32-bit number in the host's byte order as data: a mark, a
// connection state, an address type.
func Number(n uint32) Data { return Data(binary.NativeEndian.AppendUint32(nil, n)) }

// Tuple joins fields to the data of a concatenation.
func Tuple(fields ...Data) Data {
	var b []byte
	for _, f := range fields {
		b = append(b, f...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	return Data(b)
}

// bounds are the first and the last address of a prefix.
func bounds(p netip.Prefix) (first, last Data) {
	a := p.Masked().Addr().AsSlice()
	b := slices.Clone(a)
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return Data(a), Data(b)
}

// successor is the next value, "" after the largest one.
func successor(d Data) Data {
	b := []byte(d)
	for i := len(b) - 1; i >= 0; i-- {
		b[i]++
		if b[i] != 0 {
			return Data(b)
		}
	}
	return ""
}

// predecessor is the value before d; d is not the smallest.
func predecessor(d Data) Data {
	b := []byte(d)
	for i := len(b) - 1; i >= 0; i-- {
		b[i]--
		if b[i] != 0xff {
			break
		}
	}
	return Data(b)
}
