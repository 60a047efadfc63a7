package policy_test

import (
	"net/netip"
	"testing"

	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

func model(t fataler, s *spec.Spec) *policy.Model {
	t.Helper()
	m, diags := policy.New(s)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return m
}

func flowTCP(from, to netip.Addr, port uint16) policy.Flow {
	return policy.Flow{From: from, To: to, Protocol: spec.ProtocolTCP, Port: port}
}

// TestTiers goes through what Calico's tiers, orders and actions mean.
func TestTiers(t *testing.T) {
	all := []spec.Direction{ingress}
	unordered := func(p *spec.Policy) *spec.Policy { p.Order = nil; return p }
	tests := []struct {
		name string
		spec *spec.Spec
		want string
	}{
		{"tiers by order, and not by name", with(world(
			in(block("late", "a", 0, "all()", all...), does(spec.Deny, nil)),
			in(block("early", "b", 0, "all()", all...), allow(nil))), tier("a", 20, spec.Deny), tier("b", 10, spec.Deny)),
			`y/a -> x/a 80/tcp: allow`},
		{"tiers of one order by name", with(world(
			in(block("first", "a", 0, "all()", all...), does(spec.Deny, nil)),
			in(block("second", "b", 0, "all()", all...), allow(nil))), tier("b", 10, spec.Deny), tier("a", 10, spec.Deny)),
			`y/a -> x/a 80/tcp: deny`},
		{"a tier that has no policy for the endpoint is skipped", with(world(
			in(block("others", "a", 0, "pod == 'b'", all...), does(spec.Deny, nil))), tier("a", 10, spec.Deny)),
			`y/a -> x/a 80/tcp: allow
			 y/a -> x/b 80/tcp: deny`},
		{"a tier that has none for the direction is skipped", with(world(
			out(block("out", "a", 0, "all()", egress), does(spec.Deny, nil, tcp(81)))), tier("a", 10, spec.Pass)),
			`y/a -> x/a 80/tcp: allow
			 y/a -> x/a 81/tcp: deny
			 outside -> x/a 81/tcp: allow`},
		{"the default action denies", with(world(
			in(block("some", "a", 0, "all()", all...), allow(nil, tcp(80))),
			in(block("behind", spec.DefaultTier, 0, "all()", all...), allow(nil))), tier("a", 10, spec.Deny)),
			`y/a -> x/a 80/tcp: allow
			 y/a -> x/a 81/tcp: deny`},
		{"the default action passes", with(world(
			in(block("some", "a", 0, "all()", all...), does(spec.Deny, nil, tcp(80))),
			in(block("behind", spec.DefaultTier, 0, "all()", all...), allow(nil, tcp(80), tcp(81)))), tier("a", 10, spec.Pass)),
			`y/a -> x/a 80/tcp: deny
			 y/a -> x/a 81/tcp: allow
			 y/a -> x/a 82/tcp: deny`},
		{"pass skips the rest of the tier", with(world(
			in(block("one", "a", 1, "all()", all...), does(spec.Pass, nil, tcp(80))),
			in(block("two", "a", 2, "all()", all...), does(spec.Deny, nil)),
			in(block("behind", spec.DefaultTier, 0, "all()", all...), allow(nil))), tier("a", 10, spec.Deny)),
			`y/a -> x/a 80/tcp: allow
			 y/a -> x/a 81/tcp: deny`},
		{"what the last tier passes on is allowed", world(
			in(block("one", spec.DefaultTier, 1, "all()", all...), does(spec.Pass, nil, tcp(80)))),
			`y/a -> x/a 80/tcp: allow
			 y/a -> x/a 81/tcp: deny`},
		{"policies by order, those without one last", world(
			unordered(in(block("a", spec.DefaultTier, 0, "all()", all...), does(spec.Deny, nil))),
			in(block("b", spec.DefaultTier, 20, "all()", all...), allow(nil, tcp(80))),
			in(block("c", spec.DefaultTier, 10, "all()", all...), does(spec.Deny, nil, tcp(81)), allow(nil, tcp(82)))),
			`y/a -> x/a 80/tcp: allow
			 y/a -> x/a 81/tcp: deny
			 y/a -> x/a 82/tcp: allow
			 y/a -> x/a 83/tcp: deny`},
		{"policies of one order by name", world(
			in(block("b", spec.DefaultTier, 10, "all()", all...), does(spec.Deny, nil)),
			in(block("a", spec.DefaultTier, 10, "all()", all...), allow(nil, tcp(80)))),
			`y/a -> x/a 80/tcp: allow
			 y/a -> x/a 81/tcp: deny`},
		{"policies of one order and name by kind", world(
			in(block("x/a", spec.DefaultTier, 1000, "all()", all...), does(spec.Deny, nil)),
			in(kube("x/a", "all()", all...), allow(nil))),
			`y/a -> x/a 80/tcp: allow
			 y/a -> y/b 80/tcp: deny`},
		{"the first rule that matches decides", world(
			in(block("a", spec.DefaultTier, 0, "all()", all...), does(spec.Deny, peers(pods("pod == 'c'"))), allow(nil, tcp(80)), does(spec.Deny, nil, tcp(80)))),
			`y/a -> x/a 80/tcp: allow
			 y/c -> x/a 80/tcp: deny`},
		{"log does not decide, and isolates", world(
			in(block("a", spec.DefaultTier, 0, "pod == 'a'", all...), does(spec.Log, nil), allow(nil, tcp(80))),
			in(block("b", spec.DefaultTier, 0, "pod == 'b'", all...), does(spec.Log, nil))),
			`y/a -> x/a 80/tcp: allow
			 y/a -> x/a 81/tcp: deny
			 y/a -> x/b 80/tcp: deny
			 y/a -> x/c 80/tcp: allow`},
		{"an empty list of peers or services matches nothing", world(
			in(block("a", spec.DefaultTier, 0, "all()", all...),
				spec.Rule{Action: spec.Allow, Peers: []spec.Peer{}}, spec.Rule{Action: spec.Allow, Services: []spec.Service{}})),
			`y/a -> x/a 80/tcp: deny`},
		{"a policy without a selector of endpoints selects none", world(
			func() *spec.Policy {
				p := block("a", spec.DefaultTier, 0, "all()", all...)
				p.Selector, p.HostSelector = nil, sel("all()")
				return p
			}()),
			`y/a -> x/a 80/tcp: allow
			 y/a -> n2 80/tcp: allow`},
		{"selectors of a policy of one namespace are about it", world(
			func() *spec.Policy {
				p := in(block("a", spec.DefaultTier, 0, "pod == 'a'", all...), allow(peers(pods("pod == 'b'"))))
				p.Namespace = "x"
				return p
			}()),
			`x/b -> x/a 80/tcp: allow
			 y/b -> x/a 80/tcp: deny
			 x/c -> y/a 80/tcp: allow`},
		{"selectors of a policy of all namespaces are about all", world(
			func() *spec.Policy {
				p := in(block("a", spec.DefaultTier, 0, "pod == 'a'", all...), allow(peers(pods("pod == 'b'"))))
				p.NamespaceSelector = sel("ns != 'z'")
				return p
			}()),
			`y/b -> x/a 80/tcp: allow
			 y/c -> x/a 80/tcp: deny
			 y/c -> z/a 80/tcp: allow`},
		{"nodes and any as peers", world(
			in(block("a", spec.DefaultTier, 0, "pod == 'a'", all...), allow(peers(spec.Peer{Node: "n2"}), tcp(80)), does(spec.Deny, peers(spec.Peer{Node: "n2"})), allow(peers(spec.Peer{Any: true}), tcp(81)))),
			`n2 -> x/a 80/tcp: allow
			 n2vtep -> x/a 80/tcp: allow
			 n2bridge -> x/a 80/tcp: allow
			 n2 -> x/a 81/tcp: deny
			 z/a -> x/a 80/tcp: deny
			 n1 -> z/a 80/tcp: deny
			 outside -> x/a 81/tcp: allow
			 z/a -> x/a 81/tcp: allow`},
		{"ICMP by type and code", world(
			in(block("a", spec.DefaultTier, 0, "all()", all...),
				allow(nil, spec.Service{Protocol: spec.ProtocolICMP, ICMP: &spec.ICMP{Type: 8}}, spec.Service{Protocol: spec.ProtocolICMPv6, ICMP: &spec.ICMP{Type: 128, Code: new(uint8)}}))),
			`y/a -> x/a icmp: allow
			 y/a -> x/a echo-request:0/icmp: allow
			 y/a -> x/a echo-request:1/icmp: allow
			 y/a -> x/a echo-request:1/icmpv6: deny
			 y/a -> x/a timestamp-request/icmp: deny
			 y/a -> x/a 139/icmpv6: deny
			 y/a -> x/a 80/tcp: deny`},
		{"a protocol by number", world(
			in(block("a", spec.DefaultTier, 0, "all()", all...), allow(nil, spec.Service{Protocol: 47}))),
			`y/a -> x/a gre: allow
			 y/a -> x/a esp: deny`},
		{"a name without a protocol", world(
			in(block("a", spec.DefaultTier, 0, "all()", all...), allow(nil, named(0, "serve-81-udp")))),
			`y/a -> x/a 81/udp: allow
			 y/a -> x/a 81/tcp: deny`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { expect(t, test.spec, test.want) })
	}
}

func TestNetworkSets(t *testing.T) {
	sets := func(s *spec.Spec) *spec.Spec {
		s.NetworkSets = []*spec.NetworkSet{{
			Name: "office", Labels: map[string]string{"zone": "office"},
			CIDRs: []netip.Prefix{netip.MustParsePrefix("203.0.113.7/32"), netip.MustParsePrefix("2001:db8:ffff::7/128"), netip.MustParsePrefix("10.244.1.20/32"), netip.MustParsePrefix("fd00:10:244:1::20/128")},
		}}
		return s
	}
	own := func(p *spec.Policy) *spec.Policy { p.Namespace = "x"; return p }
	tests := []struct {
		name   string
		policy *spec.Policy
		want   string
	}{
		{"by name", in(block("p", spec.DefaultTier, 0, "pod == 'a'", ingress), allow(peers(spec.Peer{NetworkSet: "office"}))), `
			outside -> x/a 80/tcp: allow
			outside2 -> x/a 80/tcp: deny
			y/a -> x/a 80/tcp: allow
			y/b -> x/a 80/tcp: deny`},
		{"by label", in(block("p", spec.DefaultTier, 0, "pod == 'a'", ingress), allow(peers(pods("zone == 'office'")))), `
			outside -> x/a 80/tcp: allow
			outside2 -> x/a 80/tcp: deny
			y/a -> x/a 80/tcp: allow
			y/b -> x/a 80/tcp: deny`},
		{"by a name that is none", in(block("p", spec.DefaultTier, 0, "pod == 'a'", ingress), allow(peers(spec.Peer{NetworkSet: "elsewhere"}))), `
			outside -> x/a 80/tcp: deny`},
		{"not by label from a namespace", own(in(block("p", spec.DefaultTier, 0, "pod == 'a'", ingress), allow(peers(pods("zone == 'office'"))))), `
			outside -> x/a 80/tcp: deny`},
		{"not by label with namespaces", in(block("p", spec.DefaultTier, 0, "pod == 'a'", ingress), allow(peers(podsIn("all()", "zone == 'office'")))), `
			outside -> x/a 80/tcp: deny`},
		{"not from Kubernetes", in(kube("x/p", "pod == 'a'", ingress), allow(peers(pods("all()")))), `
			outside -> x/a 80/tcp: deny`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { expect(t, sets(world(test.policy)), test.want) })
	}
}

func TestHostEndpoints(t *testing.T) {
	hosts := func(list ...*spec.HostEndpoint) *spec.Spec {
		p := in(out(block("hosts", spec.DefaultTier, 0, "all()", ingress, egress), allow(nil, tcp(443))), allow(nil, tcp(80)))
		p.Selector, p.HostSelector = nil, sel("all()")
		s := world(p)
		s.HostEndpoints = list
		return s
	}
	eth0 := &spec.HostEndpoint{Name: "eth0", Node: "n1", Interface: "eth0", FailsafeInbound: []spec.Service{tcp(22)}, FailsafeOutbound: []spec.Service{udp(53)}}
	t.Run("one", func(t *testing.T) {
		expect(t, hosts(eth0), `
			outside -> n1 80/tcp: allow
			outside -> n1 81/tcp: deny
			outside -> n1 22/tcp: allow
			outside -> n1 53/udp: deny
			n1 -> outside 443/tcp: allow
			n1 -> outside 22/tcp: deny
			n1 -> outside 53/udp: allow
			outside -> n2 81/tcp: allow
			z/a -> n1 81/tcp: deny
			z/a -> n1 80/tcp: allow
			# by the bridge, which no host endpoint has
			x/a -> n1 81/tcp: allow
			n1 -> x/a 81/tcp: allow
			# the other's node
			n1 -> z/a 81/tcp: deny
			n1 -> z/a 443/tcp: allow
			# the tunnel
			n1 -> n2 8472/udp: allow
			n2 -> n1 8472/udp: allow
			n2 -> n1 8473/udp: deny
			outside -> n1 8472/udp: deny
			# itself
			n1 -> n1 81/tcp: allow
			n1 -> n1bridge 81/tcp: allow
		`)
	})
	t.Run("which", func(t *testing.T) {
		all := &spec.HostEndpoint{Name: "all", Node: "n1", Interface: spec.AllInterfaces, FailsafeInbound: []spec.Service{tcp(1)}}
		eth1 := &spec.HostEndpoint{Name: "eth1", Node: "n1", Interface: "eth1"}
		other := &spec.HostEndpoint{Name: "another", Node: "n2", Interface: "eth0"}
		tests := []struct {
			name    string
			list    []*spec.HostEndpoint
			link    string
			want    string
			assumed bool
		}{
			{"the only one", []*spec.HostEndpoint{eth0, other}, "", "eth0", false},
			{"that for all", []*spec.HostEndpoint{all, eth0, eth1}, "", "all", true},
			{"the first by name", []*spec.HostEndpoint{eth1, eth0}, "", "eth0", true},
			{"the named one", []*spec.HostEndpoint{all, eth0, eth1}, "eth1", "eth1", false},
			{"that for the rest", []*spec.HostEndpoint{all, eth0}, "eth1", "all", false},
			{"none", []*spec.HostEndpoint{eth0}, "eth1", "", false},
			{"none at all", nil, "", "", false},
		}
		for _, test := range tests {
			m := model(t, hosts(test.list...))
			f := flowTCP(netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("192.0.2.11"), 81)
			f.ToInterface = test.link
			s := m.Evaluate(f).Sides[1]
			got := ""
			if s.Host != nil {
				got = s.Host.Name
			}
			if got != test.want || s.Assumed != test.assumed {
				t.Errorf("%s: host endpoint %q, assumed: %v", test.name, got, s.Assumed)
			}
			if (s.Verdict == spec.Allow) != (got == "") {
				t.Errorf("%s: %s", test.name, s.Verdict)
			}
		}
	})
}

// TestWhichInterface: between the subnets of nodes the overlay decides by which
// interface a flow leaves a node, and the host endpoint of all interfaces is not
// about those that lead to pods.
func TestWhichInterface(t *testing.T) {
	const vtep = "polder.1"
	all := &spec.HostEndpoint{Name: "all", Node: "n1", Interface: spec.AllInterfaces}
	eth0 := &spec.HostEndpoint{Name: "eth0", Node: "n1", Interface: "eth0"}
	vxlan := spec.Backend{Type: spec.VXLAN, Port: 8472, Device: spec.PerFamily[string]{IPv4: vtep, IPv6: "polder-v6.1"}}
	direct := vxlan
	direct.DirectRouting = true
	const own, other = "192.0.2.11", "192.0.2.12"
	tests := []struct {
		name     string
		backend  spec.Backend
		links    [2]string // prefix lengths of the nodes' links; "": not given
		hosts    []*spec.HostEndpoint
		from, to string
		link     string // of n1
		want     string
		assumed  bool
	}{
		{"to a pod", vxlan, [2]string{}, []*spec.HostEndpoint{all}, "10.244.1.0", "10.244.2.30", "", "", false},
		{"from a pod", vxlan, [2]string{}, []*spec.HostEndpoint{all}, "10.244.2.30", "10.244.1.1", "", "", false},
		{"to the other node's bridge", vxlan, [2]string{}, []*spec.HostEndpoint{all}, "10.244.1.0", "10.244.2.1", "", "", false},
		{"beside others", vxlan, [2]string{}, []*spec.HostEndpoint{all, eth0}, "10.244.1.0", "10.244.2.30", "", "", false},
		{"answers come by the underlay", vxlan, [2]string{}, []*spec.HostEndpoint{all}, own, "10.244.2.30", "", "all", false},
		{"between nodes", vxlan, [2]string{}, []*spec.HostEndpoint{all}, own, other, "", "all", false},
		{"to an address in no subnet", vxlan, [2]string{}, []*spec.HostEndpoint{all}, "10.244.1.0", "10.244.77.1", "", "all", false},
		{"plain routes", spec.Backend{Type: spec.HostGW}, [2]string{}, []*spec.HostEndpoint{all}, "10.244.1.0", "10.244.2.30", "", "all", false},
		{"direct, on one link", direct, [2]string{"24", "24"}, []*spec.HostEndpoint{all}, "10.244.1.0", "10.244.2.30", "", "all", false},
		{"direct, on two", direct, [2]string{"32", "32"}, []*spec.HostEndpoint{all}, "10.244.1.0", "10.244.2.30", "", "", false},
		{"direct, and nobody says", direct, [2]string{"24", ""}, []*spec.HostEndpoint{all}, "10.244.1.0", "10.244.2.30", "", "all", true},
		{"the interface is told", direct, [2]string{"24", ""}, []*spec.HostEndpoint{all}, "10.244.1.0", "10.244.2.30", vtep, "", false},
		{"the bridge", vxlan, [2]string{}, []*spec.HostEndpoint{all}, "203.0.113.7", own, "cni0", "", false},
		{"loopback", vxlan, [2]string{}, []*spec.HostEndpoint{all}, "203.0.113.7", own, "lo", "", false},
		{"a name of no VTEP", spec.Backend{Type: spec.HostGW, Device: vxlan.Device}, [2]string{}, []*spec.HostEndpoint{all}, "203.0.113.7", own, vtep, "all", false},
	}
	for _, test := range tests {
		s := world(&spec.Policy{Kind: spec.KindPolicy, Name: "hosts", Tier: spec.DefaultTier, HostSelector: sel("all()"), Types: spec.Directions})
		s.HostEndpoints, s.Network.Backend, s.Enforcement.Bridge = test.hosts, test.backend, "cni0"
		s.Network.Pods = []spec.PodRange{{CIDR: netip.MustParsePrefix("10.244.0.0/16"), SubnetLen: 24}}
		for i, bits := range test.links {
			if a := &s.Nodes[i].Addresses[0]; bits != "" {
				a.Link = netip.MustParsePrefix(a.Addr.String() + "/" + bits)
			}
		}
		f := flowTCP(netip.MustParseAddr(test.from), netip.MustParseAddr(test.to), 81)
		f.FromInterface, f.ToInterface = test.link, test.link
		d := model(t, s).Evaluate(f)
		side := d.Sides[0]
		if d.To.Node == s.Nodes[0] {
			side = d.Sides[1]
		}
		got := ""
		if side.Host != nil {
			got = side.Host.Name
		}
		if got != test.want || side.Assumed != test.assumed || (side.Verdict == spec.Allow) != (got == "") {
			t.Errorf("%s: %s by host endpoint %q (%s), assumed: %t", test.name, side.Verdict, got, side.Reason, side.Assumed)
		}
	}
}

// TestMasqueradedByTheVTEP: what a node sends from its own address to a pod of another
// node leaves by the VTEP, and gets its address; so answers come by it, too. Without
// masquerading they come by the underlay.
func TestMasqueradedByTheVTEP(t *testing.T) {
	for _, masquerade := range []*spec.Masquerade{nil, {}} {
		s := world(&spec.Policy{Kind: spec.KindPolicy, Name: "hosts", Tier: spec.DefaultTier, HostSelector: sel("all()"), Types: spec.Directions})
		s.HostEndpoints = []*spec.HostEndpoint{{Name: "all", Node: "n1", Interface: spec.AllInterfaces}}
		s.Network.Backend = spec.Backend{Type: spec.VXLAN, Device: spec.PerFamily[string]{IPv4: "polder.1", IPv6: "polder-v6.1"}}
		s.Network.Pods = []spec.PodRange{{CIDR: netip.MustParsePrefix("10.244.0.0/16"), SubnetLen: 24}}
		s.Network.Masquerade = masquerade
		d := model(t, s).Evaluate(flowTCP(netip.MustParseAddr("192.0.2.11"), netip.MustParseAddr("10.244.2.30"), 81))
		if allowed := d.Sides[0].Verdict == spec.Allow; allowed != (masquerade != nil) {
			t.Errorf("masquerade %v: %s: %s", masquerade, d.Sides[0].Verdict, d.Sides[0].Reason)
		}
	}
}

// fataler is a testing.T or a rapid.T.
type fataler interface {
	Helper()
	Fatal(args ...any)
}
