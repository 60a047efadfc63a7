package verdict

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/poldernet/polder/nft"
)

// set is a set or map, in a form in which it can be looked up.
type set struct {
	nft.Set
	fields []int // lengths of the key's fields, with padding
	length int   // of the key
	exact  map[nft.Data]nft.Verdict
	ranges []nft.Element // sorted
}

// lengths of the types of keys, in bytes.
var lengths = map[nft.Type]int{
	nft.TypeIPv4Addr: 4, nft.TypeIPv6Addr: 16, nft.TypeEtherAddr: 6, nft.TypeEtherType: 2,
	nft.TypeInetProto: 1, nft.TypeInetService: 2, nft.TypeMark: 4, nft.TypeIfName: 16,
}

func newSet(s nft.Set) (*set, error) {
	if s.Other != "" {
		return nil, fmt.Errorf("set %s: unknown property %s", s.Name, s.Other)
	}
	out := &set{Set: s, exact: make(map[nft.Data]nft.Verdict, len(s.Elements))}
	for _, t := range s.Key {
		n, ok := lengths[t]
		if !ok {
			return nil, fmt.Errorf("set %s: unknown type %s", s.Name, t)
		}
		if len(s.Key) > 1 {
			n = (n + 3) &^ 3
		}
		out.fields = append(out.fields, n)
		out.length += n
	}
	for _, e := range s.Elements {
		if len(e.Key) != out.length || e.To != "" && len(e.To) != out.length || e.Other != "" {
			return nil, fmt.Errorf("set %s: unknown element %q", s.Name, e)
		}
		if e.To == "" {
			out.exact[e.Key] = e.Verdict
		} else {
			out.ranges = append(out.ranges, e)
		}
	}
	slices.SortFunc(out.ranges, func(a, b nft.Element) int { return cmp.Compare(a.Key, b.Key) })
	return out, nil
}

// empty is a set of the same kind without elements.
func (s *set) empty() *set {
	return &set{Set: nft.Set{Name: s.Name, Key: s.Key, Interval: s.Interval, Verdicts: s.Verdicts}, fields: s.fields, length: s.length}
}

// find looks a key up.
func (s *set) find(key []byte) (nft.Verdict, bool) {
	if v, ok := s.exact[nft.Data(key)]; ok || len(s.ranges) == 0 {
		return v, ok
	}
	if len(s.fields) == 1 {
		i, _ := slices.BinarySearchFunc(s.ranges, nft.Data(key), func(e nft.Element, key nft.Data) int { return cmp.Compare(e.To, key) })
		if i < len(s.ranges) && s.ranges[i].Key <= nft.Data(key) {
			return s.ranges[i].Verdict, true
		}
		return nft.Verdict{}, false
	}
	for _, e := range s.ranges {
		if s.within(nft.Data(key), e) {
			return e.Verdict, true
		}
	}
	return nft.Verdict{}, false
}

// within says that each field of a key is in the range of an element's.
func (s *set) within(key nft.Data, e nft.Element) bool {
	at := 0
	for _, n := range s.fields {
		if k := key[at : at+n]; k < e.Key[at:at+n] || k > e.To[at:at+n] {
			return false
		}
		at += n
	}
	return true
}
