package bench

import (
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/poldernet/polder/spec"
	"github.com/poldernet/polder/spec/selector"
)

// Inventory is a spec with so many policies and endpoints, 100 of these on each
// node. The policies are of the kind that namespaces of applications have. It is
// the same for the same numbers.
func Inventory(policies, endpoints int) *spec.Spec {
	random := rand.New(rand.NewPCG(7, 7))
	sp := &spec.Spec{
		Tiers:       []*spec.Tier{{Name: spec.DefaultTier, Order: spec.DefaultTierOrder, DefaultAction: spec.Deny}},
		Enforcement: spec.Enforcement{Established: spec.Recheck, LogRate: 10},
	}
	nodes := max(endpoints/100, 1)
	for i := range nodes {
		sp.Nodes = append(sp.Nodes, &spec.Node{Name: fmt.Sprintf("n%d", i+1)})
	}
	namespaces := max(policies/10, 1)
	for i := range endpoints {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		sp.Endpoints = append(sp.Endpoints, &spec.Endpoint{
			Name: fmt.Sprintf("e%06d", i), Node: sp.Nodes[i%nodes].Name, Namespace: fmt.Sprintf("ns%d", random.IntN(namespaces)),
			Addresses: []netip.Addr{a}, Labels: map[string]string{"app": fmt.Sprintf("a%d", random.IntN(10)), "role": fmt.Sprintf("r%d", random.IntN(3))},
			Ports: map[string]spec.Port{"http": {Number: 8080, Protocol: "tcp"}},
		})
	}
	order := 1000.0
	for i := range policies {
		peer := func() spec.Peer {
			s := &spec.PeerSelector{Selector: selector.Equals("app", fmt.Sprintf("a%d", random.IntN(10)))}
			if random.IntN(3) == 0 {
				s.Namespaces = selector.Equals(spec.NamespaceLabel, fmt.Sprintf("ns%d", random.IntN(namespaces)))
			}
			return spec.Peer{Endpoints: s}
		}
		p := &spec.Policy{
			Kind: spec.KindNetworkPolicy, Name: fmt.Sprintf("ns%d/p%d", i%namespaces, i), Tier: spec.DefaultTier, Order: &order, Namespace: fmt.Sprintf("ns%d", i%namespaces),
			Selector: selector.Equals("app", fmt.Sprintf("a%d", random.IntN(10))), Types: spec.Directions,
			Ingress: []spec.Rule{{Action: spec.Allow, Peers: []spec.Peer{peer(), peer()}, Services: []spec.Service{{Protocol: 6, Ports: spec.PortRange{First: 8080, Last: 8080}}}}},
			Egress:  []spec.Rule{{Action: spec.Allow, Peers: []spec.Peer{peer()}}, {Action: spec.Allow, Peers: []spec.Peer{{Block: &spec.Block{CIDR: netip.MustParsePrefix("192.0.2.0/24")}}}}},
		}
		sp.Policies = append(sp.Policies, p)
	}
	return sp
}
