package remains

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/poldernet/polder/overlay"
	"github.com/poldernet/polder/spec"
)

// otherDevices are the types of what flannel makes with backends that polder has
// not.
var otherDevices = map[string]overlay.LinkType{"flannel-wg": "wireguard", "flannel-wg-v6": "wireguard", "flannel.ipip": "ipip", "flannel0": "tun"}

// linksOf finds flannel's devices that the spec does not want. Their routes,
// neighbours and FDB entries go with them.
func linksOf(sp *spec.Spec, links map[string]overlay.HostLink) (found []overlay.Link) {
	device := sp.Network.Backend.Device
	for _, name := range slices.Sorted(maps.Keys(links)) {
		l := links[name].Link
		wanted := sp.Network.Backend.Type == spec.VXLAN && (name == device.IPv4 || name == device.IPv6) || name == sp.Network.Bridge.Name
		if !wanted && !l.Marked() && flannels(l) {
			found = append(found, l)
		}
	}
	return found
}

// flannels says that a device is one of flannel's by its name and what it is.
func flannels(l overlay.Link) bool {
	if typ, other := otherDevices[l.Name]; other {
		return l.Type == typ
	}
	return l.Type == overlay.TypeVXLAN && (l.Name == fmt.Sprintf("flannel.%d", l.VXLAN.VNI) || l.Name == fmt.Sprintf("flannel-v6.%d", l.VXLAN.VNI))
}

// routesOf finds the routes to pods that a switch leaves alone: what leads over
// the VTEPs of the spec becomes polder's, and what leads to the spec's nodes is
// in its plan.
func routesOf(sp *spec.Spec, state overlay.State) (found []overlay.RouteEntry) {
	known := map[netip.Prefix]bool{}
	for _, n := range sp.Nodes {
		for _, s := range n.Subnets {
			known[s] = true
		}
	}
	b := sp.Network.Backend
	for key, r := range state.Routes {
		if r.NextHop != 0 || !r.Gateway.IsValid() || known[key.Dst] || b.Type == spec.VXLAN && (r.Link == b.Device.IPv4 || r.Link == b.Device.IPv6) {
			continue
		}
		found = append(found, overlay.RouteEntry{RouteKey: key, Route: r})
	}
	slices.SortFunc(found, func(a, b overlay.RouteEntry) int { return strings.Compare(routeText(a), routeText(b)) })
	return found
}

func routeText(e overlay.RouteEntry) string {
	return fmt.Sprintf("%s via %s dev %s", e.Dst, e.Gateway, e.Link)
}

// protocolBoot is that of flannel's routes (RTPROT_BOOT, <linux/rtnetlink.h>).
const protocolBoot = 3

// flannelsRoute says that a route looks as flannel makes it: to the subnet of a
// node, and without a protocol, metric or type of service of its own.
func flannelsRoute(sp *spec.Spec, e overlay.RouteEntry) bool {
	f := spec.FamilyOf(e.Dst.Addr())
	pods, ok := sp.Network.PodRange(f)
	metric := uint32(0)
	if f == spec.IPv6 {
		metric = 1024 // what the kernel makes of 0 (IP6_RT_PRIO_USER)
	}
	return ok && e.Dst.Bits() == pods.SubnetLen && e.Protocol == protocolBoot && e.Metric == metric && e.TOS == 0 && !e.Other
}
