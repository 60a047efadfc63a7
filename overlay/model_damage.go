package overlay

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/poldernet/polder/spec"
)

// Damage is something that somebody with ip(8) may do to polder's objects, or
// put beside them.
type Damage struct {
	Command string // for a shell on a host that the model stands for
	do      func(m *Model)
}

// Do does it.
func (m *Model) Do(d Damage) { d.do(m) }

// Damages are those that the model's present state allows, in an order that
// depends on nothing else. They use the underlay's link for what leads astray.
func (m *Model) Damages(underlay string) []Damage {
	list := damageList{m: m, underlay: underlay}
	list.links()
	list.neighbours()
	list.routes()
	list.sysctls()
	slices.SortFunc(list.all, func(a, b Damage) int {
		if a.Command < b.Command {
			return -1
		}
		return 1
	})
	return list.all
}

type damageList struct {
	m        *Model
	underlay string
	all      []Damage
}

func (l *damageList) add(do func(*Model), format string, args ...any) {
	l.all = append(l.all, Damage{fmt.Sprintf(format, args...), do})
}

// stray is a MAC that nobody has.
var stray = spec.MAC{0x02, 0x11, 0x22, 0x33, 0x44, 0x55}

func (l *damageList) links() {
	s := &l.m.state
	for name, link := range s.Links {
		if !link.Marked() {
			continue
		}
		alter := func(alter func(*Link)) func(*Model) {
			return func(m *Model) {
				link := m.state.Links[name]
				alter(&link)
				m.setLink(link)
			}
		}
		l.add(func(m *Model) { m.dropLink(name) }, "ip link del %s", name)
		l.add(alter(func(l *Link) { l.MAC = stray }), "ip link set %s address %s", name, stray)
		l.add(alter(func(l *Link) { l.MTU = 1290 }), "ip link set %s mtu 1290", name)
		l.add(alter(func(l *Link) { l.Alias = "polder cluster=other" }), "ip link set %s alias 'polder cluster=other'", name)
		if link.Up {
			l.add(alter(func(l *Link) { l.Up = false }), "ip link set %s down", name)
			l.add(func(m *Model) {
				alter(func(l *Link) { l.Up = false })(m)
				alter(func(l *Link) { l.Up = true })(m)
			}, "ip link set %s down; ip link set %s up", name, name)
		}
	}
	for key := range s.Addresses {
		if s.Links[key.Link].Marked() {
			l.add(func(m *Model) { m.dropAddress(key) }, "ip addr del %s dev %s", key.Prefix, key.Link)
		}
	}
	for name, p := range s.Ports {
		if s.Links[p.Master].Marked() {
			l.add(func(m *Model) { m.enslave(name, "") }, "ip link set %s nomaster", name)
			l.add(func(m *Model) { m.setHairpin(name, !p.Hairpin) }, "bridge link set dev %s hairpin %s", name, onOff(!p.Hairpin))
		}
	}
}

func (l *damageList) neighbours() {
	for key, n := range l.m.state.Neighbours {
		l.add(func(m *Model) { m.dropNeighbour(key) }, "ip neigh del %s dev %s", key.Addr, key.Link)
		if n.MAC != stray {
			l.put(neighbourEntry{key, Neighbour{stray, true}}, "ip neigh replace %s lladdr %s dev %s nud permanent", key.Addr, stray, key.Link)
		}
	}
	for key, row := range l.m.state.FDB {
		l.add(func(m *Model) { m.dropFDB(fdbRow{key, row}) }, "bridge fdb del %s dev %s dst %s self", key.MAC, key.Link, key.Dst)
		astray := fdbRow{key, FDBEntry{Permanent: true}}
		astray.Dst = astray.Dst.Next()
		l.put(astray, "bridge fdb replace %s dev %s dst %s self permanent", key.MAC, key.Link, astray.Dst)
		astray.FDBKey = FDBKey{key.Link, stray, key.Dst}
		l.put(astray, "bridge fdb replace %s dev %s dst %s self permanent", stray, key.Link, key.Dst)
	}
}

// put adds a damage that an operation could do.
func (l *damageList) put(o object, format string, args ...any) {
	op := Op{object: o}
	if l.m.Clone().apply(op) == nil {
		l.add(func(m *Model) { _ = m.apply(op) }, format, args...) // which succeeds, as it did
	}
}

// astray is an address on the underlay's link that is nobody's.
func (l *damageList) astray(f spec.Family) (a netip.Addr, ok bool) {
	for _, key := range slices.SortedFunc(maps.Keys(l.m.state.Addresses), compareAddresses) {
		if key.Link == l.underlay && spec.FamilyOf(key.Prefix.Addr()) == f {
			return key.Prefix.Masked().Addr().Next().Next().Next(), l.m.state.Links[l.underlay].Up
		}
	}
	return a, false
}

func (l *damageList) routes() {
	s := &l.m.state
	for id, hop := range s.NextHops {
		l.add(func(m *Model) { m.dropNextHop(id, true) }, "ip nexthop del id %d", id)
		if via, ok := l.astray(spec.FamilyOf(hop.Gateway)); ok && hop.Gateway != via {
			l.put(nextHopEntry{id, NextHop{Gateway: via, Link: l.underlay, Protocol: Protocol}}, "ip nexthop replace id %d via %s dev %s proto %d", id, via, l.underlay, Protocol)
			if _, taken := s.NextHops[5]; !taken {
				l.put(nextHopEntry{5, NextHop{Gateway: via, Link: l.underlay, Protocol: Protocol}}, "ip nexthop add id 5 via %s dev %s proto %d", via, l.underlay, Protocol)
			}
		}
	}
	for key, r := range s.Routes {
		e := RouteEntry{key, r}
		switch {
		case r.Protocol == Protocol:
			l.add(func(m *Model) { m.dropRoute(e, true) }, "ip route del %s metric %d proto %d", key.Dst, key.Metric, Protocol)
			via, ok := l.astray(spec.FamilyOf(key.Dst.Addr()))
			more := RouteEntry{RouteKey{Dst: key.Dst, Metric: 7}, Route{Gateway: via, Link: l.underlay, Protocol: Protocol}}
			if _, there := s.Routes[more.RouteKey]; ok && !there {
				l.put(more, "ip route add %s via %s dev %s metric 7 proto %d", key.Dst, via, l.underlay, Protocol)
			}
		case r.Protocol == protocolKernel && s.Links[r.Link].Marked() && !key.Dst.IsSingleIP():
			l.add(func(m *Model) { m.dropRoute(e, true) }, "ip route del %s dev %s metric %d", key.Dst, r.Link, key.Metric)
		}
	}
}

func (l *damageList) sysctls() {
	for path, value := range l.m.state.Sysctls {
		other := "1"
		if value == "1" {
			other = "0"
		}
		link := SysctlLink(path)
		if host := path == ForwardingSwitch(spec.IPv4) || path == ForwardingSwitch(spec.IPv6); host || path == linkSysctl(link, "accept_ra") && l.m.state.Links[link].Marked() {
			l.put(sysctlEntry{path, other}, "echo %s >/proc/sys/%s", other, path)
		}
	}
}
