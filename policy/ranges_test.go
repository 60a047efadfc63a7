package policy

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"github.com/poldernet/polder/spec"
)

// TestRangesOfBlocks: what is in one of the blocks, and only that, is in the
// merged ranges, which are sorted and apart from each other. The addresses are
// those at and beside the ends, where mistakes are.
func TestRangesOfBlocks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		family := rapid.SampledFrom(spec.Families[:]).Draw(t, "family")
		var blocks []*spec.Block
		var list []addrRange
		var probes []netip.Addr
		for range rapid.IntRange(0, 4).Draw(t, "blocks") {
			b := &spec.Block{CIDR: drawPrefix(t, family)}
			for range rapid.IntRange(0, 3).Draw(t, "holes") {
				e := drawPrefix(t, family)
				if e.Bits() < b.CIDR.Bits() || !b.CIDR.Contains(e.Addr()) {
					continue
				}
				b.Except = append(b.Except, e)
			}
			blocks = append(blocks, b)
			list = append(list, ranges(b)...)
			for _, p := range append(b.Except, b.CIDR) {
				r := rangeOf(p)
				probes = append(probes, r.first, r.first.Prev(), r.first.Next(), r.last, r.last.Prev(), r.last.Next())
			}
		}
		got := merged(list)
		for i, r := range got {
			if r.last.Less(r.first) {
				t.Fatalf("%v: %v ends before it begins", blocks, r)
			}
			if i > 0 && r.first.Compare(got[i-1].last.Next()) <= 0 {
				t.Fatalf("%v: %v is not apart from %v", blocks, got[i-1], r)
			}
		}
		for _, a := range probes {
			if !a.IsValid() {
				continue
			}
			want := false
			for _, b := range blocks {
				want = want || b.Contains(a)
			}
			if in := contains(got, a); in != want {
				t.Fatalf("%v: %s in %v is %v, want %v", blocks, a, got, in, want)
			}
		}
	})
}

func contains(list []addrRange, a netip.Addr) bool {
	for _, r := range list {
		if !a.Less(r.first) && !r.last.Less(a) {
			return true
		}
	}
	return false
}

// drawPrefix draws a prefix among few: they are to overlap and to touch, also
// at the ends of the family.
func drawPrefix(t *rapid.T, family spec.Family) netip.Prefix {
	zero := netip.IPv4Unspecified()
	if family == spec.IPv6 {
		zero = netip.IPv6Unspecified()
	}
	b := zero.AsSlice()
	high := rapid.SampledFrom([]byte{0, 10, 255}).Draw(t, "high")
	for i := range b {
		b[i] = high
	}
	b[len(b)-1] = rapid.Byte().Draw(t, "low")
	a, _ := netip.AddrFromSlice(b)
	bits := rapid.SampledFrom([]int{0, 1, a.BitLen() - 8, a.BitLen() - 3, a.BitLen() - 1, a.BitLen()}).Draw(t, "bits")
	return netip.PrefixFrom(a, bits).Masked()
}

// TestMergedPorts: likewise for ports.
func TestMergedPorts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		port := rapid.OneOf(rapid.Uint16Range(1, 12), rapid.Uint16Range(65530, 65535))
		var list []spec.PortRange
		for range rapid.IntRange(0, 5).Draw(t, "ranges") {
			a, b := port.Draw(t, "a"), port.Draw(t, "b")
			list = append(list, spec.PortRange{First: min(a, b), Last: max(a, b)})
		}
		if rapid.IntRange(0, 9).Draw(t, "all") == 0 {
			list = append(list, spec.PortRange{})
		}
		got := mergedPorts(list)
		for i := 1; i < len(got); i++ {
			if int(got[i].First) <= int(got[i-1].Last)+1 {
				t.Fatalf("%v: %v is not apart from %v", list, got[i-1], got[i])
			}
		}
		for p := range 65536 {
			in := func(list []spec.PortRange) bool {
				for _, r := range list {
					if r.Contains(uint16(p)) {
						return true
					}
				}
				return false
			}
			if in(list) != in(got) {
				t.Fatalf("port %d: %v, merged %v", p, list, got)
			}
		}
	})
}
