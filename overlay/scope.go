package overlay

import (
	"net/netip"

	"github.com/poldernet/polder/spec"
)

// Scope says what to read beyond what bears our mark.
type Scope struct {
	Links []string       // the spec's bridge and VTEPs
	Pods  []netip.Prefix // the spec's pod CIDRs
	Ask   []netip.Addr   // see Questions
	peers int            // as many as there will be of everything, about
}

// ScopeOf is what Compile and Diff need to see for a node.
func ScopeOf(sp *spec.Spec, node *spec.Node) Scope {
	if sp == nil || sp.Network == nil {
		return Scope{}
	}
	s := Scope{peers: len(sp.Nodes), Ask: Questions(sp, node), Links: []string{sp.Network.Bridge.Name}}
	if sp.Network.Backend.Type == spec.VXLAN {
		s.Links = append(s.Links, sp.Network.Backend.Device.IPv4, sp.Network.Backend.Device.IPv6)
	}
	for _, p := range sp.Network.Pods {
		s.Pods = append(s.Pods, p.CIDR)
	}
	return s
}
