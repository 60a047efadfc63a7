package kube

import (
	"context"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/poldernet/polder/spec"
)

// ghost is a node that no machine is. It claims what others have.
const ghost = "n4"

// pair are values of both families; "": there is none.
type pair [2]string

func (p pair) texts() (list []string) {
	for _, text := range p {
		if text != "" {
			list = append(list, text)
		}
	}
	return list
}

// claimed are the values of a pair.
func claimed[T any](p pair, parse func(string) T) (values spec.PerFamily[T]) {
	for i, f := range spec.Families {
		if p[i] != "" {
			values.Set(f, parse(p[i]))
		}
	}
	return values
}

// addressesOf are those of the machine of a node, and subnetsOf those of its pods.
func addressesOf(i int) pair {
	return pair{fmt.Sprintf("192.0.2.1%d", i), fmt.Sprintf("2001:db8:2::1%d", i)}
}

func subnetsOf(i int) pair {
	return pair{fmt.Sprintf("10.244.%d.0/24", i), fmt.Sprintf("fd00:10:244:%d::/64", i)}
}

// foreignClaims has the object of the foreign node come, go, or say something else.
func (c *churn) foreignClaims() bool {
	if _, there := c.nodes[foreignNode]; there && c.chance(30) {
		c.unnode(foreignNode)
		return true
	}
	subnets, addresses := subnetsOf(3), addressesOf(3)
	if c.chance(50) {
		subnets = of(c.dice,
			pair{}, pair{subnets[0]}, pair{"", subnets[1]}, subnetsOf(otherSubnet),
			pair{"10.244.1.128/25", subnets[1]}, pair{subnets[0], "fd00:10:244:2::/64"}, // in others'
			pair{"10.99.3.0/24", subnets[1]}, // no part of the pod network
		)
	}
	if c.chance(40) {
		addresses = of(c.dice,
			pair{addressesOf(2)[0], addresses[1]}, pair{addresses[0], addressesOf(1)[1]},
			pair{"192.0.2.77", "2001:db8:2::77"}, pair{addresses[0], "2001:db8:2::77"}, // where nobody is
			pair{addresses[0]}, pair{"", addresses[1]},
		)
	}
	c.setNode(foreignNode, addresses, subnets)
	return true
}

// otherSubnet is what the foreign node has at times instead of its own.
const otherSubnet = 5

// haunt has the object of the ghost come or go.
func (c *churn) haunt() bool {
	if _, there := c.nodes[ghost]; there {
		c.unnode(ghost)
		return true
	}
	own := pair{"10.244.6.0/24", "fd00:10:244:6::/64"}
	subnets := of(c.dice, own, subnetsOf(1), subnetsOf(2), subnetsOf(3), pair{subnetsOf(3)[0], own[1]}, pair{own[0], subnetsOf(2)[1]})
	addresses := of(c.dice, addressesOf(4), addressesOf(4), addressesOf(1), addressesOf(2), addressesOf(3), pair{addressesOf(3)[0], addressesOf(4)[1]})
	c.setNode(ghost, addresses, subnets)
	return true
}

// setNode makes a Node, or changes it. The subnets of one cannot be changed: it is
// made anew. So is one that would take something from a younger node with a daemon.
func (c *churn) setNode(name string, addresses, subnets pair) {
	c.Helper()
	c.note("node", "%s at %v with %v", name, addresses, subnets)
	if old := c.nodes[name]; old != nil {
		robs := slices.ContainsFunc(nodeNames, func(name string) bool {
			o := c.nodes[name]
			return o != nil && o.created > old.created && o.clashes(addresses, subnets)
		})
		if !robs && old.subnets == claimed(subnets, netip.MustParsePrefix) {
			c.nodes[name] = claimOf(c.api.SetNode(c, name, addresses.texts()...))
			return
		}
		c.must(c.api.Client.CoreV1().Nodes().Delete(context.Background(), name, metav1.DeleteOptions{}))
	}
	c.nodes[name] = claimOf(c.api.Node(c, name, addresses.texts(), subnets.texts()))
}

func (c *churn) unnode(name string) {
	c.Helper()
	c.note("unnode", "%s", name)
	c.must(c.api.Client.CoreV1().Nodes().Delete(context.Background(), name, metav1.DeleteOptions{}))
	delete(c.nodes, name)
}

// expel deletes the Node of a node with a daemon. That one goes on as if it were there,
// before those who have claimed something of it since; the others do not reach it any
// more, nor does it reach them.
func (c *churn) expel(node string) (undo func()) {
	own := *c.nodes[node]
	own.created = math.MinInt64
	c.absent[node] = &own
	c.unnode(node)
	return func() {
		c.settle("without " + node)
		c.check()
		i := int(node[1] - '0')
		// What others have claimed meanwhile is theirs.
		for _, name := range slices.Sorted(maps.Keys(c.nodes)) {
			if c.nodes[name].clashes(addressesOf(i), subnetsOf(i)) {
				c.unnode(name)
			}
		}
		c.setNode(node, addressesOf(i), subnetsOf(i))
		delete(c.absent, node)
	}
}

// clashes says that a Node claims something of these.
func (o *claim) clashes(addresses, subnets pair) bool {
	at, with := claimed(addresses, netip.MustParseAddr), claimed(subnets, netip.MustParsePrefix)
	return slices.ContainsFunc(spec.Families[:], func(f spec.Family) bool {
		return at.Get(f).IsValid() && at.Get(f) == o.addresses.Get(f) || with.Get(f).Overlaps(o.subnets.Get(f))
	})
}
