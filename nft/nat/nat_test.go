package nat

import (
	"encoding/binary"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/spec"
)

var update = flag.Bool("update", false, "write the golden files anew")

var prefix = netip.MustParsePrefix

func cluster(m *spec.Masquerade) (*spec.Spec, *spec.Node) {
	n := &spec.Node{Name: "n1", Subnets: []netip.Prefix{prefix("10.244.1.0/24"), prefix("fd00:10:244:1::/64")}}
	return &spec.Spec{Nodes: []*spec.Node{n}, Network: &spec.Network{Masquerade: m, Pods: []spec.PodRange{
		{CIDR: prefix("10.244.0.0/16")}, {CIDR: prefix("fd00:10:244::/48")},
	}}}, n
}

func TestCompileGolden(t *testing.T) {
	for name, m := range map[string]*spec.Masquerade{
		"none":   nil,
		"plain":  {},
		"random": {RandomFully: true},
		"except": {Except: []netip.Prefix{prefix("192.168.0.0/16"), prefix("192.168.7.0/24"), prefix("172.16.0.0/13"), prefix("2001:db8::/32")}},
	} {
		text := Compile(cluster(m)).String()
		file := filepath.Join("testdata", name+".nft")
		if *update {
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if text != string(want) {
			t.Errorf("the text differs from %s (-update writes it anew):\n%s", file, text)
		}
	}
}

// flow is what the rules look at.
type flow struct {
	from, to netip.Addr
	mark     uint32
}

// flannel says what flannel's iptables rules (flannel's iptables.go,
// masqRules) do, one by one, and whether they masquerade.
func flannel(p flow, cidr, own netip.Prefix) bool {
	multicast := prefix("224.0.0.0/4")
	if p.to.Is6() {
		multicast = prefix("ff00::/8")
	}
	switch {
	case p.mark&0x4000 == 0x4000:
		return false
	case own.Contains(p.from) && cidr.Contains(p.to):
		return false
	case cidr.Contains(p.from) && own.Contains(p.to):
		return false
	case !cidr.Contains(p.from) && own.Contains(p.to):
		return false
	case cidr.Contains(p.from) && !multicast.Contains(p.to):
		return true
	case !cidr.Contains(p.from) && cidr.Contains(p.to):
		return true
	}
	return false
}

// masquerades runs our rules as the kernel does.
func masquerades(t *rapid.T, table nft.Table, p flow) bool {
	chain, ok := table.Chain("postrouting")
	if !ok {
		t.Fatal("there is no chain")
	}
	for _, r := range chain.Rules {
		if end := run(t, table, r, p); end != nil {
			_, yes := end.(nft.Masquerade)
			return yes
		}
	}
	return false
}

// run is the end of a rule that matches, nil of one that does not.
func run(t *rapid.T, table nft.Table, r nft.Rule, p flow) nft.Expr {
	header, nfproto := ipHeader(p)
	var reg string
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case nft.Meta:
			reg = string(nfproto)
			if e.Key == nft.MetaMark {
				reg = string(nft.Number(p.mark))
			}
		case nft.Payload:
			if nfproto != r.Exprs[1].(nft.Cmp).Data {
				t.Fatalf("%s looks at the header of another family", r)
			}
			reg = header[e.Offset : e.Offset+e.Len]
		case nft.Bitwise:
			b := []byte(reg)
			for i := range b {
				b[i] = b[i]&e.Mask[i] ^ e.Xor[i]
			}
			reg = string(b)
		case nft.Cmp:
			if (reg == string(e.Data)) != (e.Op == nft.Eq) {
				return nil
			}
		case nft.Lookup:
			s, _ := table.Set(e.Set)
			in := slices.ContainsFunc(s.Elements, func(el nft.Element) bool {
				return reg == string(el.Key) || string(el.Key) <= reg && reg <= string(el.To)
			})
			if in == e.Invert {
				return nil
			}
		case nft.Verdict, nft.Masquerade:
			return e
		default:
			t.Fatalf("%s has %T", r, e)
		}
	}
	return nil
}

func ipHeader(p flow) (header string, nfproto nft.Data) {
	if p.from.Is4() {
		return string(slices.Concat(make([]byte, 12), p.from.AsSlice(), p.to.AsSlice())), nft.Proto(2)
	}
	return string(slices.Concat(make([]byte, 8), p.from.AsSlice(), p.to.AsSlice())), nft.Proto(10)
}

// drawFlow draws addresses at and around the edges of everything that a rule
// mentions.
func drawFlow(t *rapid.T, f spec.Family, except []netip.Prefix) flow {
	edges := []string{"10.244.0.0/16", "10.244.1.0/24", "10.244.2.0/24", "224.0.0.0/4", "203.0.113.0/24"}
	if f == spec.IPv6 {
		edges = []string{"fd00:10:244::/48", "fd00:10:244:1::/64", "fd00:10:244:2::/64", "ff00::/8", "2001:db9::/32"}
	}
	var pool []netip.Addr
	add := func(p netip.Prefix) {
		first := p.Masked().Addr()
		last := first.AsSlice()
		for i := p.Bits(); i < len(last)*8; i++ {
			last[i/8] |= 0x80 >> (i % 8)
		}
		end, _ := netip.AddrFromSlice(last)
		for _, a := range []netip.Addr{first, first.Next(), first.Prev(), end, end.Next()} {
			if a.IsValid() {
				pool = append(pool, a)
			}
		}
	}
	for _, e := range edges {
		add(prefix(e))
	}
	for _, p := range ofFamily(f, except) {
		add(p)
	}
	return flow{
		from: rapid.SampledFrom(pool).Draw(t, "from"), to: rapid.SampledFrom(pool).Draw(t, "to"),
		mark: rapid.SampledFrom([]uint32{0, 0x4000, 0x14000, 0x8000, binary.NativeEndian.Uint32([]byte{0, 0x40, 0, 0})}).Draw(t, "mark"),
	}
}

// Without exceptions the rules do what flannel's do; with them, what a pod
// sends there keeps its source, and nothing else changes.
func TestSemanticsAreFlannels(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		except := rapid.SliceOfN(rapid.SampledFrom([]netip.Prefix{
			prefix("203.0.113.0/25"), prefix("203.0.113.64/26"), prefix("203.0.113.128/25"), prefix("2001:db9::/33"), prefix("2001:db9:8000::/33"),
		}), 0, 3).Draw(t, "except")
		f := rapid.SampledFrom(spec.Families[:]).Draw(t, "family")
		p := drawFlow(t, f, except)
		sp, node := cluster(&spec.Masquerade{Except: except})
		cidr, _ := sp.Network.PodRange(f)
		own, _ := node.Subnet(f)
		want := flannel(p, cidr.CIDR, own)
		if cidr.CIDR.Contains(p.from) && slices.ContainsFunc(except, func(e netip.Prefix) bool { return e.Contains(p.to) }) {
			want = false
		}
		if got := masquerades(t, Compile(sp, node), p); got != want {
			t.Errorf("%+v is masqueraded: %t, flannel: %t", p, got, want)
		}
	})
}
