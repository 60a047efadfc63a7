package rows

// kubernetesPorts are cases of what the ports of a NetworkPolicy are.
var kubernetesPorts = []*example{
	{
		row: "networkpolicy 4", name: "a port without protocol",
		yaml: np("x/p", `{podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 80}]}]}`),
		want: `
			y/a -> x/a 80/tcp: allow
			y/a -> x/a 80/udp: deny
			z/a -> x/a 80/sctp: deny
		`,
	},
	{
		row: "networkpolicy 4", name: "a protocol without port",
		yaml: np("x/p", `{podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{protocol: UDP}]}]}`) +
			np("x/q", `{podSelector: {matchLabels: {pod: b}}, ingress: [{ports: [{protocol: SCTP}]}]}`) +
			np("x/r", `{podSelector: {matchLabels: {pod: c}}, ingress: [{ports: [{}]}]}`),
		want: `
			y/a -> x/a 80/udp: allow
			z/a -> x/a 65535/udp: allow
			z/a -> x/a 80/tcp: deny
			z/a -> x/a 80/sctp: deny
			z/a -> x/a icmp: deny
			z/a -> x/b 1/sctp: allow
			z/a -> x/b 80/udp: deny
			z/a -> x/c 65535/tcp: allow
			z/a -> x/c 80/udp: deny
		`,
	},
	{
		row: "networkpolicy 4", name: "SCTP, UDP and TCP are three",
		yaml: np("x/p", `{podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 81, protocol: SCTP}]}]}`) +
			np("z/p", `{podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 81, protocol: UDP}]}]}`),
		want: `
			y/a -> x/a 81/sctp: allow
			y/a -> x/a 81/tcp: deny
			y/a -> x/a 81/udp: deny
			y/a -> x/a 80/sctp: deny
			y/a -> z/a 81/udp: allow
			y/a -> z/a 81/sctp: deny
			y/a -> z/a 81/tcp: deny
		`,
	},
	{
		row: "networkpolicy 18", name: "the end is in the range",
		yaml: np("x/p", `{podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 80, endPort: 90}, {port: 53, endPort: 53, protocol: UDP}]}]}`),
		want: `
			y/a -> x/a 79/tcp: deny
			y/a -> x/a 80/tcp: allow
			z/a -> x/a 85/tcp: allow
			z/a -> x/a 90/tcp: allow
			z/a -> x/a 91/tcp: deny
			z/a -> x/a 53/udp: allow
			z/a -> x/a 54/udp: deny
			z/a -> x/a 53/tcp: deny
		`,
	},
	{
		row: "networkpolicy 18", name: "endPort with a name",
		yaml:    np("x/p", `{podSelector: {}, ingress: [{ports: [{port: web, endPort: 90}]}]}`),
		refused: []string{"spec.ingress[0].ports[0].endPort"},
	},
	{
		row: "networkpolicy 18", name: "endPort without port",
		yaml:    np("x/p", `{podSelector: {}, ingress: [{ports: [{endPort: 90}]}]}`),
		refused: []string{"spec.ingress[0].ports[0].endPort"},
	},
	{
		row: "networkpolicy 18", name: "endPort before port",
		yaml:    np("x/p", `{podSelector: {}, ingress: [{ports: [{port: 91, endPort: 90}]}]}`),
		refused: []string{"spec.ingress[0].ports[0].endPort"},
	},
	{
		row: "networkpolicy 19", name: "ingress: of the pod that is selected",
		yaml: np("x/p", `{podSelector: {}, ingress: [{ports: [{port: web}]}]}`),
		want: `
			y/a -> x/a 8080/tcp: allow
			y/a -> x/a 9090/tcp: deny
			y/a -> x/a 7070/tcp: deny
			z/a -> x/b 9090/tcp: allow
			z/a -> x/b 8080/tcp: deny
			z/a -> x/c 8080/tcp: deny
			z/a -> x/c 9090/tcp: deny
			z/a -> x/a 8080/udp: deny
		`,
	},
	{
		row: "networkpolicy 19", name: "egress: of the pod that is reached",
		yaml: np("x/p", `{podSelector: {matchLabels: {pod: c}}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {ns: "y"}}}, {podSelector: {}}], ports: [{port: web}]}]}`),
		want: `
			x/c -> x/a 8080/tcp: allow
			x/c -> x/a 9090/tcp: deny
			x/c -> x/b 9090/tcp: allow
			x/c -> y/a 7070/tcp: allow
			x/c -> y/a 8080/tcp: deny
			x/c -> y/b 7070/tcp: deny
			x/c -> z/a 9090/tcp: deny
		`,
	},
	{
		row: "networkpolicy 20", name: "a name on pods of all namespaces",
		yaml: np("x/p", `{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: web}, {port: serve-81-udp, protocol: UDP}]}]}`),
		want: `
			x/c -> y/a 7070/tcp: allow
			x/c -> y/a 9090/tcp: deny
			x/c -> z/a 9090/tcp: allow
			x/c -> z/a 7070/tcp: deny
			x/c -> x/a 8080/tcp: allow
			x/c -> z/b 81/udp: allow
			x/a -> outside 8080/tcp: deny
			x/a -> outside 81/udp: deny
			x/a -> n1 8080/tcp: deny
			x/a -> m2 9090/tcp: deny
		`,
	},
	{
		row: "networkpolicy 21", name: "a name that nothing has",
		yaml: np("x/p", `{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress, Egress], ingress: [{ports: [{port: no-such-port}]}], egress: [{ports: [{port: no-such-port}]}]}`),
		want: `
			y/a -> x/a 80/tcp: deny
			z/a -> x/a 81/udp: deny
			z/a -> x/a 8080/tcp: deny
			x/a -> z/a 80/tcp: deny
			x/a -> outside 80/tcp: deny
			z/a -> x/b 80/tcp: allow
		`,
	},
	{
		row: "networkpolicy 21", name: "a name of another protocol",
		yaml: np("x/p", `{podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: serve-81-udp, protocol: TCP}, {port: serve-80-sctp, protocol: SCTP}]}]}`),
		want: `
			y/a -> x/a 81/tcp: deny
			y/a -> x/a 81/udp: deny
			z/a -> x/a 80/sctp: allow
			z/a -> x/a 80/tcp: deny
		`,
	},
	{
		row: "networkpolicy 22", name: "a block that covers pods",
		yaml: np("x/p", `{podSelector: {matchLabels: {pod: c}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.244.1.20/32]}}, {ipBlock: {cidr: "::/0", except: ["fd00:10:244:1::20/128"]}}], ports: [{port: web}]}]}`),
		want: `
			x/c -> z/a 9090/tcp: allow
			x/c -> z/a 8080/tcp: deny
			x/c -> x/a 8080/tcp: allow
			x/c -> y/a 7070/tcp: deny
			x/c -> outside 9090/tcp: deny
			x/c -> n2 9090/tcp: deny
		`,
	},
	{
		row: "networkpolicy 22", name: "a block of who is selected has the subject's port",
		yaml: np("x/p", `{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{ipBlock: {cidr: 10.244.2.0/24}}, {ipBlock: {cidr: "fd00:10:244:2::/64"}}], ports: [{port: web}]}]}`),
		want: `
			z/a -> x/a 8080/tcp: allow
			z/a -> x/a 9090/tcp: deny
			y/a -> x/a 8080/tcp: deny
		`,
	},
	{
		row: "networkpolicy 22", name: "an endpoint does not have a name twice",
		hcl: `
			endpoint "twice" {
			  node      = "n1"
			  addresses = ["10.244.1.99"]
			  ports     = { http = "80/tcp", http = "81/tcp" }
			}
		`,
		refused: []string{"Key given twice", `"http"`},
	},
}
