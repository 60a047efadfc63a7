package spec

import (
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// The schema is the one place that says which blocks and attributes there
// are. The loader decodes by it, its messages quote it, and
// docs/spec-reference.md is generated from it.

// block describes one kind of block. Blocks of one name with different content,
// as the backends, are told apart by their label.
type block struct {
	name   string
	label  string // name of the label, "" for none
	is     string // where blocks of one name differ by label: the label
	doc    string
	attrs  []attribute
	blocks []*block
	many   bool               // may occur more than once
	free   bool               // any attribute, as in locals
	naming func(string) error // what is wrong with a name; nil: checkName

	hcl *hcl.BodySchema
}

// attribute describes one attribute of a block.
type attribute struct {
	name     string
	kind     string // the type in the words of the manual
	typ      cty.Type
	required bool
	unit     string
	def      string // what holds when it is absent
	doc      string
	example  string // an HCL expression
}

var (
	listOfString = cty.List(cty.String)
	mapOfString  = cty.Map(cty.String)
	// perFamily attributes are objects with the keys ipv4 and ipv6; their
	// values are converted one by one, to point at the one that is wrong.
	perFamily = cty.DynamicPseudoType
	anyType   = cty.DynamicPseudoType
)

const (
	kindAddresses = "list of addresses"
	kindFamilies  = "object {ipv4, ipv6}"
)

var forEachAttrs = []attribute{
	{
		name: "for_each", kind: "map, or set of strings", typ: anyType,
		doc:     "Makes one instance of the block for each element. Inside the block `each.key` and `each.value` are the element.",
		example: `{ n1 = "192.0.2.11/24", n2 = "192.0.2.12/24" }`,
	},
	{
		name: "name", kind: "string", typ: cty.String, def: "`LABEL-KEY`",
		doc:     "The name of an instance made by `for_each`. Without `for_each`, the block's label is the name.",
		example: `each.key`,
	},
}

var underlayBlock = newBlock(block{
	name: "underlay",
	doc: "Chooses the interface that carries traffic between nodes, by exactly one of its attributes. " +
		"Without it, the interface that holds the node's address.",
	attrs: []attribute{
		{name: "interface", kind: "string", typ: cty.String, doc: "The interface of this name.", example: `"eth1"`},
		{name: "address", kind: "address", typ: cty.String, doc: "The interface that holds this address.", example: `"192.0.2.11"`},
		{name: "route_to", kind: "address", typ: cty.String, doc: "The interface through which the host's routes lead to this address.", example: `"192.0.2.1"`},
	},
})

var bridgeBlock = newBlock(block{
	name: "bridge",
	doc:  "The bridge on each node to which its pods are attached.",
	attrs: []attribute{
		{name: "name", kind: "interface name", typ: cty.String, unit: "at most 15 bytes", def: "`cni0`", doc: "Name of the bridge.", example: `"cni0"`},
		{name: "hairpin_mode", kind: "bool", typ: cty.Bool, def: "`true`", doc: "Whether a port may send a frame back out where it came in, which a pod needs to reach itself through a service address.", example: `true`},
	},
})

var vxlanBlock = newBlock(block{
	name: "backend", label: "type", is: string(VXLAN),
	doc: "Packets between nodes travel inside VXLAN (RFC 7348) with static entries. This is the backend when no `backend` block is given.",
	attrs: []attribute{
		{name: "vni", kind: "number", typ: cty.Number, unit: "1 to 16777215", def: "`1`", doc: "VXLAN network identifier.", example: `1`},
		{name: "port", kind: "number", typ: cty.Number, unit: "1 to 65535", def: "`8472`", doc: "UDP destination port. The default is Linux's own, as with flannel; IANA assigned 4789.", example: `8472`},
		{name: "direct_routing", kind: "bool", typ: cty.Bool, def: "`false`", doc: "Whether peers on the same link are reached by a plain route, without encapsulation. Needs an underlay address of each pod family on every node.", example: `true`},
		{name: "accept_direct", kind: "bool", typ: cty.Bool, def: "the value of `direct_routing`", doc: "Whether what peers send without encapsulation is accepted. A node that does not use `direct_routing` yet, or no longer, drops it otherwise. Needs an underlay address of each pod family on every node, too.", example: `true`},
		{
			name: "device", kind: kindFamilies, typ: perFamily, unit: "at most 15 bytes", def: "`polder.VNI`, `polder-v6.VNI`; with `compat`, flannel's",
			doc: "Name of the VTEP over each underlay family. To take over a node from flannel, its names: `flannel.VNI` and `flannel-v6.VNI`.", example: `{ ipv4 = "flannel.1", ipv6 = "flannel-v6.1" }`,
		},
	},
})

var hostGWBlock = newBlock(block{
	name: "backend", label: "type", is: string(HostGW),
	doc: "Packets between nodes are routed to the peer's address as they are. All nodes must be on one link, with an address of each pod family.",
})

var masqueradeBlock = newBlock(block{
	name: "masquerade",
	doc:  "Pods reach destinations outside the pod network with the node's address. Without this block, with their own.",
	attrs: []attribute{
		{name: "except", kind: "list of CIDRs", typ: listOfString, def: "`[]`", doc: "Destinations that see the pod's own address.", example: `["192.168.0.0/16"]`},
		{name: "random_fully", kind: "bool", typ: cty.Bool, def: "`true`", doc: "Whether source ports are chosen at random, which keeps parallel connections to one destination from racing for the same port.", example: `true`},
	},
})

var networkBlock = newBlock(block{
	name: "network",
	doc:  "The pod network. Without this block polder makes none.",
	attrs: []attribute{
		{name: "pod_cidrs", kind: "list of CIDRs", typ: listOfString, required: true, doc: "Address range of all pods, at most one for each family.", example: `["10.244.0.0/16", "fd00:10:244::/48"]`},
		{
			name: "subnet_len", kind: kindFamilies, typ: perFamily, unit: "bits; pod CIDR length + 2 to 30 (IPv4), 126 (IPv6)", def: "24 and 64, or pod CIDR length + 2 where that is longer",
			doc: "Prefix length of a node's subnet.", example: `{ ipv4 = 24, ipv6 = 64 }`,
		},
		{name: "subnet_min", kind: "address, or list with one for each family", typ: anyType, def: "the second subnet of the pod CIDR", doc: "First subnet that a node may have.", example: `"10.244.1.0"`},
		{name: "subnet_max", kind: "address, or list with one for each family", typ: anyType, def: "the last subnet of the pod CIDR", doc: "Last subnet that a node may have.", example: `"10.244.99.0"`},
		{
			name: "compat", kind: "string", typ: cty.String, def: "with nodes of polder's alone",
			doc:     "`flannel`: the network is shared with nodes of Kubernetes that run flannel. Nodes are then found and publish themselves by flannel's annotations, and VTEPs are called `flannel.VNI` and `flannel-v6.VNI`.",
			example: `"flannel"`,
		},
		{name: "mtu", kind: "number", typ: cty.Number, unit: "bytes; 68 to 65535, with IPv6 pods from 1280", def: "what the underlay leaves", doc: "MTU of pods.", example: `1400`},
	},
	blocks: []*block{bridgeBlock, vxlanBlock, hostGWBlock, masqueradeBlock, underlayBlock},
})

var kubernetesBlock = newBlock(block{
	name: "kubernetes",
	doc: "An API server of Kubernetes, from which `polder run` takes nodes, namespaces, pods and NetworkPolicies beside those of the files. " +
		"A node need not be in the files then. One that is, is as they say; where they give no `vtep_mac`, it has the MAC that it publishes. " +
		"Pods of a family are reached by nodes' addresses of that family.",
	attrs: []attribute{
		{
			name: "kubeconfig", kind: "file name", typ: cty.String, def: "credentials of the pod that polder runs in",
			doc: "File that says where the API server is and who asks it, from the spec's folder where the name is relative. `polder run --kubeconfig` names another one.", example: `"/etc/kubernetes/polder.conf"`,
		},
		{name: "context", kind: "string", typ: cty.String, def: "the file's current context", doc: "Context of the kubeconfig.", example: `"edge"`},
	},
})

var nodeBlock = newBlock(block{
	name: "node", label: "name", many: true,
	doc: "A node of the cluster. `--node NAME`, by default the hostname, says which one a host is.",
	attrs: append([]attribute{
		{
			name: "addresses", kind: kindAddresses, typ: listOfString, required: true,
			doc: "Addresses at which the other nodes reach this one, at most one for each family. " +
				"With a prefix length they also tell the node's link, so that mistakes about it are found without the host.", example: `["192.0.2.11/24", "2001:db8::11/64"]`,
		},
		{
			name: "subnets", kind: "list of CIDRs", typ: listOfString,
			doc: "The node's part of the pod network, one for each pod family. Required where there is a pod network; `polder node assign` writes the next free ones.", example: `["10.244.1.0/24", "fd00:10:244:1::/64"]`,
		},
		{
			name: "vtep_mac", kind: kindFamilies, typ: perFamily, def: "computed from cluster, VNI, family and name",
			doc: "MAC of the node's VTEP over each underlay family.", example: `{ ipv4 = "c6:1f:8b:21:5a:04" }`,
		},
	}, forEachAttrs...),
	blocks: []*block{underlayBlock},
})

var endpointBlock = newBlock(block{
	name: "endpoint", label: "name", many: true,
	doc: "A workload on a node: a container, a virtual machine.",
	attrs: append([]attribute{
		{name: "node", kind: "string", typ: cty.String, required: true, doc: "Name of the node that it is on.", example: `"n1"`},
		{name: "namespace", kind: "string", typ: cty.String, def: "`default`", doc: "Namespace that it belongs to.", example: `"shop"`},
		{name: "interface", kind: "interface name", typ: cty.String, unit: "at most 15 bytes", doc: "Interface of the node to make a port of the bridge. Without it, something else attaches the workload.", example: `"veth-web1"`},
		{name: "mac", kind: "MAC", typ: cty.String, doc: "The workload's MAC.", example: `"0a:58:0a:f4:01:05"`},
		{name: "addresses", kind: kindAddresses, typ: listOfString, def: "`[]`", doc: "The workload's addresses, inside its node's subnets.", example: `["10.244.1.5"]`},
		{name: "labels", kind: "map of strings", typ: mapOfString, def: "`{}`", doc: "Labels for selectors.", example: `{ app = "web" }`},
		{name: "ports", kind: "map of strings", typ: mapOfString, def: "`{}`", doc: "Named ports, as `NUMBER/PROTOCOL`; the protocol is tcp, udp or sctp.", example: `{ http = "8080/tcp" }`},
	}, forEachAttrs...),
})

var validationBlock = newBlock(block{
	name: "validation", many: true,
	doc: "A condition that the variable's value must meet.",
	attrs: []attribute{
		{name: "condition", kind: "bool", typ: cty.Bool, required: true, doc: "True for a good value. May refer to variables.", example: `var.vni < 4096`},
		{name: "error_message", kind: "string", typ: cty.String, required: true, doc: "What is said when the condition is false.", example: `"The vni must be under 4096."`},
	},
})

var variableBlock = newBlock(block{
	name: "variable", label: "name", many: true,
	doc: "An input, referred to as `var.NAME`. Its value comes from `--var NAME=VALUE`, else a file given by `--var-file`, else the environment's `POLDER_VAR_NAME`, else the default.",
	attrs: []attribute{
		{name: "type", kind: "type expression", typ: anyType, def: "`any`; text from the command line or the environment stays text", doc: "Type that the value is converted to: string, number, bool, list(T), set(T), map(T), object({…}), tuple([…]), any.", example: `list(string)`},
		{name: "default", kind: "value", typ: anyType, doc: "Value when none is given. Without it, one must be.", example: `["10.244.0.0/16"]`},
		{name: "description", kind: "string", typ: cty.String, doc: "What the variable is for.", example: `"Address range of the pods."`},
	},
	blocks: []*block{validationBlock},
})

var localsBlock = newBlock(block{
	name: "locals", many: true, free: true,
	doc: "Named values, referred to as `local.NAME`. They may refer to variables and to each other, in any order.",
})

var rootBlock = newBlock(block{
	attrs: []attribute{
		{name: "cluster", kind: "string", typ: cty.String, required: true, unit: "at most 63 of a-z, 0-9 and -", doc: "Name of the cluster. MACs are computed from it, so that clusters on one link do not share them.", example: `"edge"`},
		{
			name: "kubernetes_manifests", kind: "list of file names", typ: listOfString, def: "`[]`",
			doc:     "Files of Kubernetes objects, among them policies, from the spec's folder where the name is relative. They end in `.yaml`, `.yml` or `.json`. The last part of a name may be a pattern with `*`, `?` and `[…]`, for the files in the order of their names, or for none.",
			example: `["policies/*.yaml"]`,
		},
	},
	blocks: []*block{
		networkBlock, kubernetesBlock, nodeBlock, endpointBlock,
		namespaceBlock, networkSetBlock, tierBlock, policyBlock, hostEndpointBlock, checkBlock, enforcementBlock,
		variableBlock, localsBlock,
	},
})

// newBlock completes a block's description by the form that HCL asks for.
func newBlock(b block) *block {
	b.hcl = new(hcl.BodySchema)
	for _, a := range b.attrs {
		b.hcl.Attributes = append(b.hcl.Attributes, hcl.AttributeSchema{Name: a.name})
	}
	seen := make(map[string]bool)
	for _, child := range b.blocks {
		if seen[child.name] {
			continue
		}
		seen[child.name] = true
		header := hcl.BlockHeaderSchema{Type: child.name}
		if child.label != "" {
			header.LabelNames = []string{child.label}
		}
		b.hcl.Blocks = append(b.hcl.Blocks, header)
	}
	return &b
}

// noun is what messages call such a block.
func (b *block) noun() string { return strings.ReplaceAll(b.name, "_", " ") }

// article puts a noun's article in front of it.
func article(noun string) string {
	if strings.ContainsRune("aeiou", rune(noun[0])) {
		return "an " + noun
	}
	return "a " + noun
}

// attr is the description of an attribute. There are few in a block: a map
// would not be faster.
func (b *block) attr(name string) *attribute {
	for i := range b.attrs {
		if b.attrs[i].name == name {
			return &b.attrs[i]
		}
	}
	return nil
}

// wanted says what the attribute is for, and shows one that is right.
func (a *attribute) wanted() string {
	return a.doc + " For example: " + a.name + " = " + a.example
}
