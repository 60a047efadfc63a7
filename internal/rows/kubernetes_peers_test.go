package rows

import (
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// stored is a NetworkPolicy of namespace x, about pods a, as an API server may
// have it: ingress from a block.
func stored(cidr string, except ...string) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "stored"},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"pod": "a"}},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
			Ingress: []networkingv1.NetworkPolicyIngressRule{{
				From: []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: cidr, Except: except}}},
			}},
		},
	}
}

// kubernetesPeers are cases of what the peers of a NetworkPolicy are.
var kubernetesPeers = []*example{
	{
		row: "networkpolicy 9", name: "NotIn, In, Exists and DoesNotExist",
		yaml: np("x/p", `{podSelector: {matchLabels: {pod: a}}, ingress: [
			{from: [{podSelector: {matchExpressions: [{key: role, operator: NotIn, values: [web]}]}}], ports: [{port: 80}]},
			{from: [{podSelector: {matchExpressions: [{key: role, operator: In, values: [web, other]}]}}], ports: [{port: 81}]},
			{from: [{podSelector: {matchExpressions: [{key: role, operator: Exists}]}}], ports: [{port: 82}]},
			{from: [{podSelector: {matchExpressions: [{key: role, operator: DoesNotExist}]}}], ports: [{port: 8080}]}]}`),
		want: `
			x/b -> x/a 80/tcp: deny
			x/b -> x/a 81/tcp: allow
			x/b -> x/a 82/tcp: allow
			x/b -> x/a 8080/tcp: deny
			x/c -> x/a 80/tcp: allow
			x/c -> x/a 81/tcp: deny
			x/c -> x/a 82/tcp: deny
			x/c -> x/a 8080/tcp: allow
		`,
	},
	{
		row: "networkpolicy 9", name: "of namespaces",
		yaml: np("x/p", `{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: team, operator: NotIn, values: [red]}]}}]}]}`),
		want: `
			x/b -> x/a 80/tcp: deny
			y/b -> x/a 80/tcp: allow
			z/b -> x/a 80/tcp: allow
			outside -> x/a 80/tcp: deny
		`,
	},
	{
		row: "networkpolicy 9", name: "of the pods that are isolated",
		yaml: np("x/p", `{podSelector: {matchExpressions: [{key: role, operator: NotIn, values: [web]}]}}`),
		want: `
			z/a -> x/a 80/tcp: deny
			z/a -> x/b 80/tcp: allow
			z/a -> x/c 80/tcp: deny
		`,
	},
	{
		row: "networkpolicy 10", name: "an empty value",
		yaml: np("z/p", `{podSelector: {matchLabels: {pod: a}}, ingress: [
			{from: [{podSelector: {matchLabels: {role: ""}}, namespaceSelector: {}}], ports: [{port: 80}]},
			{from: [{namespaceSelector: {matchLabels: {team: ""}}}], ports: [{port: 81}]}]}`),
		want: `
			y/a -> z/a 80/tcp: allow
			y/b -> z/a 80/tcp: deny
			x/b -> z/a 80/tcp: deny
			z/c -> z/a 80/tcp: deny
			z/c -> z/a 81/tcp: allow
			y/a -> z/a 81/tcp: deny
			x/a -> z/a 81/tcp: deny
		`,
	},
	{
		row: "networkpolicy 11", name: "a pod selector alone",
		yaml: np("x/p", `{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}`),
		want: `
			x/b -> x/a 80/tcp: allow
			y/b -> x/a 80/tcp: deny
			z/b -> x/a 80/tcp: deny
			x/c -> x/a 80/tcp: deny
		`,
	},
	{
		row: "networkpolicy 11", name: "both selectors in one peer",
		yaml: np("x/p", `{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}, namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: z}}}]}]}`),
		want: `
			z/b -> x/a 80/tcp: allow
			x/b -> x/a 80/tcp: deny
			y/b -> x/a 80/tcp: deny
			z/c -> x/a 80/tcp: deny
		`,
	},
	{
		row: "networkpolicy 11", name: "two peers",
		yaml: np("x/p", `{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}, {namespaceSelector: {matchLabels: {ns: z}}}]}]}`),
		want: `
			z/b -> x/a 80/tcp: allow
			z/c -> x/a 80/tcp: allow
			x/b -> x/a 80/tcp: allow
			x/c -> x/a 80/tcp: deny
			y/b -> x/a 80/tcp: deny
		`,
	},
	{
		row: "networkpolicy 12", name: "all namespaces, ingress and egress",
		yaml: np("x/p", `{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress, Egress], ingress: [{from: [{namespaceSelector: {}}]}], egress: [{to: [{namespaceSelector: {}}]}]}`),
		want: `
			x/b -> x/a 80/tcp: allow
			z/a -> x/a 80/tcp: allow
			outside -> x/a 80/tcp: deny
			m2 -> x/a 80/tcp: deny
			n2 -> x/a 80/tcp: deny
			n2bridge -> x/a 80/tcp: deny
			x/a -> z/a 80/tcp: allow
			x/a -> outside 80/tcp: deny
			x/a -> n1 80/tcp: deny
			x/a -> n2bridge 80/udp: deny
		`,
	},
	{
		row: "networkpolicy 12", name: "blocks of everything are the rest, too",
		yaml: np("x/p", `{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}, {ipBlock: {cidr: "::/0"}}], ports: [{port: 80}]}]}`),
		want: `
			outside -> x/a 80/tcp: allow
			m2 -> x/a 80/tcp: allow
			n2 -> x/a 80/tcp: allow
			z/a -> x/a 80/tcp: allow
			z/a -> x/a 81/tcp: deny
		`,
	},
	{
		row: "networkpolicy 14", name: "egress to one pod's address",
		yaml: np("x/p", `{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.244.2.31/32}}, {ipBlock: {cidr: "fd00:10:244:2::31/128"}}, {ipBlock: {cidr: 10.244.1.20/31}}, {ipBlock: {cidr: "fd00:10:244:1::20/127"}}]}]}`),
		want: `
			x/a -> z/b 80/tcp: allow
			x/a -> z/a 80/tcp: deny
			x/a -> y/a 80/tcp: allow
			x/a -> y/b 80/tcp: allow
			x/a -> y/c 80/tcp: deny
			x/a -> outside 80/tcp: deny
		`,
	},
	{
		row: "networkpolicy 15", name: "another peer of the rule",
		yaml: np("x/p", `{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [
			{ipBlock: {cidr: 10.0.0.0/8, except: [10.244.2.31/32, 10.244.2.32/32]}}, {ipBlock: {cidr: 10.244.2.32/32}},
			{ipBlock: {cidr: "fd00::/8", except: ["fd00:10:244:2::31/128", "fd00:10:244:2::32/128"]}}, {ipBlock: {cidr: "fd00:10:244:2::32/128"}}]}]}`),
		want: `
			x/a -> z/a 80/tcp: allow
			x/a -> z/b 80/tcp: deny
			x/a -> z/c 80/tcp: allow
			x/a -> y/b 80/tcp: allow
			x/a -> outside 80/tcp: deny
		`,
	},
	{
		row: "networkpolicy 15", name: "another rule",
		yaml: np("z/p", `{podSelector: {matchLabels: {pod: a}}, ingress: [
			{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.244.1.0/24]}}, {ipBlock: {cidr: "::/0", except: ["fd00:10:244:1::/64"]}}]},
			{from: [{namespaceSelector: {matchLabels: {ns: x}}}]}]}`),
		want: `
			x/a -> z/a 80/tcp: allow
			y/a -> z/a 80/tcp: deny
			z/b -> z/a 80/tcp: allow
			outside -> z/a 80/tcp: allow
		`,
	},
	{
		row: "networkpolicy 15", name: "another policy",
		yaml: np("z/p", `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.244.0.0/16, except: [10.244.1.20/32]}}, {ipBlock: {cidr: "fd00:10:244::/48", except: ["fd00:10:244:1::20/128"]}}]}]}`) +
			np("z/q", `{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{ipBlock: {cidr: 10.244.1.20/32}}, {ipBlock: {cidr: "fd00:10:244:1::20/128"}}]}]}`),
		want: `
			y/a -> z/a 80/tcp: allow
			y/a -> z/b 80/tcp: deny
			y/b -> z/b 80/tcp: allow
		`,
	},
	{
		row: "networkpolicy 16", name: "excepts",
		yaml: np("x/p", `{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [
			{ipBlock: {cidr: 10.0.0.0/8, except: [10.244.2.0/24, 10.244.2.0/28, 10.244.2.0/24, 10.244.1.21/32]}},
			{ipBlock: {cidr: "fd00::/8", except: ["fd00:10:244:2::/64", "fd00:10:244:2::/80", "fd00:10:244:2::/64", "fd00:10:244:1::21/128"]}},
			{ipBlock: {cidr: 10.0.0.0/8, except: [10.244.2.0/24]}}]}]}`),
		want: `
			y/a -> x/a 80/tcp: allow
			v4 y/b -> x/a 80/tcp: allow
			v6 y/b -> x/a 80/tcp: deny
			z/a -> x/a 80/tcp: deny
			outside -> x/a 80/tcp: deny
		`,
	},
	{
		row: "networkpolicy 16", name: "ports",
		yaml: np("x/p", `{podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 1, endPort: 65535}, {port: 80, endPort: 90}, {port: 80}, {port: 80}]}]}`) +
			np("x/q", `{podSelector: {matchLabels: {pod: b}}, ingress: [{ports: [{port: 80, endPort: 90}, {port: 80}, {port: 90, endPort: 90}, {port: 80, endPort: 81}]}]}`),
		want: `
			z/a -> x/a 1/tcp: allow
			z/a -> x/a 65535/tcp: allow
			z/a -> x/a 80/tcp: allow
			z/a -> x/a 80/udp: deny
			z/a -> x/b 79/tcp: deny
			z/a -> x/b 80/tcp: allow
			z/a -> x/b 85/tcp: allow
			z/a -> x/b 90/tcp: allow
			z/a -> x/b 91/tcp: deny
		`,
	},
	{
		row: "networkpolicy 17", name: "stored, with leading zeros and host bits",
		stored: stored("010.244.001.021/23", "010.244.000.000/24", "10.244.001.020/32"),
		want: `
			v4 y/b -> x/a 80/tcp: allow
			v4 x/b -> x/a 80/tcp: allow
			v4 y/a -> x/a 80/tcp: deny
			z/a -> x/a 80/tcp: deny
			v6 y/b -> x/a 80/tcp: deny
			outside -> x/a 80/tcp: deny
		`,
	},
	{
		row: "networkpolicy 17", name: "stored, of IPv6 with host bits",
		stored: stored("fd00:0010:0244:0002::31/64", "fd00:10:244:2::30/128"),
		want: `
			v6 z/b -> x/a 80/tcp: allow
			v6 z/a -> x/a 80/tcp: deny
			v4 z/b -> x/a 80/tcp: deny
			y/b -> x/a 80/tcp: deny
		`,
	},
	{
		row: "networkpolicy 17", name: "stored, of everything, with host bits",
		stored: stored("010.0.0.1/0"),
		want: `
			v4 outside -> x/a 80/tcp: allow
			v4 z/b -> x/a 80/udp: allow
			v6 outside -> x/a 80/tcp: deny
		`,
	},
	{
		row: "networkpolicy 17", name: "new, with host bits",
		yaml:    np("x/p", `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.244.1.21/24}}]}]}`),
		refused: []string{"spec.ingress[0].from[0].ipBlock.cidr", "10.244.1.0/24"},
	},
	{
		row: "networkpolicy 17", name: "new, with leading zeros",
		yaml:    np("x/p", `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 010.244.1.0/24}}]}]}`),
		refused: []string{"spec.ingress[0].from[0].ipBlock.cidr", "10.244.1.0/24"},
	},
	{
		row: "networkpolicy 35", name: "every address is subject and peer",
		yaml: np("x/p", `{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}], egress: [{to: [{namespaceSelector: {matchLabels: {ns: z}}}]}]}`),
		want: `
			v4 x/b -> x/a 80/tcp: allow
			v6 x/b -> x/a 80/tcp: allow
			v4 x/c -> x/a 80/tcp: deny
			v6 x/c -> x/a 80/tcp: deny
			v4 x/a -> z/a 80/tcp: allow
			v6 x/a -> z/a 80/tcp: allow
			v4 x/a -> y/a 80/tcp: deny
			v6 x/a -> y/a 80/tcp: deny
		`,
	},
	{
		row: "networkpolicy 35", name: "a block of one family is none of the other",
		yaml: np("x/p", `{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}, {from: [{ipBlock: {cidr: "::/0"}}], ports: [{port: 81}]}]}`),
		want: `
			v4 z/a -> x/a 80/tcp: allow
			v4 z/a -> x/a 81/tcp: allow
			v6 z/a -> x/a 80/tcp: deny
			v6 z/a -> x/a 81/tcp: allow
			v6 outside -> x/a 80/tcp: deny
		`,
	},
}
