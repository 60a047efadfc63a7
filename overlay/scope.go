package overlay

import (
	"net/netip"
	"slices"

	"github.com/poldernet/polder/spec"
)

// Scope says what to read beyond what bears our mark.
type Scope struct {
	Links []string       // the spec's bridge and VTEPs
	Pods  []netip.Prefix // the spec's pod CIDRs
	Ask   []netip.Addr   // see questions
	peers int            // as many as there will be of everything, about

	// What of the host's other links Compile looks at: those that the spec
	// names, those that hold an address, and the one that leads to another.
	interfaces []string
	own        []netip.Addr
	routeTo    netip.Addr
}

// Equal says that two scopes ask for the same objects. How many there may be is
// not part of it.
func (s Scope) Equal(o Scope) bool {
	return slices.Equal(s.Links, o.Links) && slices.Equal(s.Pods, o.Pods) && slices.Equal(s.Ask, o.Ask) &&
		slices.Equal(s.interfaces, o.interfaces) && slices.Equal(s.own, o.own) && s.routeTo == o.routeTo
}

// ScopeOf is what Compile and Diff need to see for a node.
func ScopeOf(sp *spec.Spec, node *spec.Node) Scope {
	if sp == nil {
		return Scope{}
	}
	if sp.Network == nil {
		var s Scope
		if enforces(sp) {
			s.interfaces = []string{sp.Enforcement.Bridge}
		}
		return s
	}
	s := Scope{peers: len(sp.Nodes), Ask: questions(sp, node), Links: []string{sp.Network.Bridge.Name}}
	if sp.Network.Backend.Type == spec.VXLAN {
		s.Links = append(s.Links, sp.Network.Backend.Device.IPv4, sp.Network.Backend.Device.IPv6)
	}
	choice := underlayChoice(sp, node)
	s.routeTo = choice.RouteTo
	if choice.Interface != "" {
		s.interfaces = append(s.interfaces, choice.Interface)
	}
	if choice.Address.IsValid() {
		s.own = append(s.own, choice.Address)
	}
	for _, a := range node.Addresses {
		s.own = append(s.own, a.Addr)
	}
	for _, e := range sp.Endpoints {
		if e.Node == node.Name && e.Interface != "" {
			s.interfaces = append(s.interfaces, e.Interface)
		}
	}
	for _, p := range sp.Network.Pods {
		s.Pods = append(s.Pods, p.CIDR)
	}
	return s
}
