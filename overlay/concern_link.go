package overlay

import (
	"net/netip"
	"slices"
)

// concerns judges a link.
func (l rawLink) concerns(o *Observed, gone bool) Class {
	old, known := o.links[l.ifindex]
	switch {
	case l.Name == "": // of a wireless driver, with nothing in it
		return 0
	case gone && known:
		return o.linkChange(&old.raw, nil)
	case gone:
		return 0
	case known:
		return o.linkChange(&old.raw, &l)
	default:
		return o.linkChange(nil, &l)
	}
}

// linkChange is what has to be read again because a link became another; nil
// is for none. On our own links everything hangs, and what is written to one
// may flush what is on it. Of other links it is what hangs on them.
func (o *Observed) linkChange(before, after *rawLink) (c Class) {
	if before != nil && after != nil {
		c |= o.stateChange(before, after)
		same := *after
		same.carrier = before.carrier
		if same == *before {
			return c
		}
		if before.Name != after.Name {
			return Everything
		}
	}
	if before != nil && after == nil {
		c |= o.hangs[before.Name]
	}
	for _, l := range []*rawLink{before, after} {
		switch {
		case l == nil:
		case o.ours(l.Link):
			return Everything
		case o.watched(l):
			c |= Links
		}
	}
	return c
}

// stateChange is what goes with a link that went down, or that lost its
// carrier: nexthop objects over it, and their IPv4 routes, are removed in both
// cases, and nobody is told (nexthop.c, nh_netdev_event). Where a link comes to
// life, multipath routes over it do, too, and where the host ignores routes
// over links without a carrier, all do.
func (o *Observed) stateChange(before, after *rawLink) (c Class) {
	if before.Up && !after.Up || before.carrier && !after.carrier {
		c |= o.hangs[before.Name]
	}
	// A bridge loses its carrier with its last port, and with that all proxies
	// (neighbour.c, neigh_carrier_down). That it has got one was no reason to read
	// it again, so that whether it has lost one is not known.
	if o.proxies(before.Name) {
		c |= Neighbours
	}
	if before.Up == after.Up && before.carrier == after.carrier || o.ours(after.Link) {
		return c
	}
	if o.underlays[after.Name] {
		c |= Links // what could not be written may be by now
	}
	if len(o.asked) > 0 && after.master == 0 {
		c |= Paths
	}
	return c
}

// watched says that a link of others matters by what it is: a VXLAN device,
// which may take our VNI; a port of our bridge; an interface that the spec
// names; the underlay.
func (o *Observed) watched(l *rawLink) bool {
	return l.Type == TypeVXLAN || l.master != 0 && o.ours(o.links[l.master].Link) ||
		slices.Contains(o.scope.interfaces, l.Name) || o.underlays[l.Name]
}

// concerns judges what a bridge says of a port of its own. A deletion says that
// the link is no port any more.
func (p portNotice) concerns(o *Observed, gone bool) Class {
	old, known := o.links[p.ifindex]
	was := known && old.raw.master != 0 && o.ours(o.links[old.raw.master].Link)
	is := !gone && p.master != 0 && o.ours(o.links[p.master].Link)
	if !was && !is || was && is && old.raw.master == p.master && old.raw.bridgeMember == p.bridgeMember {
		return 0
	}
	return Links
}

// concerns judges an address.
func (a rawAddress) concerns(o *Observed, gone bool) (c Class) {
	l, known := o.links[a.ifindex]
	held := slices.ContainsFunc(l.addresses, func(h rawAddress) bool { return h == a || gone && h.prefix == a.prefix })
	if held != gone {
		return 0
	}
	linkLocal := a.prefix.Addr().IsLinkLocalUnicast()
	switch {
	case !known:
	case o.ours(l.Link):
		if !linkLocal { // which is the kernel's own
			c |= Links
		}
		if gone {
			// The routes to and by it; with the last of IPv4 all routes and
			// neighbours (fib_frontend.c, fib_disable_ip).
			c |= Routes | Neighbours
		}
	case (o.underlays[l.Name] || slices.Contains(o.scope.interfaces, l.Name)) && !linkLocal:
		c |= Links
	}
	if gone {
		c |= o.hangs[l.Name]
	}
	if slices.Contains(o.scope.own, a.prefix.Addr()) || slices.ContainsFunc(o.scope.Pods, func(p netip.Prefix) bool { return p.Overlaps(a.prefix) }) {
		c |= Links
	}
	return c
}

// since is what has to be read again because the links and addresses that were
// read are others than those of an old reading: as if each had been announced.
// The announcements themselves come later, and will be found to say nothing
// new.
func (o *Observed) since(old *Observed) (c Class) {
	for i, was := range old.links {
		now, there := o.links[i]
		if !there {
			c |= was.raw.concerns(old, true)
			continue
		}
		for _, a := range was.addresses {
			if !slices.Contains(now.addresses, a) {
				c |= a.concerns(old, true)
			}
		}
	}
	for _, now := range o.links {
		c |= now.raw.concerns(old, false)
		for _, a := range now.addresses {
			c |= a.concerns(old, false)
		}
	}
	return c
}
