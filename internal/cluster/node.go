package cluster

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"

	"github.com/poldernet/polder/spec"
)

// nodeOf is the node of a Node: with its first address of each family by which
// others in the cluster reach it, and the blocks of which its pods have addresses.
func nodeOf(n *corev1.Node) *spec.Node {
	out := &spec.Node{Name: n.Name}
	for _, f := range spec.Families {
		for _, a := range n.Status.Addresses {
			at, err := netip.ParseAddr(a.Address)
			if err != nil || a.Type != corev1.NodeInternalIP || spec.FamilyOf(at.Unmap()) != f {
				continue // others are names, and addresses of somebody in front of it
			}
			out.Addresses = append(out.Addresses, spec.NodeAddress{Addr: at.Unmap()})
			break
		}
		for _, text := range n.Spec.PodCIDRs {
			if p, err := netip.ParsePrefix(text); err == nil && spec.FamilyOf(p.Addr()) == f {
				out.Subnets = append(out.Subnets, p.Masked())
				break
			}
		}
	}
	return out
}

func namespaceOf(ns *corev1.Namespace) *spec.Namespace {
	return &spec.Namespace{Name: ns.Name, Labels: ns.Labels}
}
