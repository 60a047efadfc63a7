package kube

import (
	"cmp"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

// claim is a Node as the test has made it: what it says to have.
type claim struct {
	name      string
	created   int64
	addresses spec.PerFamily[netip.Addr]
	subnets   spec.PerFamily[netip.Prefix]
}

// claimOf is what a Node says to have.
func claimOf(n *corev1.Node) *claim {
	c := &claim{name: n.Name, created: n.CreationTimestamp.Unix()}
	for _, a := range n.Status.Addresses {
		at := netip.MustParseAddr(a.Address)
		c.addresses.Set(spec.FamilyOf(at), at)
	}
	for _, text := range n.Spec.PodCIDRs {
		p := netip.MustParsePrefix(text)
		c.subnets.Set(spec.FamilyOf(p.Addr()), p)
	}
	return c
}

// members are the nodes that have a part in the pod network, each with what it has
// there: of two that claim one thing, the one that was made first has it.
func members(claims []*claim, network *spec.Network) (list []*spec.Node) {
	slices.SortFunc(claims, func(a, b *claim) int {
		return cmp.Or(cmp.Compare(a.created, b.created), cmp.Compare(a.name, b.name))
	})
	for _, c := range claims {
		n := &spec.Node{Name: c.name}
		for _, f := range spec.Families {
			address, subnet := c.addresses.Get(f), c.subnets.Get(f)
			taken := slices.ContainsFunc(list, func(o *spec.Node) bool {
				a, _ := o.Address(f)
				return a.Addr == address
			})
			overlaps := slices.ContainsFunc(list, func(o *spec.Node) bool {
				s, has := o.Subnet(f)
				return has && s.Overlaps(subnet)
			})
			pods, _ := network.PodRange(f)
			if !address.IsValid() || taken || pods.CIDR.Contains(address) {
				continue
			}
			n.Addresses = append(n.Addresses, spec.NodeAddress{Addr: address})
			if subnet.IsValid() && pods.CIDR.Contains(subnet.Addr()) && !overlaps {
				n.Subnets = append(n.Subnets, subnet)
			}
		}
		if len(n.Subnets) > 0 {
			list = append(list, n)
		}
	}
	return list
}

// opinion is what a node goes by: which nodes there are, and who may reach whom.
type opinion struct {
	*policy.Model
	nodes []*spec.Node
}

// home is the node in whose subnet an address is, or nil.
func (o opinion) home(a netip.Addr) *spec.Node {
	for _, n := range o.nodes {
		if s, has := n.Subnet(spec.FamilyOf(a)); has && s.Contains(a) {
			return n
		}
	}
	return nil
}

// leads says that a packet finds its way from one end to the other, whatever
// policies say. Nodes without a daemon, and the outside, send to where each node
// is at first.
func (c *churn) leads(from, to end, source, destination netip.Addr) bool {
	f := spec.FamilyOf(source)
	pods, _ := c.Spec.Network.PodRange(f)
	if from.node == to.node {
		return true
	}
	tunnelled := !c.Spec.Network.Backend.DirectRouting && from.node != "" && pods.CIDR.Contains(destination)
	if o, has := c.opinion(from.node); has && pods.CIDR.Contains(destination) {
		home := o.home(destination)
		if home == nil {
			return false
		}
		// It is sent to where the node of that subnet says to be, by VXLAN to its MAC.
		at, _ := home.Address(f)
		if tunnelled && home.Name != to.node || at.Addr != c.underlay(to.node, f) && (tunnelled || !c.relays(at.Addr, to, source, destination)) {
			return false
		}
	}
	o, has := c.opinion(to.node)
	if has && tunnelled && !slices.ContainsFunc(o.nodes, func(n *spec.Node) bool {
		at, _ := n.Address(f)
		return n.Name != to.node && at.Addr == c.underlay(from.node, f)
	}) {
		return false // the door is closed
	}
	if has && pods.CIDR.Contains(source) {
		home := o.home(source) // else it is forged
		return home != nil && home.Name != to.node
	}
	return true
}

// relays says that a machine with a daemon to which a packet is sent, without VXLAN and
// for another node, sends it on to that one. Its Node is gone, so that somebody else
// could say to be where it is; it goes by what it believes of itself and of others.
func (c *churn) relays(at netip.Addr, to end, source, destination netip.Addr) bool {
	f := spec.FamilyOf(source)
	for name, o := range c.apart {
		if c.underlay(name, f) != at {
			continue
		}
		from, home := o.home(source), o.home(destination)
		if from == nil || from.Name == name || home == nil {
			return false
		}
		next, _ := home.Address(f)
		return next.Addr == c.underlay(to.node, f)
	}
	return false
}

// underlay is the address of a node's machine.
func (c *churn) underlay(node string, f spec.Family) netip.Addr {
	a, _ := c.Spec.Node(node).Address(f)
	return a.Addr
}

// opinion is what the daemon of a node goes by; a machine without one has none.
func (c *churn) opinion(node string) (opinion, bool) {
	if o, is := c.apart[node]; is {
		return o, true
	}
	return c.now, slices.Contains(nodeNames, node)
}
