package policy_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
	"github.com/poldernet/polder/spec/selector"
)

// world is a spec of three namespaces x, y and z with the endpoints a, b and c
// each, as in Kubernetes' own tests of policies. Those of z run on node n2, the
// others on n1. All serve the ports 80 and 81.
func world(policies ...*spec.Policy) *spec.Spec {
	s := &spec.Spec{
		Cluster:  "edge",
		Tiers:    []*spec.Tier{{Name: spec.DefaultTier, Order: spec.DefaultTierOrder, DefaultAction: spec.Deny}},
		Policies: policies,
		Network:  &spec.Network{Backend: spec.Backend{Type: spec.VXLAN, Port: 8472}},
	}
	for i, name := range []string{"n1", "n2"} {
		s.Nodes = append(s.Nodes, &spec.Node{
			Name: name,
			Addresses: []spec.NodeAddress{
				{Addr: netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", 11+i))},
				{Addr: netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", 11+i))},
			},
			Subnets: []netip.Prefix{
				netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", i+1)),
				netip.MustParsePrefix(fmt.Sprintf("fd00:10:244:%d::/64", i+1)),
			},
		})
	}
	for i, ns := range []string{"x", "y", "z"} {
		s.Namespaces = append(s.Namespaces, &spec.Namespace{Name: ns, Labels: map[string]string{"ns": ns}})
		node := i/2 + 1
		for j, pod := range []string{"a", "b", "c"} {
			s.Endpoints = append(s.Endpoints, &spec.Endpoint{
				Name: ns + "-" + pod, Namespace: ns, Node: fmt.Sprintf("n%d", node),
				Labels: map[string]string{"pod": pod},
				Addresses: []netip.Addr{
					netip.MustParseAddr(fmt.Sprintf("10.244.%d.%d", node, 10+10*i+j)),
					netip.MustParseAddr(fmt.Sprintf("fd00:10:244:%d::%d", node, 10+10*i+j)),
				},
				Ports: map[string]spec.Port{
					"serve-80-tcp": {Number: 80, Protocol: "tcp"}, "serve-81-tcp": {Number: 81, Protocol: "tcp"},
					"serve-80-udp": {Number: 80, Protocol: "udp"}, "serve-81-udp": {Number: 81, Protocol: "udp"},
					"serve-80-sctp": {Number: 80, Protocol: "sctp"}, "serve-81-sctp": {Number: 81, Protocol: "sctp"},
				},
			})
		}
	}
	return s
}

func endpoint(s *spec.Spec, name string) *spec.Endpoint {
	for _, e := range s.Endpoints {
		if e.Name == name {
			return e
		}
	}
	return nil
}

func sel(text string) *selector.Selector {
	s, err := selector.Parse(text)
	if err != nil {
		panic(err)
	}
	return s
}

// kube is a NetworkPolicy, and its rules those of the types.
func kube(name, pods string, types ...spec.Direction) *spec.Policy {
	order := 1000.0
	namespace, _, _ := strings.Cut(name, "/")
	return &spec.Policy{
		Kind: spec.KindNetworkPolicy, Name: name, Namespace: namespace, Tier: spec.DefaultTier, Order: &order,
		Selector: sel(pods), Types: types,
	}
}

// block is a `policy` block.
func block(name, tier string, order float64, selector string, types ...spec.Direction) *spec.Policy {
	return &spec.Policy{Kind: spec.KindPolicy, Name: name, Tier: tier, Order: &order, Selector: sel(selector), Types: types}
}

// rules are a policy with rules added.
func rules(p *spec.Policy, d spec.Direction, list ...spec.Rule) *spec.Policy {
	if d == spec.Ingress {
		p.Ingress = append(p.Ingress, list...)
	} else {
		p.Egress = append(p.Egress, list...)
	}
	return p
}

func in(p *spec.Policy, list ...spec.Rule) *spec.Policy  { return rules(p, spec.Ingress, list...) }
func out(p *spec.Policy, list ...spec.Rule) *spec.Policy { return rules(p, spec.Egress, list...) }

func allow(peers []spec.Peer, services ...spec.Service) spec.Rule {
	return does(spec.Allow, peers, services...)
}

func does(a spec.Action, peers []spec.Peer, services ...spec.Service) spec.Rule {
	return spec.Rule{Action: a, Peers: peers, Services: services}
}

func peers(list ...spec.Peer) []spec.Peer { return list }

func pods(text string) spec.Peer {
	return spec.Peer{Endpoints: &spec.PeerSelector{Selector: sel(text)}}
}

func podsIn(namespaces, text string) spec.Peer {
	return spec.Peer{Endpoints: &spec.PeerSelector{Selector: sel(text), Namespaces: sel(namespaces)}}
}

func cidr(whole string, except ...string) spec.Peer {
	b := &spec.Block{CIDR: netip.MustParsePrefix(whole)}
	for _, e := range except {
		b.Except = append(b.Except, netip.MustParsePrefix(e))
	}
	return spec.Peer{Block: b}
}

func tcp(port uint16) spec.Service { return ports(spec.ProtocolTCP, port, port) }
func udp(port uint16) spec.Service { return ports(spec.ProtocolUDP, port, port) }

func ports(protocol uint8, first, last uint16) spec.Service {
	return spec.Service{Protocol: protocol, Ports: spec.PortRange{First: first, Last: last}}
}

func named(protocol uint8, name string) spec.Service {
	return spec.Service{Protocol: protocol, Name: name}
}

// tier is a tier for a spec.
func tier(name string, order float64, action spec.Action) *spec.Tier {
	return &spec.Tier{Name: name, Order: order, DefaultAction: action}
}

// with is a spec with tiers added.
func with(s *spec.Spec, tiers ...*spec.Tier) *spec.Spec {
	s.Tiers = append(s.Tiers, tiers...)
	return s
}

// names are addresses that tests refer to, beside endpoints.
var names = map[string][2]string{
	"outside":  {"203.0.113.7", "2001:db8:ffff::7"},
	"outside2": {"203.0.113.8", "2001:db8:ffff::8"},
	"n1":       {"192.0.2.11", "2001:db8::11"},
	"n2":       {"192.0.2.12", "2001:db8::12"},
	"n1bridge": {"10.244.1.1", "fd00:10:244:1::1"},
	"n2bridge": {"10.244.2.1", "fd00:10:244:2::1"},
	"n1vtep":   {"10.244.1.0", "fd00:10:244:1::"},
	"n2vtep":   {"10.244.2.0", "fd00:10:244:2::"},
}

// address is that of an endpoint, as x/a, or of a name.
func address(t testing.TB, s *spec.Spec, name string, f spec.Family) netip.Addr {
	t.Helper()
	if pair, ok := names[name]; ok {
		if f == spec.IPv4 {
			return netip.MustParseAddr(pair[0])
		}
		return netip.MustParseAddr(pair[1])
	}
	e := endpoint(s, strings.ReplaceAll(name, "/", "-"))
	if e == nil {
		t.Fatalf("there is no %s", name)
	}
	for _, a := range e.Addresses {
		if spec.FamilyOf(a) == f {
			return a
		}
	}
	return netip.Addr{}
}

// expect checks lines "FROM -> TO SERVICES: VERDICT" in both families. Services
// are as in a check; with "*" in front of the line only IPv4 is looked at.
func expect(t testing.TB, s *spec.Spec, lines string) {
	t.Helper()
	m, diags := policy.New(s)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	for line := range strings.Lines(lines) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		families := spec.Families[:]
		if rest, ok := strings.CutPrefix(line, "*"); ok {
			line, families = strings.TrimSpace(rest), families[:1]
		}
		fields := strings.Fields(line)
		if len(fields) != 5 || fields[1] != "->" {
			t.Fatalf("not understood: %s", line)
		}
		services, err := spec.ParseServices(strings.TrimSuffix(fields[3], ":"))
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		for _, f := range families {
			flow := policy.Flow{From: address(t, s, fields[0], f), To: address(t, s, fields[2], f)}
			for _, service := range services {
				if service.Protocol == spec.ProtocolICMP && f == spec.IPv6 || service.Protocol == spec.ProtocolICMPv6 && f == spec.IPv4 {
					continue
				}
				flow.Protocol, flow.Port = service.Protocol, service.Ports.First
				if service.ICMP != nil {
					flow.Type = service.ICMP.Type
					if service.ICMP.Code != nil {
						flow.Code = *service.ICMP.Code
					}
				}
				if d := m.Evaluate(flow); string(d.Verdict) != fields[4] {
					t.Errorf("%s, from %s to %s: %s by %s and %s", line, flow.From, flow.To, d.Verdict, d.Sides[0].Reason, d.Sides[1].Reason)
				}
			}
		}
	}
}
