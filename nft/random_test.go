package nft

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/poldernet/polder/spec"
)

// drawTable draws a table that the kernel would take. Names come from small
// pools, so that two tables have much in common, and one name may stand for
// objects of different kinds.
func drawTable(t *rapid.T, label string) Table {
	draw := func(n int, what string) int { return rapid.IntRange(0, n-1).Draw(t, label+" "+what) }
	table := Table{Family: INet, Name: TableName}
	for _, c := range []string{"hits", "misses"} {
		if draw(2, "counter "+c) == 1 {
			table.Counters = append(table.Counters, c)
		}
	}
	// Regular chains jump forward only, so that there is no loop.
	var regular []string
	for i, name := range []string{"x", "r1", "r2", "r3"} {
		switch draw(3, "chain "+name) {
		case 1:
			regular = append(regular, name)
		case 2:
			if i == 0 {
				table.Chains = append(table.Chains, Chain{Name: name, Base: drawBase(t, label)})
			}
		}
	}
	for _, name := range []string{"s1", "s2", "m1", "m2"} {
		if draw(3, "set "+name) > 0 {
			table.Sets = append(table.Sets, drawSet(t, label+" "+name, name, regular))
		}
	}
	for i, name := range regular {
		table.Chains = append(table.Chains, Chain{Name: name, Rules: drawRules(t, label+" "+name, table, regular[i+1:])})
	}
	for _, name := range []string{"b1", "b2"} {
		if draw(3, "base "+name) > 0 {
			table.Chains = append(table.Chains, Chain{Name: name, Base: drawBase(t, label+name), Rules: drawRules(t, label+" "+name, table, regular)})
		}
	}
	return table.canonical()
}

// drawPair draws two tables: unrelated ones, or ones that differ in the kind of
// a set only, while all rules that use it stay.
func drawPair(t *rapid.T) (a, b Table) {
	a = drawTable(t, "first")
	if len(a.Sets) == 0 || rapid.Bool().Draw(t, "unrelated") {
		return a, drawTable(t, "second")
	}
	b = a.canonical()
	s := &b.Sets[rapid.IntRange(0, len(b.Sets)-1).Draw(t, "which")]
	s.Interval = !s.Interval
	s.Elements = slices.Clone(s.Elements)
	for i := range s.Elements {
		s.Elements[i].To = ""
	}
	return a, b
}

func drawBase(t *rapid.T, label string) *Base {
	return &Base{
		Type:     "filter",
		Hook:     rapid.SampledFrom([]string{"prerouting", "input", "forward"}).Draw(t, label+" hook"),
		Priority: rapid.SampledFrom([]int32{-300, 0, 7}).Draw(t, label+" priority"),
		Policy:   rapid.SampledFrom([]Policy{PolicyAccept, PolicyDrop}).Draw(t, label+" policy"),
	}
}

// drawSet draws intervals between a few addresses, the smallest and the
// largest among them, so that adjacency and overlaps are frequent.
func drawSet(t *rapid.T, label, name string, chains []string) Set {
	f := rapid.SampledFrom(spec.Families[:]).Draw(t, label+" family")
	s := Set{Name: name, Key: []Type{AddrType(f)}, Verdicts: name[0] == 'm', Interval: rapid.Bool().Draw(t, label+" interval")}
	var keys []Data
	first, last := bounds(netip.PrefixFrom(netip.AddrFrom4([4]byte{}), 0))
	if f == spec.IPv6 {
		first, last = bounds(netip.PrefixFrom(netip.IPv6Unspecified(), 0))
	}
	for i := range 6 {
		keys = append(keys, first[:len(first)-1]+Data([]byte{byte(i)}), last[:len(last)-1]+Data([]byte{byte(250 + i)}))
	}
	slices.Sort(keys)
	for i := 0; i < len(keys); {
		n := rapid.IntRange(0, 3).Draw(t, label+" width")
		if n == 0 {
			i++
			continue
		}
		e := Exact(keys[i])
		if j := min(i+n-1, len(keys)-1); s.Interval && j > i {
			e.To, i = keys[j], j
		}
		if s.Verdicts {
			e.Verdict = drawVerdict(t, label, chains)
		}
		s.Elements = append(s.Elements, e)
		i++
	}
	return s
}

func drawVerdict(t *rapid.T, label string, chains []string) Verdict {
	verdicts := []Verdict{Accept, Drop, Return}
	for _, c := range chains {
		verdicts = append(verdicts, Jump(c), Goto(c))
	}
	return rapid.SampledFrom(verdicts).Draw(t, label+" verdict")
}

// drawRules draws rules with what the table has so far.
func drawRules(t *rapid.T, label string, table Table, chains []string) []Rule {
	statements := []Statement{drawStatement(t, label, table.Family), Do(Counter{})}
	for _, c := range table.Counters {
		statements = append(statements, Do(CounterRef{c}))
	}
	var maps []Statement
	for _, s := range table.Sets {
		f := spec.IPv4
		if s.Key[0] == TypeIPv6Addr {
			f = spec.IPv6
		}
		if !s.Verdicts {
			statements = append(statements, Daddr(f).In(s.Name), Saddr(f).NotIn(s.Name))
		} else if targetsWithin(s, chains) {
			maps = append(maps, Daddr(f).VMap(s.Name))
		}
	}
	var rules []Rule
	for i := range rapid.IntRange(0, 3).Draw(t, label+" rules") {
		label := fmt.Sprintf("%s rule %d", label, i)
		list := rapid.SliceOfN(rapid.SampledFrom(statements), 0, 2).Draw(t, label)
		if end := append(maps, Do(drawVerdict(t, label, chains))); true {
			list = append(list, rapid.SampledFrom(end).Draw(t, label+" end"))
		}
		rules = append(rules, NewRule(rapid.SampledFrom([]string{"", "why"}).Draw(t, label+" comment"), list...))
	}
	return rules
}

// drawStatement draws a statement that refers to nothing, of every constructor
// that the family has.
func drawStatement(t *rapid.T, label string, family Family) Statement {
	draw := func(what string, last uint32) uint32 { return rapid.Uint32Range(0, last).Draw(t, label+" "+what) }
	f := rapid.SampledFrom(spec.Families[:]).Draw(t, label+" family")
	fam := families.Get(f)
	proto := rapid.SampledFrom([]uint8{TCP, UDP, SCTP}).Draw(t, label+" proto")
	byteData := func(last uint32) Data { return Data([]byte{byte(draw("byte", last))}) }
	port, address := Port(uint16(draw("port", 0xffff))), drawBytes(t, label, int(fam.addrLen))
	prefix := netip.PrefixFrom(netip.MustParseAddr("10.244.0.0"), int(draw("bits", 31)+1))
	if f == spec.IPv6 {
		prefix = netip.PrefixFrom(netip.MustParseAddr("fd00:10:244::"), int(draw("bits", 127)+1))
	}
	prefix = prefix.Masked()
	matches := func(field Field, d Data) []Statement {
		last := Data(strings.Repeat("\xff", len(d)))
		return []Statement{field.Is(d), field.IsNot(d), field.Between(d, last)}
	}
	bits := draw("mark", math.MaxUint32)
	list := []Statement{
		Mark().Masked(Number(bits|1), Number(bits)), SetMark(bits), ClearMark(bits),
		TCPFlagsNot(uint8(draw("mask", 255)), uint8(draw("flags", 255))),
		Do(Limit{Rate: uint64(draw("rate", 1000)) + 1, Unit: PerSecond, Burst: draw("burst", 9) + 1}),
		Do(Limit{Rate: 1, Unit: PerMinute, Burst: 5}, Log{Group: uint16(draw("group", 0xffff)), Prefix: Comment(drawWord(t, label)), Snaplen: draw("snaplen", 2)}),
	}
	list = append(list, matches(Dport(proto), port)...)
	list = append(list, matches(Sport(proto), port)...)
	list = append(list, IIFName().Is(IfName(drawWord(t, label)+"0")), OIFName().IsNot(IfName(drawWord(t, label)+"1")))
	list = append(list, matches(L4Proto(), Proto(rapid.SampledFrom([]byte{TCP, UDP, SCTP, 1, 58, 253}).Draw(t, label+" number")))...)
	list = append(list, matches(Mark(), Number(bits))...)
	if family == Bridge {
		list = append(list, matches(EtherType(), Ether(rapid.SampledFrom([]uint16{EtherIPv4, EtherIPv6, EtherARP, 0x8100, 0x1234}).Draw(t, label+" type")))...)
		list = append(list, matches(EtherSaddr(), drawBytes(t, label, 6))...)
		list = append(list, matches(EtherDaddr(), drawBytes(t, label, 6))...)
		list = append(list, matches(ARPSenderMAC(), drawBytes(t, label, 6))...)
		list = append(list, matches(ARPSenderIP(), drawBytes(t, label, 4))...)
		list = append(list, matches(ARPTargetIP(), drawBytes(t, label, 4))...)
		list = append(list, matches(ARPOperation(), Data("\x00")+byteData(12))...)
		list = append(list, matches(Bare(Saddr(f)), address)...)
		list = append(list, matches(Bare(ICMPType(f)), byteData(255))...)
		list = append(list, matches(Bare(NDTarget()), drawBytes(t, label, 16))...)
		list = append(list, Bare(Daddr(f)).InPrefix(prefix), Bare(Daddr(f)).NotInPrefix(prefix))
	} else {
		list = append(list, matches(Saddr(f), address)...)
		list = append(list, matches(ICMPType(f), byteData(255))...)
		list = append(list, matches(NDTarget(), drawBytes(t, label, 16))...)
		list = append(list, matches(CTOriginalSaddr(f), address)...)
		list = append(list, matches(CTReplySaddr(f), address)...)
		list = append(list, Daddr(f).InPrefix(prefix), Daddr(f).NotInPrefix(prefix), CTOriginalSaddr(f).InPrefix(prefix),
			CTStateIn(rapid.SampledFrom([]uint32{CTStateInvalid, CTStateNew | CTStateRelated, CTStateUntracked | CTStateEstablished}).Draw(t, label+" state")),
			CTDirection(rapid.SampledFrom([]Direction{Original, Reply}).Draw(t, label+" direction")),
			ofProtocol(proto, CTReplySport().Is(port)), ofProtocol(proto, CTOriginalDport().Between(port, Port(0xffff))),
			SaddrUnroutable(), DaddrLocal())
	}
	return rapid.SampledFrom(list).Draw(t, label+" statement")
}

// ofProtocol makes a match of a connection's port mean something.
func ofProtocol(proto uint8, s Statement) Statement {
	return Statement{exprs: slices.Concat(L4Proto().Is(Proto(proto)).exprs, s.exprs)}
}

func drawBytes(t *rapid.T, label string, n int) Data {
	return Data(rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, label+" bytes"))
}

func drawWord(t *rapid.T, label string) string {
	return rapid.StringMatching(`[a-z]{1,9}`).Draw(t, label+" word")
}

// targetsWithin says that a map leads to these chains only.
func targetsWithin(s Set, chains []string) bool {
	return !slices.ContainsFunc(s.Elements, func(e Element) bool {
		return e.Verdict.Chain != "" && !slices.Contains(chains, e.Verdict.Chain)
	})
}

// The stages lead from any table to any other; every reference is valid at
// every step; and the plan is empty exactly if nothing differs.
func TestStagesLeadToTheDesired(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var have, want Ruleset
		first, second := drawPair(t)
		if rapid.Bool().Draw(t, "there") {
			have = Ruleset{first}
			have[0].Dormant = rapid.Bool().Draw(t, "dormant")
		}
		if rapid.Bool().Draw(t, "wanted") {
			want = Ruleset{second}
		}
		p := Diff(want, have)
		steps, err := p.Steps()
		if err != nil {
			t.Fatalf("%v\n%s", err, p)
		}
		got := modelOf(have).ruleset()
		if len(steps) > 0 {
			got = steps[len(steps)-1].Ruleset
		}
		if !equalRulesets(got, want) {
			t.Fatalf("led to\n%s\nnot to\n%s", got, want)
		}
		if p.Empty() != equalRulesets(have, want) || p.Empty() != (len(p.Changes()) == 0) {
			t.Fatalf("empty %t, %d changes\n%s", p.Empty(), len(p.Changes()), p)
		}
		if !Diff(want, want).Empty() {
			t.Fatal("a ruleset differs from itself")
		}
	})
}

// keepsRules says that no regular chain and no map of the other table is missing.
func keepsRules(t, other Table) bool {
	for _, c := range other.Chains {
		if _, ok := t.Chain(c.Name); !ok && c.Base == nil {
			return false
		}
	}
	for _, s := range other.Sets {
		if _, ok := t.Set(s.Name); !ok && s.Verdicts {
			return false
		}
	}
	return true
}

// What packets in flight must not see, see Plan.
func TestStagesHideTheChange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		have, want := drawPair(t)
		p := Diff(Ruleset{want}, Ruleset{have})
		m := modelOf(Ruleset{have})
		for _, tx := range p.Prepare.transactions {
			if err := m.run(tx); err != nil {
				t.Fatal(err)
			}
		}
		prepared := m.ruleset()[0]
		for _, c := range have.Chains {
			if now, ok := prepared.Chain(c.Name); !ok || !now.Equal(c) {
				t.Fatalf("prepare changed chain %s\n%s", c.Name, p)
			}
		}
		for _, s := range have.Sets {
			if now, ok := prepared.Set(s.Name); !ok || !now.Equal(s) {
				t.Fatalf("prepare changed set %s\n%s", s.Name, p)
			}
		}
		waits := slices.ContainsFunc(p.stages(), namedStage.waits)
		if steps, err := p.Steps(); err != nil {
			t.Fatal(err)
		} else if last := len(steps) - 1; !waits && last >= 0 && !keepsRules(steps[last].Ruleset[0], have) {
			t.Fatalf("rules are taken away under packets\n%s", p)
		}
		replacedChain := func(name string) bool {
			a, _ := have.Chain(name)
			b, _ := want.Chain(name)
			return !sameHook(a.Base, b.Base)
		}
		for _, tx := range p.Switch.transactions {
			made, gone := map[string]bool{}, map[string]bool{}
			for _, s := range tx {
				switch o := s.op.(type) {
				case addChain:
					if o.base == nil {
						made[o.name] = true
					}
				case addElements:
					_, there := have.Set(o.set.Name)
					for _, e := range o.elements {
						if there && made[e.Verdict.Chain] && !replacedChain(e.Verdict.Chain) {
							t.Fatalf("an element points to %s, made in the same transaction\n%s", e.Verdict.Chain, p)
						}
					}
					if !there && made[o.set.Name] && o.set.Interval {
						t.Fatalf("ranges and what looks them up come in one transaction\n%s", p)
					}
				case delSet:
					gone[o.set.Name] = true
				case addSet:
					delete(gone, o.set.Name)
					made[o.set.Name] = true
				case delElements:
					if s, _ := have.Set(o.set.Name); !s.Verdicts && len(tx) > 1 && !s.Interval {
						t.Fatalf("switch removes from the plain set %s\n%s", s.Name, p)
					}
				}
			}
			for name := range gone {
				t.Fatalf("switch deletes set %s, which it abandons\n%s", name, p)
			}
		}
	})
}
