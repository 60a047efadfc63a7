package overlay

import (
	"fmt"
	"net/netip"
	"strconv"

	"github.com/poldernet/polder/spec"
)

// object is a kernel object in the form in which it is written and shown.
type object interface {
	kind() string
	name() string
	attrs() []attr
}

// attr is an attribute as text.
type attr struct {
	name, value string
	fixed       bool // cannot be changed in place
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
func (l Link) attrs() []attr {
	attrs := []attr{{"type", string(l.Type), true}}
	if l.Type == TypeVXLAN {
		attrs = append(attrs,
			attr{"id", strconv.FormatUint(uint64(l.VXLAN.VNI), 10), true},
			attr{"dstport", strconv.Itoa(int(l.VXLAN.Port)), true},
			attr{"local", addrText(l.VXLAN.Local), true},
			attr{"dev", l.VXLAN.Device, true},
			attr{"learning", onOff(l.VXLAN.Learning), true})
		if l.VXLAN.Other {
			attrs = append(attrs, attr{"features", "other", true})
		}
	}
	return append(attrs,
		attr{"address", l.MAC.String(), false},
		attr{"mtu", strconv.Itoa(l.MTU), false},
		attr{"state", upDown(l.Up), false},
		attr{"alias", l.Alias, false})
}

func (p portEntry) kind() string { return "port" }
func (p portEntry) name() string { return p.link }
func (p portEntry) attrs() []attr {
	return []attr{{"master", p.Master, false}, {"hairpin", onOff(p.Hairpin), false}, {"state", upDown(p.Up), false}}
}

func (a addressEntry) kind() string { return "address" }
func (a addressEntry) name() string { return a.Prefix.String() + " dev " + a.Link }
func (a addressEntry) attrs() []attr {
	attrs := []attr{{"proto", protocolText(a.Protocol), false}}
	if a.Tentative {
		attrs = append(attrs, attr{"flags", "tentative", false})
	}
	return attrs
}

func (n neighbourEntry) kind() string { return "neighbour" }
func (n neighbourEntry) name() string { return n.Addr.String() + " dev " + n.Link }
func (n neighbourEntry) attrs() []attr {
	return []attr{{"lladdr", n.MAC.String(), false}, {"nud", permanentText(n.Permanent), false}}
}

func (f fdbRow) kind() string { return "fdb" }
func (f fdbRow) name() string {
	return f.MAC.String() + " dev " + f.Link + " dst " + addrText(f.Dst)
}
func (f fdbRow) attrs() []attr {
	attrs := []attr{{"state", permanentText(f.Permanent), false}}
	if f.Other {
		attrs = append(attrs, attr{"features", "other", false})
	}
	return attrs
}

func (n nextHopEntry) kind() string { return "nexthop" }
func (n nextHopEntry) name() string { return "id " + strconv.FormatUint(uint64(n.id), 10) }
func (n nextHopEntry) attrs() []attr {
	return []attr{
		{"via", addrText(n.Gateway), false},
		{"dev", n.Link, false},
		{"onlink", onOff(n.OnLink), false},
		{"proto", protocolText(n.Protocol), false},
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
func (r RouteEntry) attrs() []attr {
	attrs := []attr{{"proto", protocolText(r.Protocol), false}}
	if r.Source.IsValid() {
		attrs = append(attrs, attr{"src", r.Source.String(), false})
	}
	if r.Other {
		attrs = append(attrs, attr{"features", "other", false})
	}
	if r.NextHop != 0 {
		return append(attrs, attr{"nhid", strconv.FormatUint(uint64(r.NextHop), 10), false})
	}
	return append(attrs,
		attr{"via", addrText(r.Gateway), false},
		attr{"dev", r.Link, false},
		attr{"onlink", onOff(r.OnLink), false})
}

func (s sysctlEntry) kind() string { return "sysctl" }
func (s sysctlEntry) name() string { return SysctlName(s.path) }
func (s sysctlEntry) attrs() []attr {
	return []attr{{"value", s.value, false}}
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
