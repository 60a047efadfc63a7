package overlay

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/poldernet/polder/spec"
)

// Model is a host's network as polder understands the kernel: what polder's
// operations make of it, what others may do to it, what goes along with what,
// and what of that the kernel announces. It stands in for the kernel where
// thousands of cases are to be tested; a test holds it to a real one, step by
// step. One goroutine at a time.
//
// It knows bridges, VXLAN devices and links that are there from the beginning;
// the main table; unicast routes; carriers that are there while a link is up.
type Model struct {
	state   State // of the whole host
	indices map[string]int
	last    int // index that was given
	events  []Event
}

// NewModel is a host with a loopback and one link that is up, the underlay's,
// with its addresses.
func NewModel(underlay Link, addresses ...netip.Prefix) *Model {
	m := &Model{state: NewState(0), indices: map[string]int{}}
	maps.Copy(m.state.Sysctls, map[string]string{
		"net/ipv4/ip_forward": "0", "net/ipv4/conf/default/forwarding": "0", "net/ipv6/conf/all/forwarding": "0",
		"net/bridge/bridge-nf-call-iptables": "1", "net/bridge/bridge-nf-call-ip6tables": "1",
	})
	underlay.Up = true
	for _, l := range []Link{{Name: "lo", MTU: 65536, Up: true}, underlay} {
		m.newLink(l)
	}
	for _, a := range addresses {
		m.state.Addresses[AddressKey{underlay.Name, a}] = Address{}
	}
	m.connect(underlay.Name)
	m.events = nil
	return m
}

// Plug makes a link of others, a workload's for instance, that is up and a port
// of no bridge.
func (m *Model) Plug(name string) {
	m.newLink(Link{Name: name, Type: "veth", MTU: 1500, Up: true})
}

// Clone is a copy that shares nothing.
func (m *Model) Clone() *Model {
	return &Model{state: m.state.Clone(), indices: maps.Clone(m.indices), last: m.last, events: slices.Clone(m.events)}
}

// Events are what the kernel has announced since the last call.
func (m *Model) Events() []Event {
	events := m.events
	m.events = nil
	return events
}

func (m *Model) tell(gone bool, of notice) {
	m.events = append(m.events, Event{at: time.Now(), gone: gone, of: of})
}

// Read is what a Reader's Read would give.
func (m *Model) Read(scope Scope) *Observed { return m.Refresh(newObserved(scope), Everything) }

// Refresh is what a Reader's Refresh would give.
func (m *Model) Refresh(old *Observed, classes Class) *Observed {
	next := *old
	next.Facts.AddressProtocol, next.Facts.IPv6, next.Facts.BridgeNetfilter = true, true, true
	if classes&Links != 0 {
		var links []rawLink
		var addresses []rawAddress
		for _, name := range slices.Sorted(maps.Keys(m.state.Links)) {
			links = append(links, m.rawLink(name))
		}
		for _, key := range slices.SortedFunc(maps.Keys(m.state.Addresses), compareAddresses) {
			addresses = append(addresses, m.rawAddress(addressEntry{key, m.state.Addresses[key]}))
		}
		next.setLinks(links, addresses)
		classes |= next.since(old)
	}
	now := time.Now()
	for i := range next.began {
		if classes&(1<<i) != 0 {
			next.began[i] = now
		}
	}
	if classes&Neighbours != 0 {
		next.State.Neighbours = maps.Clone(m.state.Neighbours)
		maps.DeleteFunc(next.State.Neighbours, func(k NeighbourKey, _ Neighbour) bool { return !next.oursVTEP(k.Link) })
	}
	if classes&Neighbours != 0 {
		next.State.Proxies = maps.Clone(m.state.Proxies)
		maps.DeleteFunc(next.State.Proxies, func(k NeighbourKey, _ Proxy) bool { return !next.oursBridge(k.Link) })
	}
	if classes&FDB != 0 {
		next.State.FDB = maps.Clone(m.state.FDB)
		maps.DeleteFunc(next.State.FDB, func(k FDBKey, _ FDBEntry) bool { return !next.oursVTEP(k.Link) })
	}
	if classes&Routes != 0 {
		next.State.NextHops = maps.Clone(m.state.NextHops)
		next.State.Routes = maps.Clone(m.state.Routes)
		maps.DeleteFunc(next.State.Routes, func(k RouteKey, r Route) bool { return !next.wantsRoute(RouteEntry{k, r}) })
		next.State.Duplicates = slices.DeleteFunc(slices.Clone(m.state.Duplicates), func(e RouteEntry) bool { return !next.wantsRoute(e) })
	}
	if classes&Paths != 0 {
		next.Facts.Paths = m.paths(next.scope.Ask)
	}
	next.index()
	return &next
}

// Ask is what a Reader's Ask would do.
func (m *Model) Ask(o *Observed, sp *spec.Spec, node *spec.Node, gone, come []*spec.Node) bool {
	ok, _ := o.ask(sp, node, gone, come, func(a []netip.Addr) (map[netip.Addr]HostPath, error) { return m.paths(a), nil })
	return ok
}

func (m *Model) paths(addresses []netip.Addr) map[netip.Addr]HostPath {
	paths := map[netip.Addr]HostPath{}
	for _, a := range addresses {
		if path, ok := m.path(a); ok {
			paths[a] = path
		}
	}
	return paths
}

// Sysctls is what a Reader's Sysctls would give.
func (m *Model) Sysctls(paths []string) map[string]string {
	values := make(map[string]string, len(paths))
	for _, path := range paths {
		if value, there := m.state.Sysctls[path]; there {
			values[path] = value
		}
	}
	return values
}

// path is where packets to an address go: by the longest prefix, of these by
// the least metric.
func (m *Model) path(a netip.Addr) (HostPath, bool) {
	for key := range m.state.Addresses {
		if key.Prefix.Addr() == a {
			return HostPath{Link: "lo", Local: true}, true
		}
	}
	var best RouteKey
	for key := range m.state.Routes {
		if !key.Dst.Contains(a) || key.TOS != 0 {
			continue
		}
		if !best.Dst.IsValid() || cmp.Or(cmp.Compare(best.Dst.Bits(), key.Dst.Bits()), cmp.Compare(key.Metric, best.Metric)) < 0 {
			best = key
		}
	}
	hop := m.state.hop(m.state.Routes[best])
	return HostPath{Link: hop.Link, Gateway: hop.Gateway}, best.Dst.IsValid() && !hop.Other
}

// rawLink is a link as its message would say it.
func (m *Model) rawLink(name string) rawLink {
	l, port := m.state.Links[name], m.state.Ports[name]
	raw := rawLink{
		Link: l, ifindex: m.indices[name], master: m.indices[port.Master], device: m.indices[l.VXLAN.Device],
		carrier: l.Up, bridgeMember: bridgeMember{Hairpin: port.Hairpin},
	}
	raw.VXLAN.Device = ""
	return raw
}

func (m *Model) rawAddress(a addressEntry) rawAddress {
	return rawAddress{Address: a.Address, ifindex: m.indices[a.Link], prefix: a.Prefix}
}

func compareAddresses(a, b AddressKey) int {
	return cmp.Or(cmp.Compare(a.Link, b.Link), a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()))
}

// Clone is a copy that shares nothing.
func (s State) Clone() State {
	return State{
		Links: maps.Clone(s.Links), Ports: maps.Clone(s.Ports), Addresses: maps.Clone(s.Addresses),
		Neighbours: maps.Clone(s.Neighbours), Proxies: maps.Clone(s.Proxies), FDB: maps.Clone(s.FDB), NextHops: maps.Clone(s.NextHops),
		Routes: maps.Clone(s.Routes), Duplicates: slices.Clone(s.Duplicates), Sysctls: maps.Clone(s.Sysctls),
	}
}

// String lists the state, one object a line, sorted: what two states have
// different is different in their text.
func (s State) String() string {
	var lines []string
	line := func(o object, more string) {
		text := o.kind() + " " + o.name()
		for _, a := range o.attrs() {
			text += " " + a.Name + "=" + a.After
		}
		lines = append(lines, text+more)
	}
	for _, l := range s.Links {
		line(l, "")
	}
	for link, p := range s.Ports {
		line(portEntry{link, p}, "")
	}
	for k, a := range s.Addresses {
		line(addressEntry{k, a}, "")
	}
	for k, n := range s.Neighbours {
		line(neighbourEntry{k, n}, "")
	}
	for k, p := range s.Proxies {
		line(proxyEntry{k, p}, "")
	}
	for k, f := range s.FDB {
		line(fdbRow{k, f}, "")
	}
	for id, n := range s.NextHops {
		line(nextHopEntry{id, n}, "")
	}
	for k, r := range s.Routes {
		line(RouteEntry{k, r}, "")
	}
	slices.Sort(lines)
	for _, e := range s.Duplicates { // their order matters
		line(e, " duplicate")
	}
	for _, path := range slices.Sorted(maps.Keys(s.Sysctls)) {
		line(sysctlEntry{path, s.Sysctls[path]}, "")
	}
	return strings.Join(lines, "\n") + "\n"
}
