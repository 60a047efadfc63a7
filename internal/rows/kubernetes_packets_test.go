package rows

// kubernetesPackets are cases of what a NetworkPolicy makes of packets.
var kubernetesPackets = []*example{
	{
		row: "networkpolicy 24", name: "everything denied",
		hcl: closed,
		want: `
			n1 -> x/a 80/tcp: allow
			n1bridge -> x/a 80/tcp: allow
			n1bridge -> x/a 80/udp: allow
			n1 -> x/a 80/sctp: allow
			n1bridge -> x/a icmp: allow
			n2 -> z/a 80/tcp: allow
			n2 -> x/a 80/tcp: deny
			n2bridge -> x/a 80/tcp: deny
			n2 -> x/a icmp: deny
			n1 -> z/a 80/tcp: deny
			n1 -> z/a 80/udp: deny
			x/a -> n1 80/tcp: deny
			x/a -> n1bridge 80/udp: deny
		`,
	},
	{
		row: "networkpolicy 24", name: "by a NetworkPolicy, and its node denied by a block",
		yaml: np("x/p", `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [192.0.2.0/24, 10.244.1.0/24]}}]}]}`),
		want: `
			n1 -> x/a 80/tcp: allow
			n1bridge -> x/a 80/tcp: allow
			n2 -> x/a 80/tcp: deny
			outside -> x/a 80/tcp: deny
			y/a -> x/a 80/tcp: deny
			v4 z/a -> x/a 80/tcp: allow
		`,
	},
	{
		row: "networkpolicy 26", name: "everything denied",
		hcl: closed,
		want: `
			x/a -> x/a 80/tcp: allow
			x/a -> x/a 80/udp: allow
			x/a -> x/a icmp: allow
			z/b -> z/b 80/tcp: allow
			x/a -> x/b 80/tcp: deny
			z/b -> z/a 80/udp: deny
		`,
	},
	{
		row: "networkpolicy 28", name: "ingress of the pod, on its port",
		yaml: np("y/p", `{podSelector: {matchLabels: {pod: b}}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: x}}}], ports: [{port: 8080}]}]}`) +
			np("z/p", `{podSelector: {matchLabels: {pod: b}}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: x}}}], ports: [{port: 8080}, {port: 8081, protocol: SCTP}, {port: 8081, protocol: UDP}]}]}`),
		want: `
			x/a -> service:y/b 80/tcp: allow
			x/a -> service:y/b 8080/tcp: deny
			x/a -> service:z/b 80/tcp: allow
			x/a -> service:z/b 8080/tcp: deny
			x/a -> service:z/b 81/udp: allow
			x/a -> service:z/b 81/sctp: allow
			x/a -> service:z/b 8081/udp: deny
			x/a -> service:z/b 8081/sctp: deny
			x/a -> z/b 8080/tcp: allow
			x/a -> z/b 80/tcp: deny
			y/a -> service:z/b 80/tcp: deny
			n1 -> service:y/b 8080/tcp: allow
			n1 -> service:z/b 80/tcp: deny
		`,
	},
	{
		row: "networkpolicy 28", name: "egress to the pod, on its port",
		yaml: np("x/p", `{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {ns: z}}}, {namespaceSelector: {matchLabels: {ns: "y"}}}], ports: [{port: 8080}]}]}`),
		want: `
			x/a -> service:z/b 80/tcp: allow
			x/a -> service:z/b 8080/tcp: deny
			x/a -> service:y/b 80/tcp: allow
			x/a -> service:y/b 8080/tcp: deny
			x/a -> service:x/b 80/tcp: deny
			x/b -> service:x/c 80/tcp: allow
		`,
	},
	{
		row: "networkpolicy 28", name: "a block of services is none of their pods",
		yaml: np("x/p", `{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.96.0.0/16}}, {ipBlock: {cidr: "fd00:10:96::/64"}}]}]}`) +
			np("x/q", `{podSelector: {matchLabels: {pod: b}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.244.2.31/32}}, {ipBlock: {cidr: "fd00:10:244:2::31/128"}}]}]}`),
		want: `
			x/a -> service:z/b 80/tcp: deny
			x/a -> service:y/b 80/tcp: deny
			x/b -> service:z/b 80/tcp: allow
			x/b -> service:z/a 80/tcp: deny
		`,
	},
	{
		row: "networkpolicy 34", name: "neighbour discovery, everything denied",
		hcl: closed,
		want: `
			x/a -> x/b neighbour-solicit: allow
			x/a -> x/b neighbour-advert: allow
			x/a -> n1bridge neighbour-solicit: allow
			x/a -> n1bridge neighbour-advert: allow
			x/a -> n1bridge router-solicit: allow
			n1bridge -> x/a neighbour-solicit: allow
			z/a -> z/b neighbour-solicit: allow
			x/a -> x/b icmp: deny
		`,
	},
	{
		row: "networkpolicy 34", name: "routers' messages, everything denied",
		hcl: closed,
		want: `
			m1 -> x/a router-advert: allow
			m1 -> x/a redirect: allow
			n1bridge -> x/a router-advert: allow
			n1bridge -> x/a redirect: allow
			x/a -> x/b router-advert: deny
			x/a -> x/b redirect: deny
			x/a -> n1bridge router-advert: deny
			x/a -> n1bridge redirect: deny
			z/b -> z/a router-advert: deny
			z/b -> n2bridge redirect: deny
		`,
	},
	{
		row: "networkpolicy 34", name: "routers' messages without any policy",
		want: `
			m1 -> x/a router-advert: allow
			m1 -> x/a redirect: allow
			m1 -> x/a router-advert-ipv4: allow
			x/a -> x/b router-advert: deny
			x/a -> x/b redirect: deny
			x/a -> n1bridge router-advert: deny
			x/a -> n1bridge redirect: deny
			x/a -> x/b router-advert-ipv4: deny
			x/a -> n1bridge router-advert-ipv4: deny
			x/a -> x/b redirect-ipv4: deny
			z/b -> n2bridge redirect-ipv4: deny
		`,
	},
	{
		row: "networkpolicy 34", name: "errors of an allowed connection",
		yaml: np("x/p", `{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress, Egress], egress: [{ports: [{port: 9, protocol: UDP}]}]}`) +
			np("z/p", `{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress, Egress], ingress: [{ports: [{port: 9, protocol: UDP}]}]}`) +
			np("y/p", `{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress, Egress], ingress: [{ports: [{port: 9, protocol: UDP}]}]}`),
		want: `
			x/a -> z/a 9/udp: refused
			x/a -> y/a 9/udp: refused
			x/a -> n1 9/udp: refused
			x/a -> outside 9/udp: refused
			x/a -> z/a icmp: deny
			z/a -> x/a icmp: deny
			z/a -> x/a 9/udp: deny
		`,
	},
}
