package nft

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/poldernet/polder/spec"
)

var update = flag.Bool("update", false, "write the golden files anew")

// sample is a table with every expression and every kind of set that we write.
func sample() Table {
	prefix := netip.MustParsePrefix
	addr := func(s string) Data { return Addr(netip.MustParseAddr(s)) }
	v4, v6 := spec.IPv4, spec.IPv6
	port := Tuple(addr("10.244.1.5"), Proto(TCP), Port(8080))
	rules := []Rule{
		NewRule("mark", Mark().Masked(Number(0x4000), Number(0x4000)), Do(Return)),
		NewRule("bytes of a prefix", Saddr(v4).InPrefix(prefix("10.244.0.0/16")), Daddr(v4).NotInPrefix(prefix("224.0.0.0/4")), Do(Counter{})),
		NewRule("odd prefix", Saddr(v6).InPrefix(prefix("fd00:10:244::/47")), Daddr(v6).NotInPrefix(prefix("ff00::/8")), Do(Counter{})),
		NewRule("exact", Saddr(v6).Is(addr("fd00::1")), Daddr(v6).IsNot(addr("fd00::2")), Do(Drop)),
		NewRule("port and set", IIFName().Is(IfName("cni0")), Dport(UDP).Is(Port(8472)), Saddr(v4).NotIn("prefixes4"), Do(Counter{}, Drop)),
		NewRule("untracked", Dport(UDP).Is(Port(8472)), IIFName().NotIn("links"), Saddr(v4).In("prefixes4"), Do(Notrack{})),
		NewRule("ranges", Sport(TCP).Between(Port(1024), Port(2048)), OIFName().Is(IfName("eth0")), Do(Jump("work"))),
		NewRule("source check", Saddr(v6).In("prefixes6"), SaddrUnroutable(), Do(Counter{}, Drop)),
		NewRule("local", DaddrLocal(), Do(Accept)),
		NewRule("state", ConnState().Any(CTStateInvalid|CTStateUntracked), Do(Jump("work"))),
		NewRule("no mid-stream", ConnState().Any(CTStateNew), TCPFlags().NotMasked(Data("\x17"), Data("\x02")), Do(Jump("work"))),
		NewRule("errors", ConnState().Any(CTStateRelated), L4Proto().Is(Proto(58)), Do(Accept)),
		NewRule("", ConnSaddr(Original, v4).Verdict("dispatch4")),
		NewRule("", ConnSaddr(Reply, v6).Verdict("dispatch6")),
		NewRule("reply", ConnDirection().Is(DirectionData(Reply)), ConnDaddr(Original, v4).Is(addr("10.244.1.9")), Do(Goto("work"))),
		NewRule("tuple", L4Proto().Is(Proto(TCP)), Concat(ConnSaddr(Reply, v4), L4Proto(), ConnSport(Reply)).In("ports4"), Do(CounterRef{"hits"}, Return)),
		NewRule("tuple of ranges", Concat(Daddr(v4), Dport(UDP)).In("ranges4"), Do(Return)),
		NewRule("echo", L4Proto().Is(Proto(1)), ConnDport(Original).Is(Port(8<<8)), Do(Drop)),
		NewRule("neighbour discovery", ICMPType(v6).Between(Data("\x85"), Data("\x89")), Do(Accept)),
		NewRule("family; 'as such' {", NFProto().Is(Proto(2)), Do(Drop)),
		NewRule("dispatch of the whole", Concat(L4Proto()).Is(Proto(6)), Do(Jump("spare"))),
	}
	return Merge(Table{
		Family: INet, Name: TableName,
		Chains: []Chain{
			{Name: "work", Rules: []Rule{NewRule("", Do(Counter{}, Drop))}},
			{Name: "spare"},
			{Name: "early", Base: &Base{"filter", "prerouting", PriorityRaw, PolicyAccept}, Rules: rules},
			{Name: "forward", Base: &Base{"filter", "forward", PriorityFilter, PolicyDrop}, Rules: []Rule{NewRule("", Do(Accept))}},
			{Name: "odd", Base: &Base{"filter", "output", 77, PolicyAccept}},
			{Name: "postrouting", Base: &Base{"nat", "postrouting", PrioritySrcNAT, PolicyAccept}, Rules: []Rule{
				NewRule("", Saddr(v4).InPrefix(prefix("10.244.1.0/24")), Do(Masquerade{})),
				NewRule("", Saddr(v6).InPrefix(prefix("fd00::/64")), Do(Masquerade{RandomFully})),
			}},
		},
		Sets: []Set{
			{Name: "links", Key: []Type{TypeIfName}, Elements: []Element{Exact(IfName("cni0")), Exact(IfName("flannel.1"))}},
			{Name: "prefixes4", Key: []Type{TypeIPv4Addr}, Interval: true, Elements: PrefixElements([]netip.Prefix{
				prefix("10.0.0.0/24"), prefix("10.0.1.0/24"), prefix("10.0.1.128/25"), prefix("10.0.2.7/32"), prefix("255.255.255.0/24"), prefix("0.0.0.0/8"),
			})},
			{Name: "prefixes6", Key: []Type{TypeIPv6Addr}, Interval: true, Elements: PrefixElements([]netip.Prefix{prefix("::/0")})},
			{Name: "ports4", Key: []Type{TypeIPv4Addr, TypeInetProto, TypeInetService}, Elements: []Element{Exact(port)}},
			{Name: "ranges4", Key: []Type{TypeIPv4Addr, TypeInetService}, Interval: true, Elements: []Element{
				{Key: Tuple(addr("10.0.0.0"), Port(1)), To: Tuple(addr("10.0.0.255"), Port(100))},
				Exact(Tuple(addr("10.0.1.1"), Port(53))),
			}},
			{Name: "dispatch4", Key: []Type{TypeIPv4Addr}, Verdicts: true, Elements: []Element{
				addr("10.244.1.5").Maps(Jump("work")), addr("10.244.1.6").Maps(Drop), addr("10.244.1.7").Maps(Goto("work")),
			}},
			{Name: "dispatch6", Key: []Type{TypeIPv6Addr}, Verdicts: true, Elements: []Element{
				addr("fd00::5").Maps(Accept), addr("fd00::6").Maps(Return),
			}},
			{Name: "empty", Key: []Type{TypeMark}},
			{Name: "macs", Key: []Type{TypeEtherAddr, TypeEtherType}, Elements: []Element{Exact(Tuple(Data("\x02\x00\x00\x00\x00\x01"), Data("\x86\xdd")))}},
		},
		Counters: []string{"hits", "misses"},
	})
}

// golden compares a text with a file.
func golden(t *testing.T, name, text string) {
	t.Helper()
	file := filepath.Join("testdata", name)
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

func TestTextGolden(t *testing.T) {
	golden(t, "sample.nft", sample().String())
	golden(t, "sample-plan.nft", Diff(Ruleset{sample()}, nil).String())
}

// manyAddresses are the elements of 10.0.0.0 and the n-1 addresses behind it.
func manyAddresses(n int) []Element {
	elements := make([]Element, n)
	for i := range elements {
		elements[i] = Exact(Data([]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
	}
	return elements
}
