package cluster

import (
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/poldernet/polder/spec"
)

// candidateOf is what a Node is for the network of pods: with its first address of
// each family by which others in the cluster reach it, the blocks of which its pods
// have addresses, and what it says of itself.
func candidateOf(n *corev1.Node) spec.Candidate {
	c := spec.Candidate{Name: n.Name, Created: n.CreationTimestamp.Unix(), Polder: polderOf(n), Flannel: flannelOf(n)}
	blocks := n.Spec.PodCIDRs
	if len(blocks) == 0 {
		blocks = []string{n.Spec.PodCIDR}
	}
	for _, f := range spec.Families {
		for _, a := range n.Status.Addresses {
			at, err := netip.ParseAddr(a.Address)
			if err == nil && a.Type == corev1.NodeInternalIP && spec.FamilyOf(at.Unmap()) == f {
				c.Addresses.Set(f, at.Unmap()) // others are names, and addresses of somebody in front of it
				break
			}
		}
		for _, text := range blocks {
			if p, err := netip.ParsePrefix(text); err == nil && spec.FamilyOf(p.Addr()) == f {
				c.Subnets.Set(f, p.Masked())
				break
			}
		}
	}
	return c
}

func namespaceOf(ns *corev1.Namespace) *spec.Namespace {
	return &spec.Namespace{Name: ns.Name, Labels: ns.Labels}
}

// trimNode keeps of the own Node what is written to it, and what that depends on.
func trimNode(n *corev1.Node) *corev1.Node {
	meta := trimMeta(n.ObjectMeta)
	meta.Labels = nil
	for _, key := range annotations {
		if text, there := n.Annotations[key]; there {
			if meta.Annotations == nil {
				meta.Annotations = map[string]string{}
			}
			meta.Annotations[key] = text
		}
	}
	out := &corev1.Node{ObjectMeta: meta}
	for _, c := range n.Status.Conditions {
		if slices.Contains(conditions, c.Type) {
			out.Status.Conditions = append(out.Status.Conditions, c)
		}
	}
	return out
}

// cut is the beginning of a text.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}
