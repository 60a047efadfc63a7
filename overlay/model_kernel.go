package overlay

import (
	"maps"
	"slices"
	"strings"
	"syscall"

	"github.com/poldernet/polder/spec"
)

// What the kernel does to a host's network, one object at a time, with what
// that takes along. What is not told, it tells nobody.

func (m *Model) newLink(l Link) {
	m.last++
	m.indices[l.Name] = m.last
	m.state.Links[l.Name] = l
	m.state.Ports[l.Name] = Port{Up: l.Up}
	maps.Copy(m.state.Sysctls, map[string]string{
		"net/ipv4/conf/" + l.Name + "/forwarding": m.state.Sysctls["net/ipv4/conf/default/forwarding"],
		"net/ipv4/conf/" + l.Name + "/rp_filter":  "0",
		linkSysctl(l.Name, "accept_ra"):           "1",
		linkSysctl(l.Name, "disable_ipv6"):        "0",
	})
	m.tell(false, m.rawLink(l.Name))
}

// setLink writes a link's MAC, MTU, alias and state.
func (m *Model) setLink(l Link) {
	have := m.state.Links[l.Name]
	if have == l {
		return
	}
	m.state.Links[l.Name] = l
	port := m.state.Ports[l.Name]
	port.Up = l.Up
	m.state.Ports[l.Name] = port
	silent := have
	silent.Alias = l.Alias
	if silent != l || l.Up {
		m.tell(false, m.rawLink(l.Name))
	}
	if have.MAC != l.MAC || have.Up && !l.Up {
		m.flushNeighbours(l.Name, spec.Families[:]...)
	}
	switch {
	case have.Up && !l.Up:
		m.goDown(l.Name)
	case l.Up && !have.Up:
		m.connect(l.Name)
	}
}

// goDown takes a link's IPv6 addresses, nexthop objects and routes. Those of
// IPv4 go without a word.
func (m *Model) goDown(link string) {
	maps.DeleteFunc(m.state.Proxies, func(k NeighbourKey, _ Proxy) bool { return k.Link == link })
	for key := range maps.Clone(m.state.Addresses) {
		if key.Link == link && key.Prefix.Addr().Is6() {
			m.dropAddress(key)
		}
	}
	for id, hop := range maps.Clone(m.state.NextHops) {
		if hop.Link == link {
			m.dropNextHop(id, false)
		}
	}
	m.dropRoutes(func(e RouteEntry) bool { return e.NextHop == 0 && e.Link == link })
}

func (m *Model) dropLink(name string) {
	l, there := m.state.Links[name]
	if !there {
		return
	}
	for port, p := range m.state.Ports {
		if p.Master == name {
			m.enslave(port, "")
		}
	}
	for other, o := range m.state.Links {
		if o.VXLAN.Device == name {
			m.dropLink(other)
		}
	}
	if l.Up {
		l.Up = false
		m.setLink(l)
	}
	maps.DeleteFunc(m.state.Addresses, func(k AddressKey, _ Address) bool { return k.Link == name })
	m.flushNeighbours(name, spec.Families[:]...)
	maps.DeleteFunc(m.state.FDB, func(k FDBKey, _ FDBEntry) bool { return k.Link == name })
	maps.DeleteFunc(m.state.Sysctls, func(path, _ string) bool { return SysctlLink(path) == name })
	m.tell(true, m.rawLink(name))
	delete(m.state.Links, name)
	delete(m.state.Ports, name)
	delete(m.indices, name)
}

// enslave makes a link a port of a bridge, or of none.
func (m *Model) enslave(link, master string) {
	p := m.state.Ports[link]
	if p.Master == master {
		return
	}
	if p.Master != "" {
		m.tell(true, portNotice(m.rawLink(link)))
	}
	p.Master, p.Hairpin = master, false
	m.state.Ports[link] = p
	m.tell(false, m.rawLink(link))
}

func (m *Model) setHairpin(link string, on bool) {
	p := m.state.Ports[link]
	p.Hairpin = on
	m.state.Ports[link] = p
	m.tell(false, portNotice(m.rawLink(link)))
}

// connect makes the routes that go with a link's addresses.
func (m *Model) connect(link string) {
	for _, k := range slices.SortedFunc(maps.Keys(m.state.Addresses), compareAddresses) {
		if k.Link != link || !m.state.Links[link].Up || k.Prefix.IsSingleIP() && k.Prefix.Addr().Is4() {
			continue
		}
		e := connectedRoute(link, k.Prefix.Addr(), k.Prefix.Masked())
		if first, taken := m.state.Routes[e.RouteKey]; !taken {
			m.state.Routes[e.RouteKey] = e.Route
		} else if first != e.Route && !slices.Contains(m.state.Duplicates, e) {
			m.state.Duplicates = append(m.state.Duplicates, e)
		}
		m.tellRoute(false, e)
	}
}

func (m *Model) putAddress(a addressEntry) error {
	if _, there := m.state.Links[a.Link]; !there {
		return syscall.ENODEV
	}
	for k := range m.state.Addresses {
		if k.Link == a.Link && k.Prefix.Addr() == a.Prefix.Addr() && k != a.AddressKey && k.Prefix.Addr().Is6() {
			return syscall.EEXIST
		}
	}
	_, there := m.state.Addresses[a.AddressKey]
	m.state.Addresses[a.AddressKey] = a.Address
	m.tell(false, m.rawAddress(a))
	if !there || a.Prefix.Addr().Is6() { // with a write to one of IPv6, it comes back
		m.connect(a.Link)
	}
	return nil
}

// dropAddress takes an address and its route. With the last of IPv4 a link
// loses its neighbours, and routes but for those by nexthop objects
// (fib_frontend.c, fib_disable_ip).
func (m *Model) dropAddress(key AddressKey) {
	a, there := m.state.Addresses[key]
	if !there {
		return
	}
	delete(m.state.Addresses, key)
	m.tell(true, m.rawAddress(addressEntry{key, a}))
	m.dropRoute(connectedRoute(key.Link, key.Prefix.Addr(), key.Prefix.Masked()), true)
	if key.Prefix.Addr().Is6() {
		return
	}
	for k := range m.state.Addresses {
		if k.Link == key.Link && k.Prefix.Addr().Is4() {
			return
		}
	}
	m.flushNeighbours(key.Link, spec.IPv4)
	m.dropRoutes(func(e RouteEntry) bool { return e.NextHop == 0 && e.Link == key.Link && e.Dst.Addr().Is4() })
}

func (m *Model) putNeighbour(n neighbourEntry) error {
	if _, there := m.state.Links[n.Link]; !there {
		return syscall.ENODEV
	}
	m.state.Neighbours[n.NeighbourKey] = n.Neighbour
	m.tell(false, m.rawNeigh(n))
	return nil
}

func (m *Model) dropNeighbour(key NeighbourKey) {
	if n, there := m.state.Neighbours[key]; there {
		delete(m.state.Neighbours, key)
		failed := m.rawNeigh(neighbourEntry{key, n})
		failed.state = nudFailed
		m.tell(false, failed)
		m.tell(true, m.rawNeigh(neighbourEntry{key, n}))
	}
}

func (m *Model) flushNeighbours(link string, families ...spec.Family) {
	for key := range maps.Clone(m.state.Neighbours) {
		if key.Link == link && slices.Contains(families, spec.FamilyOf(key.Addr)) {
			m.dropNeighbour(key)
		}
	}
}

func (m *Model) rawNeigh(n neighbourEntry) rawNeigh {
	raw := rawNeigh{family: rtFamily(spec.FamilyOf(n.Addr)), ifindex: m.indices[n.Link], dst: n.Addr, mac: n.MAC}
	if n.Permanent {
		raw.state = nudPermanent
	}
	return raw
}

// putFDB writes a row: a unicast MAC has one destination.
func (m *Model) putFDB(f fdbRow) error {
	if _, there := m.state.Links[f.Link]; !there {
		return syscall.ENODEV
	}
	for k, row := range m.state.FDB {
		if row.Other && k.Link == f.Link && k.MAC == f.MAC {
			return syscall.EOPNOTSUPP
		}
	}
	maps.DeleteFunc(m.state.FDB, func(k FDBKey, _ FDBEntry) bool { return k.Link == f.Link && k.MAC == f.MAC })
	m.state.FDB[f.FDBKey] = f.FDBEntry
	m.tell(false, m.rawRow(f))
	return nil
}

// dropFDB deletes a row, and of one that sends elsewhere all of the MAC.
func (m *Model) dropFDB(f fdbRow) {
	for k, row := range maps.Clone(m.state.FDB) {
		if k == f.FDBKey || f.Other && k.Link == f.Link && k.MAC == f.MAC {
			delete(m.state.FDB, k)
			m.tell(true, m.rawRow(fdbRow{k, row}))
		}
	}
}

func (m *Model) rawRow(f fdbRow) rawNeigh {
	raw := rawNeigh{family: familyBridge, ifindex: m.indices[f.Link], flags: ntfSelf, dst: f.Dst, mac: f.MAC, other: f.Other}
	if f.Permanent {
		raw.state = nudPermanent
	}
	return raw
}

func (m *Model) putNextHop(n nextHopEntry) error {
	l, there := m.state.Links[n.Link]
	old, replaces := m.state.NextHops[n.id]
	switch {
	case !there:
		return syscall.ENODEV
	case !l.Up:
		return syscall.ENETDOWN
	case replaces && (old.Other || old.Gateway.Is4() != n.Gateway.Is4()):
		return syscall.EINVAL
	}
	for k := range m.state.Addresses {
		if k.Prefix.Addr() == n.Gateway {
			return syscall.EINVAL
		}
	}
	m.state.NextHops[n.id] = n.NextHop
	m.tell(false, m.hopNotice(n))
	return nil
}

// dropNextHop takes a nexthop object and its routes. It is told where somebody
// asked for it.
func (m *Model) dropNextHop(id uint32, asked bool) {
	hop, there := m.state.NextHops[id]
	if !there {
		return
	}
	delete(m.state.NextHops, id)
	if asked {
		m.tell(true, m.hopNotice(nextHopEntry{id, hop}))
	}
	m.dropRoutes(func(e RouteEntry) bool { return e.NextHop == id })
}

func (m *Model) hopNotice(n nextHopEntry) hopNotice {
	h := hopNotice{NextHop: n.NextHop, id: n.id, ifindex: m.indices[n.Link]}
	h.Link = ""
	return h
}

func (m *Model) putRoute(e RouteEntry) error {
	for k := range m.state.Addresses {
		if k.Prefix.Masked() == e.Dst && k.Prefix.Addr() != e.Dst.Addr() && e.Protocol != protocolKernel {
			return syscall.EEXIST // the kernel's own route is there
		}
	}
	if _, there := m.state.NextHops[e.NextHop]; !there && e.NextHop != 0 {
		return syscall.EINVAL
	}
	if e.NextHop == 0 && !m.state.Links[e.Link].Up {
		return syscall.ENETDOWN
	}
	if slices.Contains(m.state.Duplicates, e) {
		return syscall.EEXIST
	}
	m.state.Routes[e.RouteKey] = e.Route
	m.tellRoute(false, e)
	return nil
}

// dropRoute deletes one route; a duplicate moves up. Of IPv4 it is told where
// somebody asked for it.
func (m *Model) dropRoute(e RouteEntry, asked bool) {
	s := &m.state
	i := slices.Index(s.Duplicates, e)
	switch held, there := s.Routes[e.RouteKey]; {
	case there && held == e.Route:
		delete(s.Routes, e.RouteKey)
		if next := slices.IndexFunc(s.Duplicates, func(d RouteEntry) bool { return d.RouteKey == e.RouteKey }); next >= 0 {
			s.Routes[e.RouteKey] = s.Duplicates[next].Route
			s.Duplicates = slices.Delete(s.Duplicates, next, next+1)
		}
	case i >= 0:
		s.Duplicates = slices.Delete(s.Duplicates, i, i+1)
	default:
		return
	}
	if asked || e.Dst.Addr().Is6() {
		m.tellRoute(true, e)
	}
}

// dropRoutes deletes routes with what they lead over.
func (m *Model) dropRoutes(which func(RouteEntry) bool) {
	for _, d := range slices.Clone(m.state.Duplicates) {
		if which(d) {
			m.dropRoute(d, false)
		}
	}
	for k, r := range maps.Clone(m.state.Routes) {
		if e := (RouteEntry{k, r}); which(e) {
			m.dropRoute(e, false)
		}
	}
}

func (m *Model) tellRoute(gone bool, e RouteEntry) {
	raw := rawRoute{RouteEntry: e, ifindex: m.indices[e.Link], table: tableMain, kind: routeUnicast}
	raw.Link = ""
	m.tell(gone, raw)
}

// putSysctl writes a switch. The one for a family's forwarding is written to
// every link.
func (m *Model) putSysctl(s sysctlEntry) error {
	if _, there := m.state.Sysctls[s.path]; !there {
		return syscall.ENOENT
	}
	m.state.Sysctls[s.path] = s.value
	on := int32(0)
	if s.value != "0" {
		on = 1
	}
	family, all := spec.IPv4, s.path == ForwardingSwitch(spec.IPv4)
	if s.path == ForwardingSwitch(spec.IPv6) {
		family, all = spec.IPv6, true
	}
	if all {
		m.tell(false, confNotice{family, netconfAll, on})
	}
	for path := range m.state.Sysctls {
		if forwards := strings.HasPrefix(path, "net/"+family.String()+"/conf/") && strings.HasSuffix(path, "/forwarding"); forwards && (all || path == s.path) {
			m.state.Sysctls[path] = s.value
			if link := SysctlLink(path); link != "" {
				m.tell(false, confNotice{family, m.indices[link], on})
			}
		}
	}
	return nil
}
