package overlay

import (
	"net/netip"
	"slices"

	"github.com/poldernet/polder/spec"
)

// Concerns is what has to be read again because of an event: nothing where the
// event says what is known already, as those of our own writes do after these
// were verified, or where it is not our business. It may say too much, and
// never too little: where it is nothing for all events since the reading, a new
// reading gives no other plan. The exceptions are changes that the kernel
// announces to nobody: most sysctls, proxies, and of a link that is down the alias and
// the hairpin mode (dev.c, netdev_state_change).
//
// It needs no kernel, and most foreign events cost it well under a microsecond.
func (o *Observed) Concerns(e Event) (c Class) {
	if e.of == nil {
		return 0
	}
	if c = e.of.concerns(o, e.gone); c == 0 {
		return 0
	}
	for i, began := range o.began {
		// What was read after that shows what happened.
		if c&(1<<i) != 0 && e.at.Before(began) {
			c &^= 1 << i
		}
	}
	return c
}

// concerns judges a neighbour or a row of a forwarding database.
func (n rawNeigh) concerns(o *Observed, gone bool) Class {
	link := o.name(n.ifindex)
	if link == "" || !o.oursVTEP(link) || n.flags&ntfProxy != 0 {
		return 0
	}
	if n.family == familyBridge {
		if n.flags&ntfSelf == 0 { // a row of the bridge that the VTEP is a port of
			return 0
		}
		held, there := o.State.FDB[FDBKey{link, n.mac, n.dst}]
		if gone && !there || !gone && there && held == (FDBEntry{n.state&nudPermanent != 0, n.other}) {
			return 0
		}
		return FDB
	}
	if !n.dst.IsValid() || n.dst.IsMulticast() {
		return 0
	}
	held, there := o.State.Neighbours[NeighbourKey{link, n.dst}]
	if !gone && !there && n.state == nudFailed {
		// One that is deleted fails first (neighbour.c, neigh_delete), and one that has
		// failed by itself is written over like one that is not there.
		return 0
	}
	if gone && !there || !gone && there && held == (Neighbour{n.mac, n.state&nudPermanent != 0}) {
		return 0
	}
	return Neighbours
}

// concerns judges a nexthop object. One that goes takes its IPv4 routes along
// without a word, and one that is written over changes where routes lead that
// do not change themselves.
func (h hopNotice) concerns(o *Observed, gone bool) (c Class) {
	held, there := o.State.NextHops[h.id]
	h.Link = o.name(h.ifindex)
	same := !gone && there && held == h.NextHop
	if same && !held.Other { // of a group, the state does not say what is in it
		return 0
	}
	if !same && (there || !gone) && (o.ourHop(h.id, h.NextHop) || there && o.ourHop(h.id, held) || o.hops[h.id]) {
		c |= Routes
	}
	// One that is not known may have been made since the reading, and a path
	// to a peer with it. When it goes, it says itself where it led.
	if gone && !there {
		held = h.NextHop
	}
	if len(o.asked) > 0 && !h.fresh && (!there && !gone || held.Other || o.vias[HostPath{Link: held.Link, Gateway: held.Gateway}]) {
		c |= Paths
	}
	return c
}

// concerns judges a route of any table.
func (r rawRoute) concerns(o *Observed, gone bool) (c Class) {
	if r.cloned {
		return 0
	}
	if o.covers(r.Dst) {
		c |= Paths
	}
	if r.table != tableMain {
		return c
	}
	r.Link = o.name(r.ifindex)
	if r.advertises() && o.advertised[r.Link] == gone {
		c |= Routes
	}
	if !o.wantsRoute(r.RouteEntry) {
		return c
	}
	held, there := o.State.Routes[r.RouteKey]
	if gone && there || !gone && (!there || held != r.Route) && !slices.Contains(o.State.Duplicates, r.RouteEntry) {
		c |= Routes
	}
	return c
}

// advertises says that it is a default route by router advertisement.
func (r rawRoute) advertises() bool {
	return r.Dst.Bits() == 0 && r.Dst.Addr().Is6() && r.Protocol == protocolRA
}

// covers says that a prefix holds an address of which the host was asked.
func (o *Observed) covers(p netip.Prefix) bool {
	i, _ := slices.BinarySearchFunc(o.asked, p.Addr(), netip.Addr.Compare)
	return i < len(o.asked) && p.Contains(o.asked[i])
}

// concerns judges a switch: forwarding is the only one of ours that the kernel
// announces.
func (n confNotice) concerns(o *Observed, _ bool) Class {
	path := ForwardingSwitch(n.family)
	if n.ifindex != netconfAll {
		link := o.links[n.ifindex].Link
		if n.family == spec.IPv6 || !o.ours(link) { // IPv6 asks no single link, see sysctls
			return 0
		}
		path = "net/ipv4/conf/" + link.Name + "/forwarding"
	}
	value := "0"
	if n.forwarding != 0 {
		value = "1"
	}
	if held, read := o.State.Sysctls[path]; read && held == value {
		return 0
	}
	return Sysctls
}

// concerns judges a rule of policy routing: it may lead the underlay's packets
// by another table.
func (ruleNotice) concerns(o *Observed, _ bool) Class {
	if len(o.asked) == 0 {
		return 0
	}
	return Paths
}
