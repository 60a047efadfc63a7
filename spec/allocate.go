package spec

import (
	"fmt"
	"net/netip"
)

// allocator gives out the free subnets of one pod range, lowest first.
type allocator struct {
	PodRange
	used map[netip.Addr]bool // by first address, since all are of one length
	next netip.Addr          // all below are used
}

func newAllocator(r PodRange, nodes []*nodeDecl) *allocator {
	a := &allocator{PodRange: r, used: make(map[netip.Addr]bool, len(nodes)), next: r.SubnetMin}
	for _, n := range nodes {
		if p, ok := n.Subnet(r.Family()); ok {
			a.used[p.Addr()] = true
		}
	}
	return a
}

// take is the next free subnet.
func (a *allocator) take() (netip.Prefix, error) {
	for a.next.IsValid() && !a.SubnetMax.Less(a.next) {
		p := netip.PrefixFrom(a.next, a.SubnetLen)
		// Behind the last address of the family there is none, which is not
		// valid.
		a.next = lastAddr(p).Next()
		if !a.used[p.Addr()] {
			return p, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("all %s subnets from %s to %s have a node: set subnet_min or subnet_max to allow more of %s",
		a.Family().proper(), netip.PrefixFrom(a.SubnetMin, a.SubnetLen), netip.PrefixFrom(a.SubnetMax, a.SubnetLen), a.CIDR)
}
