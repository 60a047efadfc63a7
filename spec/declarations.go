package spec

import (
	"cmp"
	"slices"

	"github.com/hashicorp/hcl/v2"
)

// declarations are the values of a Spec with the places that they come from,
// as far as they could be understood.
type declarations struct {
	cluster   string
	network   *networkDecl // nil: no network block
	nodes     []*nodeDecl  // in the order of the files
	endpoints []*endpointDecl
	// allNodes is false where a mistake hides some of the nodes.
	// Then nothing may be said about a node that is referred to and not there.
	allNodes bool
}

// networkDecl is a network block. The embedded place is its header's.
type networkDecl struct {
	Network
	place
	// ranges is false where a mistake hides some of Network.Pods.
	ranges   bool
	podCIDRs PerFamily[place]
	backend  place
	mtu      place
	device   PerFamily[place] // no range where the name is the default
	underlay place
}

// nodeDecl is one node: a block, or one instance of a block with for_each.
type nodeDecl struct {
	Node
	place // of the name
	block *hcl.Block
	each  bool // made by for_each
	// The parts that a mistake hides are not known.
	addressesKnown bool
	subnetsKnown   bool
	addressesAt    []place // as Node.Addresses
	subnetsAt      []place // as Node.Subnets
	subnetsExpr    hcl.Expression
	vtepMAC        PerFamily[place]
	underlayAt     place
}

// endpointDecl is one endpoint, with the places of what another endpoint or a
// node may contradict.
type endpointDecl struct {
	Endpoint
	place       // of the name
	nodeAt      place
	interfaceAt place
	macAt       place
	addressesAt []place // as Endpoint.Addresses
}

// decode reads everything, in the order in which one thing may refer to the
// other: variables, then locals, then blocks.
func (d *decoder) decode(body hcl.Body, in Inputs, base string, files map[string]*hcl.File) *declarations {
	d.ctx = &hcl.EvalContext{Functions: functions(base, d.reader.read)}
	// What is missing at the top is missing in no line of any file.
	root := d.open(rootBlock, body, hcl.Range{}, d.ctx)
	vars := d.variables(root.blocks[variableBlock.name], in, files)
	d.ctx = scope(d.ctx, "var", vars)
	d.ctx = scope(d.ctx, "local", d.locals(root.blocks[localsBlock.name]))
	root.ctx = d.ctx

	decl := &declarations{allNodes: true}
	var at place
	var st state
	if decl.cluster, at, st = root.text("cluster", ""); st == known {
		if err := checkDNSLabel(decl.cluster); err != nil {
			d.report(at.problem("Unsuitable cluster name", "%q is no name for a cluster: %s.", decl.cluster, err))
		}
	}
	if b := root.only(networkBlock.name); b != nil {
		decl.network = d.decodeNetwork(b)
	}
	for _, b := range root.blocks[nodeBlock.name] {
		decl.allNodes = decl.node(d, b) && decl.allNodes
	}
	for _, b := range root.blocks[endpointBlock.name] {
		decl.endpoint(d, b)
	}
	return decl
}

// spec is the value of declarations in which no mistake was found.
func (decl *declarations) spec() *Spec {
	s := &Spec{Cluster: decl.cluster}
	if decl.network != nil {
		s.Network = &decl.network.Network
	}
	for _, n := range decl.nodes {
		s.Nodes = append(s.Nodes, &n.Node)
	}
	for _, e := range decl.endpoints {
		s.Endpoints = append(s.Endpoints, &e.Endpoint)
	}
	slices.SortFunc(s.Nodes, func(a, b *Node) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(s.Endpoints, func(a, b *Endpoint) int { return cmp.Compare(a.Name, b.Name) })
	return s
}

// instanceName is the name of an instance: the block's label, or with
// for_each the attribute "name" or else label and key.
func (s *section) instanceName(b *hcl.Block, inst instance) (string, place, bool) {
	name, at := b.Labels[0]+inst.suffix, place{rng: b.LabelRanges[0]}
	given, givenAt, st := s.text("name", name)
	switch {
	case st == unknown:
		return name, at, false
	case st == known && !inst.each:
		s.report(givenAt.problem("Two names", "The label is the name of a %s; the attribute \"name\" is for instances made by for_each.", b.Type))
		return name, at, false
	case st == known:
		name, at = given, givenAt
	}
	if err := checkName(name); err != nil {
		s.report(at.problem("Unsuitable name", "%q is no name for a %s: %s.", name, b.Type, err))
		return name, at, false
	}
	return name, at, true
}
