package agree

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/poldernet/polder/internal/verdict"
	"github.com/poldernet/polder/internal/world"
	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

// The interpreter and the kernel agree about the rulesets in testdata/rulesets,
// which use, in nft(8)'s own words, all that the interpreter knows.
func TestInterpreterAndKernelAgree(t *testing.T) {
	files, err := filepath.Glob("testdata/rulesets/*.nft")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	r := newRig(t)
	sp := crowd()
	m, diags := policy.New(sp)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	for i, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".nft"), func(t *testing.T) {
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			ruleset, err := os.ReadFile(file)
			must(err)
			var probes []*probe
			for salt := range uint64(4) {
				probes = append(probes, r.probes(sp, m, 4*uint64(i)+salt)...)
			}
			for len(probes) > 0 {
				list := probes[:min(len(probes), mostProbes)]
				probes = probes[len(list):]
				must(r.prepare(list))
				_, err = r.send(r.packets(list, false))
				must(err)
				must(sh(r.node, "nft -f - <<-END\n"+string(ruleset)+"\nEND\n"))
				have, _, err := r.reader.Read(context.Background(), nft.TableID{Family: nft.INet, Name: nft.TableName})
				must(err)
				rules, err := verdict.Load(have)
				must(err)
				fates := map[bool]int{}
				for _, answers := range []bool{true, false} {
					if !answers {
						must(r.flush())
					}
					arrived, err := r.send(r.packets(list, answers))
					must(err)
					for _, p := range list {
						v := verdict.Verdict{Accepted: true}
						for _, at := range passages(p.flow, p.nat, answers) {
							if at.node.Name == world.Nodes[0] {
								// The rig's packets have ports of their own.
								v, err = rules.Judge(at.hook, p.as(at.packet))
								must(err)
							}
						}
						if arrived[p.id] != v.Accepted {
							t.Errorf("%s, answers: %t: the kernel lets it pass: %t; the interpreter: %t (%s)", p, answers, arrived[p.id], v.Accepted, v.Dropped)
						}
						fates[v.Accepted]++
					}
				}
				if fates[true] == 0 || fates[false] == 0 {
					t.Errorf("one fate for all: %v", fates)
				}
			}
		})
	}
}

// as is a packet with the ports of the probe.
func (p *probe) as(q verdict.Packet) *verdict.Packet {
	set := func(n *uint16) {
		if *n == clientPort {
			*n = p.port
		}
	}
	for _, n := range []*uint16{&q.SrcPort, &q.DstPort, &q.Conn.Original.SrcPort, &q.Conn.Reply.DstPort} {
		set(n)
	}
	return &q
}

// crowd is a world of endpoints without policies.
func crowd() *spec.Spec {
	sp := &spec.Spec{Tiers: []*spec.Tier{{Name: spec.DefaultTier, DefaultAction: spec.Deny}}}
	for i, name := range world.Nodes {
		n := byte(i + 1)
		sp.Nodes = append(sp.Nodes, &spec.Node{
			Name:      name,
			Addresses: []spec.NodeAddress{{Addr: netip.AddrFrom4([4]byte{192, 0, 2, 10 + n})}, {Addr: netip.AddrFrom16([16]byte{0: 0x20, 1: 1, 2: 0x0d, 3: 0xb8, 15: 0x10 + n})}},
			Subnets: []netip.Prefix{
				netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, n, 0}), 24),
				netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 3: 0x10, 4: 2, 5: 0x44, 7: n}), 64),
			},
		})
	}
	for i := range mostPods {
		n := byte(1 + i/4)
		sp.Endpoints = append(sp.Endpoints, &spec.Endpoint{
			Name: string(rune('a' + i)), Node: world.Nodes[n-1],
			Ports: map[string]spec.Port{"http": {Number: 80, Protocol: []string{"tcp", "udp", "sctp"}[i%3]}},
			Addresses: []netip.Addr{
				netip.AddrFrom4([4]byte{10, 244, n, byte(4 + 2*i)}),
				netip.AddrFrom16([16]byte{0: 0xfd, 3: 0x10, 4: 2, 5: 0x44, 7: n, 15: byte(4 + 2*i)}),
			},
		})
	}
	return sp
}
