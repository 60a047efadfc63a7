package spec

import "net/netip"

// onNode is a thing that only one endpoint of a node can have.
type onNode[T comparable] struct {
	node string
	what T
}

// checkEndpoints checks endpoints against their nodes and each other.
func (v *validator) checkEndpoints() {
	var nodes []string
	for _, n := range v.nodes {
		nodes = append(nodes, n.Name)
	}
	// Names and addresses are unique in the cluster. A MAC or an interface is
	// so on its node: bridges are separate, and routes lead between them.
	names := make(map[string]*endpointDecl, len(v.endpoints))
	addresses := make(map[netip.Addr]*endpointDecl, len(v.endpoints))
	macs := make(map[onNode[MAC]]*endpointDecl)
	interfaces := make(map[onNode[string]]*endpointDecl)
	gateways := v.gateways()
	for _, e := range v.endpoints {
		if first, ok := names[e.Name]; ok {
			v.report(e.problem("Duplicate endpoint", "The endpoint %q is declared at %s already.", e.Name, first.place))
			continue
		}
		names[e.Name] = e

		node := v.byName[e.Node]
		if node == nil && e.Node != "" && !v.hidden[nodeBlock] {
			v.report(e.nodeAt.problem("No such node", "Endpoint %s is on node %q, which is not declared.%s", e.Name, e.Node, didYouMean(e.Node, nodes)))
		}
		for i, a := range e.Addresses {
			at := e.addressesAt[i]
			if first, ok := addresses[a]; ok {
				v.report(at.problem("Duplicate address", "%s is the address of endpoint %s already (%s).", a, first.Name, first.place))
				continue
			}
			addresses[a] = e
			if n, ok := v.byAddr[a]; ok {
				v.report(at.problem("Duplicate address", "%s is the address of node %s already (%s).", a, n.Name, n.place))
				continue
			}
			if n, ok := gateways[a]; ok && n != node {
				v.report(at.problem("Address not for endpoints", "%s is an address that node %s has in its subnet (%s).", a, n.Name, n.place))
				continue
			}
			if node != nil {
				v.endpointAddress(e, node, a, at)
			}
		}
		claim(v, macs, onNode[MAC]{e.Node, e.MAC}, e, e.macAt, "Duplicate MAC")
		claim(v, interfaces, onNode[string]{e.Node, e.Interface}, e, e.interfaceAt, "Duplicate interface")
	}
}

// gateways are the addresses that nodes have in the pod network, the VTEPs' and
// the bridges', where nothing else keeps endpoints out of other nodes' subnets.
func (v *validator) gateways() map[netip.Addr]*nodeDecl {
	if v.network != nil {
		return nil
	}
	out := make(map[netip.Addr]*nodeDecl)
	for _, n := range v.nodes {
		for _, p := range n.Subnets {
			out[p.Addr()], out[p.Addr().Next()] = n, n
		}
	}
	return out
}

// claim takes a thing for an endpoint, or reports which one has it.
func claim[T comparable](v *validator, owners map[onNode[T]]*endpointDecl, key onNode[T], e *endpointDecl, at place, summary string) {
	var none T // nothing was given, which any number may have
	if key.what == none || key.node == "" {
		return
	}
	if first, ok := owners[key]; ok {
		v.report(at.problem(summary, "On node %s, %v is the one of endpoint %s already (%s).", key.node, key.what, first.Name, first.place))
		return
	}
	owners[key] = e
}

// endpointAddress checks that an address is one that a pod of the node can
// have. The subnet's first address is the VTEP's, its second the bridge's. Where
// polder makes no pod network, addresses may be of anywhere else.
func (v *validator) endpointAddress(e *endpointDecl, node *nodeDecl, a netip.Addr, at place) {
	family := FamilyOf(a)
	subnet, ok := node.Subnet(family)
	// A node without a subnet of a family that pods have is reported itself.
	if !ok {
		if v.network != nil && v.network.ranges && node.subnetsKnown {
			if _, ok := v.network.PodRange(family); !ok {
				v.report(at.problem("No such pod family", "Endpoint %s has the address %s, and pod_cidrs has no %s CIDR.", e.Name, a, family.proper()))
			}
		}
		return
	}
	const summary = "Address not for endpoints"
	switch {
	case !subnet.Contains(a) && v.network == nil:
	case !subnet.Contains(a):
		v.report(at.problem("Address outside the node's subnet", "%s of endpoint %s is not in %s, the subnet of node %s.", a, e.Name, subnet, node.Name))
	case a == subnet.Addr():
		v.report(at.problem(summary, "%s is the first address of the subnet %s, which node %s itself has.", a, subnet, node.Name))
	case a == subnet.Addr().Next():
		v.report(at.problem(summary, "%s is the gateway of the subnet %s, which node %s itself has.", a, subnet, node.Name))
	case family == IPv4 && a == lastAddr(subnet): // IPv6 has none
		v.report(at.problem(summary, "%s is the broadcast address of the subnet %s.", a, subnet))
	}
}
