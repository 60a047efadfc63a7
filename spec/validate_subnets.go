package spec

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// nodeSubnets checks each node's subnets against the pod ranges, and those
// that pass against each other.
func (v *validator) nodeSubnets() {
	// A subnet of a wrong length would overlap many; its length is the mistake.
	var good []subnetOf
	for _, n := range v.nodes {
		for i, p := range n.Subnets {
			if v.subnetFits(n, i) {
				good = append(good, subnetOf{p, n, n.subnetsAt[i]})
			}
		}
		if v.network != nil && v.strict == demandSubnets && n.subnetsKnown {
			v.subnetsComplete(n)
		}
	}
	v.disjoint(good)
}

// subnetFits checks one subnet of a node against the range of its family.
func (v *validator) subnetFits(n *nodeDecl, i int) bool {
	if v.network == nil {
		return true
	}
	p, at := n.Subnets[i], n.subnetsAt[i]
	family := FamilyOf(p.Addr())
	r, ok := v.network.PodRange(family)
	switch {
	case !ok:
		if v.network.ranges {
			v.report(at.problem("No such pod family", "Node %s has the subnet %s, and pod_cidrs has no %s CIDR.", n.Name, p, family.proper()))
		}
		return false
	// From the coarsest mistake to the finest, and only one of them.
	case !r.CIDR.Overlaps(p) || p.Bits() < r.CIDR.Bits():
		v.report(at.problem("Subnet outside the pod CIDR", "The subnet %s of node %s is not in the pod CIDR %s.", p, n.Name, r.CIDR))
	case p.Bits() != r.SubnetLen:
		v.report(at.problem("Misaligned subnet", "Every %s subnet is a /%d (subnet_len), and the one of node %s is the /%d %s.", family.proper(), r.SubnetLen, n.Name, p.Bits(), p))
	case p.Addr().Less(r.SubnetMin):
		v.report(at.problem("Subnet out of range", "The subnet %s of node %s is before subnet_min, %s. To use it, let subnet_min be %s.", p, n.Name, r.SubnetMin, p.Addr()))
	case r.SubnetMax.Less(p.Addr()):
		v.report(at.problem("Subnet out of range", "The subnet %s of node %s is after subnet_max, %s. To use it, let subnet_max be %s.", p, n.Name, r.SubnetMax, p.Addr()))
	default:
		return true
	}
	return false
}

// subnetsComplete checks that a node has a subnet of each pod family.
func (v *validator) subnetsComplete(n *nodeDecl) {
	var missing []string
	for _, r := range v.network.Pods {
		if _, ok := n.Subnet(r.Family()); !ok {
			missing = append(missing, r.Family().proper())
		}
	}
	if len(missing) == 0 {
		return
	}
	v.report(n.problem("Node without a subnet", "Node %s has no %s subnet for its pods. A subnet never moves by itself, so it stands in the file. To assign the next free one:\n\n  polder node assign %s --spec %s",
		n.Name, strings.Join(missing, " and no "), n.Name, shellQuote(v.path)))
}

// subnetOf is a subnet with whose it is.
type subnetOf struct {
	netip.Prefix
	node *nodeDecl
	at   place
}

// disjoint checks that no subnets overlap. Prefixes are nested or disjoint, so
// that in the order of their first addresses, wider ones first, it is enough
// to compare each with the last one that was not inside another.
func (v *validator) disjoint(subnets []subnetOf) {
	slices.SortStableFunc(subnets, func(a, b subnetOf) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	for i, last := 1, 0; i < len(subnets); i++ {
		a, b := subnets[last], subnets[i]
		switch {
		case !a.Overlaps(b.Prefix):
			last = i
		case a.node.Name == b.node.Name && a.node != b.node:
			// The same node twice, which is reported.
		case a.Prefix == b.Prefix:
			v.report(b.at.problem("Duplicate subnet", "%s is the subnet of node %s already (%s).", b.Prefix, a.node.Name, a.at))
		default:
			v.report(b.at.problem("Overlapping subnets", "The subnet %s of node %s is inside of %s, the subnet of node %s (%s).", b.Prefix, b.node.Name, a.Prefix, a.node.Name, a.at))
		}
	}
}
