package policy_test

import (
	"net/netip"
	"os"
	"testing"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
	"github.com/poldernet/polder/spec/selector"
)

// served is a policy of db with these rules, in so many tiers.
func served(tiers int, rules ...spec.Rule) nft.Table {
	sp := &spec.Spec{
		Nodes: []*spec.Node{{Name: "n1"}},
		Endpoints: []*spec.Endpoint{{
			Name: "db", Node: "n1", Namespace: "default", Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.5")},
			Ports: map[string]spec.Port{"sql": {Number: 5432, Protocol: "tcp"}},
		}},
		Enforcement: spec.Enforcement{Established: spec.Recheck, LogRate: 10},
	}
	for i := range tiers {
		name := string(rune('a' + i))
		sp.Tiers = append(sp.Tiers, &spec.Tier{Name: name, Order: float64(i), DefaultAction: spec.Pass})
		sp.Policies = append(sp.Policies, &spec.Policy{
			Kind: spec.KindPolicy, Name: name, Tier: name, Selector: selector.All(), Types: []spec.Direction{spec.Ingress}, Ingress: rules,
		})
	}
	m, _ := policy.New(sp)
	return policy.Compile(m, policy.Host{Node: sp.Nodes[0], Bridge: "cni0"}, nft.Table{}).Table
}

func TestServiceIsLookedUp(t *testing.T) {
	block := []spec.Peer{cidr("192.0.2.0/24")}
	table := served(1,
		spec.Rule{Action: spec.Log, Services: []spec.Service{ports(nft.TCP, 80, 81)}},
		spec.Rule{Action: spec.Deny, Services: []spec.Service{ports(nft.TCP, 1, 1023)}, Peers: block},
		spec.Rule{Action: spec.Allow, Services: []spec.Service{tcp(80), udp(53)}},
		spec.Rule{Action: spec.Allow, Services: []spec.Service{{Name: "sql"}}},
		spec.Rule{Action: spec.Allow, Peers: block},
		spec.Rule{Action: spec.Allow, Services: []spec.Service{{Protocol: 1, ICMP: &spec.ICMP{Type: 8}}}},
		spec.Rule{Action: spec.Deny, Services: []spec.Service{{Protocol: nft.UDP}}},
	)
	const golden = "testdata/service.nft"
	got := table.String()
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// levels is how many chains the kernel sees behind each other (nft_chain_validate
// in net/netfilter/nf_tables_api.c).
func levels(t nft.Table, chain string) int {
	deepest := 0
	c, _ := t.Chain(chain)
	for _, r := range c.Rules {
		for _, e := range r.Exprs {
			switch e := e.(type) {
			case nft.Verdict:
				if e.Chain != "" {
					deepest = max(deepest, levels(t, e.Chain))
				}
			case nft.Lookup:
				set, _ := t.Set(e.Set)
				for _, el := range set.Elements {
					if el.Verdict.Chain != "" {
						deepest = max(deepest, levels(t, el.Verdict.Chain))
					}
				}
			}
		}
	}
	return 1 + deepest
}

func TestLookUpLeavesRoomForTiers(t *testing.T) {
	rules := make([]spec.Rule, 20)
	for i := range rules {
		rules[i] = spec.Rule{Action: spec.Allow, Services: []spec.Service{tcp(uint16(i + 1))}, Peers: []spec.Peer{cidr("192.0.2.0/24")}}
	}
	if one := levels(served(1, rules...), "policy_forward"); one != 3 {
		t.Errorf("one tier is %d chains deep; that is no look-up", one)
	}
	for _, tiers := range []int{2, 8, 14} {
		// NFT_JUMP_STACK_SIZE in include/net/netfilter/nf_tables.h.
		if n := levels(served(tiers, rules...), "policy_forward"); n > 15 {
			t.Errorf("%d tiers are %d chains deep", tiers, n)
		}
	}
}

// An endpoint that is relabelled has, on the way, the rules from before and those
// to come, with all that their look-ups lead to.
func TestLookUpsAreKeptOnTheWay(t *testing.T) {
	relabelled := func(x string) *policy.Model {
		sp := &spec.Spec{
			Nodes:       []*spec.Node{{Name: "n1"}},
			Tiers:       []*spec.Tier{{Name: spec.DefaultTier, Order: spec.DefaultTierOrder, DefaultAction: spec.Deny}},
			Enforcement: spec.Enforcement{Established: spec.Recheck, LogRate: 10},
		}
		for i, x := range []string{x, "1", "2"} {
			sp.Endpoints = append(sp.Endpoints, &spec.Endpoint{
				Name: string(rune('a' + i)), Node: "n1", Namespace: "default",
				Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 244, 1, byte(5 + i)})}, Labels: map[string]string{"x": x},
			})
		}
		for _, x := range []string{"1", "2"} {
			p := &spec.Policy{Kind: spec.KindPolicy, Name: "p" + x, Tier: spec.DefaultTier, Selector: selector.Equals("x", x), Types: []spec.Direction{spec.Ingress}}
			for port := range uint16(8) {
				p.Ingress = append(p.Ingress, spec.Rule{
					Action: spec.Allow, Services: []spec.Service{tcp(port + 1)},
					Peers: []spec.Peer{{Endpoints: &spec.PeerSelector{Selector: selector.Equals("x", x)}}},
				})
			}
			sp.Policies = append(sp.Policies, p)
		}
		m, _ := policy.New(sp)
		return m
	}
	host := policy.Host{Node: &spec.Node{Name: "n1"}, Bridge: "cni0"}
	live := policy.Compile(relabelled("1"), host, nft.Table{}).Table
	next := policy.Compile(relabelled("2"), host, live)
	if len(next.Via) != 2 {
		t.Fatalf("%d tables on the way", len(next.Via))
	}
	for _, table := range next.Via {
		from := ""
		for _, c := range table.Chains {
			if len(c.Rules) > 0 && c.Rules[0].Comment == "the rules from before" {
				from = c.Rules[0].Exprs[0].(nft.Verdict).Chain
			}
		}
		before, ok := table.Chain(from)
		if !ok {
			t.Fatalf("nothing judges as before:\n%s", table)
		}
		lookup := before.Rules[0].Exprs[2].(nft.Lookup)
		services, _ := table.Set(lookup.Set)
		if len(services.Elements) != 8 {
			t.Errorf("a look-up of %d ports", len(services.Elements))
		}
		for _, e := range services.Elements {
			c, ok := table.Chain(e.Verdict.Chain)
			if !ok {
				t.Errorf("no chain %q", e.Verdict.Chain)
			}
			for _, r := range c.Rules {
				if r.Exprs[len(r.Exprs)-1] == nft.Expr(nft.Accept) {
					t.Errorf("%s allows before the rules to come are asked: %v", c.Name, r)
				}
			}
		}
	}
}
