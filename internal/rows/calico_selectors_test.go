package rows

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// chosen is a policy that lets those reach z/c whom a selector chooses, and
// isolates by it who is outside of namespace z.
func chosen(selector string) string {
	return fmt.Sprintf(`
		policy "peers" {
		  namespace_selector = "ns == 'z'"
		  selector           = "pod == 'c'"
		  ingress {
		    action = "allow"
		    from { selector = %[1]q }
		  }
		}
		policy "subjects" {
		  namespace_selector = "ns in {'x', 'y'}"
		  selector           = %[1]q
		  ingress {
		    action = "allow"
		    ports  = ["81/tcp"]
		  }
		}
	`, selector)
}

// chooses is what becomes of chosen's policies with the pods of a list, and with
// those of another that are not chosen.
func chooses(pods, others []string) (lines string) {
	for _, p := range pods {
		lines += p + " -> z/c 80/tcp: allow\n"
		if p[0] != 'z' {
			lines += "outside -> " + p + " 80/tcp: deny\noutside -> " + p + " 81/tcp: allow\n"
		}
	}
	for _, p := range others {
		lines += p + " -> z/c 80/tcp: deny\n"
		if p[0] != 'z' {
			lines += "outside -> " + p + " 80/tcp: allow\n"
		}
	}
	return lines + "outside -> z/c 80/tcp: deny\nn1 -> z/c 80/tcp: deny\n"
}

// calicoSelectors are cases of who is meant by a rule's peers, and of what comes
// of NetworkPolicies beside other policies.
var calicoSelectors = []*example{
	{
		row: "calico 1.3 named port of a peer", name: "egress to some pods",
		hcl: `
			policy "p" {
			  selector = "pod == 'c'"
			  egress {
			    action = "allow"
			    ports  = ["web"]
			    to { selector = "has(role)" }
			  }
			}
		`,
		want: `
			x/c -> x/b 9090/tcp: allow
			x/c -> y/a 7070/tcp: allow
			x/c -> y/a 9090/tcp: deny
			x/c -> z/a 9090/tcp: allow
			x/c -> x/a 8080/tcp: deny
			x/c -> outside 9090/tcp: deny
		`,
	},
	{
		row: "calico 1.3 and", name: "peer and port",
		hcl: `
			policy "p" {
			  selector = "pod == 'a'"
			  ingress {
			    action = "allow"
			    ports  = ["80/tcp"]
			    from { selector = "pod == 'b'" }
			  }
			}
		`,
		want: `
			z/b -> x/a 80/tcp: allow
			z/b -> x/a 81/tcp: deny
			z/c -> x/a 80/tcp: deny
		`,
	},
	{
		row: "calico 1.3 or", name: "peers and ports",
		hcl: `
			policy "p" {
			  selector = "pod == 'a'"
			  ingress {
			    action = "allow"
			    ports  = ["80/tcp", "80/udp"]
			    from { selector = "pod == 'b'" }
			    from { cidr = "192.0.2.99" }
			    from { cidr = "2001:db8::99" }
			    from { node = "n2" }
			  }
			  ingress {
			    action = "allow"
			    ports  = ["81/tcp"]
			    from { any = true }
			  }
			}
		`,
		want: `
			z/b -> x/a 80/tcp: allow
			z/b -> x/a 80/udp: allow
			outside -> x/a 80/tcp: allow
			outside2 -> x/a 80/tcp: deny
			n2 -> x/a 80/udp: allow
			n2bridge -> x/a 80/tcp: allow
			n1 -> z/a 80/tcp: deny
			z/c -> x/a 80/tcp: deny
			z/c -> x/a 81/tcp: allow
			outside2 -> x/a 81/tcp: allow
		`,
	},
	{
		row: "calico 1.3 namespaceSelector", name: "alone, and with a selector",
		hcl: `
			policy "a" {
			  namespace = "x"
			  selector  = "pod == 'a'"
			  ingress {
			    action = "allow"
			    from { namespace_selector = "ns == 'z'" }
			  }
			}
			policy "b" {
			  namespace = "x"
			  selector  = "pod == 'b'"
			  ingress {
			    action = "allow"
			    from {
			      namespace_selector = "ns == 'z'"
			      selector           = "pod == 'b'"
			    }
			  }
			}
		`,
		want: `
			z/a -> x/a 80/tcp: allow
			y/a -> x/a 80/tcp: deny
			x/c -> x/a 80/tcp: deny
			outside -> x/a 80/tcp: deny
			z/b -> x/b 80/tcp: allow
			z/a -> x/b 80/tcp: deny
			y/b -> x/b 80/tcp: deny
		`,
	},
	{
		row: "calico 1.3 negated selector", name: "endpoints only, or strangers, too",
		hcl: `
			policy "known" {
			  selector = "pod == 'a'"
			  ingress {
			    action = "allow"
			    from { selector = "!(has(role))" }
			  }
			}
			policy "all" {
			  selector = "pod == 'b'"
			  ingress {
			    action = "deny"
			    from { selector = "has(role)" }
			  }
			  ingress { action = "allow" }
			}
		`,
		want: `
			z/c -> x/a 80/tcp: allow
			y/a -> x/a 80/tcp: deny
			outside -> x/a 80/tcp: deny
			n2 -> x/a 80/tcp: deny
			m2 -> x/a 80/tcp: deny
			z/c -> x/b 80/tcp: allow
			y/a -> x/b 80/tcp: deny
			outside -> x/b 80/tcp: allow
			m2 -> x/b 80/tcp: allow
		`,
	},
	{
		row: "calico 1.4 ==", name: "also an empty value",
		hcl:  chosen(`role == "web"`),
		want: chooses([]string{"x/b"}, []string{"x/a", "y/a", "z/b"}),
	},
	{
		row: "calico 1.4 ==", name: "an empty value",
		hcl:  chosen(`role == ''`),
		want: chooses([]string{"y/a"}, []string{"x/a", "x/b", "z/a"}),
	},
	{
		row: "calico 1.4 !=", name: "matches what lacks the label",
		hcl:  chosen(`role != 'web'`),
		want: chooses([]string{"x/a", "y/a", "z/b"}, []string{"x/b"}),
	},
	{
		row: "calico 1.4 in", name: "two values",
		hcl:  chosen(`role in {'web', ''}`),
		want: chooses([]string{"x/b", "y/a"}, []string{"x/a", "z/b"}),
	},
	{
		row: "calico 1.4 not in", name: "matches what lacks the label",
		hcl:  chosen(`role not in {"web", "db"}`),
		want: chooses([]string{"x/a", "y/a", "z/b"}, []string{"x/b", "z/a"}),
	},
	{
		row: "calico 1.4 has", name: "an empty value is one",
		hcl:  chosen(`has(role)`),
		want: chooses([]string{"x/b", "y/a", "z/a"}, []string{"x/a", "y/b"}),
	},
	{
		row: "calico 1.4 contains", name: "the middle of a value",
		hcl:  chosen(`role contains 'eb'`),
		want: chooses([]string{"x/b", "z/b"}, []string{"x/a", "y/a", "z/a"}),
	},
	{
		row: "calico 1.4 starts with", name: "all of a value is its beginning",
		hcl:  chosen(`role starts with 'web'`),
		want: chooses([]string{"x/b", "z/b"}, []string{"x/a", "y/a", "z/a"}),
	},
	{
		row: "calico 1.4 ends with", name: "all of a value is its end",
		hcl:  chosen(`role ends with "b"`),
		want: chooses([]string{"x/b", "z/a"}, []string{"x/a", "y/a", "z/b"}),
	},
	{
		row: "calico 1.4 all", name: "all",
		hcl:  chosen(`all()`),
		want: chooses([]string{"x/a", "x/b", "y/a", "z/a"}, nil),
	},
	{
		row: "calico 1.4 all", name: "an empty selector",
		hcl:  chosen(``),
		want: chooses([]string{"x/a", "x/b", "y/a", "z/a"}, nil),
	},
	{
		row: "calico 1.4 operators", name: "not before and before or",
		hcl:  chosen(`pod == 'c' || !has(role) && pod == 'a'`),
		want: chooses([]string{"x/a", "x/c", "y/c"}, []string{"x/b", "y/a", "y/b", "z/a"}),
	},
	{
		row: "calico 1.4 operators", name: "parentheses",
		hcl:  chosen(`(pod == 'c' || !has(role)) && !(pod in {'a'})`),
		want: chooses([]string{"x/c", "y/b", "y/c"}, []string{"x/a", "x/b", "y/a", "z/b"}),
	},
	{
		row: "calico 1.5 order", name: "policies before and behind",
		hcl: `
			policy "behind" {
			  order = 1001
			  ingress {
			    action = "deny"
			    ports  = ["80/tcp"]
			  }
			  ingress {
			    action = "allow"
			    ports  = ["82/tcp"]
			  }
			}
			policy "before" {
			  order = 999
			  ingress {
			    action = "deny"
			    ports  = ["81/tcp"]
			  }
			}
		`,
		yaml: np("x/p", `{podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 80}, {port: 81}]}]}`),
		want: `
			z/a -> x/a 80/tcp: allow
			z/a -> x/a 81/tcp: deny
			z/a -> x/a 82/tcp: allow
			z/a -> x/a 8080/tcp: deny
			z/a -> x/b 80/tcp: deny
		`,
	},
	{
		row: "calico 1.5 merged ports", name: "several protocols, with and without ports",
		yaml: np("x/p", `{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: z}}}], ports: [{port: 80}, {port: 81, endPort: 82}, {port: 80, protocol: UDP}, {protocol: SCTP}, {port: web}]}]}`),
		want: `
			z/a -> x/a 80/tcp: allow
			z/a -> x/a 82/tcp: allow
			z/a -> x/a 8080/tcp: allow
			z/a -> x/a 79/tcp: deny
			z/a -> x/a 80/udp: allow
			z/a -> x/a 81/udp: deny
			z/a -> x/a 82/sctp: allow
			y/a -> x/a 80/tcp: deny
		`,
	},
	{
		row: "calico 1.5 fails closed", name: "a block that is none",
		stored: stored("10.244.2.0/33"),
		want: `
			z/a -> x/a 80/tcp: deny
			x/b -> x/a 80/tcp: deny
			outside -> x/a 80/tcp: deny
			z/a -> x/b 80/tcp: allow
		`,
	},
	{
		row: "calico 1.5 fails closed", name: "an exception that is none",
		stored: stored("10.244.2.0/24", "10.244.2.30/32", "10.244.2.3l/32"),
		want: `
			z/a -> x/a 80/tcp: deny
			z/b -> x/a 80/tcp: deny
			outside -> x/a 80/tcp: deny
		`,
	},
	{
		row: "calico 1.5 fails closed", name: "a range that begins with a name",
		stored: named("web", 8081),
		want: `
			z/a -> x/a 8080/tcp: deny
			z/a -> x/a 80/tcp: deny
		`,
	},
	{
		row: "calico 1.5 fails closed", name: "the same in a file",
		yaml:    np("x/p", `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.244.2.0/33}}]}]}`),
		refused: []string{"spec.ingress[0].from[0].ipBlock.cidr"},
	},
}

// named is a stored NetworkPolicy of namespace x, about pods a: ingress to a range
// of ports that begins with a name.
func named(port string, end int32) *networkingv1.NetworkPolicy {
	protocol, name := corev1.ProtocolTCP, intstr.FromString(port)
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "named"},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"pod": "a"}},
			Ingress:     []networkingv1.NetworkPolicyIngressRule{{Ports: []networkingv1.NetworkPolicyPort{{Protocol: &protocol, Port: &name, EndPort: &end}}}},
		},
	}
}
