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
		NewRule("state", CTStateIn(CTStateInvalid|CTStateUntracked), Do(Jump("work"))),
		NewRule("no mid-stream", CTStateIn(CTStateNew), TCPFlagsNot(TCPFin|TCPSyn|TCPRst|TCPAck, TCPSyn), Do(Jump("work"))),
		NewRule("errors", CTStateIn(CTStateRelated), L4Proto().Is(Proto(58)), Do(Accept)),
		NewRule("", CTOriginalSaddr(v4).VMap("dispatch4")),
		NewRule("", CTReplySaddr(v6).VMap("dispatch6")),
		NewRule("reply", CTDirection(Reply), ct(CTKeyDstIPv4, Original, 4).Is(addr("10.244.1.9")), Do(Goto("work"))),
		NewRule("tuple", L4Proto().Is(Proto(TCP)), Concat(CTReplySaddr(v4), L4Proto(), CTReplySport()).In("ports4"), Do(CounterRef{"hits"}, Return)),
		NewRule("tuple of ranges", Concat(Daddr(v4), Dport(UDP)).In("ranges4"), Do(Return)),
		NewRule("echo", L4Proto().Is(Proto(1)), CTOriginalDport().Is(Port(8<<8)), Do(Drop)),
		NewRule("neighbour discovery", ICMPType(v6).Between(Data("\x85"), Data("\x89")), Do(Accept)),
		NewRule("bits", SetMark(0x4000), ClearMark(0x8000), Mark().Masked(Number(0x4000), Number(0)), Do(Return)),
		NewRule("sampled", Sport(UDP).IsNot(Port(53)), Do(Limit{Rate: 10, Unit: PerSecond, Burst: 20}, Log{Group: 5, Prefix: "polder: db", Snaplen: 128})),
		NewRule("and plainly", Do(Limit{Rate: 1, Unit: PerMinute, Burst: 5}, Log{}, Drop)),
		NewRule("an echo", ICMPType(v4).Is(Data("\x08")), Saddr(v4).In("prefixes4"), Do(Accept)),
		NewRule("an advertisement of ours", ICMPType(v6).Is(Data("\x88")), NDTarget().Is(addr("fd00::1")), Do(Accept)),
		NewRule("family; 'as such' {", NFProto().Is(Proto(2)), Do(Drop)),
		NewRule("bridges", IIFKind().Is(KindBridge), OIFKind().IsNot(KindBridge), Do(Drop)),
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

// sampleBridge is a table with what the bridge family has besides. A comment
// "bare ..." is that of a rule that nft(8) has no words of its own for: what it
// prints, it reads with a match of the family added.
func sampleBridge() Table {
	addr := func(s string) Data { return Addr(netip.MustParseAddr(s)) }
	v4, v6 := spec.IPv4, spec.IPv6
	mac, port := Data("\x02\x00\x00\x00\x00\x05"), IfName("veth-web1")
	claim := func(name string, address Type, a Data) Set {
		return Set{Name: name, Key: []Type{TypeIfName, TypeEtherAddr, address}, Elements: []Element{Exact(Tuple(port, mac, a))}}
	}
	return Merge(Table{
		Family: Bridge, Name: TableName,
		Chains: []Chain{
			{Name: "prerouting", Base: &Base{"filter", "prerouting", -350, PolicyAccept}, Rules: []Rule{
				NewRule("pods", IIFName().In("ports"), Do(Goto("pod"))),
				NewRule("groups", EtherDaddr().IsNot(Data("\xff\xff\xff\xff\xff\xff")), EtherSaddr().Is(mac), Do(Counter{})),
				NewRule("tagged", EtherType().Is(Ether(0x8100)), Do(Drop)),
				NewRule("range", EtherType().Between(Ether(EtherIPv4), Ether(EtherARP)), Do(Counter{})),
				NewRule("without the mark", EtherType().Is(Ether(EtherTypeOf(v4))), Mark().Masked(Number(1<<24), Number(0)), Do(Drop)),
				NewRule("bare behind its type", EtherType().Is(Ether(EtherIPv4)), Bare(Saddr(v4)).InPrefix(netip.MustParsePrefix("10.0.0.0/8")), Bare(Daddr(v4)).Is(addr("10.0.0.1")), Do(Accept)),
				NewRule("of the other", EtherType().Is(Ether(EtherIPv6)), Bare(ICMPType(v6)).Is(Data("\x86")), Do(Drop)),
				NewRule("ARP by itself", ARPSenderIP().Is(addr("0.0.0.0")), ARPOperation().Is(Data("\x00\x01")), Do(Accept)),
				NewRule("ARP target", Concat(IIFName(), ARPSenderMAC(), ARPTargetIP()).NotIn("claims4"), Do(Drop)),
			}},
			{Name: "pod", Rules: []Rule{
				NewRule("", EtherType().VMap("kinds")),
				NewRule("", Do(Drop)),
			}},
			{Name: "pod_ipv4", Rules: []Rule{
				NewRule("DHCP", Sport(UDP).Is(Port(67)), Do(Drop)),
				NewRule("bare prefix", Bare(Saddr(v4)).InPrefix(netip.MustParsePrefix("169.254.0.0/16")), Do(Drop)),
				NewRule("bare source", Concat(IIFName(), EtherSaddr(), Bare(Saddr(v4))).NotIn("claims4"), Do(Drop)),
				NewRule("bare address", Bare(Daddr(v4)).Is(addr("10.0.0.1")), Bare(ICMPType(v4)).Is(Data("\x05")), Do(Drop)),
			}},
			{Name: "pod_arp", Rules: []Rule{
				NewRule("bare sender", Concat(IIFName(), Bare(ARPSenderMAC()), Bare(ARPSenderIP())).In("claims4"), Do(Accept)),
			}},
			{Name: "pod_ipv6", Rules: []Rule{
				NewRule("bare routers", Bare(ICMPType(v6)).Is(Data("\x86")), Do(Drop)),
				NewRule("bare unspecified", Bare(Saddr(v6)).Is(addr("::")), Bare(ICMPType(v6)).Is(Data("\x87")), Do(Accept)),
				NewRule("bare target", Bare(ICMPType(v6)).Between(Data("\x87"), Data("\x88")), Concat(IIFName(), EtherSaddr(), Bare(NDTarget())).NotIn("claims6"), Do(Drop)),
			}},
		},
		Sets: []Set{
			{Name: "ports", Key: []Type{TypeIfName}, Elements: []Element{Exact(port)}},
			{Name: "kinds", Key: []Type{TypeEtherType}, Verdicts: true, Elements: []Element{
				Ether(EtherIPv4).Maps(Goto("pod_ipv4")), Ether(EtherARP).Maps(Goto("pod_arp")), Ether(EtherIPv6).Maps(Goto("pod_ipv6")),
			}},
			claim("claims4", TypeIPv4Addr, addr("10.244.1.5")), claim("claims6", TypeIPv6Addr, addr("fd00::5")),
			{Name: "arp_ops", Key: []Type{TypeARPOp}, Elements: []Element{Exact(Data("\x00\x01")), Exact(Data("\x00\x07"))}},
			{Name: "icmp_types", Key: []Type{TypeICMPType, TypeICMPv6Type}, Elements: []Element{Exact(Tuple(Data("\x08"), Data("\x80")))}},
			{Name: "protos", Key: []Type{TypeInetProto}, Interval: true, Elements: []Element{{Key: Proto(TCP), To: Proto(UDP)}, Exact(Proto(SCTP))}},
		},
	})
}

func samples() Ruleset { return Ruleset{sample(), sampleBridge()} }

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
	golden(t, "sample-bridge.nft", sampleBridge().String())
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
