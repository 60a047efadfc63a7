package spec

import "github.com/zclconf/go-cty/cty"

// The part of the schema that is about policies.

const kindBlocks = "list of CIDRs or addresses"

// inOrder makes one instance of a block for each element, where the block has
// no name.
var inOrder = attribute{
	name: "for_each", kind: "map, or set of strings", typ: anyType,
	doc:     "Makes one instance of the block for each element, in the order of the keys. Inside the block `each.key` and `each.value` are the element.",
	example: `toset(["web", "app"])`,
}

var namespaceBlock = newBlock(block{
	name: "namespace", label: "name", many: true, naming: checkDNSLabel,
	doc: "Labels of a namespace, for selectors of namespaces. A namespace that no block declares has no labels but `" + NamespaceLabel + "`, which is its name.",
	attrs: append([]attribute{
		{name: "labels", kind: "map of strings", typ: mapOfString, def: "`{}`", doc: "Labels for selectors.", example: `{ team = "shop" }`},
	}, forEachAttrs...),
})

var networkSetBlock = newBlock(block{
	name: "network_set", label: "name", many: true,
	doc: "Addresses outside the cluster that policies know by a name, or select by labels.",
	attrs: append([]attribute{
		{name: "cidrs", kind: kindBlocks, typ: listOfString, required: true, doc: "The addresses. One without a prefix length is a block of one.", example: `["198.51.100.0/24", "203.0.113.7", "2001:db8:7::/48"]`},
		{name: "labels", kind: "map of strings", typ: mapOfString, def: "`{}`", doc: "Labels for selectors.", example: `{ zone = "office" }`},
	}, forEachAttrs...),
})

var tierBlock = newBlock(block{
	name: "tier", label: "name", many: true,
	doc: "Policies are looked at tier by tier. The tier `default`, in which policies stand that name none, is there without a block; one changes its order or its default action.",
	attrs: append([]attribute{
		{name: "order", kind: "number", typ: cty.Number, def: "`1000000` for the tier `default`; required for others", doc: "Place among the tiers: a smaller one comes first. Of equal ones, the name decides.", example: `100`},
		{
			name: "default_action", kind: "string", typ: cty.String, unit: "`deny`, `pass`", def: "`deny`",
			doc: "What becomes of a connection that no rule decided, where a policy of the tier selects the endpoint: it is denied, or the next tier decides.", example: `"pass"`,
		},
	}, forEachAttrs...),
})

// peerAttrs choose the other end of a connection.
var peerAttrs = []attribute{
	{name: "selector", kind: "selector", typ: cty.String, doc: "Endpoints with labels that match: those of the policy's namespace, or of all where it has none, and then network sets, too.", example: `"app == 'web'"`},
	{name: "namespace_selector", kind: "selector", typ: cty.String, doc: "Endpoints, or those that `selector` matches, of the namespaces whose labels match.", example: `"team == 'shop'"`},
	{name: "cidr", kind: "CIDR or address", typ: cty.String, doc: "These addresses, whoever has them.", example: `"10.0.0.0/8"`},
	{name: "except", kind: kindBlocks, typ: listOfString, def: "`[]`", doc: "Parts of `cidr` that are left out.", example: `["10.1.0.0/16"]`},
	{name: "network_set", kind: "string", typ: cty.String, doc: "The addresses of the network set of this name.", example: `"office"`},
	{name: "node", kind: "string", typ: cty.String, doc: "The node of this name: its addresses, and those that it has in the pod network.", example: `"n1"`},
	{name: "any", kind: "bool", typ: cty.Bool, def: "`false`", doc: "Every address. A rule without peers says the same.", example: `true`},
	inOrder,
}

const peerDoc = "A peer that the rule is about, chosen by `selector`, `namespace_selector` or both; by `cidr`; by `network_set`; by `node`; or by `any`. Without peers, the rule is about all."

var fromBlock = newBlock(block{name: "from", many: true, doc: peerDoc, attrs: peerAttrs})

var toBlock = newBlock(block{name: "to", many: true, doc: peerDoc, attrs: peerAttrs})

// ruleAttrs are what a rule does, and with which services.
var ruleAttrs = []attribute{
	{
		name: "action", kind: "string", typ: cty.String, required: true, unit: "`allow`, `deny`, `pass`, `log`",
		doc: "What becomes of a connection that the rule matches. `pass` lets the next tier decide; after `log`, the next rule does.", example: `"allow"`,
	},
	{
		name: "ports", kind: "list of strings", typ: listOfString, def: "every protocol",
		doc:     "Ports of the server, as `NUMBER/PROTOCOL`, `FIRST-LAST/PROTOCOL` or `*/PROTOCOL`, where the protocol is tcp, udp or sctp; or as the name of a port of the server's endpoint, with `/PROTOCOL` or of any protocol.",
		example: `["5432/tcp", "8000-8100/tcp", "http", "*/sctp"]`,
	},
	{
		name: "protocol", kind: "protocol name, or number", typ: cty.String, unit: "1 to 255", def: "every protocol",
		doc: "A protocol as a whole, instead of `ports`.", example: `"gre"`,
	},
	{
		name: "icmp", kind: "list of strings", typ: listOfString, def: "every protocol",
		doc:     "ICMP messages that begin a conversation, instead of `ports`: by nft's name of the type, for each family that has it, or as `TYPE/icmp`, `TYPE:CODE/icmp`, `TYPE/icmpv6`, `TYPE:CODE/icmpv6` for one. Answers belong to the conversation, and errors to the connection that they are about.",
		example: `["echo-request", "timestamp-request/icmp", "139:1/icmpv6"]`,
	},
	inOrder,
}

var ingressBlock = newBlock(block{
	name: "ingress", many: true,
	doc:    "A rule about connections that others open to the endpoint. The first rule that matches decides.",
	attrs:  ruleAttrs,
	blocks: []*block{fromBlock},
})

var egressBlock = newBlock(block{
	name: "egress", many: true,
	doc:    "A rule about connections that the endpoint opens. The first rule that matches decides.",
	attrs:  ruleAttrs,
	blocks: []*block{toBlock},
})

var policyBlock = newBlock(block{
	name: "policy", label: "name", many: true,
	doc: "Rules for endpoints. One that a policy selects for a direction is isolated in it: what no rule decides, the tier's default action does.",
	attrs: append([]attribute{
		{name: "tier", kind: "string", typ: cty.String, def: "`default`", doc: "Name of the tier that the policy stands in.", example: `"platform"`},
		{name: "order", kind: "number", typ: cty.Number, def: "behind those that have one", doc: "Place among the policies of the tier: a smaller one comes first. Of equal ones, the name decides.", example: `10`},
		{name: "namespace", kind: "string", typ: cty.String, def: "all", doc: "Namespace that the policy is of: it selects endpoints of this one only, and so do the selectors of its rules where they name none.", example: `"shop"`},
		{name: "selector", kind: "selector", typ: cty.String, def: "`all()`; with `host_selector` none", doc: "Endpoints that the policy selects, by their labels.", example: `"app == 'db'"`},
		{name: "namespace_selector", kind: "selector", typ: cty.String, def: "any", doc: "Namespaces of the endpoints that the policy selects, by their labels.", example: `"team == 'shop'"`},
		{name: "host_selector", kind: "selector", typ: cty.String, def: "none", doc: "Host endpoints that the policy selects, by their labels. Not together with `namespace`.", example: `"role == 'edge'"`},
		{
			name: "types", kind: "list of strings", typ: listOfString, unit: "`ingress`, `egress`", def: "`egress` where all rules are, both where there are both, else `ingress`",
			doc: "Directions in which the policy isolates.", example: `["ingress", "egress"]`,
		},
	}, forEachAttrs...),
	blocks: []*block{ingressBlock, egressBlock},
})

const failsafeDoc = " As `NUMBER/PROTOCOL`, `FIRST-LAST/PROTOCOL` or `*/PROTOCOL`; the protocol is tcp, udp or sctp."

var hostEndpointBlock = newBlock(block{
	name: "host_endpoint", label: "name", many: true,
	doc: "A node's own end of what passes an interface, for policies with a `host_selector`. What a node forwards for its pods is not affected.",
	attrs: append([]attribute{
		{name: "node", kind: "string", typ: cty.String, required: true, doc: "Name of the node.", example: `"n1"`},
		{name: "interface", kind: "interface name, or `*`", typ: cty.String, required: true, unit: "at most 15 bytes", doc: "The interface. `*` stands for those that have no host endpoint of their own and do not lead to pods.", example: `"eth0"`},
		{name: "labels", kind: "map of strings", typ: mapOfString, def: "`{}`", doc: "Labels for selectors.", example: `{ role = "edge" }`},
		{name: "ports", kind: "map of strings", typ: mapOfString, def: "`{}`", doc: "Named ports, as `NUMBER/PROTOCOL`; the protocol is tcp, udp or sctp.", example: `{ ssh = "22/tcp" }`},
		{
			name: "failsafe_inbound", kind: "list of strings", typ: listOfString, def: codes(failsafeInbound),
			doc: "Ports of the node that no policy closes." + failsafeDoc, example: `["22/tcp"]`,
		},
		{
			name: "failsafe_outbound", kind: "list of strings", typ: listOfString, def: codes(failsafeOutbound),
			doc: "Ports of others that no policy closes for the node." + failsafeDoc, example: `["53/udp", "53/tcp"]`,
		},
	}, forEachAttrs...),
})

var checkBlock = newBlock(block{
	name: "check", label: "name", many: true, naming: checkTitle,
	doc: "What is expected of the policies.",
	attrs: append([]attribute{
		{name: "from", kind: "string", typ: cty.String, required: true, unit: "`endpoint.NAME`, `node.NAME`, an address, `outside`", doc: "Who opens the connection. `outside` is an address that nothing in the spec has.", example: `"endpoint.web-1"`},
		{name: "to", kind: "string", typ: cty.String, required: true, unit: "`endpoint.NAME`, `node.NAME`, an address, `outside`", doc: "Who is reached.", example: `"endpoint.db-1"`},
		{
			name: "port", kind: "string", typ: cty.String, required: true,
			doc: "What for: `NUMBER/PROTOCOL`; the name of a port of `to`; `icmp` for an echo request, or `TYPE/icmp`, `TYPE/icmpv6`; or the name of another protocol.", example: `"5432/tcp"`,
		},
		{name: "expect", kind: "string", typ: cty.String, required: true, unit: "`allow`, `deny`", doc: "What must become of it.", example: `"allow"`},
	}, forEachAttrs...),
})

var enforcementBlock = newBlock(block{
	name: "enforcement",
	doc:  "How policies are enforced.",
	attrs: []attribute{
		{
			name: "established", kind: "string", typ: cty.String, unit: "`recheck`, `keep`", def: "`recheck`",
			doc: "What a change of policies does to connections that are open: they are judged as if they were new, or stay open.", example: `"keep"`,
		},
		{
			name: "unclaimed", kind: "string", typ: cty.String, unit: "`outside`, `drop`", def: "`outside`",
			doc: "What becomes of packets of a workload whose address no endpoint has: policies take it for an address outside the cluster, or they are dropped.", example: `"drop"`,
		},
		{name: "bridge", kind: "interface name", typ: cty.String, unit: "at most 15 bytes", def: "the one of the `network` block, else `cni0`", doc: "Bridge that the endpoints' interfaces are ports of, where something else makes the pod network. Not together with a `network` block, which says it.", example: `"cni0"`},
		{name: "log_drops", kind: "bool", typ: cty.Bool, def: "`false`", doc: "Whether what is denied is logged, by a `deny` rule or by a tier's default action.", example: `true`},
		{name: "log_group", kind: "number", typ: cty.Number, unit: "0 to 65535", def: "`87`", doc: "NFLOG group that `log` rules and drops are logged to.", example: `87`},
		{name: "log_rate", kind: "number", typ: cty.Number, unit: "messages a second; 1 to 10000", def: "`10`", doc: "How many messages of each rule are logged at most.", example: `10`},
	},
})
