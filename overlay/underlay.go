package overlay

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/poldernet/polder/spec"
)

func underlayChoice(sp *spec.Spec, node *spec.Node) spec.Underlay {
	if !node.Underlay.IsZero() {
		return node.Underlay
	}
	return sp.Network.Underlay
}

// underlay is the interface that carries one family's traffic between nodes.
type underlay struct {
	link  HostLink
	local netip.Addr // the source address of outer packets
}

// chooseUnderlay finds the interface for a family, as the spec chooses it: by
// name, by an address that it holds, by the route to an address, or, where the
// spec is silent, by the node's own address.
func (f Facts) chooseUnderlay(sp *spec.Spec, node *spec.Node, family spec.Family) (underlay, error) {
	own, ok := node.Address(family)
	if !ok {
		return underlay{}, fmt.Errorf("node %q has no %s address", node.Name, family)
	}
	var link HostLink
	switch choice := underlayChoice(sp, node); {
	case choice.Interface != "":
		link, ok = f.Links[choice.Interface]
		if !ok {
			return underlay{}, fmt.Errorf("underlay interface %q does not exist on this host; it has %s", choice.Interface, f.linkNames())
		}
	case choice.Address.IsValid():
		link, ok = f.holder(choice.Address)
		if !ok {
			return underlay{}, fmt.Errorf("no interface of this host has the underlay address %s", choice.Address)
		}
	case choice.RouteTo.IsValid():
		path, found := f.Paths[choice.RouteTo]
		if !found {
			return underlay{}, fmt.Errorf("this host has no route to %s, which is to choose the underlay interface", choice.RouteTo)
		}
		link, ok = f.Links[path.Link]
		if !ok || path.Local {
			return underlay{}, fmt.Errorf("the route to %s leads to no interface of an underlay: the address is this host's own", choice.RouteTo)
		}
	default:
		link, ok = f.holder(own.Addr)
		if !ok {
			return underlay{}, fmt.Errorf("no interface of this host has %s, the address of node %q: is this node %q? "+
				"If the address is translated on the way, choose the interface with `underlay { interface = \"…\" }`", own.Addr, node.Name, node.Name)
		}
	}
	if link.hasAddress(own.Addr) {
		return underlay{link, own.Addr}, nil
	}
	// The node's address is translated on the way here: send from what the
	// interface has. A source that is not local loses every packet.
	for _, p := range link.Addresses {
		if spec.FamilyOf(p.Addr()) == family && !p.Addr().IsLinkLocalUnicast() {
			return underlay{link, p.Addr()}, nil
		}
	}
	return underlay{}, fmt.Errorf("underlay interface %s has no %s address to send from", link.Name, family)
}

// holder is the link that holds an address.
func (f Facts) holder(a netip.Addr) (HostLink, bool) {
	for _, name := range f.sortedLinks() {
		if l := f.Links[name]; l.hasAddress(a) {
			return l, true
		}
	}
	return HostLink{}, false
}

func (l HostLink) hasAddress(a netip.Addr) bool {
	return slices.ContainsFunc(l.Addresses, func(p netip.Prefix) bool { return p.Addr() == a })
}

func (f Facts) sortedLinks() []string {
	names := make([]string, 0, len(f.Links))
	for name := range f.Links {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (f Facts) linkNames() string {
	names := f.sortedLinks()
	if len(names) > 12 {
		names = append(names[:12], "…")
	}
	return strings.Join(names, ", ")
}
