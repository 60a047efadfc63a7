// Package policy decides who may reach whom: it puts policies and the inventory
// of endpoints into one model, evaluates connections on it, and compiles it to
// nftables.
package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/hashicorp/hcl/v2"

	"github.com/poldernet/polder/policy/kube"
	"github.com/poldernet/polder/spec"
	"github.com/poldernet/polder/spec/selector"
)

// Model is the inventory and the policies of a spec, in the order and under the
// keys by which they are looked at. It is a value that does not change.
type Model struct {
	spec       *spec.Spec
	tiers      []tier
	rank       map[string]int // of a tier, by name
	endpoints  map[netip.Addr]*spec.Endpoint
	nodes      map[netip.Addr]*spec.Node
	namespaces map[string]selector.Labels
	sets       map[string]*spec.NetworkSet
	underlay   spec.PerFamily[spec.Family] // that carries the pods of a family
	lengths    spec.PerFamily[[]int]       // of the nodes' subnets: the files' have one, a cluster's may have several
}

// tier is a tier with its policies, in order.
type tier struct {
	*spec.Tier
	policies []*spec.Policy
}

// New makes the model of a spec. The diagnostics are about its manifests, which
// the spec only names.
func New(sp *spec.Spec) (*Model, hcl.Diagnostics) {
	m := &Model{
		spec:       sp,
		endpoints:  make(map[netip.Addr]*spec.Endpoint, len(sp.Endpoints)),
		nodes:      make(map[netip.Addr]*spec.Node, len(sp.Nodes)),
		namespaces: make(map[string]selector.Labels),
		sets:       make(map[string]*spec.NetworkSet, len(sp.NetworkSets)),
	}
	for _, f := range spec.Families {
		m.underlay.Set(f, sp.UnderlayFamily(f))
	}
	for _, n := range sp.Nodes {
		for _, a := range NodeAddresses(n) {
			m.nodes[a] = n
		}
		for _, p := range n.Subnets {
			f := spec.FamilyOf(p.Addr())
			if known := m.lengths.Get(f); !slices.Contains(known, p.Bits()) {
				m.lengths.Set(f, append(known, p.Bits()))
			}
		}
	}
	for _, ns := range sp.Namespaces {
		m.namespaces[ns.Name] = namespaceLabels(ns.Name, ns.Labels)
	}
	for _, e := range sp.Endpoints {
		for _, a := range e.Addresses {
			m.endpoints[a] = e
		}
		if _, ok := m.namespaces[e.Namespace]; !ok {
			m.namespaces[e.Namespace] = namespaceLabels(e.Namespace, nil)
		}
	}
	for _, s := range sp.NetworkSets {
		m.sets[s.Name] = s
	}
	policies, diags := manifests(sp)
	m.order(append(slices.Clip(sp.Policies), policies...))
	return m, diags
}

// manifests are the policies of the Kubernetes objects that the spec names. Two
// of one name are a mistake: which of them holds would depend on the order of
// files.
func manifests(sp *spec.Spec) (list []*spec.Policy, diags hcl.Diagnostics) {
	first := map[string]*spec.Policy{}
	for _, file := range sp.Manifests {
		policies, more := kube.Decode(file.Name, file.Text)
		diags = append(diags, more...)
		for _, p := range policies {
			if other := first[p.ID()]; other != nil && other.Range.Filename != p.Range.Filename { // Decode tells of those in one file
				diags = append(diags, &hcl.Diagnostic{
					Severity: hcl.DiagError, Summary: "Duplicate NetworkPolicy", Subject: p.Range.Ptr(),
					Detail: fmt.Sprintf("The NetworkPolicy %q is declared at %s already.", p.Name, spec.FileLine(other.Range)),
				})
				continue
			}
			first[p.ID()] = p
			list = append(list, p)
		}
	}
	return list, diags
}

// namespaceLabels are a namespace's labels with the one that each has.
func namespaceLabels(name string, given map[string]string) selector.Labels {
	labels := make(selector.Labels, len(given)+1)
	for k, v := range given {
		labels[k] = v
	}
	labels[spec.NamespaceLabel] = name
	return labels
}

// NodeAddresses are all addresses by which a node itself speaks: those under
// which the other nodes reach it, and those that polder gives it in the pod
// network, the VTEP's and the bridge's.
func NodeAddresses(n *spec.Node) []netip.Addr {
	var list []netip.Addr
	for _, a := range n.Addresses {
		list = append(list, a.Addr)
	}
	for _, p := range n.Subnets {
		list = append(list, p.Addr(), p.Addr().Next())
	}
	return list
}

// order puts policies into their tiers, in the order in which they are looked
// at.
func (m *Model) order(policies []*spec.Policy) {
	m.rank = make(map[string]int, len(m.spec.Tiers))
	for _, t := range m.spec.Tiers {
		m.tiers = append(m.tiers, tier{Tier: t})
	}
	slices.SortFunc(m.tiers, func(a, b tier) int { return cmp.Or(cmp.Compare(a.Order, b.Order), cmp.Compare(a.Name, b.Name)) })
	for i, t := range m.tiers {
		m.rank[t.Name] = i
	}
	for _, p := range policies {
		t := &m.tiers[m.rank[p.Tier]] // the spec has every tier that a policy names
		t.policies = append(t.policies, p)
	}
	for _, t := range m.tiers {
		slices.SortFunc(t.policies, comparePolicies)
	}
}

// stages are the tiers that judge something in a direction, of the policies
// that select one endpoint, in order.
func (m *Model) stages(d spec.Direction, selecting []*spec.Policy) []stage {
	var list []stage
	for _, p := range selecting {
		if !p.Applies(d) || len(m.tiers) == 0 {
			continue
		}
		t := m.tiers[m.rank[p.Tier]].Tier
		if n := len(list); n == 0 || list[n-1].tier != t {
			list = append(list, stage{tier: t})
		}
		last := &list[len(list)-1]
		last.policies = append(last.policies, p)
	}
	return list
}

// compare is the order in which policies are looked at.
func (m *Model) compare(a, b *spec.Policy) int {
	return cmp.Or(cmp.Compare(m.rank[a.Tier], m.rank[b.Tier]), comparePolicies(a, b))
}

// comparePolicies is the order of policies in a tier.
func comparePolicies(a, b *spec.Policy) int {
	switch {
	case a.Order == nil && b.Order != nil:
		return 1
	case a.Order != nil && b.Order == nil:
		return -1
	case a.Order != nil && *a.Order != *b.Order:
		return cmp.Compare(*a.Order, *b.Order)
	}
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Kind, b.Kind))
}

// Endpoint is the endpoint that has an address, or nil.
func (m *Model) Endpoint(a netip.Addr) *spec.Endpoint { return m.endpoints[a] }

// Node is the node that speaks by an address itself, or nil.
func (m *Model) Node(a netip.Addr) *spec.Node { return m.nodes[a] }

// selects says that a policy is about an endpoint.
func (m *Model) selects(p *spec.Policy, e *spec.Endpoint) bool {
	return p.Selector != nil && m.within(subjectScope(p), e)
}

// selectsHost says that a policy is about a host endpoint.
func selectsHost(p *spec.Policy, h *spec.HostEndpoint) bool {
	return p.HostSelector != nil && p.HostSelector.Matches(h.Labels)
}

// peerSets says whether the network sets whose labels a selector matches are
// meant by it, too: they are in no namespace.
func peerSets(p *spec.Policy, s *spec.PeerSelector) bool {
	return p.Kind == spec.KindPolicy && p.Namespace == "" && s.Namespaces == nil
}
