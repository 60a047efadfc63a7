package lab

import (
	"net/netip"

	"github.com/hashicorp/hcl/v2"

	"github.com/poldernet/polder/spec"
)

// blueprint is everything that there is to make: a topology completed by a
// spec. It is pure data.
type blueprint struct {
	links    []*Link
	machines []*Machine // with the addresses of nodes filled in
	pods     []pod
	bridges  []bridge
	routes   []route
}

// pod is an endpoint of the spec: a namespace with a veth to its node.
type pod struct {
	name      string
	node      string
	port      string         // the veth's name on the node, which polder makes a port of its bridge
	bridge    string         // that the lab makes it a port of; "": none
	mac       spec.MAC       // zero: the kernel chooses
	addresses []netip.Prefix // with the length of the node's subnet
	gateways  []netip.Addr
}

// complete fills in what the spec says and finds where the two do not fit.
func (t *Topology) complete(s *spec.Spec) (*blueprint, hcl.Diagnostics) {
	var diags hcl.Diagnostics
	b := &blueprint{links: t.Links}
	names := map[string]bool{}
	for _, m := range t.Machines {
		names[m.Name] = true
		if m.Role == RoleNode {
			var more hcl.Diagnostics
			m, more = m.withAddresses(s)
			diags = append(diags, more...)
		}
		b.machines = append(b.machines, m)
	}
	for _, n := range s.Nodes {
		if !names[n.Name] {
			diags = append(diags, mistake(n.Range, "Node is not in the lab",
				"The lab file has no node %q. Add a block: node %q { link \"NAME\" { } }.", n.Name, n.Name))
		}
	}
	for _, e := range s.Endpoints {
		if names[e.Name] {
			diags = append(diags, mistake(e.Range, "Duplicate name", "The lab has a machine %q already.", e.Name))
		}
		if e.Interface == "" {
			diags = append(diags, mistake(e.Range, "Endpoint without an interface",
				"In a lab, the pods are attached to a bridge: endpoint %q needs an interface.", e.Name))
		}
		if n := s.Node(e.Node); n != nil {
			b.pods = append(b.pods, newPod(e, n))
		}
	}
	if s.Network == nil && s.Enforcement.Bridge != "" && !diags.HasErrors() {
		b.beside(s)
	}
	return b, diags
}

// withAddresses is the node with the spec's addresses on its first interface.
func (m *Machine) withAddresses(s *spec.Spec) (*Machine, hcl.Diagnostics) {
	n := s.Node(m.Name)
	if n == nil {
		return m, hcl.Diagnostics{mistake(m.Range, "Node is not in the spec",
			"The spec has no node %q. A machine without polder is a host: host %q { ... }.", m.Name, m.Name)}
	}
	if len(m.Interfaces) == 0 || len(m.Interfaces[0].Addresses) > 0 {
		return m, nil // the lab file knows better, or is refused already
	}
	var diags hcl.Diagnostics
	first := m.Interfaces[0]
	for _, a := range n.Addresses {
		if !a.Link.IsValid() {
			diags = append(diags, mistake(m.Range, "Address without a prefix length",
				"The spec says %v for node %q, without its link's prefix length. Give it here: addresses = [...] in the link block.",
				a.Addr, m.Name))
			continue
		}
		first.Addresses = append(first.Addresses, netip.PrefixFrom(a.Addr, a.Link.Bits()))
	}
	for _, g := range first.Gateways {
		if len(diags) == 0 && !onLink(first.Addresses, g) {
			diags = append(diags, mistake(first.Range, "Gateway on another link",
				"No address that the spec gives to node %q has a prefix that holds the gateway %v.", m.Name, g))
		}
	}
	completed := *m
	completed.Interfaces = append([]Interface{first}, m.Interfaces[1:]...)
	return &completed, diags
}

// newPod is the pod of an endpoint. Its gateway is the first address of the
// node's subnet, which the bridge holds.
func newPod(e *spec.Endpoint, n *spec.Node) pod {
	p := pod{name: e.Name, node: e.Node, port: e.Interface, mac: e.MAC}
	for _, a := range e.Addresses {
		subnet, ok := n.Subnet(spec.FamilyOf(a))
		if !ok {
			continue // the spec's loader refuses an address outside of the subnets
		}
		p.addresses = append(p.addresses, netip.PrefixFrom(a, subnet.Bits()))
		p.gateways = append(p.gateways, subnet.Masked().Addr().Next())
	}
	return p
}
