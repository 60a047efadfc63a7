package policy

import (
	"net/netip"
	"slices"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/spec"
)

// addrRange is the addresses of one family from first to last, both included.
type addrRange struct{ first, last netip.Addr }

// rangeOf is the range of a prefix.
func rangeOf(p netip.Prefix) addrRange {
	first := p.Masked().Addr()
	b := first.AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(b) // as long as an address is
	return addrRange{first, last}
}

// everything says that the range holds all addresses of its family.
func (r addrRange) everything() bool {
	return !r.first.Prev().IsValid() && !r.last.Next().IsValid()
}

// merged is the union of ranges of one family: sorted, without overlaps and
// without neighbours.
func merged(list []addrRange) []addrRange {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b addrRange) int { return a.first.Compare(b.first) })
	var out []addrRange
	for _, r := range list {
		if n := len(out); n > 0 {
			// Behind the last address of the family there is none.
			behind := out[n-1].last.Next()
			if !behind.IsValid() || r.first.Compare(behind) <= 0 {
				if out[n-1].last.Less(r.last) {
					out[n-1].last = r.last
				}
				continue
			}
		}
		out = append(out, r)
	}
	return out
}

// without are the ranges of from that are in none of holes.
func without(from addrRange, holes []addrRange) []addrRange {
	var out []addrRange
	for _, h := range merged(holes) {
		if h.last.Less(from.first) {
			continue
		}
		if from.last.Less(h.first) {
			break
		}
		if from.first.Less(h.first) {
			out = append(out, addrRange{from.first, h.first.Prev()})
		}
		if !h.last.Less(from.last) {
			return out
		}
		from.first = h.last.Next()
	}
	return append(out, from)
}

// ranges are the addresses of a block.
func ranges(b *spec.Block) []addrRange {
	holes := make([]addrRange, len(b.Except))
	for i, e := range b.Except {
		holes[i] = rangeOf(e)
	}
	return without(rangeOf(b.CIDR), holes)
}

// elements are the elements of an interval set that holds the ranges, which are
// merged.
func elements(list []addrRange) []nft.Element {
	out := make([]nft.Element, len(list))
	for i, r := range list {
		out[i] = nft.Exact(nft.Addr(r.first))
		if r.first != r.last {
			out[i].To = nft.Addr(r.last)
		}
	}
	return out
}

// mergedPorts is the union of ranges of ports: sorted, without overlaps and
// without neighbours. A zero range is every port; it alone is the union then.
func mergedPorts(list []spec.PortRange) []spec.PortRange {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b spec.PortRange) int { return int(a.First) - int(b.First) })
	var out []spec.PortRange
	for _, r := range list {
		switch n := len(out); {
		case r.IsZero():
			return []spec.PortRange{{}}
		case n > 0 && int(r.First) <= int(out[n-1].Last)+1:
			out[n-1].Last = max(out[n-1].Last, r.Last)
		default:
			out = append(out, r)
		}
	}
	return out
}
