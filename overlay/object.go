package overlay

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/spec"
)

// object is a kernel object in the form in which it is written and shown.
type object interface {
	kind() string
	name() string
	// attrs are the attributes as those of an object that comes: Before is
	// empty. ForcesReplace marks those that cannot be changed in place.
	attrs() []change.Attr
}

func attr(name, value string) change.Attr { return change.Attr{Name: name, After: value} }

func fixed(name, value string) change.Attr {
	return change.Attr{Name: name, After: value, ForcesReplace: true}
}

type (
	portEntry struct {
		link string
		Port
	}
	addressEntry struct {
		AddressKey
		Address
	}
	neighbourEntry struct {
		NeighbourKey
		Neighbour
	}
	proxyEntry struct {
		NeighbourKey
		Proxy
	}
	fdbRow struct {
		FDBKey
		FDBEntry
	}
	nextHopEntry struct {
		id uint32
		NextHop
	}
	sysctlEntry struct{ path, value string }
)

func (l Link) kind() string { return "link" }
func (l Link) name() string { return l.Name }
func (l Link) attrs() []change.Attr {
	attrs := []change.Attr{fixed("type", string(l.Type))}
	if l.Type == TypeVXLAN {
		attrs = append(attrs,
			fixed("id", strconv.FormatUint(uint64(l.VXLAN.VNI), 10)),
			fixed("dstport", strconv.Itoa(int(l.VXLAN.Port))),
			fixed("local", addrText(l.VXLAN.Local)),
			fixed("dev", l.VXLAN.Device),
			fixed("learning", onOff(l.VXLAN.Learning)))
		if l.VXLAN.Other {
			attrs = append(attrs, fixed("features", "other"))
		}
	}
	attrs = append(attrs,
		attr("address", l.MAC.String()),
		attr("mtu", strconv.Itoa(l.MTU)),
		attr("state", upDown(l.Up)),
		attr("alias", l.Alias))
	if l.TTL != 0 {
		attrs = append(attrs, attr("ttl", strconv.Itoa(int(l.TTL))))
	}
	if l.DF != 0 {
		attrs = append(attrs, attr("df", "set"))
	}
	return append(attrs, present(map[string]bool{"stp": l.STP, "vlan_filtering": l.VLANFiltering})...)
}

// present are the attributes that are on, sorted by name: those that ours never
// have.
func present(on map[string]bool) (attrs []change.Attr) {
	for _, name := range slices.Sorted(maps.Keys(on)) {
		if on[name] {
			attrs = append(attrs, attr(name, "on"))
		}
	}
	return attrs
}

func (p portEntry) kind() string { return "port" }
func (p portEntry) name() string { return p.link }
func (p portEntry) attrs() []change.Attr {
	var attrs []change.Attr
	if p.Master != "" {
		attrs = append(attrs, attr("master", p.Master))
	}
	attrs = append(attrs, attr("hairpin", onOff(p.Hairpin)), attr("state", upDown(p.Up)))
	return append(attrs, present(map[string]bool{
		"isolated": p.Limits.Isolated, "locked": p.Limits.Locked,
		"no_flood": p.Limits.NoFlood, "no_learning": p.Limits.NoLearning,
	})...)
}

func (a addressEntry) kind() string { return "address" }
func (a addressEntry) name() string { return a.Prefix.String() + " dev " + a.Link }
func (a addressEntry) attrs() []change.Attr {
	attrs := []change.Attr{attr("proto", protocolText(a.Protocol))}
	if a.Tentative {
		attrs = append(attrs, attr("flags", "tentative"))
	}
	if a.Expires {
		attrs = append(attrs, attr("lifetime", "limited"))
	}
	return attrs
}

func (n neighbourEntry) kind() string { return "neighbour" }
func (n neighbourEntry) name() string { return n.Addr.String() + " dev " + n.Link }
func (n neighbourEntry) attrs() []change.Attr {
	return []change.Attr{attr("lladdr", n.MAC.String()), attr("nud", permanentText(n.Permanent))}
}

func (p proxyEntry) kind() string { return "proxy" }
func (p proxyEntry) name() string { return p.Addr.String() + " dev " + p.Link }
func (p proxyEntry) attrs() []change.Attr {
	return []change.Attr{attr("proto", protocolText(p.Protocol))}
}

func (f fdbRow) kind() string { return "fdb" }
func (f fdbRow) name() string {
	return f.MAC.String() + " dev " + f.Link + " dst " + addrText(f.Dst)
}
func (f fdbRow) attrs() []change.Attr {
	attrs := []change.Attr{attr("state", permanentText(f.Permanent))}
	if f.Other {
		attrs = append(attrs, attr("features", "other"))
	}
	return attrs
}

func (n nextHopEntry) kind() string { return "nexthop" }
func (n nextHopEntry) name() string { return "id " + strconv.FormatUint(uint64(n.id), 10) }
func (n nextHopEntry) attrs() []change.Attr {
	return []change.Attr{
		attr("via", addrText(n.Gateway)),
		attr("dev", n.Link),
		attr("onlink", onOff(n.OnLink)),
		attr("proto", protocolText(n.Protocol)),
	}
}

func (r RouteEntry) kind() string { return "route" }
func (r RouteEntry) name() string {
	name := r.Dst.String()
	if r.TOS != 0 {
		name += fmt.Sprintf(" tos %#x", r.TOS)
	}
	family := spec.FamilyOf(r.Dst.Addr())
	if r.Metric != defaultMetric(family) && (r.Protocol != protocolKernel || r.Metric != connectedMetric(family)) {
		name += " metric " + strconv.FormatUint(uint64(r.Metric), 10)
	}
	return name
}
func (r RouteEntry) attrs() []change.Attr {
	attrs := append(make([]change.Attr, 0, 2), attr("proto", protocolText(r.Protocol))) // of ours, two
	if r.Source.IsValid() {
		attrs = append(attrs, attr("src", r.Source.String()))
	}
	if r.Other {
		attrs = append(attrs, attr("features", "other"))
	}
	if r.NextHop != 0 {
		return append(attrs, attr("nhid", strconv.FormatUint(uint64(r.NextHop), 10)))
	}
	if r.Gateway.IsValid() {
		attrs = append(attrs, attr("via", r.Gateway.String()))
	}
	return append(attrs,
		attr("dev", r.Link),
		attr("onlink", onOff(r.OnLink)))
}

func (s sysctlEntry) kind() string { return "sysctl" }
func (s sysctlEntry) name() string { return SysctlName(s.path) }
func (s sysctlEntry) attrs() []change.Attr {
	return []change.Attr{attr("value", s.value)}
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

func upDown(up bool) string {
	if up {
		return "up"
	}
	return "down"
}

func permanentText(permanent bool) string {
	if permanent {
		return "permanent"
	}
	return "dynamic"
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func protocolText(p uint8) string {
	switch p {
	case 0:
		return "unspec"
	case protocolKernel:
		return "kernel"
	case protocolBoot:
		return "boot"
	case 4:
		return "static"
	case Protocol:
		return "polder"
	}
	return strconv.Itoa(int(p))
}
