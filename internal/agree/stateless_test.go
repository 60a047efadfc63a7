package agree

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/poldernet/polder/internal/verdict"
	"github.com/poldernet/polder/internal/world"
	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

// Packets that no connection's tuple can be asked for are forwarded where neither
// end is an endpoint of the node that a policy isolates, in any direction. Those
// of neighbour discovery and errors of connections always are.
func TestPacketsWithoutAConnection(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sp := world.Draw(t)
		m := model(t, sp)
		rules := map[string]*verdict.Rules{}
		for _, n := range sp.Nodes {
			loaded, err := verdict.Load(nft.Ruleset{policy.Compile(m, host(n), nft.Table{}).Table})
			if err != nil {
				t.Fatal(err)
			}
			rules[n.Name] = loaded
		}
		for i, f := range flows(sp, mostFlows, rapid.Uint64().Draw(t, "flows")) {
			for _, p := range passages(f, translation{}, i%2 == 0) {
				if p.hook != "forward" {
					continue
				}
				closed := isolated(m, f.from, p.node) || isolated(m, f.to, p.node)
				expect := func(what string, accepted bool) {
					v, err := rules[p.node.Name].Judge(p.hook, &p.packet)
					if err != nil {
						t.Fatal(err)
					}
					if v.Accepted != accepted {
						t.Fatalf("%s, %s: accepted: %t (%s)\n%s", what, f, v.Accepted, v.Dropped, world.HCL(sp))
					}
				}
				if f.Protocol == spec.ProtocolTCP {
					p.packet.TCPFlags, p.packet.Conn.State = flagACK, nft.CTStateNew
					if closed {
						expect("TCP from its middle", false)
					}
				}
				p.packet.Conn = verdict.Conn{State: []uint32{nft.CTStateUntracked, nft.CTStateInvalid}[i/2%2]}
				expect("no connection", !closed)
				if f.From.Is6() {
					p.packet.Protocol, p.packet.Type = spec.ProtocolICMPv6, 135
					expect("neighbour discovery", true)
				}
				p.packet = packetOf(f.Flow, translation{}, i%2 == 0)
				p.packet.Protocol, p.packet.Type, p.packet.Conn.State = icmpOf(spec.FamilyOf(f.From)), 3, nft.CTStateRelated
				expect("an error", true)
			}
		}
	})
}

// isolated says that a policy is about an endpoint on a node.
func isolated(m *policy.Model, p party, n *spec.Node) bool {
	if p.endpoint == nil || p.node != n {
		return false
	}
	stranger := world.Outside(spec.FamilyOf(p.address))
	in := m.Evaluate(policy.Flow{From: stranger, To: p.address, Protocol: 47})
	out := m.Evaluate(policy.Flow{From: p.address, To: stranger, Protocol: 47})
	return in.Sides[1].Isolated() || out.Sides[0].Isolated()
}
