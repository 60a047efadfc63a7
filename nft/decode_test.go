package nft

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// nla is a netlink attribute.
func nla(kind uint16, data ...[]byte) []byte {
	payload := slices.Concat(data...)
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(payload)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), payload...)
	return append(b, make([]byte, padded(len(b))-len(b))...)
}

func be32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

func be64(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func str(s string) []byte { return append([]byte(s), 0) }

func value(d string) []byte { return nla(1, []byte(d)) }

// message is the nfgenmsg of an inet object, and attributes.
func message(attrs ...[]byte) []byte {
	return append([]byte{1, 0, 0, 0}, slices.Concat(attrs...)...)
}

func expression(name string, data ...[]byte) []byte {
	return nla(1, nla(1, str(name)), nla(2, data...))
}

// What we do not write is kept apart from what we do, however alike.
func TestDecodeExprIsStrict(t *testing.T) {
	for name, c := range map[string]struct {
		bytes []byte
		want  Expr
	}{
		"payload load":            {expression("payload", nla(1, be32(1)), nla(2, be32(1)), nla(3, be32(12)), nla(4, be32(4))), Payload{NetworkHeader, 12, 4, 0}},
		"4-byte register":         {expression("meta", nla(1, be32(9)), nla(2, be32(16))), Meta{MetaL4Proto, 1}},
		"second 16-byte register": {expression("meta", nla(1, be32(2)), nla(2, be32(16))), Meta{MetaL4Proto, 4}},
		"its other number":        {expression("meta", nla(1, be32(12)), nla(2, be32(16))), Meta{MetaL4Proto, 4}},
		"meta set":                {expression("meta", nla(3, be32(1)), nla(2, be32(3))), MetaSet{MetaMark, 0}},
		"meta load and set":       {expression("meta", nla(1, be32(1)), nla(3, be32(1)), nla(2, be32(3))), nil},
		"payload write":           {expression("payload", nla(5, be32(1)), nla(2, be32(1)), nla(3, be32(12)), nla(4, be32(4))), nil},
		"ct set":                  {expression("ct", nla(4, be32(1)), nla(2, be32(3))), nil},
		"drop":                    {expression("immediate", nla(1, be32(0)), nla(2, nla(2, nla(1, be32(0))))), Drop},
		"jump":                    {expression("immediate", nla(1, be32(0)), nla(2, nla(2, nla(1, be32(0xfffffffd)), nla(2, str("x"))))), Jump("x")},
		"immediate value":         {expression("immediate", nla(1, be32(1)), nla(2, value("abcd"))), nil},
		"shift":                   {expression("bitwise", nla(1, be32(1)), nla(2, be32(1)), nla(3, be32(4)), nla(6, be32(1)), nla(7, value("abcd"))), nil},
		"vmap":                    {expression("lookup", nla(1, str("m")), nla(2, be32(1)), nla(3, be32(0)), nla(5, be32(0))), Lookup{Set: "m", Verdict: true}},
		"data map":                {expression("lookup", nla(1, str("m")), nla(2, be32(1)), nla(3, be32(1)), nla(5, be32(0))), nil},
		"inverted":                {expression("lookup", nla(1, str("m")), nla(2, be32(1)), nla(5, be32(1))), Lookup{Set: "m", Invert: true}},
		"counter reference":       {expression("objref", nla(1, be32(1)), nla(2, str("c"))), CounterRef{"c"}},
		"quota reference":         {expression("objref", nla(1, be32(2)), nla(2, str("c"))), nil},
		"limit":                   {expression("limit", nla(1, be64(10)), nla(2, be64(60)), nla(3, be32(5)), nla(4, be32(0)), nla(5, be32(0))), Limit{10, PerMinute, 5}},
		"limit of bytes":          {expression("limit", nla(1, be64(10)), nla(2, be64(60)), nla(3, be32(5)), nla(4, be32(1)), nla(5, be32(0))), nil},
		"beyond a limit":          {expression("limit", nla(1, be64(10)), nla(2, be64(60)), nla(3, be32(5)), nla(4, be32(0)), nla(5, be32(1))), nil},
		"log to a group":          {expression("log", nla(1, []byte{0, 5}), nla(2, str("why")), nla(3, be32(64))), Log{5, "why", 64}},
		"log of whole packets":    {expression("log", nla(1, []byte{0, 5}), nla(4, []byte{0, 0})), Log{Group: 5}},
		"log of nothing":          {expression("log", nla(1, []byte{0, 5}), nla(3, be32(0))), nil},
		"log that waits":          {expression("log", nla(1, []byte{0, 5}), nla(4, []byte{0, 1})), nil},
		"log of the kernel":       {expression("log", nla(2, str("why")), nla(5, be32(4))), nil},
		"masquerade to ports":     {expression("masq", nla(2, be32(1))), nil},
		"never heard of":          {expression("teapot", nla(1, be32(1))), nil},
		"notrack":                 {nla(1, nla(1, str("notrack"))), Notrack{}},
	} {
		e, err := decodeExpr(c.bytes[4:])
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, unknown := e.(Unknown); unknown != (c.want == nil) || !unknown && e != c.want {
			t.Errorf("%s is %#v", name, e)
		}
	}
}

func TestDecodeRefusesShortMessages(t *testing.T) {
	// The names leave no padding, which may be missing.
	whole := message(nla(1, str("polders")), nla(2, str("cha")), nla(4, expression("immediate", nla(1, be32(0)), nla(2, nla(2, nla(1, be32(0)))))))
	for n := range len(whole) - 1 {
		if _, _, _, err := decodeRule(whole[:n]); err == nil && n != 4 && n != 4+12 && n != 4+12+8 {
			t.Errorf("%d of %d bytes are taken for a rule", n, len(whole))
		} else if err != nil && !errors.Is(err, errShort) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// An interval set comes in any order, with or without the end that nft(8) puts
// before everything.
func TestAssembleIntervals(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSet(t, "set", "s1", nil)
		if !s.Interval {
			t.Skip()
		}
		var raws []rawElement
		for _, e := range s.Elements {
			raws = append(raws, rawElement{Element: Exact(e.Key)})
			if behind := successor(e.last()); behind != "" {
				raws = append(raws, rawElement{Element: Exact(behind), end: true})
			}
		}
		if rapid.Bool().Draw(t, "sentinel") {
			raws = append(raws, rawElement{Element: Exact(Data(make([]byte, keyLength(s.Key)))), end: true})
		}
		raws = rapid.Permutation(raws).Draw(t, "order")
		if got, err := assemble(s, raws); err != nil || !slices.Equal(got, s.Elements) {
			t.Errorf("%v, got  %s\nwant %s", err, elementList(s, got), elementList(s, s.Elements))
		}
	})
}

func TestPrefixElements(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		prefixes := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) netip.Prefix {
			a := netip.AddrFrom4([4]byte{10, 0, rapid.SampledFrom([]byte{0, 1, 2, 255}).Draw(t, "c"), rapid.Byte().Draw(t, "d")})
			return netip.PrefixFrom(a, rapid.SampledFrom([]int{0, 8, 22, 23, 24, 25, 31, 32}).Draw(t, "bits"))
		}), 0, 5).Draw(t, "prefixes")
		elements := PrefixElements(prefixes)
		for i := 1; i < len(elements); i++ {
			if elements[i-1].last() >= elements[i].Key {
				t.Fatalf("%v: elements overlap or are out of order: %q", prefixes, elements)
			}
		}
		for range 20 {
			a := netip.AddrFrom4([4]byte{10, 0, rapid.SampledFrom([]byte{0, 1, 2, 3, 255}).Draw(t, "c"), rapid.Byte().Draw(t, "d")})
			in := slices.ContainsFunc(elements, func(e Element) bool { return e.Key <= Addr(a) && Addr(a) <= e.last() })
			if want := slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) }); in != want {
				t.Fatalf("%v in %v: %t, in the elements: %t", a, prefixes, want, in)
			}
		}
	})
}

// FuzzDecode feeds every decoder with the same bytes. Whatever they make of
// them can be printed and compared.
func FuzzDecode(f *testing.F) {
	f.Add(message(nla(1, str("polder")), nla(2, str("early")), nla(4, expression("cmp", nla(1, be32(1)), nla(2, be32(0)), nla(3, value("\x02")))), nla(7, []byte("\x00\x04why\x00"))))
	f.Add(message(nla(1, str("polder")), nla(3, str("early")), nla(4, nla(1, be32(2)), nla(2, be32(0xffffff00))), nla(5, be32(1)), nla(7, str("filter"))))
	f.Add(message(nla(1, str("polder")), nla(2, str("s")), nla(3, be32(0x84)), nla(4, be32(7<<6|13)), nla(5, be32(8)), nla(9, nla(2, nla(1, nla(1, be32(4))), nla(1, nla(1, be32(2)))))))
	f.Add(message(nla(1, str("polder")), nla(2, str("s")), nla(3, nla(1, nla(1, value("\x0a\x00\x00\x00"))), nla(1, nla(3, be32(1)), nla(1, value("\x0b\x00\x00\x00"))))))
	f.Add(message(nla(1, str("polder")), nla(2, str("m")), nla(3, nla(1, nla(1, value("\x0a\x00\x00\x00")), nla(2, nla(2, nla(1, be32(0xfffffffd)), nla(2, str("x"))))))))
	f.Add(message(nla(1, str("polder")), nla(2, str("c")), nla(4,
		expression("limit", nla(1, be64(10)), nla(2, be64(60)), nla(3, be32(5)), nla(4, be32(0)), nla(5, be32(0))),
		expression("log", nla(1, []byte{0, 5}), nla(2, str("why")), nla(3, be32(64))),
		expression("meta", nla(1, be32(1)), nla(2, be32(3))),
		expression("bitwise", nla(1, be32(1)), nla(2, be32(1)), nla(3, be32(4)), nla(4, value("\xff\xff\xff\xfe")), nla(5, value("\x00\x00\x00\x01"))),
		expression("meta", nla(3, be32(1)), nla(2, be32(3))))))
	f.Add(message(nla(1, be32(42))))
	f.Add([]byte("0000)\x00\x03\x00%\x0000!\x00\x01\x00\x1d\x00\x01\x00\x00\x00\x00\x00000000000000000000000000")) // an interval from 25 bytes to 4
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := messages(b, func(messageHeader, []byte) error { return nil }); err != nil && !errors.Is(err, errShort) {
			t.Error(err)
		}
		table, _ := decodeTable(b)
		if _, c, err := decodeChain(b); err == nil {
			table.Chains = append(table.Chains, c)
		}
		if _, _, r, err := decodeRule(b); err == nil {
			table.Chains = append(table.Chains, Chain{Name: "rules", Rules: []Rule{r}})
		}
		if _, s, _, err := decodeSet(b); err == nil {
			table.Sets = append(table.Sets, s)
		}
		for _, s := range []Set{{Name: "tree", Key: []Type{TypeIPv4Addr}, Interval: true}, {Name: "hash", Key: []Type{TypeIPv4Addr, TypeInetService}}} {
			raws, err := decodeElements(nil, b)
			if err != nil {
				continue
			}
			if s.Elements, err = assemble(s, raws); err == nil {
				table.Sets = append(table.Sets, s)
			}
		}
		if _, o, err := decodeObject(b); err == nil {
			table.Objects = append(table.Objects, o)
		}
		if _, err := decodeCommit(b); err != nil && !errors.Is(err, errShort) {
			t.Error(err)
		}
		table.Dormant = false // which nobody desires
		rs := Ruleset{table.canonical()}
		if rs.String() == "" || !Diff(rs, rs).Empty() {
			t.Errorf("a table differs from itself:\n%s", Diff(rs, rs))
		}
		Diff(Ruleset{sample()}, rs).Changes()
		_ = Diff(rs, Ruleset{sample()}).String()
	})
}
