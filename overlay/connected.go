package overlay

import (
	"fmt"
	"net/netip"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/spec"
)

// connectedRoute is the route that the kernel makes with the gateway's address,
// and by which the node reaches its own pods. It is the kernel's, and bears its
// protocol; but where somebody deletes it, the address stays and the pods are
// cut off, so it is wanted like an object of ours.
func connectedRoute(link string, gateway netip.Addr, subnet netip.Prefix) RouteEntry {
	family := spec.FamilyOf(gateway)
	e := RouteEntry{
		RouteKey{Dst: subnet, Metric: connectedMetric(family)},
		Route{Link: link, Protocol: protocolKernel},
	}
	if family == spec.IPv4 {
		e.Source = gateway
	}
	return e
}

// connected plans a connected route. Where the kernel is about to make it, with
// an address or a link that the plan writes, there is nothing to do.
func (d *differ) connected(key RouteKey, want Route, present []Route) {
	if d.blocked[want.Link] {
		return
	}
	found, foreign := false, ""
	for _, r := range present {
		switch {
		case r == want:
			found = true
		case d.oursRoute(r):
			// A stale route to what is now our own subnet, as flannel leaves
			// it: it would win over the connected one.
			d.add(phaseClearRoutes, remove(RouteEntry{key, r}, ""))
		case !found && r.Protocol != protocolKernel:
			foreign = routeText(r)
		}
	}
	switch {
	case foreign != "":
		d.conflicts = append(d.conflicts, change.Conflict{
			Kind: "route", Name: key.Dst.String(),
			Reason: "a route to this node's own subnet is there and is not polder's: " + foreign,
			Remedy: fmt.Sprintf("remove it with `ip route del %s`, or stop whoever made it", key.Dst),
		})
	case !found && d.settled(want.Link, key.Dst):
		d.add(phaseRoutes, put(change.Create, RouteEntry{key, want}, nil, ""))
	}
}

// settled says that a link and its address in a subnet are as they should be,
// so that the kernel has no reason to make the connected route. With any write
// to an IPv6 address it restores a route that was deleted (addrconf.c,
// inet6_addr_modify).
func (d *differ) settled(link string, subnet netip.Prefix) bool {
	if d.gone[link] || !d.have.Links[link].Up || d.cleared[subnet] {
		return false
	}
	for key, want := range d.want.Addresses {
		if key.Link == link && key.Prefix.Masked() == subnet {
			have, there := d.have.Addresses[key]
			return there && (have == want || subnet.Addr().Is4())
		}
	}
	return false
}
