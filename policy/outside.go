package policy

import (
	"net/netip"
	"slices"

	"github.com/poldernet/polder/spec"
)

// documentation are addresses for examples (RFC 5737, RFC 3849): people know
// them for strangers.
var documentation = spec.PerFamily[[]netip.Addr]{
	IPv4: []netip.Addr{netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("192.0.2.1")},
	IPv6: []netip.Addr{netip.MustParseAddr("2001:db8:ffff::1"), netip.MustParseAddr("3fff::1")},
}

// thisNetwork has no addresses of hosts (RFC 1122, 3.2.1.3).
var thisNetwork = netip.MustParsePrefix("0.0.0.0/8")

// Outside is an address that stands for all strangers: nothing in the spec has
// it, and no block of addresses that the spec names contains it, but for blocks
// that contain whatever else it could be, as 0.0.0.0/0.
func (m *Model) Outside(f spec.Family) netip.Addr {
	named := m.blocks(f)
	best, least := netip.Addr{}, len(named)+1
	for _, a := range m.strangers(f, named) {
		n := 0
		for _, p := range named {
			if p.Bits() > 0 && p.Contains(a) {
				n++
			}
		}
		if n < least {
			best, least = a, n
		}
		if n == 0 {
			break
		}
	}
	return best
}

// blocks are the blocks of addresses that policies name, each once, in their
// order.
func (m *Model) blocks(f spec.Family) []netip.Prefix {
	var list []netip.Prefix
	known := make(map[netip.Prefix]bool)
	add := func(p netip.Prefix) {
		if p = p.Masked(); p.IsValid() && spec.FamilyOf(p.Addr()) == f && !known[p] {
			known[p] = true
			list = append(list, p)
		}
	}
	for _, t := range m.tiers {
		for _, p := range t.policies {
			for _, d := range spec.Directions {
				for _, r := range p.Rules(d) {
					for _, peer := range r.Peers {
						if peer.Block != nil {
							add(peer.Block.CIDR)
							for _, e := range peer.Block.Except {
								add(e)
							}
						}
					}
				}
			}
		}
	}
	for _, s := range m.spec.NetworkSets {
		for _, p := range s.CIDRs {
			add(p)
		}
	}
	return list
}

// strangers are addresses that nobody in the spec has: at least one of each
// part of the family that blocks divide it into, if any is free there.
func (m *Model) strangers(f spec.Family, blocks []netip.Prefix) []netip.Addr {
	list := slices.Clone(documentation.Get(f))
	ours := m.ours()
	for _, p := range append(slices.Clone(blocks), ours...) {
		if spec.FamilyOf(p.Addr()) != f {
			continue
		}
		// The first address of a part is that of a block, or the one behind a
		// block. Networks' own addresses are none of a host.
		for _, a := range []netip.Addr{p.Addr(), last(p).Next()} {
			list = append(list, a)
			if a.IsValid() {
				list = append(list, a.Next())
			}
		}
	}
	return slices.DeleteFunc(list, func(a netip.Addr) bool {
		return !a.IsValid() || !a.IsGlobalUnicast() || thisNetwork.Contains(a) || m.endpoints[a] != nil || m.nodes[a] != nil ||
			slices.ContainsFunc(ours, func(p netip.Prefix) bool { return p.Contains(a) })
	})
}

// ours are the blocks in which pods and nodes have their addresses.
func (m *Model) ours() []netip.Prefix {
	var list []netip.Prefix
	if n := m.spec.Network; n != nil {
		for _, r := range n.Pods {
			list = append(list, r.CIDR.Masked())
		}
	}
	for _, n := range m.spec.Nodes {
		for _, p := range n.Subnets {
			list = append(list, p.Masked())
		}
		for _, a := range n.Addresses {
			if a.Link.IsValid() {
				list = append(list, a.Link.Masked())
			}
		}
	}
	return list
}

// last is the last address of a block.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b) // of four or sixteen bytes
	return a
}
