package spec

import (
	"cmp"
	"slices"

	"github.com/hashicorp/hcl/v2"
)

// declarations are the values of a Spec with the places that they come from,
// as far as they could be understood.
type declarations struct {
	cluster    string
	network    *networkDecl // nil: no network block
	kubernetes *Kubernetes  // nil: no kubernetes block
	nodes      []*nodeDecl  // in the order of the files
	endpoints  []*endpointDecl
	// hidden are the kinds of blocks of which a mistake hides some. Then nothing
	// may be said about one that is referred to and not there.
	hidden map[*block]bool

	namespaces    []*namespaceDecl
	networkSets   []*networkSetDecl
	tiers         []*tierDecl
	policies      []*policyDecl
	hostEndpoints []*hostEndpointDecl
	checks        []*checkDecl
	manifests     []*Manifest
	enforcement   enforcementDecl
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
	compat   place
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
	// whole is false where a mistake hides addresses or ports.
	whole bool
}

// What follows is one block each, or one instance of a block with for_each; the
// place is the name's.

type namespaceDecl struct {
	Namespace
	place
}

type networkSetDecl struct {
	NetworkSet
	place
}

type tierDecl struct {
	Tier
	place
}

type policyDecl struct {
	Policy
	place
}

type hostEndpointDecl struct {
	HostEndpoint
	place
	nodeAt, interfaceAt place
	portsKnown          bool
}

type checkDecl struct {
	Check
	place
	fromAt, toAt, portAt place
}

// mention is a name by which something refers to a block.
type mention struct {
	place
	to   *block
	name string
}

// refer notes that the name of a block was given, to be compared when all
// blocks are known.
func (d *decoder) refer(to *block, name string, at place) {
	d.mentions = append(d.mentions, mention{at, to, name})
}

// enforcementDecl is the enforcement block, or what holds without one.
type enforcementDecl struct {
	Enforcement
	bridgeAt place // no range where the bridge is not given
}

// decode reads everything, in the order in which one thing may refer to the
// other: variables, then locals, then blocks.
func (d *decoder) decode(body hcl.Body, in Inputs) *declarations {
	d.ctx = &hcl.EvalContext{Functions: functions(d.base, d.reader.read)}
	// What is missing at the top is missing in no line of any file.
	root := d.open(rootBlock, body, hcl.Range{}, d.ctx)
	vars := d.variables(root.blocks[variableBlock.name], in, d.files)
	d.ctx = scope(d.ctx, "var", vars)
	d.ctx = scope(d.ctx, "local", d.locals(root.blocks[localsBlock.name]))
	root.ctx = d.ctx

	decl := &declarations{hidden: make(map[*block]bool)}
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
	if b := root.only(kubernetesBlock.name); b != nil {
		decl.kubernetes = d.decodeKubernetes(b)
	}
	for _, kind := range []struct {
		block  *block
		decode func(d *decoder, b *hcl.Block) bool
	}{
		{nodeBlock, decl.node},
		{endpointBlock, decl.endpoint},
		{namespaceBlock, decl.namespace},
		{networkSetBlock, decl.networkSet},
		{tierBlock, decl.tier},
		{policyBlock, decl.policy},
		{hostEndpointBlock, decl.hostEndpoint},
		{checkBlock, decl.check},
	} {
		for _, b := range root.blocks[kind.block.name] {
			if !kind.decode(d, b) {
				decl.hidden[kind.block] = true
			}
		}
	}
	decl.enforcement = d.decodeEnforcement(root.only(enforcementBlock.name))
	decl.manifests = root.manifests()
	return decl
}

// spec is the value of declarations in which no mistake was found.
func (decl *declarations) spec() *Spec {
	s := &Spec{Cluster: decl.cluster, Kubernetes: decl.kubernetes, Manifests: decl.manifests, Enforcement: decl.enforcement.Enforcement}
	if decl.network != nil {
		s.Network = &decl.network.Network
		s.Enforcement.Bridge = s.Network.Bridge.Name
	}
	for _, n := range decl.nodes {
		s.Nodes = append(s.Nodes, &n.Node)
	}
	for _, e := range decl.endpoints {
		s.Endpoints = append(s.Endpoints, &e.Endpoint)
	}
	for _, n := range decl.namespaces {
		s.Namespaces = append(s.Namespaces, &n.Namespace)
	}
	for _, n := range decl.networkSets {
		s.NetworkSets = append(s.NetworkSets, &n.NetworkSet)
	}
	for _, t := range decl.tiers {
		s.Tiers = append(s.Tiers, &t.Tier)
	}
	for _, p := range decl.policies {
		s.Policies = append(s.Policies, &p.Policy)
	}
	for _, h := range decl.hostEndpoints {
		s.HostEndpoints = append(s.HostEndpoints, &h.HostEndpoint)
	}
	for _, c := range decl.checks {
		s.Checks = append(s.Checks, &c.Check)
	}
	slices.SortFunc(s.Nodes, func(a, b *Node) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(s.Endpoints, func(a, b *Endpoint) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(s.Namespaces, func(a, b *Namespace) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(s.NetworkSets, func(a, b *NetworkSet) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(s.Policies, func(a, b *Policy) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(s.HostEndpoints, func(a, b *HostEndpoint) int { return cmp.Compare(a.Name, b.Name) })
	if !slices.ContainsFunc(s.Tiers, func(t *Tier) bool { return t.Name == DefaultTier }) {
		s.Tiers = append(s.Tiers, &Tier{Name: DefaultTier, Order: DefaultTierOrder, DefaultAction: Deny})
	}
	slices.SortFunc(s.Tiers, func(a, b *Tier) int {
		return cmp.Or(cmp.Compare(a.Order, b.Order), cmp.Compare(a.Name, b.Name))
	})
	return s
}

// identity is the name of an instance of a block. The place is the name's.
type identity struct {
	place
	name  string
	known bool // else a mistake hides it
	each  bool // made by for_each
}

// instantiate decodes the instances of a block. It returns false if a mistake
// hides which there are. One whose name is not known is decoded all the same, to
// find its other mistakes.
func (d *decoder) instantiate(schema *block, b *hcl.Block, decode func(s *section, id identity)) bool {
	// The block is opened once, so that what does not belong there is said
	// once, and evaluated for each instance.
	outer := d.open(schema, b.Body, b.DefRange, d.ctx)
	instances, ok := outer.instances()
	for _, inst := range instances {
		s := *outer
		s.ctx = inst.ctx
		id := s.identity(b, inst)
		ok = ok && id.known
		decode(&s, id)
	}
	return ok
}

// identity is the name of an instance: the block's label, or with for_each the
// attribute "name" or else label and key.
func (s *section) identity(b *hcl.Block, inst instance) identity {
	id := identity{place: place{rng: b.LabelRanges[0]}, name: b.Labels[0] + inst.suffix, each: inst.each}
	given, givenAt, st := s.text("name", id.name)
	switch {
	case st == unknown:
		return id
	case st == known && !inst.each:
		s.report(givenAt.problem("Two names", "The label is the name of %s; the attribute \"name\" is for instances made by for_each.", article(s.schema.noun())))
		return id
	case st == known:
		id.name, id.place = given, givenAt
	}
	check := s.schema.naming
	if check == nil {
		check = checkName
	}
	if err := check(id.name); err != nil {
		s.report(id.problem("Unsuitable name", "%q is no name for %s: %s.", id.name, article(s.schema.noun()), err))
		return id
	}
	id.known = true
	return id
}
