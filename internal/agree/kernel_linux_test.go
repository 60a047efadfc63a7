package agree

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/poldernet/polder/internal/world"
	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

// mostProbes bounds the flows of a world that are tried with packets.
const mostProbes = 96

// The evaluator, the interpreter on the ruleset that the kernel says it has, and
// the kernel itself agree: about packets that open a connection, and about
// answers of connections that were open before the rules were there.
func TestEvaluatorRulesAndKernelAgree(t *testing.T) {
	r := newRig(t)
	rapid.Check(t, func(t *rapid.T) {
		sp := world.Draw(t)
		sp.Enforcement.Unclaimed = spec.UnclaimedOutside // the marker comes from nobody
		m := model(t, sp)
		tables := map[string]nft.Table{}
		for _, n := range sp.Nodes {
			tables[n.Name] = policy.Compile(m, host(n), nft.Table{}).Table
		}
		must := func(err error) {
			if err != nil {
				t.Fatalf("%v\nwith\n%s", err, world.HCL(sp))
			}
		}
		seed := rapid.Uint64().Draw(t, "flows")
		probes := r.probes(sp, m, seed)
		must(r.prepare(probes))
		arrived, err := r.send(r.packets(probes, false))
		must(err)
		for _, p := range probes {
			if !arrived[p.id] {
				t.Fatalf("%s did not arrive without any rules", p)
			}
		}
		have, err := r.commit(nft.Ruleset{tables[world.Nodes[0]]})
		must(err)
		if len(have) > 0 {
			tables[world.Nodes[0]] = have[0]
		}
		compare(t, sp, m, tables, seed)
		for _, answers := range []bool{true, false} {
			if !answers {
				must(r.flush())
			}
			arrived, err = r.send(r.packets(probes, answers))
			must(err)
			for _, p := range probes {
				if allowed := p.allowed || answers && kept(sp); arrived[p.id] != allowed {
					t.Fatalf("the evaluator and the kernel disagree: %s\nanswers: %t; to be allowed: %t\n%s\n%s", p, answers, allowed, world.HCL(sp), text(tables))
				}
			}
		}
	})
}

// So do the evaluator and the interpreter, of more worlds than there is time to try
// with packets, on every node's rules as the kernel gives them back.
func TestEvaluatorAndRulesOfTheKernelAgree(t *testing.T) {
	r := newRig(t)
	rapid.Check(t, func(t *rapid.T) {
		sp := world.Draw(t)
		drawBackend(t, sp)
		m := model(t, sp)
		tables := map[string]nft.Table{}
		for _, n := range sp.Nodes {
			h := host(n)
			h.Links = vteps(sp)
			have, err := r.commit(nft.Ruleset{policy.Compile(m, h, nft.Table{}).Table})
			if err != nil || len(have) != 1 {
				t.Fatalf("%d tables, %v\nwith\n%s", len(have), err, world.HCL(sp))
			}
			tables[n.Name] = have[0]
		}
		compare(t, sp, m, tables, rapid.Uint64().Draw(t, "flows"))
	})
}

// probe is a flow that is tried at the first node.
type probe struct {
	flow
	nat     translation
	allowed bool // by the first node
	port    uint16
	id      uint32 // of the packet last sent
}

func (p *probe) String() string { return fmt.Sprintf("%s, %+v", p.flow, p.nat) }

// probes are flows of a world that pass the first node and can be made.
func (r *rig) probes(sp *spec.Spec, m *policy.Model, seed uint64) []*probe {
	var list []*probe
	paired := map[string]bool{}
	here := sp.Nodes[0]
	for _, f := range flows(sp, 4*mostProbes, seed) {
		if f.from.node != here && f.to.node != here || !routable(f.from) || !routable(f.to) || len(list) == mostProbes {
			continue
		}
		p := &probe{flow: f, allowed: allows(m.Evaluate(f.Flow), here)}
		if ported(f.Protocol) {
			p.nat = translations[len(list)%len(translations)]
			// Only what leaves the node is seen with another address.
			p.nat.masked = p.nat.masked && f.from.node == here && f.to.node != here
			p.port = 40000 + uint16(len(list))
			if p.nat.masked {
				p.port -= 10000
			}
		} else if f.Protocol == 47 {
			// Both directions are one connection: there are no ports.
			a, b := f.From, f.To
			if b.Less(a) {
				a, b = b, a
			}
			if key := a.String() + " " + b.String(); paired[key] {
				continue
			} else {
				paired[key] = true
			}
		}
		list = append(list, p)
	}
	return list
}

// routable says that packets with the address can be made to pass the rig:
// addresses of its bridge that nobody has cannot be reached, anycast addresses
// cannot send, and some the kernel takes for martians.
func routable(p party) bool {
	a := p.address
	switch {
	case p.endpoint != nil:
		return true
	case p.node != nil:
		return a != netip.MustParseAddr("fd00:10:244:1::") && a != netip.MustParseAddr("fd00:10:244:2::")
	case a.Is4():
		first := a.As4()[0]
		return first != 0 && first != 127 && first < 224 && !netip.MustParsePrefix("10.244.1.0/24").Contains(a)
	}
	return a.IsGlobalUnicast() && !netip.MustParsePrefix("fd00:10:244:1::/64").Contains(a) && !netip.MustParsePrefix("::/64").Contains(a)
}

// prepare forgets what was before, and tells the foreign table which service is
// which server.
func (r *rig) prepare(probes []*probe) error {
	if _, err := r.commit(nil); err != nil {
		return err
	}
	if err := r.flush(); err != nil {
		return err
	}
	var s strings.Builder
	s.WriteString("flush map inet lab services4; flush map inet lab services6;")
	for i, p := range probes {
		if p.nat.service {
			number := "4"
			if p.From.Is6() {
				number = "6"
			}
			fmt.Fprintf(&s, "add element inet lab services%s { %d : %s . %d };", number, servicePort(i), p.To, p.Port)
		}
	}
	return sh(r.node, "nft '"+s.String()+"'")
}

func servicePort(i int) uint16 { return 20000 + uint16(i) }

// packets are the packets that open the probes' connections, or answers.
func (r *rig) packets(probes []*probe, answers bool) []sent {
	var list []sent
	for i, p := range probes {
		p.id = r.next()
		w := wire{src: netip.AddrPortFrom(p.From, p.port), dst: netip.AddrPortFrom(p.To, p.Port), protocol: p.Protocol, flags: flagSYN, typ: p.Type, code: p.Code, identifier: 1000 + uint16(i)}
		family := spec.FamilyOf(p.From)
		from, to := p.from, p.to
		if answers {
			from, to = to, from
			w.src, w.dst = w.dst, w.src
			w.flags, w.typ = flagSYN|flagACK, answerTo(p.Type)
			if p.nat.masked {
				w.dst = netip.AddrPortFrom(maskedAddress.Get(family), p.port)
			}
		} else if p.nat.service {
			w.dst = netip.AddrPortFrom(serviceAddress.Get(family), servicePort(i))
		}
		s := sent{packet: w.packet(p.id), from: r.link(from), to: r.link(to), id: p.id, mac: bridgeMAC}
		switch {
		case s.from == "eth0":
			s.mac = gatewayMAC
		case strings.HasPrefix(s.from, "p") && strings.HasPrefix(s.to, "p") && (answers || !p.nat.service):
			s.mac = podMAC(podOf(w.dst.Addr()))
		}
		list = append(list, s)
	}
	return list
}

// link is the far end that leads to a party; "": it is the node.
func (r *rig) link(p party) string {
	switch {
	case p.node == nil || p.node.Name != world.Nodes[0]:
		return "eth0"
	case p.endpoint != nil:
		return fmt.Sprintf("p%d", podOf(p.address))
	}
	return ""
}

// podOf is the number of the endpoint that an address is meant for, see
// world.Draw.
func podOf(a netip.Addr) int {
	b := a.AsSlice()
	return int(b[len(b)-1]-4) / 2
}

func ported(protocol uint8) bool {
	return slices.Contains([]uint8{spec.ProtocolTCP, spec.ProtocolUDP, spec.ProtocolSCTP}, protocol)
}
