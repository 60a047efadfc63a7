package policy_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

// What is not everything is listed by the shorter of two lists.
func TestReachText(t *testing.T) {
	icmp := spec.Service{Protocol: spec.ProtocolICMP, ICMP: &spec.ICMP{Type: 8}}
	icmp6 := spec.Service{Protocol: spec.ProtocolICMPv6, ICMP: &spec.ICMP{Type: 128}}
	one := uint8(1)
	coded := spec.Service{Protocol: spec.ProtocolICMP, ICMP: &spec.ICMP{Type: 8, Code: &one}}
	only := func(list ...spec.Service) []spec.Rule { return []spec.Rule{allow(nil, list...)} }
	but := func(list ...spec.Service) []spec.Rule {
		return []spec.Rule{does(spec.Deny, nil, list...), allow(nil)}
	}
	for _, test := range []struct {
		rules []spec.Rule
		want  string
	}{
		{only(), "all"},
		{nil, "-"},
		{only(tcp(80)), "80/tcp"},
		{only(tcp(80), tcp(81), ports(spec.ProtocolTCP, 85, 90), udp(53)), "80-81/tcp, 85-90/tcp, 53/udp"},
		{only(spec.Service{Protocol: spec.ProtocolTCP}), "*/tcp"},
		{only(ports(spec.ProtocolTCP, 1, 65535)), "*/tcp"},
		{but(tcp(22)), "all but 22/tcp"},
		{but(tcp(22), udp(53)), "all but 22/tcp, 53/udp"},
		{append(but(tcp(22)), does(spec.Deny, nil))[:1], "-"},
		{[]spec.Rule{does(spec.Deny, nil, tcp(22)), allow(nil, spec.Service{Protocol: spec.ProtocolTCP})}, "1-21/tcp, 23-65535/tcp"},
		{only(icmp, icmp6), "echo-request"},
		{but(icmp, icmp6), "all but echo-request"},
		{only(spec.Service{Protocol: spec.ProtocolICMP}), "icmp"},
		{only(coded), "echo-request:1/icmp"},
		{[]spec.Rule{does(spec.Deny, nil, coded), allow(nil, icmp)}, "echo-request:0/icmp, echo-request:2/icmp to echo-request:255/icmp"},
		{only(spec.Service{Protocol: 47}, spec.Service{Protocol: 99}), "gre, 99"},
		{but(spec.Service{Protocol: 47}), "all but gre"},
		{only(named(0, "serve-80-tcp"), named(0, "nothing")), "80/tcp"},
		{[]spec.Rule{allow(peers(cidr("0.0.0.0/0")), tcp(80))}, "ipv4: 80/tcp; ipv6: -"},
	} {
		m := model(t, world(in(kube("x/p", "pod == 'a'", ingress), test.rules...)))
		if got := cell(t, m.Matrix(), "y-b", "x-a"); got != test.want {
			t.Errorf("%v: %s, want %s", test.rules, got, test.want)
		}
	}
}

// cell is that of two ends.
func cell(t *testing.T, x *policy.Matrix, from, to string) string {
	t.Helper()
	of := func(name string) int {
		i := slices.IndexFunc(x.Groups, func(g policy.Group) bool { return slices.Contains(g.Members, name) })
		if i < 0 {
			t.Fatalf("the matrix has no %s", name)
		}
		return i
	}
	return x.Cells[of(from)][of(to)].String()
}

func TestMatrixGroups(t *testing.T) {
	p := in(block("p", spec.DefaultTier, 0, "pod == 'a'", ingress),
		allow(peers(pods("pod == 'b'"), spec.Peer{NetworkSet: "office"}), tcp(80)), allow(peers(cidr("198.51.0.0/16"), cidr("2001:db8:7::/48")), tcp(81)))
	s := world(p)
	s.NetworkSets = []*spec.NetworkSet{{Name: "office", CIDRs: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}}
	x := model(t, s).Matrix()
	var got []string
	for _, g := range x.Groups {
		got = append(got, fmt.Sprint(g.Kind, g.Members))
	}
	want := []string{"endpoint[x-a y-a z-a]", "endpoint[x-b y-b z-b]", "endpoint[x-c y-c z-c]", "node[n1 n2]", "address[198.51.0.0/16]", "address[2001:db8:7::/48]", "address[network_set.office]", "outside[outside]"}
	if !slices.Equal(got, want) {
		t.Errorf("groups %q, want %q", got, want)
	}
	for _, test := range []struct{ from, to, want string }{
		{"x-a", "x-a", "-"}, // another of its group
		{"x-b", "x-a", "80/tcp"},
		{"x-a", "x-b", "all"},
		{"n1", "x-a", "-"}, // that runs on n2
		{"n1", "n1", "all"},
		{"198.51.0.0/16", "x-a", "81/tcp"},
		{"network_set.office", "x-a", "80-81/tcp"},
		{"2001:db8:7::/48", "x-a", "81/tcp"},
		{"outside", "x-a", "-"},
		{"outside", "network_set.office", ""},
	} {
		if got := cell(t, x, test.from, test.to); got != test.want {
			t.Errorf("%s to %s: %s, want %s", test.from, test.to, got, test.want)
		}
	}
}

func BenchmarkMatrix(b *testing.B) {
	s := world()
	s.Endpoints = nil
	for i := range 100 {
		s.Endpoints = append(s.Endpoints, &spec.Endpoint{
			Name: fmt.Sprintf("e%d", i), Namespace: "x", Node: fmt.Sprintf("n%d", i%2+1),
			Labels:    map[string]string{"app": fmt.Sprint(i)},
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 244, byte(i%2 + 1), byte(10 + i)}), netip.MustParseAddr(fmt.Sprintf("fd00:10:244:%d::%x", i%2+1, 10+i))},
		})
	}
	for i := range 100 {
		s.Policies = append(s.Policies, in(kube(fmt.Sprintf("x/p%d", i), fmt.Sprintf("app == '%d'", i), ingress),
			allow(peers(pods(fmt.Sprintf("app == '%d'", (i+1)%100))), tcp(uint16(8000+i)), tcp(9000)), allow(peers(cidr("198.51.100.0/24")), tcp(443))))
	}
	m := model(b, s)
	for b.Loop() {
		m.Matrix()
	}
}
