package policy_test

import (
	"net/netip"
	"testing"

	"github.com/poldernet/polder/spec"
)

const (
	ingress = spec.Ingress
	egress  = spec.Egress
)

// TestKubernetesSemantics goes through what Kubernetes expects of NetworkPolicy,
// on policies as the front end makes them.
func TestKubernetesSemantics(t *testing.T) {
	tests := []struct {
		name string
		spec *spec.Spec
		want string
	}{
		{"no rules deny all", world(kube("x/p", "pod == 'a'", ingress)), `
			x/b -> x/a 80/tcp: deny
			outside -> x/a icmp: deny
			n2 -> x/a 80/tcp: deny
			x/b -> x/c 80/tcp: allow
			x/a -> x/b 80/tcp: allow
		`},
		{"an empty rule allows all", world(in(kube("x/p", "all()", ingress), allow(nil))), `
			z/c -> x/a 80/tcp: allow
			outside -> x/a 53/udp: allow
			outside -> x/a gre: allow
		`},
		{"without peers any source, and external ones", world(in(kube("x/p", "all()", ingress), allow(nil, tcp(80)))), `
			z/c -> x/a 80/tcp: allow
			outside -> x/a 80/tcp: allow
			n2 -> x/a 80/tcp: allow
			z/c -> x/a 81/tcp: deny
			z/c -> x/a 80/udp: deny
		`},
		{"a protocol without port is all ports of it", world(in(kube("x/p", "all()", ingress), allow(nil, spec.Service{Protocol: spec.ProtocolUDP}))), `
			y/a -> x/a 80/udp: allow
			y/a -> x/a 65535/udp: allow
			y/a -> x/a 80/tcp: deny
			y/a -> x/a icmp: deny
		`},
		{"isolation is per direction: ingress", world(in(kube("x/p", "all()", ingress), allow(peers(pods("pod == 'b'"))))), `
			x/a -> y/a 80/tcp: allow
			y/a -> x/a 80/tcp: deny
		`},
		{"isolation is per direction: egress", world(out(kube("x/p", "all()", egress), allow(peers(podsIn("ns == 'y'", "all()"))))), `
			x/a -> y/a 80/tcp: allow
			x/a -> z/a 80/tcp: deny
			z/a -> x/a 80/tcp: allow
		`},
		{"rules of a direction that is none of the types are ignored", world(in(out(kube("x/p", "all()", ingress), allow(peers(pods("pod == 'b'")))), allow(nil, tcp(80)))), `
			x/a -> y/a 81/tcp: allow
			y/a -> x/a 80/tcp: allow
			y/a -> x/a 81/tcp: deny
		`},
		{"both sides must allow", world(
			out(kube("x/out", "pod == 'a'", egress), allow(peers(podsIn("ns == 'y'", "all()")), tcp(80))),
			in(kube("y/in", "all()", ingress), allow(peers(podsIn("ns == 'x'", "all()")), tcp(80), tcp(81)))), `
			x/a -> y/a 80/tcp: allow
			x/a -> y/a 81/tcp: deny
			x/b -> y/a 81/tcp: allow
			z/a -> y/a 80/tcp: deny
		`},
		{"union over policies, rules and peers", world(
			in(kube("x/one", "pod == 'a'", ingress), allow(peers(pods("pod == 'b'"), pods("pod == 'c'")), tcp(80)), allow(peers(podsIn("ns == 'y'", "all()")), tcp(81))),
			in(kube("x/two", "all()", ingress), allow(peers(podsIn("ns == 'z'", "all()"))))), `
			x/b -> x/a 80/tcp: allow
			x/c -> x/a 80/tcp: allow
			x/b -> x/a 81/tcp: deny
			y/b -> x/a 81/tcp: allow
			y/b -> x/a 80/tcp: deny
			z/a -> x/a 99/udp: allow
			x/c -> x/b 80/tcp: deny
		`},
		{"not in matches what lacks the key, in and has do not", labelled(world(
			in(kube("x/p", "pod == 'a'", ingress), allow(peers(pods("role not in {'web'}")), tcp(80)), allow(peers(pods("role in {'web'}")), tcp(81)), allow(peers(pods("has(role)")), tcp(82)))), "x-b", "role", "web"), `
			x/b -> x/a 80/tcp: deny
			x/b -> x/a 81/tcp: allow
			x/b -> x/a 82/tcp: allow
			x/c -> x/a 80/tcp: allow
			x/c -> x/a 81/tcp: deny
			x/c -> x/a 82/tcp: deny
		`},
		{"an empty value wants the key", labelled(world(in(kube("x/p", "pod == 'a'", ingress), allow(peers(pods("role == ''"))))), "x-b", "role", ""), `
			x/b -> x/a 80/tcp: allow
			x/c -> x/a 80/tcp: deny
		`},
		{"a pod selector alone is about the policy's namespace", world(in(kube("x/p", "pod == 'a'", ingress), allow(peers(pods("pod == 'b'"))))), `
			x/b -> x/a 80/tcp: allow
			y/b -> x/a 80/tcp: deny
		`},
		{"both selectors in one peer are and", world(in(kube("x/p", "pod == 'a'", ingress), allow(peers(podsIn("ns == 'y'", "pod == 'b'"))))), `
			y/b -> x/a 80/tcp: allow
			x/b -> x/a 80/tcp: deny
			y/c -> x/a 80/tcp: deny
		`},
		{"two peers are or", world(in(kube("x/p", "pod == 'a'", ingress), allow(peers(podsIn("ns == 'y'", "all()"), pods("pod == 'b'"))))), `
			y/c -> x/a 80/tcp: allow
			x/b -> x/a 80/tcp: allow
			x/c -> x/a 80/tcp: deny
			z/b -> x/a 80/tcp: deny
		`},
		{"namespaces by the label that each has", world(in(kube("x/p", "all()", ingress), allow(peers(podsIn("kubernetes.io/metadata.name == 'y'", "all()"))))), `
			y/a -> x/a 80/tcp: allow
			z/a -> x/a 80/tcp: deny
		`},
		{"all namespaces are all pods, and nobody else", world(in(kube("x/p", "all()", ingress), allow(peers(podsIn("all()", "all()"))))), `
			z/a -> x/a 80/tcp: allow
			outside -> x/a 80/tcp: deny
			n2 -> x/a 80/tcp: deny
			n2vtep -> x/a 80/tcp: deny
		`},
		{"a block matches pods", world(out(kube("x/p", "pod == 'a'", egress), allow(peers(cidr("10.244.1.21/32"), cidr("fd00:10:244:1::21/128"))))), `
			x/a -> y/b 80/tcp: allow
			x/a -> y/c 80/tcp: deny
		`},
		{"an exception shrinks its own block only", world(
			out(kube("x/p", "pod == 'a'", egress), allow(peers(cidr("10.0.0.0/8", "10.244.1.21/32", "10.244.1.22/32"), cidr("10.244.1.22/32")))),
			out(kube("x/q", "pod == 'b'", egress), allow(peers(cidr("10.0.0.0/8", "10.244.1.21/32")))),
			out(kube("x/r", "pod == 'b'", egress), allow(peers(cidr("10.244.1.21/32"))))), `
			* x/a -> y/a 80/tcp: allow
			* x/a -> y/b 80/tcp: deny
			* x/a -> y/c 80/tcp: allow
			* x/b -> y/b 80/tcp: allow
		`},
		{"exceptions and ports may overlap", world(in(kube("x/p", "pod == 'a'", ingress), allow(peers(cidr("10.0.0.0/8", "10.244.1.0/24", "10.244.1.0/28", "10.244.1.0/24")),
			ports(spec.ProtocolTCP, 1, 65535), ports(spec.ProtocolTCP, 80, 90), tcp(80)))), `
			* z/a -> x/a 80/tcp: allow
			* z/a -> x/a 1/tcp: allow
			* z/a -> x/a 65535/tcp: allow
			* y/a -> x/a 80/tcp: deny
		`},
		{"everything is a block", world(in(kube("x/p", "pod == 'a'", ingress), allow(peers(cidr("0.0.0.0/0"), cidr("::/0"))))), `
			outside -> x/a 80/tcp: allow
			n2 -> x/a 80/tcp: allow
			z/a -> x/a 80/tcp: allow
		`},
		{"the end of a range is in it", world(in(kube("x/p", "pod == 'a'", ingress), allow(nil, ports(spec.ProtocolTCP, 80, 90), ports(spec.ProtocolUDP, 53, 53)))), `
			y/a -> x/a 79/tcp: deny
			y/a -> x/a 80/tcp: allow
			y/a -> x/a 90/tcp: allow
			y/a -> x/a 91/tcp: deny
			y/a -> x/a 53/udp: allow
			y/a -> x/a 54/udp: deny
		`},
		{"a name is resolved for each pod: ingress", ported(world(in(kube("x/p", "all()", ingress), allow(nil, named(spec.ProtocolTCP, "web")))), map[string]uint16{"x-a": 8080, "x-b": 9090, "y-a": 7070}), `
			y/a -> x/a 8080/tcp: allow
			y/a -> x/a 9090/tcp: deny
			y/a -> x/a 7070/tcp: deny
			y/a -> x/b 9090/tcp: allow
			y/a -> x/b 8080/tcp: deny
			y/a -> x/c 8080/tcp: deny
		`},
		{"a name is resolved for each pod: egress, in all namespaces", ported(world(out(kube("x/p", "all()", egress), allow(nil, named(spec.ProtocolTCP, "web")))), map[string]uint16{"x-a": 8080, "y-a": 9090}), `
			x/b -> y/a 9090/tcp: allow
			x/b -> y/a 8080/tcp: deny
			x/b -> x/a 8080/tcp: allow
			x/a -> outside 8080/tcp: deny
			x/a -> n1 8080/tcp: deny
		`},
		{"a name that nothing has matches nothing, and isolates", world(in(kube("x/p", "all()", ingress), allow(nil, named(spec.ProtocolTCP, "no-such-port")))), `
			y/a -> x/a 80/tcp: deny
			y/a -> x/a 81/udp: deny
		`},
		{"a name's protocol must match", world(in(kube("x/p", "all()", ingress), allow(nil, named(spec.ProtocolTCP, "serve-81-udp"), named(spec.ProtocolSCTP, "serve-80-sctp")))), `
			y/a -> x/a 81/tcp: deny
			y/a -> x/a 81/udp: deny
			y/a -> x/a 80/sctp: allow
		`},
		{"SCTP, UDP and TCP are three", world(in(kube("x/p", "all()", ingress), allow(nil, ports(spec.ProtocolSCTP, 81, 81)))), `
			y/a -> x/a 81/sctp: allow
			y/a -> x/a 81/tcp: deny
			y/a -> x/a 81/udp: deny
		`},
		{"a pod's own node always reaches it", world(kube("x/p", "all()", ingress)), `
			n1 -> x/a 80/tcp: allow
			n1bridge -> x/a icmp: allow
			n1vtep -> x/a 80/udp: allow
			n2 -> x/a 80/tcp: deny
			n2vtep -> x/a 80/tcp: deny
		`},
		{"a pod reaches its own node if its egress policies say so", world(out(kube("x/p", "all()", egress), allow(nil, tcp(53)))), `
			x/a -> n1 53/tcp: allow
			x/a -> n1 54/tcp: deny
			x/a -> n1bridge 54/tcp: deny
		`},
		{"a pod reaches itself", world(kube("x/p", "all()", ingress, egress)), `
			x/a -> x/a 80/tcp: allow
			x/a -> x/b 80/tcp: deny
		`},
		{"a block of one family is none of the other", world(in(kube("x/p", "all()", ingress), allow(peers(cidr("0.0.0.0/0"))))), `
			* outside -> x/a 80/tcp: allow
		`},
		{"a long name", world(in(kube(long(63)+"/"+long(253), "all()", ingress)), in(kube("x/"+long(253), "all()", ingress))), `
			y/a -> x/a 80/tcp: deny
		`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { expect(t, test.spec, test.want) })
	}
}

func long(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = 'a'
	}
	return string(b)
}

// labelled is a spec with a label added to an endpoint.
func labelled(s *spec.Spec, name, key, value string) *spec.Spec {
	endpoint(s, name).Labels[key] = value
	return s
}

// ported is a spec with endpoints that have a port "web" of different numbers.
func ported(s *spec.Spec, numbers map[string]uint16) *spec.Spec {
	for name, n := range numbers {
		endpoint(s, name).Ports["web"] = spec.Port{Number: n, Protocol: "tcp"}
	}
	return s
}

// A block of one family does not match addresses of the other.
func TestFamiliesApart(t *testing.T) {
	s := world(in(kube("x/p", "all()", ingress), allow(peers(cidr("0.0.0.0/0"))), allow(peers(cidr("::/0")), tcp(80))))
	m := model(t, s)
	for _, test := range []struct {
		f    spec.Family
		port uint16
		want spec.Action
	}{{spec.IPv4, 80, spec.Allow}, {spec.IPv4, 81, spec.Allow}, {spec.IPv6, 80, spec.Allow}, {spec.IPv6, 81, spec.Deny}} {
		f := flowTCP(address(t, s, "outside", test.f), address(t, s, "x/a", test.f), test.port)
		if got := m.Evaluate(f).Verdict; got != test.want {
			t.Errorf("%v: %s, want %s", f, got, test.want)
		}
	}
}

// An address is that of the endpoint that has it, and not of one that had it.
func TestAddressReuse(t *testing.T) {
	s := world(in(kube("x/p", "pod == 'a'", ingress), allow(peers(pods("pod == 'b'")))))
	reused := endpoint(s, "x-b").Addresses
	endpoint(s, "x-b").Addresses = nil
	endpoint(s, "x-c").Addresses = append([]netip.Addr(nil), reused...)
	m := model(t, s)
	if got := m.Evaluate(flowTCP(reused[0], address(t, s, "x/a", spec.IPv4), 80)).Verdict; got != spec.Deny {
		t.Errorf("an address is taken for the one that had it before: %s", got)
	}
}
