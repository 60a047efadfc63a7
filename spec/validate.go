package spec

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// validate compares the declarations with each other. Nothing here looks at
// all pairs: a spec may have 5,000 nodes and 100,000 endpoints.
func (d *decoder) validate(decl *declarations, strict strictness) {
	v := validator{decoder: d, declarations: decl, strict: strict, byName: make(map[string]*nodeDecl, len(decl.nodes))}
	v.nodeNames()
	v.nodeAddresses()
	if v.network != nil {
		v.podNetwork()
	}
	v.nodeSubnets()
	v.checkEndpoints()
	v.checkPolicies()
}

// validator compares what was declared. What is unknown for a mistake that is
// reported already takes no part.
type validator struct {
	*decoder
	*declarations
	strict strictness
	byName map[string]*nodeDecl
	byAddr map[netip.Addr]*nodeDecl
}

// nodeNames checks that names are given once. The first node of a name is the
// one that endpoints refer to.
func (v *validator) nodeNames() {
	for _, n := range v.nodes {
		if first, ok := v.byName[n.Name]; ok {
			v.report(n.problem("Duplicate node", "The node %q is declared at %s already.", n.Name, first.place))
			continue
		}
		v.byName[n.Name] = n
	}
}

// nodeAddresses checks that no two nodes share an address. Prefixes do not
// matter: the address is what peers send to.
func (v *validator) nodeAddresses() {
	v.byAddr = make(map[netip.Addr]*nodeDecl, len(v.nodes))
	for _, n := range v.nodes {
		for i, a := range n.Addresses {
			if first, ok := v.byAddr[a.Addr]; ok {
				v.report(n.addressesAt[i].problem("Duplicate address", "%s is the address of node %s already (%s).", a.Addr, first.Name, first.place))
				continue
			}
			v.byAddr[a.Addr] = n
		}
	}
}

// podNetwork checks the network block against the nodes.
func (v *validator) podNetwork() {
	n := v.network
	if _, v6 := n.PodRange(IPv6); v6 && n.MTU != 0 && n.MTU < minMTUv6 {
		v.report(n.mtu.problem("MTU too small for IPv6", "IPv6 needs an MTU of %d (RFC 8200, section 5), and this is %d. Below it Linux takes IPv6 off the link.", minMTUv6, n.MTU))
	}
	for _, node := range v.nodes {
		for i, a := range node.Addresses {
			v.outsidePods(node.addressesAt[i], a)
		}
	}
	if n.Compat != "" && v.kubernetes == nil {
		v.report(n.compat.problem("No cluster to share", "Nodes of flannel's are found by their Node objects, and there is no kubernetes block that says where these are."))
	}
	families := v.underlays()
	v.deviceNames(families)
	if n.Backend.Type == VXLAN {
		for _, f := range families {
			v.vtepMACs(f)
		}
	}
}

// minMTUv6 is the least MTU of a link with IPv6 (RFC 8200, section 5).
const minMTUv6 = 1280

// outsidePods checks that an address of a node is not one of the pods', nor
// its link. A link inside the pod CIDR would lose to the routes of nodes'
// subnets, which are more specific; a link around it would win for the subnets
// of nodes that are not there, and pods would be looked for on the wire.
func (v *validator) outsidePods(at place, a NodeAddress) {
	for _, pods := range v.network.Pods {
		switch {
		case pods.CIDR.Contains(a.Addr):
			v.report(at.problem("Node inside the pod network", "%s is in the pod CIDR %s, so that the route to pods would lead away from the node. The CIDR must be one that nothing else uses.", a.Addr, pods.CIDR))
		case a.Link.IsValid() && pods.CIDR.Overlaps(a.Link):
			v.report(at.problem("Link overlaps the pod network", "The node's link %s overlaps the pod CIDR %s. The CIDR must be one that nothing else uses.", a.Link, pods.CIDR))
		}
	}
}

// underlays finds the underlay family of each pod family, and reports where
// there is none. It returns those found.
func (v *validator) underlays() []Family {
	for _, n := range v.nodes {
		if !n.addressesKnown {
			return nil // the family may be in what is not known
		}
	}
	if v.kubernetes != nil {
		return v.sameUnderlays()
	}
	if len(v.nodes) == 0 {
		return nil
	}
	var found []Family
	for _, pods := range v.network.Pods {
		family := pods.Family()
		without := v.nodesWithout(family)
		backend := v.network.Backend
		switch {
		case len(without) == 0:
			found = append(found, family)
			if backend.Type == HostGW {
				v.oneLink(family)
			}
		case backend.Type == HostGW || backend.AcceptDirect:
			what, instead := "backend \"host-gw\"", "direct_routing"
			switch {
			case backend.DirectRouting:
				what = "direct_routing"
			case backend.AcceptDirect:
				what, instead = "accept_direct", "accept_direct"
			}
			at := without[0]
			v.report(at.addressesAt[0].problem("No underlay for "+family.proper()+" pods",
				"With %s, %s pods are reached through the %s addresses of nodes, and %s has none. Add the address, or use backend \"vxlan\" without %s, which carries %s pods over %s.",
				what, family.proper(), family.proper(), nodeList(without), instead, family.proper(), family.Other().proper()))
		default:
			// VXLAN carries one family over the other (Spec.UnderlayFamily).
			lacking := v.nodesWithout(family.Other())
			if len(lacking) == 0 {
				found = append(found, family.Other())
				continue
			}
			v.report(without[0].addressesAt[0].problem("No common underlay",
				"%s pods need a family of addresses that every node has: %s has no %s address, and %s no %s one.",
				family.proper(), nodeList(without), family.proper(), nodeList(lacking), family.Other().proper()))
			return found // the other pod family would say the same
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// sameUnderlays are those of a network with nodes of Kubernetes.
func (v *validator) sameUnderlays() []Family {
	var found []Family
	for _, pods := range v.network.Pods {
		family := pods.Family()
		found = append(found, family)
		if without := v.nodesWithout(family); len(without) > 0 {
			v.report(without[0].addressesAt[0].problem("No underlay for "+family.proper()+" pods",
				"With nodes of Kubernetes, %s pods are reached through the %s addresses of nodes, and %s has none.", family.proper(), family.proper(), nodeList(without)))
			continue
		}
		if v.network.Backend.Type == HostGW {
			v.oneLink(family)
		}
	}
	return found
}

// nodesWithout are the nodes that have no address of a family.
func (v *validator) nodesWithout(f Family) []*nodeDecl {
	var out []*nodeDecl
	for _, n := range v.nodes {
		if _, ok := n.Address(f); !ok {
			out = append(out, n)
		}
	}
	return out
}

// nodeList names nodes as the subject of a sentence in the singular.
func nodeList(nodes []*nodeDecl) string {
	names := make([]string, len(nodes))
	for i, n := range nodes {
		names[i] = n.Name
	}
	if len(nodes) == 1 {
		return "node " + names[0]
	}
	return "each of the nodes " + enumerate(names)
}

// oneLink checks that the links of the nodes, where the file tells them, hold
// all nodes. The link of most nodes is taken for the right one. As links are
// ranges of addresses, one that holds the lowest and the highest address of
// nodes holds all between them. Nodes without a prefix length are found wanting
// when the plan looks at the host's routes.
func (v *validator) oneLink(f Family) {
	count := make(map[netip.Prefix]int)
	var link netip.Prefix
	for _, n := range v.nodes {
		a, _ := n.Address(f)
		if !a.Link.IsValid() {
			continue
		}
		count[a.Link]++
		if count[a.Link] > count[link] || count[a.Link] == count[link] && a.Link.Bits() < link.Bits() {
			link = a.Link
		}
	}
	if !link.IsValid() {
		return
	}
	var low, high *nodeDecl
	byAddr := func(n *nodeDecl) netip.Addr { a, _ := n.Address(f); return a.Addr }
	for _, n := range v.nodes {
		if !link.Contains(byAddr(n)) {
			v.report(n.addressAt(f).problem("Nodes on different links", "host-gw works between nodes on one link only. %s of node %s is not on %s, the link of %s. Use backend \"vxlan\", with direct_routing = true for the nodes that share a link.",
				byAddr(n), n.Name, link, countNodes(count[link])))
			continue
		}
		if low == nil || byAddr(n).Less(byAddr(low)) {
			low = n
		}
		if high == nil || byAddr(high).Less(byAddr(n)) {
			high = n
		}
	}
	for _, n := range v.nodes {
		a, _ := n.Address(f)
		if !a.Link.IsValid() || !link.Contains(a.Addr) {
			continue
		}
		for _, other := range []*nodeDecl{low, high} {
			if !a.Link.Contains(byAddr(other)) {
				v.report(n.addressAt(f).problem("Nodes on different links", "host-gw works between nodes on one link only. The prefix length /%d puts node %s on %s, and node %s at %s is not on it. The link of %s is %s.",
					a.Link.Bits(), n.Name, a.Link, other.Name, byAddr(other), countNodes(count[link]), link))
				break
			}
		}
	}
}

// countNodes counts in words where a number would read badly.
func countNodes(n int) string {
	if n == 1 {
		return "one node"
	}
	return fmt.Sprintf("%d nodes", n)
}

// addressAt is where the node's address of a family is written.
func (n *nodeDecl) addressAt(f Family) place {
	for i, a := range n.Addresses {
		if FamilyOf(a.Addr) == f {
			return n.addressesAt[i]
		}
	}
	return n.place
}

// deviceNames checks that the interfaces that polder makes have names of
// their own, and that no underlay is one of them.
func (v *validator) deviceNames(families []Family) {
	n := v.network
	// Names by what has them, in the words of messages.
	made := map[string]string{n.Bridge.Name: "the bridge"}
	if n.Backend.Type == VXLAN {
		for _, f := range families {
			name, at := n.Backend.Device.Get(f), n.device.Get(f)
			if !at.inFile() {
				at = n.backend
			}
			what := fmt.Sprintf("the VTEP over %s", f.proper())
			if other, ok := made[name]; ok {
				v.report(at.problem("Two interfaces of one name", "%q is the name of %s and of %s.", name, other, what))
			} else if err := checkIfName(name); err != nil {
				v.report(at.problem("Unsuitable interface name", "The VTEP over %s would be called %q: %s. Give it a name, as in device = { %s = \"polder6\" }.", f.proper(), name, err, f))
			}
			made[name] = what
		}
	}
	check := func(u Underlay, at place) {
		if what, ok := made[u.Interface]; ok && u.Interface != "" {
			v.report(at.problem("Unsuitable underlay", "%q is %s, which polder makes; the underlay is what carries traffic between nodes.", u.Interface, what))
		}
	}
	check(n.Underlay, n.underlay)
	for _, node := range v.nodes {
		check(node.Underlay, node.underlayAt)
	}
	for _, e := range v.endpoints {
		if what, ok := made[e.Interface]; ok && e.Interface != "" {
			v.report(e.interfaceAt.problem("Unsuitable interface", "%q is %s, and cannot be a port of the bridge.", e.Interface, what))
		}
	}
}

// vtepMACs checks that no two VTEPs over an underlay family have one MAC: the
// FDB would send one node's packets to the other.
func (v *validator) vtepMACs(f Family) {
	if v.cluster == "" {
		return // the MACs are computed from it
	}
	s := &Spec{Cluster: v.cluster, Network: &v.network.Network}
	owners := make(map[MAC]*nodeDecl, len(v.nodes))
	nodes := slices.Clone(v.nodes)
	// In the order of names, which of two is reported does not depend on the
	// order of files.
	slices.SortStableFunc(nodes, func(a, b *nodeDecl) int { return cmp.Compare(a.Name, b.Name) })
	for _, n := range nodes {
		if v.byName[n.Name] != n {
			continue // a duplicate, and reported as one
		}
		mac := s.VTEPMAC(&n.Node, f)
		first, taken := owners[mac]
		if !taken {
			owners[mac] = n
			continue
		}
		// Point at a MAC that is written, since that one can be changed.
		at := n.vtepMAC.Get(f)
		if !at.inFile() {
			at = first.vtepMAC.Get(f)
		}
		if !at.inFile() {
			at = n.place
		}
		v.report(at.problem("Two VTEPs with one MAC", "The VTEPs of the nodes %s and %s over %s both have the MAC %s. Set vtep_mac of one of them to another address.", first.Name, n.Name, f.proper(), mac))
	}
}
