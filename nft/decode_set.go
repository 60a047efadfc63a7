package nft

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Flags of sets (enum nft_set_flags).
const (
	setInterval = 0x04
	setMap      = 0x08
	setConcat   = 0x80
)

// dataVerdict is NFT_DATA_VERDICT, the type of a verdict map's data.
const dataVerdict = 0xffffff00

// decodeSet reads NFT_MSG_NEWSET: a set without its elements, and how many it
// has at least (0 if the kernel does not say).
func decodeSet(b []byte) (id TableID, s Set, count int, err error) {
	const (
		nftaSetName       = 2
		nftaSetFlags      = 3
		nftaSetKeyType    = 4
		nftaSetKeyLen     = 5
		nftaSetDataType   = 6
		nftaSetDesc       = 9
		nftaSetTimeout    = 11
		nftaSetObjType    = 15
		nftaSetExpr       = 17
		nftaSetExprs      = 18
		nftaSetCount      = 20 // since Linux 6.16
		nftaSetDescSize   = 1
		nftaSetDescConcat = 2
	)
	var f, desc fields
	if id, err = f.object(b); err != nil {
		return id, Set{}, 0, err
	}
	if err := desc.parse(f[nftaSetDesc]); err != nil {
		return id, Set{}, 0, fmt.Errorf("set description: %w", err)
	}
	flags := f.number(nftaSetFlags)
	s = Set{
		Name:     f.text(nftaSetName),
		Key:      keyTypes(f.number(nftaSetKeyType)),
		Interval: flags&setInterval != 0,
		Verdicts: flags&setMap != 0 && f.number(nftaSetDataType) == dataVerdict,
	}
	var other []string
	note := func(odd bool, format string, args ...any) {
		if odd {
			other = append(other, fmt.Sprintf(format, args...))
		}
	}
	rest := flags &^ (setInterval | setMap | setConcat)
	note(rest != 0, "flags 0x%x", rest)
	note(len(s.Key) == 0 || int(f.number(nftaSetKeyLen)) != keyLength(s.Key), "key of %d bytes", f.number(nftaSetKeyLen))
	note(flags&setMap != 0 && !s.Verdicts, "data type %d", f.number(nftaSetDataType))
	note(s.Interval && (flags&setConcat != 0) != (len(s.Key) > 1), "flags 0x%x", flags)
	note(f[nftaSetTimeout] != nil, "timeout")
	note(f[nftaSetObjType] != nil, "object map")
	note(f[nftaSetExpr] != nil || f[nftaSetExprs] != nil, "stateful elements")
	note(desc[nftaSetDescSize] != nil, "size %d", desc.number(nftaSetDescSize))
	if s.Interval && len(s.Key) > 1 {
		lengths, err := concatLengths(desc[nftaSetDescConcat])
		if err != nil {
			return id, Set{}, 0, fmt.Errorf("set description: %w", err)
		}
		want := make([]uint32, len(s.Key))
		for i, t := range s.Key {
			want[i] = uint32(typeInfos[t].length)
		}
		note(!slices.Equal(lengths, want), "fields of %v bytes", lengths)
	}
	s.Other = strings.Join(other, "; ")
	// A tree counts beginnings and ends, and halves the sum; elements that time
	// out are counted until they are collected.
	if !s.Interval && s.Other == "" {
		count = int(f.number(nftaSetCount))
	}
	return id, s, count, nil
}

// concatLengths reads the lengths of the fields of a concatenation.
func concatLengths(b []byte) ([]uint32, error) {
	const nftaSetFieldLen = 1
	var lengths []uint32
	err := attributes(b, func(_ uint16, data []byte) error {
		var f fields
		if err := f.parse(data); err != nil {
			return err
		}
		lengths = append(lengths, f.number(nftaSetFieldLen))
		return nil
	})
	return lengths, err
}

// rawElement is an element as the kernel tells it. In a single-field interval
// set, an element is told as two: its first key, and the one behind its last,
// marked as an end.
type rawElement struct {
	Element
	end bool
}

// decodeElements reads NFT_MSG_NEWSETELEM: some elements of a set, and appends
// them to the others.
func decodeElements(raws []rawElement, b []byte) ([]rawElement, error) {
	const nftaSetElemListElements = 3
	var f fields
	if _, err := f.object(b); err != nil {
		return raws, err
	}
	err := attributes(f[nftaSetElemListElements], func(_ uint16, data []byte) error {
		raw, err := decodeElement(data)
		raws = append(raws, raw)
		return err
	})
	return raws, err
}

func decodeElement(b []byte) (rawElement, error) {
	const (
		nftaSetElemKey     = 1
		nftaSetElemData    = 2
		nftaSetElemFlags   = 3
		nftaSetElemTimeout = 4
		nftaSetElemExpr    = 7
		nftaSetElemObjref  = 9
		nftaSetElemKeyEnd  = 10
		nftaSetElemExprs   = 11

		intervalEnd = 1
		catchall    = 2
	)
	var (
		f     fields
		raw   rawElement
		other []string
	)
	if err := f.parse(b); err != nil {
		return raw, fmt.Errorf("element: %w", err)
	}
	key, _, err := decodeData(f[nftaSetElemKey])
	if err != nil {
		return raw, fmt.Errorf("element: key: %w", err)
	}
	raw.Key = key
	if f[nftaSetElemKeyEnd] != nil {
		if raw.To, _, err = decodeData(f[nftaSetElemKeyEnd]); err != nil {
			return raw, fmt.Errorf("element: key end: %w", err)
		}
		if raw.To == raw.Key {
			raw.To = ""
		}
	}
	flags := f.number(nftaSetElemFlags)
	raw.end = flags&intervalEnd != 0
	if flags&catchall != 0 {
		other = append(other, "catch-all")
	}
	if f[nftaSetElemData] != nil {
		d, v, err := decodeData(f[nftaSetElemData])
		switch {
		case err != nil:
			return raw, fmt.Errorf("element: data: %w", err)
		case v != nil:
			raw.Verdict = *v
		default:
			other = append(other, "data "+hexText(d))
		}
	}
	for _, odd := range []struct {
		kind int
		name string
	}{{nftaSetElemTimeout, "timeout"}, {nftaSetElemExpr, "expression"}, {nftaSetElemExprs, "expressions"}, {nftaSetElemObjref, "object"}} {
		if f[odd.kind] != nil {
			other = append(other, odd.name)
		}
	}
	raw.Other = strings.Join(other, "; ")
	return raw, nil
}

// assemble makes the elements of a set from those that the kernel tells, in
// whatever order. An element that is told twice is a sign that others were not
// told at all: while a hash table grows, which it does in its own time after a
// commit, its order changes between the messages of a dump
// (net/netfilter/nft_set_hash.c, nft_rhash_walk).
func assemble(s Set, raws []rawElement) ([]Element, error) {
	if s.Interval && len(s.Key) == 1 {
		return canonicalElements(assembleIntervals(s, raws)), nil
	}
	elements := make([]Element, len(raws))
	for i, raw := range raws {
		elements[i] = raw.Element
	}
	if elements = canonicalElements(elements); len(elements) != len(raws) {
		return nil, errTorn
	}
	return elements, nil
}

// assembleIntervals joins first keys and ends. An end without a beginning is
// nft(8)'s own: it begins a set with one at zero. A beginning without an end
// reaches to the next beginning, or to the largest key: there is no key behind
// that one to mark.
func assembleIntervals(s Set, raws []rawElement) []Element {
	var elements []Element
	raws = slices.Clone(raws)
	slices.SortFunc(raws, func(a, b rawElement) int {
		if a.Key == b.Key && a.end != b.end { // the end of one, then the beginning of the next
			if a.end {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.Key, b.Key)
	})
	var open *rawElement
	closeAt := func(last Data) {
		if open == nil {
			return
		}
		e := open.Element
		if e.To = last; last == e.Key {
			e.To = ""
		}
		elements = append(elements, e)
		open = nil
	}
	for i := range raws {
		raw := &raws[i]
		if open != nil && raw.Key > open.Key {
			closeAt(predecessor(raw.Key))
		}
		if !raw.end {
			closeAt(raw.Key) // a second beginning at the same key
			open = raw
		}
	}
	closeAt(Data(strings.Repeat("\xff", keyLength(s.Key))))
	return elements
}
