package verdict

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/spec"
)

var (
	client = netip.MustParseAddr("10.0.0.1")
	server = netip.MustParseAddr("10.0.0.2")
	vip    = netip.MustParseAddr("10.96.0.1")
)

// packet is a SYN to port 80 that a service led to port 8080 of the server.
func packet() Packet {
	return Packet{
		In: "cni0", Out: "cni0", Src: client, Dst: server, Protocol: tcp, SrcPort: 40000, DstPort: 8080, TCPFlags: nft.TCPSyn,
		Conn: Conn{
			State:    nft.CTStateNew,
			Original: Tuple{client, vip, 40000, 80},
			Reply:    Tuple{server, client, 8080, 40000},
		},
	}
}

// forward is a ruleset with rules in a base chain of the forward hook, and
// whatever these need.
func forward(policy nft.Policy, rules []nft.Rule, more ...func(*nft.Table)) nft.Ruleset {
	t := nft.Table{Family: nft.INet, Name: nft.TableName, Chains: []nft.Chain{{
		Name: "base", Base: &nft.Base{Type: "filter", Hook: "forward", Policy: policy}, Rules: rules,
	}}}
	for _, m := range more {
		m(&t)
	}
	return nft.Ruleset{t}
}

func chainOf(name string, rules ...nft.Rule) func(*nft.Table) {
	return func(t *nft.Table) { t.Chains = append(t.Chains, nft.Chain{Name: name, Rules: rules}) }
}

func setOf(s nft.Set) func(*nft.Table) {
	return func(t *nft.Table) { t.Sets = append(t.Sets, s) }
}

func rule(statements ...nft.Statement) nft.Rule { return nft.NewRule("", statements...) }

// list are rules.
func list(rules ...nft.Rule) []nft.Rule { return rules }

var (
	accept = nft.Do(nft.Accept)
	drop   = nft.Do(nft.Drop)
)

func TestJudge(t *testing.T) {
	v4 := []nft.Type{nft.TypeIPv4Addr}
	for _, c := range []struct {
		name    string
		rules   nft.Ruleset
		change  func(*Packet)
		accepts bool
	}{
		{"no rules", nil, nil, true},
		{"another hook's", nft.Ruleset{{Family: nft.INet, Chains: []nft.Chain{{Base: &nft.Base{Type: "filter", Hook: "input", Policy: nft.PolicyDrop}}}}}, nil, true},
		{"another family's", nft.Ruleset{{Family: nft.Bridge, Chains: forward(nft.PolicyDrop, nil)[0].Chains}}, nil, true},
		{"dormant", func() nft.Ruleset { rs := forward(nft.PolicyDrop, nil); rs[0].Dormant = true; return rs }(), nil, true},
		{"policy", forward(nft.PolicyDrop, nil), nil, false},
		{"rule", forward(nft.PolicyDrop, list(rule(accept))), nil, true},

		{"return from a chain", forward(nft.PolicyAccept, list(rule(nft.Do(nft.Jump("a"))), rule(drop)), chainOf("a", rule(nft.Do(nft.Return)), rule(accept))), nil, false},
		{"end of a chain", forward(nft.PolicyAccept, list(rule(nft.Do(nft.Jump("a"))), rule(drop)), chainOf("a")), nil, false},
		{"return from a base chain", forward(nft.PolicyAccept, list(rule(nft.Do(nft.Return)), rule(drop))), nil, true},
		{"goto does not come back", forward(nft.PolicyAccept, list(rule(nft.Do(nft.Goto("a"))), rule(drop)), chainOf("a")), nil, true},
		{"goto comes back to the jump", forward(nft.PolicyAccept, list(rule(nft.Do(nft.Jump("a"))), rule(accept)),
			chainOf("a", rule(nft.Do(nft.Goto("b"))), rule(drop)), chainOf("b")), nil, true},

		{"the client of the tuple", forward(nft.PolicyDrop, list(rule(nft.CTOriginalSaddr(spec.IPv4).In("s"), accept)), setOf(nft.Set{Name: "s", Key: v4, Elements: []nft.Element{nft.Exact(nft.Addr(client))}})), nil, true},
		{"the server of the tuple", forward(nft.PolicyDrop, list(rule(nft.CTReplySaddr(spec.IPv4).Is(nft.Addr(server)), nft.CTReplySport().Is(nft.Port(8080)), accept))), nil, true},
		{"the port before NAT", forward(nft.PolicyDrop, list(rule(nft.CTOriginalDport().Is(nft.Port(80)), accept))), nil, true},
		{"the tuple of another family", forward(nft.PolicyAccept, list(rule(nft.CTReplySaddr(spec.IPv6).NotIn("s"), drop)), setOf(nft.Set{Name: "s", Key: []nft.Type{nft.TypeIPv6Addr}})), nil, true},
		{"without a connection", forward(nft.PolicyAccept, list(rule(nft.CTReplySaddr(spec.IPv4).Is(nft.Addr(server)), drop))), func(p *Packet) { p.Conn = Conn{State: nft.CTStateUntracked} }, true},
		{"state without a connection", forward(nft.PolicyAccept, list(rule(nft.CTStateIn(nft.CTStateInvalid|nft.CTStateUntracked), drop))), func(p *Packet) { p.Conn = Conn{State: nft.CTStateInvalid} }, false},
		{"another state", forward(nft.PolicyAccept, list(rule(nft.CTStateIn(nft.CTStateInvalid|nft.CTStateUntracked), drop))), nil, true},
		{"direction", forward(nft.PolicyAccept, list(rule(nft.CTDirection(nft.Reply), drop))), func(p *Packet) { p.Conn.Answers = true }, false},

		{"header", forward(nft.PolicyAccept, list(rule(nft.Saddr(spec.IPv4).InPrefix(netip.MustParsePrefix("10.0.0.0/30")), nft.Dport(tcp).Between(nft.Port(8000), nft.Port(8080)), drop))), nil, false},
		{"header of another family", forward(nft.PolicyAccept, list(rule(nft.Saddr(spec.IPv6).NotInPrefix(netip.MustParsePrefix("2000::/3")), drop))), nil, true},
		{"flags", forward(nft.PolicyAccept, list(rule(nft.TCPFlagsNot(nft.TCPSyn|nft.TCPAck, nft.TCPSyn), drop))), func(p *Packet) { p.TCPFlags = nft.TCPAck }, false},
		{"ICMP type", forward(nft.PolicyAccept, list(rule(nft.ICMPType(spec.IPv4).Is(nft.Proto(8)), drop))), func(p *Packet) { p.Protocol, p.Type = icmp, 8 }, false},
		{"interface", forward(nft.PolicyAccept, list(rule(nft.IIFName().Is(nft.IfName("cni")), drop))), nil, true},
		{"no interface", forward(nft.PolicyAccept, list(rule(nft.OIFName().IsNot(nft.IfName("cni0")), drop))), func(p *Packet) { p.Out = "" }, false},

		{"last of an interval", forward(nft.PolicyAccept, list(rule(nft.Saddr(spec.IPv4).In("s"), drop)),
			setOf(nft.Set{Name: "s", Key: v4, Interval: true, Elements: []nft.Element{{Key: nft.Addr(vip), To: nft.Addr(vip.Next())}, {Key: nft.Addr(client.Prev()), To: nft.Addr(client)}}})), nil, false},
		{"behind an interval", forward(nft.PolicyAccept, list(rule(nft.Daddr(spec.IPv4).In("s"), drop)),
			setOf(nft.Set{Name: "s", Key: v4, Interval: true, Elements: []nft.Element{{Key: nft.Addr(client.Prev()), To: nft.Addr(client)}}})), nil, true},
		{"pair", forward(nft.PolicyAccept, list(rule(nft.L4Proto().Is(nft.Proto(tcp)), nft.Concat(nft.CTReplySaddr(spec.IPv4), nft.CTReplySport()).In("s"), drop)),
			setOf(nft.Set{Name: "s", Key: []nft.Type{nft.TypeIPv4Addr, nft.TypeInetService}, Elements: []nft.Element{nft.Exact(nft.Tuple(nft.Addr(server), nft.Port(8080)))}})), nil, false},
		{"box, of which one side is out", forward(nft.PolicyAccept, list(rule(nft.Concat(nft.CTReplySaddr(spec.IPv4), nft.CTReplySport()).In("s"), drop)),
			setOf(nft.Set{Name: "s", Key: []nft.Type{nft.TypeIPv4Addr, nft.TypeInetService}, Interval: true, Elements: []nft.Element{
				{Key: nft.Tuple(nft.Addr(client), nft.Port(1)), To: nft.Tuple(nft.Addr(vip), nft.Port(80))},
			}})), nil, true},
		{"map", forward(nft.PolicyAccept, list(rule(nft.Saddr(spec.IPv4).VMap("m")), rule(drop)), chainOf("a", rule(accept)),
			setOf(nft.Set{Name: "m", Key: v4, Verdicts: true, Elements: []nft.Element{nft.Addr(client).Maps(nft.Jump("a"))}})), nil, true},
		{"map without the key", forward(nft.PolicyAccept, list(rule(nft.Saddr(spec.IPv4).VMap("m")), rule(drop)),
			setOf(nft.Set{Name: "m", Key: v4, Verdicts: true, Elements: []nft.Element{nft.Addr(server).Maps(nft.Accept)}})), nil, false},

		{"mark", forward(nft.PolicyAccept, list(rule(nft.SetMark(1<<20)), rule(nft.Mark().Is(nft.Number(1<<20|1)), drop))), func(p *Packet) { p.Mark = 1 }, false},
		{"mark for a later chain", nft.Ruleset{{Family: nft.INet, Chains: []nft.Chain{
			{Name: "b", Base: &nft.Base{Type: "filter", Hook: "forward", Priority: 1}, Rules: list(rule(nft.Mark().Is(nft.Number(4)), drop))},
			{Name: "a", Base: &nft.Base{Type: "filter", Hook: "forward", Priority: -1}, Rules: list(rule(nft.SetMark(4), accept))},
		}}}, nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			rules, err := Load(c.rules)
			if err != nil {
				t.Fatal(err)
			}
			p := packet()
			if c.change != nil {
				c.change(&p)
			}
			v, err := rules.Judge("forward", &p)
			if err != nil || v.Accepted != c.accepts {
				t.Errorf("%+v, %v", v, err)
			}
		})
	}
}

func TestNotKnownIsAnError(t *testing.T) {
	loop := forward(nft.PolicyAccept, list(rule(nft.Do(nft.Jump("a")))), chainOf("a", rule(nft.Do(nft.Jump("a")))))
	for _, c := range []struct {
		name  string
		rules nft.Ruleset
		want  string
	}{
		{"expression", forward(nft.PolicyAccept, list(rule(nft.Do(nft.Unknown{Name: "quota"})))), "quota"},
		{"route", forward(nft.PolicyAccept, list(rule(nft.DaddrLocal()))), "unknown expression"},
		{"field of a header", forward(nft.PolicyAccept, list(nft.Rule{Exprs: []nft.Expr{nft.Payload{Base: nft.NetworkHeader, Offset: 8, Len: 1}}})), "unknown payload"},
		{"half of a field", forward(nft.PolicyAccept, list(nft.Rule{Exprs: []nft.Expr{nft.Payload{Base: nft.NetworkHeader, Offset: 14, Len: 4}}})), "unknown payload"},
		{"property of a packet", forward(nft.PolicyAccept, list(nft.Rule{Exprs: []nft.Expr{nft.Meta{Key: 99}}})), "unknown meta key"},
		{"property of a connection", forward(nft.PolicyAccept, list(nft.Rule{Exprs: []nft.Expr{nft.CT{Key: 99, Dir: nft.Original}}})), "unknown ct key"},
		{"tuple without a direction", forward(nft.PolicyAccept, list(nft.Rule{Exprs: []nft.Expr{nft.CT{Key: nft.CTKeyProtoSrc}}})), "direction"},
		{"set", forward(nft.PolicyAccept, list(rule(nft.Saddr(spec.IPv4).In("s")))), "no set s"},
		{"property of a set", forward(nft.PolicyAccept, nil, setOf(nft.Set{Name: "s", Other: "timeout"})), "timeout"},
		{"type of a set", forward(nft.PolicyAccept, nil, setOf(nft.Set{Name: "s", Key: []nft.Type{"ct_zone"}})), "ct_zone"},
		{"chain", forward(nft.PolicyAccept, list(rule(nft.Do(nft.Jump("a"))))), "no regular chain a"},
		{"register", forward(nft.PolicyAccept, list(nft.Rule{Exprs: []nft.Expr{nft.Meta{Key: nft.MetaOIFName, Reg: 13}}})), "register"},
		{"end of jumps", loop, "more than 16 jumps"},
	} {
		t.Run(c.name, func(t *testing.T) {
			rules, err := Load(c.rules)
			if err == nil {
				p := packet()
				_, err = rules.Judge("forward", &p)
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, not %q", err, c.want)
			}
		})
	}
}
