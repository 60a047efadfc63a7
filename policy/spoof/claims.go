package spoof

import (
	"net/netip"
	"slices"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/spec"
)

// claims is who may say what on the node's bridges.
type claims struct {
	ports []port
	// own are the node's, which come by no port.
	macs      []spec.MAC
	addresses []netip.Addr
	isolated  spec.PerFamily[[]netip.Addr]
}

// port is a claimed port.
type port struct {
	name      string
	mac       spec.MAC // zero: not bound to one
	addresses []netip.Addr
	isolated  bool
}

func newClaims(sp *spec.Spec, node *spec.Node, host Host) claims {
	c := claims{
		ports:     claimedPorts(sp, node),
		macs:      slices.Clone(host.MACs),
		addresses: slices.Clone(host.Addresses),
		isolated:  host.Isolated,
	}
	for i, p := range c.ports {
		c.ports[i].isolated = slices.ContainsFunc(p.addresses, func(a netip.Addr) bool {
			return slices.Contains(host.Isolated.Get(spec.FamilyOf(a)), a)
		})
	}
	if sp.Network != nil {
		c.network(sp, node)
	}
	for _, m := range c.macs {
		c.addresses = append(c.addresses, linkLocal(m))
	}
	return c
}

// claimedPorts are the claims of a node's endpoints.
func claimedPorts(sp *spec.Spec, node *spec.Node) []port {
	var ports []port
	for _, e := range sp.Endpoints {
		if e.Node != node.Name || e.Interface == "" {
			continue
		}
		p := port{name: e.Interface, mac: e.MAC, addresses: slices.Clone(e.Addresses)}
		if !p.mac.IsZero() {
			p.addresses = append(p.addresses, linkLocal(p.mac))
		}
		ports = append(ports, p)
	}
	return ports
}

// names are the ports' names as elements of a set.
func (c *claims) names() []nft.Element {
	list := make([]nft.Element, len(c.ports))
	for i, p := range c.ports {
		list[i] = nft.Exact(nft.IfName(p.name))
	}
	return list
}

// network adds what polder gives the node in the pod network: of each subnet
// the first address to the VTEP and the second to the bridge.
func (c *claims) network(sp *spec.Spec, node *spec.Node) {
	c.macs = append(c.macs, sp.BridgeMAC(node))
	for _, subnet := range node.Subnets {
		first := subnet.Masked().Addr()
		c.addresses = append(c.addresses, first, first.Next())
		if sp.Network.Backend.Type == spec.VXLAN {
			if mac := sp.VTEPMAC(node, sp.UnderlayFamily(spec.FamilyOf(first))); !slices.Contains(c.macs, mac) {
				c.macs = append(c.macs, mac)
			}
		}
	}
}

func (c *claims) empty() bool {
	return len(c.ports) == 0 && len(c.macs) == 0 && len(c.addresses) == 0 &&
		len(c.isolated.IPv4) == 0 && len(c.isolated.IPv6) == 0
}

// linkLocal is the address that an interface makes of its MAC (RFC 4291,
// appendix A).
func linkLocal(m spec.MAC) netip.Addr {
	return netip.AddrFrom16([16]byte{
		0: 0xfe, 1: 0x80,
		8: m[0] ^ 0x02, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5],
	})
}

// The sets change in place as endpoints come and go, and nothing else does. What
// is added is added before anything is taken away, so that a frame can find any
// mixture of the old and the new claims:
//   - while an address moves, both its ports may use it, and no other;
//   - a port that becomes a claim, or ceases to be one, may lose frames, because
//     its claim is kept off others by one set and let through there by another;
//   - a claim that stays is not touched.
const (
	setPorts    = "claimed_ports"
	setUnbound  = "unbound_ports" // claimed without a MAC
	setMACs     = "claimed_macs"
	setBound    = "bound_macs" // MACs by port
	setIsolated = "isolated_ports"
)

var (
	setClaimed   = spec.PerFamily[string]{IPv4: "claimed4", IPv6: "claimed6"}
	setAddresses = spec.PerFamily[string]{IPv4: "bound4", IPv6: "bound6"} // addresses by port
	setSelected  = spec.PerFamily[string]{IPv4: "isolated4", IPv6: "isolated6"}
)

func (c *compiler) set(elements []nft.Element, name string, key ...nft.Type) {
	c.table.Sets = append(c.table.Sets, nft.Set{Name: name, Key: key, Elements: elements})
}

func (c *compiler) sets() {
	var unbound, isolated, macs, bound []nft.Element
	var claimed, addresses spec.PerFamily[[]nft.Element]
	claim := func(a netip.Addr) {
		f := spec.FamilyOf(a)
		claimed.Set(f, append(claimed.Get(f), nft.Exact(nft.Addr(a))))
	}
	for _, m := range c.claims.macs {
		macs = append(macs, nft.Exact(nft.MAC(m)))
	}
	for _, a := range c.claims.addresses {
		claim(a)
	}
	for _, p := range c.claims.ports {
		name := nft.IfName(p.name)
		if p.isolated {
			isolated = append(isolated, nft.Exact(name))
		}
		if p.mac.IsZero() {
			unbound = append(unbound, nft.Exact(name))
		} else {
			macs = append(macs, nft.Exact(nft.MAC(p.mac)))
			bound = append(bound, nft.Exact(nft.Tuple(name, nft.MAC(p.mac))))
		}
		for _, a := range p.addresses {
			f := spec.FamilyOf(a)
			claim(a)
			addresses.Set(f, append(addresses.Get(f), nft.Exact(nft.Tuple(name, nft.Addr(a)))))
		}
	}
	c.set(c.claims.names(), setPorts, nft.TypeIfName)
	c.set(unbound, setUnbound, nft.TypeIfName)
	c.set(isolated, setIsolated, nft.TypeIfName)
	c.set(macs, setMACs, nft.TypeEtherAddr)
	c.set(bound, setBound, nft.TypeIfName, nft.TypeEtherAddr)
	for _, f := range spec.Families {
		var selected []nft.Element
		for _, a := range c.claims.isolated.Get(f) {
			selected = append(selected, nft.Exact(nft.Addr(a)))
		}
		c.set(claimed.Get(f), setClaimed.Get(f), nft.AddrType(f))
		c.set(addresses.Get(f), setAddresses.Get(f), nft.TypeIfName, nft.AddrType(f))
		c.set(selected, setSelected.Get(f), nft.AddrType(f))
	}
}
