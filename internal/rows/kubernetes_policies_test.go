package rows

import "strings"

// closed denies everything from and to every endpoint.
const closed = `
policy "closed" {
  types = ["ingress", "egress"]
}
`

// kubernetesPolicies are cases of what a NetworkPolicy as a whole does.
var kubernetesPolicies = []*example{
	{
		row: "networkpolicy 1", name: "an empty list of rules denies all",
		yaml: np("x/p", `{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress], ingress: []}`),
		want: `
			x/b -> x/a 80/tcp: deny
			z/b -> x/a 80/tcp: deny
			outside -> x/a icmp: deny
			n2 -> x/a 80/udp: deny
			outside -> x/a gre: deny
			x/a -> x/b 80/tcp: allow
			x/b -> x/c 80/tcp: allow
		`,
	},
	{
		row: "networkpolicy 1", name: "null denies all",
		yaml: np("z/p", `{podSelector: null, policyTypes: [Ingress, Egress], ingress: null}`),
		want: `
			z/b -> z/a 80/tcp: deny
			x/a -> z/a 80/tcp: deny
			z/a -> outside 80/tcp: deny
			x/a -> x/b 80/tcp: allow
		`,
	},
	{
		row: "networkpolicy 1", name: "no rules deny all",
		yaml: np("x/p", `{podSelector: {}, policyTypes: [Egress]}`),
		want: `
			x/b -> x/a 80/tcp: deny
			x/a -> z/a 80/tcp: deny
			x/a -> outside 80/sctp: deny
			x/a -> n1 80/tcp: deny
			z/a -> x/a 80/tcp: allow
		`,
	},
	{
		row: "networkpolicy 1", name: "an empty rule allows all",
		yaml: np("x/deny", `{podSelector: {}, policyTypes: [Ingress]}`) + np("x/allow", `{podSelector: {matchLabels: {pod: a}}, ingress: [{}]}`),
		want: `
			z/b -> x/a 80/tcp: allow
			outside -> x/a 80/udp: allow
			outside -> x/a gre: allow
			n2 -> x/a icmp: allow
			z/b -> x/b 80/tcp: deny
		`,
	},
	{
		row: "networkpolicy 2", name: "no peers and an empty list of them are any source",
		yaml: np("x/p", `{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [], ports: [{port: 80}]}]}`) +
			np("z/p", `{podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 80}]}]}`),
		want: `
			y/a -> x/a 80/tcp: allow
			outside -> x/a 80/tcp: allow
			n2 -> x/a 80/tcp: allow
			outside -> x/a 81/tcp: deny
			x/a -> z/a 80/tcp: allow
			outside -> z/a 80/tcp: allow
			n1 -> z/a 80/tcp: allow
			n1 -> z/a 81/tcp: deny
		`,
	},
	{
		row: "networkpolicy 2", name: "an empty peer",
		yaml:    np("x/p", `{podSelector: {}, ingress: [{from: [{}]}]}`),
		refused: []string{"spec.ingress[0].from[0]", "must specify a peer"},
	},
	{
		row: "networkpolicy 3", name: "ports only",
		yaml: np("x/p", `{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress, Egress], ingress: [{ports: [{port: 81}]}], egress: [{ports: [{port: 80, protocol: UDP}]}]}`),
		want: `
			z/a -> x/a 81/tcp: allow
			outside -> x/a 81/tcp: allow
			n2 -> x/a 81/tcp: allow
			z/a -> x/a 80/tcp: deny
			z/a -> x/a 81/udp: deny
			x/a -> z/a 80/udp: allow
			x/a -> outside 80/udp: allow
			x/a -> n1 80/udp: allow
			x/a -> z/a 80/tcp: deny
		`,
	},
	{
		row: "networkpolicy 5", name: "without types or egress rules: ingress",
		yaml: np("x/p", `{podSelector: {matchLabels: {pod: a}}}`),
		want: `
			x/b -> x/a 80/tcp: deny
			x/a -> x/b 80/tcp: allow
			x/a -> z/b 80/tcp: allow
		`,
	},
	{
		row: "networkpolicy 5", name: "without types but with egress rules: both",
		yaml: np("x/p", `{podSelector: {matchLabels: {pod: a}}, egress: [{ports: [{port: 81}]}]}`),
		want: `
			z/b -> x/a 81/tcp: deny
			x/a -> z/b 81/tcp: allow
			x/a -> z/b 80/tcp: deny
		`,
	},
	{
		row: "networkpolicy 5", name: "rules of no type are ignored",
		yaml: np("x/p", `{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress], ingress: [{ports: [{port: 80}]}], egress: [{ports: [{port: 81}]}]}`) +
			np("x/q", `{podSelector: {matchLabels: {pod: b}}, policyTypes: [Egress], ingress: [{ports: [{port: 80}]}], egress: [{ports: [{port: 81}]}]}`),
		want: `
			x/a -> z/a 80/tcp: allow
			z/a -> x/a 80/tcp: allow
			z/a -> x/a 81/tcp: deny
			z/a -> x/b 81/tcp: allow
			x/b -> z/a 81/tcp: allow
			x/b -> z/a 80/tcp: deny
		`,
	},
	{
		row: "networkpolicy 6", name: "ingress",
		yaml: np("x/p", `{podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}`),
		want: `
			x/a -> y/a 80/tcp: allow
			x/a -> outside 80/udp: allow
			x/b -> x/a 80/tcp: allow
			y/a -> x/a 80/tcp: deny
		`,
	},
	{
		row: "networkpolicy 6", name: "egress",
		yaml: np("x/p", `{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {ns: "y"}}}]}]}`),
		want: `
			x/a -> y/a 80/tcp: allow
			x/a -> z/a 80/tcp: deny
			z/a -> x/a 80/tcp: allow
			outside -> x/a 80/udp: allow
		`,
	},
	{
		row: "networkpolicy 7", name: "the server may open nothing, and the client not be reached",
		yaml: np("x/p", `{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress, Egress], egress: [{to: [{namespaceSelector: {}}]}]}`) +
			np("z/p", `{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{namespaceSelector: {}}]}]}`) +
			np("y/p", `{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{namespaceSelector: {}}]}]}`),
		want: `
			x/a -> z/a 80/tcp: allow
			x/a -> y/a 80/tcp: allow
			z/a -> x/a 80/tcp: deny
			y/a -> x/a 80/tcp: deny
			z/b -> z/a 80/tcp: deny
		`,
	},
	{
		row: "networkpolicy 8", name: "both ends must allow",
		yaml: np("x/out", `{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {ns: z}}}], ports: [{port: 80}]}]}`) +
			np("z/in", `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: x}}}], ports: [{port: 80}, {port: 81}]}]}`),
		want: `
			x/a -> z/a 80/tcp: allow
			x/a -> z/a 81/tcp: deny
			x/b -> z/a 81/tcp: allow
			x/a -> y/a 80/tcp: deny
			y/a -> z/a 80/tcp: deny
		`,
	},
	{
		row: "networkpolicy 8", name: "policies, rules and peers add up",
		yaml: np("x/one", `{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}, {podSelector: {matchLabels: {pod: c}}}], ports: [{port: 80}]}, {from: [{namespaceSelector: {matchLabels: {ns: "y"}}}], ports: [{port: 81}]}]}`) +
			np("x/two", `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: z}}}]}]}`),
		want: `
			x/b -> x/a 80/tcp: allow
			x/c -> x/a 80/tcp: allow
			x/b -> x/a 81/tcp: deny
			y/b -> x/a 81/tcp: allow
			y/b -> x/a 80/tcp: deny
			z/a -> x/a 82/udp: allow
			x/c -> x/b 80/tcp: deny
		`,
	},
	{
		row: "networkpolicy 36", name: "63 characters of a namespace and 253 of a policy",
		hcl: `
			policy "` + strings.Repeat("p", 253) + `" {
			  selector = "pod == 'b'"
			  ingress {
			    action = "allow"
			    ports  = ["81/tcp"]
			  }
			}
			endpoint "long" {
			  namespace = "` + strings.Repeat("n", 63) + `"
			  node      = "n1"
			  addresses = ["10.244.1.200", "fd00:10:244:1::200"]
			}
		`,
		yaml: np("x/"+strings.Repeat("a", 253), `{podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 80}]}]}`) +
			np("x/"+strings.Repeat("a", 252)+"b", `{podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 82}]}]}`) +
			np(strings.Repeat("n", 63)+"/"+strings.Repeat("a", 253), `{podSelector: {}}`),
		want: `
			z/a -> x/a 80/tcp: allow
			z/a -> x/a 81/tcp: deny
			z/a -> x/a 82/tcp: allow
			z/a -> x/b 81/tcp: allow
			z/a -> x/b 80/tcp: deny
			z/a -> x/c 80/tcp: allow
		`,
	},
}
