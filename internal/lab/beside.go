package lab

import (
	"net/netip"
	"slices"

	"github.com/poldernet/polder/spec"
)

// bridge is a node's part of a pod network that polder does not make: the bridge
// that its pods are ports of, with the pods' gateways as addresses.
type bridge struct {
	node, name string
	addresses  []netip.Prefix
}

// route leads from a machine to pods of a node on the same link.
type route struct {
	machine string
	to      netip.Prefix
	via     netip.Addr
}

// beside adds what a spec without a network block is enforced beside: on each
// node a bridge with its pods, and on the machines of its links routes to them,
// as somebody would make them with ip(8).
func (b *blueprint) beside(s *spec.Spec) {
	for i := range b.pods {
		b.pods[i].bridge = s.Enforcement.Bridge
	}
	for _, m := range b.machines {
		n := s.Node(m.Name)
		if m.Role != RoleNode || n == nil || len(m.Interfaces) == 0 {
			continue
		}
		br := bridge{node: m.Name, name: s.Enforcement.Bridge}
		for _, subnet := range n.Subnets {
			br.addresses = append(br.addresses, netip.PrefixFrom(subnet.Masked().Addr().Next(), subnet.Bits()))
		}
		b.bridges = append(b.bridges, br)
		for _, other := range b.machines {
			if other != m && slices.ContainsFunc(other.Interfaces, func(i Interface) bool { return i.Link == m.Interfaces[0].Link }) {
				b.routes = append(b.routes, routes(other.Name, n.Subnets, m.Interfaces[0].Addresses)...)
			}
		}
	}
}

// routes lead to each subnet by the first address of its family.
func routes(machine string, subnets, addresses []netip.Prefix) []route {
	var list []route
	for _, to := range subnets {
		f := spec.FamilyOf(to.Addr())
		i := slices.IndexFunc(addresses, func(a netip.Prefix) bool { return spec.FamilyOf(a.Addr()) == f })
		if i >= 0 {
			list = append(list, route{machine, to, addresses[i].Addr()})
		}
	}
	return list
}
