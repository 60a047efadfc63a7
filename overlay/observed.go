package overlay

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// Observed is one reading of the kernel, within a scope. Nothing that it holds
// is ever changed by a Reader's Read and Refresh: a later reading that shares objects
// with it is another value.
type Observed struct {
	State State
	Facts Facts

	scope Scope
	began [classes]time.Time // when the reading of each class began, by its bit
	links map[int]kernelLink // by index, all of the host
	asked []netip.Addr       // Scope.Ask, sorted
	// What the kernel takes along, without a word, with a link's state, by its
	// name: Routes where nexthop objects lead over it, or routes of the state
	// and the link is not ours; Paths where an answer does.
	hangs map[string]Class
	// underlays are the links that carry the underlay, or that Compile may
	// choose for it.
	underlays map[string]bool
	// hops are the nexthop objects of others that routes of the state use.
	hops map[uint32]bool
	vias map[HostPath]bool // all answers
	// advertised are the links with an IPv6 default route by router
	// advertisement, whoever listened to it.
	advertised map[string]bool
}

// kernelLink is a link with its addresses as the kernel has them.
type kernelLink struct {
	HostLink
	raw       rawLink
	addresses []rawAddress
}

func newObserved(scope Scope) *Observed {
	asked := slices.Clone(scope.Ask)
	slices.SortFunc(asked, netip.Addr.Compare)
	return &Observed{scope: scope, State: NewState(scope.peers), asked: asked}
}

// Scope is what was read for.
func (o *Observed) Scope() Scope { return o.scope }

// name is a link's by its index. An index without a link is of one that came
// since the links were read, or that is in another namespace.
func (o *Observed) name(index int) string { return o.links[index].Name }

// setLinks takes all links of the host and their addresses.
func (o *Observed) setLinks(links []rawLink, addresses []rawAddress) {
	o.links = make(map[int]kernelLink, len(links))
	o.Facts.Links = make(map[string]HostLink, len(links))
	o.State.Links = map[string]Link{}
	o.State.Ports = make(map[string]Port, len(links))
	o.State.Addresses = map[AddressKey]Address{}
	names := make(map[int]string, len(links))
	for _, l := range links {
		names[l.ifindex] = l.Name
	}
	of := map[int][]rawAddress{}
	for _, a := range addresses {
		of[a.ifindex] = append(of[a.ifindex], a)
	}
	for _, raw := range links {
		l := kernelLink{raw: raw, addresses: of[raw.ifindex]}
		l.Link, l.Master = raw.Link, names[raw.master]
		l.VXLAN.Device = names[raw.device]
		slices.SortStableFunc(l.addresses, func(a, b rawAddress) int {
			return cmp.Compare(btoi(a.last), btoi(b.last))
		})
		for _, a := range l.addresses {
			l.Addresses = append(l.Addresses, a.prefix)
			// An older kernel may have it from a newer one: then it marks the
			// addresses of its own, that of the loopback first.
			o.Facts.AddressProtocol = o.Facts.AddressProtocol || a.Protocol != 0
			if o.ours(l.Link) && !a.prefix.Addr().IsLinkLocalUnicast() { // which is the kernel's own
				o.State.Addresses[AddressKey{l.Name, a.prefix}] = a.Address
			}
		}
		if o.ours(l.Link) || l.Type == TypeVXLAN {
			o.State.Links[l.Name] = l.Link
		}
		o.State.Ports[l.Name] = Port{Master: l.Master, Hairpin: raw.Hairpin, Up: raw.Up, Limits: raw.Limits}
		o.Facts.Links[l.Name] = l.HostLink
		o.links[raw.ifindex] = l
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// ours says that a link bears our mark, or has the name of one of ours.
func (o *Observed) ours(l Link) bool {
	return l.Marked() || slices.Contains(o.scope.Links, l.Name)
}

// oursVTEP says that what is on a link is of interest: it is a VTEP, and ours.
func (o *Observed) oursVTEP(name string) bool {
	l, there := o.State.Links[name]
	return there && l.Type == TypeVXLAN && o.ours(l)
}

// oursBridge says the same of a bridge.
func (o *Observed) oursBridge(name string) bool {
	l, there := o.State.Links[name]
	return there && l.Type == TypeBridge && o.ours(l)
}

// wantsRoute keeps what is ours or lies in the pod network: the rest of a
// host's table is not our business, and may be the whole Internet's.
func (o *Observed) wantsRoute(e RouteEntry) bool {
	if e.Protocol == protocolKernel && e.Dst.Addr().IsLinkLocalUnicast() {
		return false
	}
	if e.Protocol == Protocol || o.oursVTEP(e.Link) {
		return true
	}
	return o.inPods(e.Dst)
}

// inPods says that a prefix lies in the pod network.
func (o *Observed) inPods(dst netip.Prefix) bool {
	return slices.ContainsFunc(o.scope.Pods, func(p netip.Prefix) bool {
		return dst.Bits() >= p.Bits() && p.Contains(dst.Addr())
	})
}

// index notes what the answer to a notification depends on and what the
// objects themselves do not say. It is called when a reading is complete.
func (o *Observed) index() {
	o.hangs, o.underlays, o.hops = map[string]Class{}, map[string]bool{}, map[uint32]bool{}
	o.vias = map[HostPath]bool{}
	for id, hop := range o.State.NextHops {
		if o.ourHop(id, hop) {
			o.hangs[hop.Link] |= Routes
		}
	}
	held := func(r Route) {
		if hop := o.State.NextHops[r.NextHop]; r.NextHop != 0 && !o.ourHop(r.NextHop, hop) {
			o.hops[r.NextHop] = true
			o.hangs[hop.Link] |= Routes
		}
		if r.NextHop == 0 && !o.ours(o.State.Links[r.Link]) {
			o.hangs[r.Link] |= Routes
		}
	}
	for _, r := range o.State.Routes {
		held(r)
	}
	for _, e := range o.State.Duplicates {
		held(e.Route)
	}
	for _, path := range o.Facts.Paths {
		o.noteDependence(path)
	}
	if to := o.scope.routeTo; to.IsValid() {
		o.underlays[o.Facts.Paths[to].Link] = true
	}
	for _, l := range o.links {
		if o.ours(l.Link) && l.Type == TypeVXLAN {
			o.underlays[l.VXLAN.Device] = true
		}
		if slices.ContainsFunc(l.Addresses, func(p netip.Prefix) bool { return slices.Contains(o.scope.own, p.Addr()) }) {
			o.underlays[l.Name] = true
		}
	}
	delete(o.underlays, "")
}

// ourHop says that a nexthop object bears our protocol, or an ID that we give.
func (o *Observed) ourHop(id uint32, hop NextHop) bool {
	return hop.Protocol == Protocol || id >= nextHopBase
}
