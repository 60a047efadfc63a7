package overlay

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/spec"
)

func (d *differ) nextHops() {
	for id, have := range d.have.NextHops {
		if d.gone[have.Link] {
			d.goneHops[id] = true
		}
	}
	for id, want := range d.want.NextHops {
		if d.blocked[want.Link] {
			d.blockedHops[id] = true
			continue
		}
		after := nextHopEntry{id, want}
		have, there := d.have.NextHops[id]
		before := nextHopEntry{id, have}
		switch {
		case !there:
			d.add(phaseNextHops, put(change.Create, after, nil, ""))
		case have.Protocol != Protocol && !sameHop(have, want):
			d.blockedHops[id] = true
			d.conflicts = append(d.conflicts, change.Conflict{
				Kind: "nexthop", Name: after.name(),
				Reason: fmt.Sprintf("a nexthop object of this ID is there and is not polder's (proto %s)", protocolText(have.Protocol)),
				Remedy: fmt.Sprintf("remove it with `ip nexthop del id %d`", id),
			})
		case d.goneHops[id]:
			d.add(phaseNextHops, put(change.Replace, after, nil, reasonLinkReplaced))
		case have.Other || have.Gateway.Is4() != want.Gateway.Is4():
			// The kernel turns no group and no other family into this one.
			d.goneHops[id] = true
			d.add(phaseNextHops, put(change.Replace, after, before, ""))
		case have.Protocol != Protocol:
			d.add(phaseNextHops, put(change.Adopt, after, before, ""))
		case have != want:
			d.add(phaseNextHops, put(change.Update, after, before, ""))
		}
	}
	for id, have := range d.have.NextHops {
		if _, wanted := d.want.NextHops[id]; !wanted && have.Protocol == Protocol && !d.goneHops[id] {
			d.loose(phaseLooseHops, nextHopEntry{id, have})
		}
	}
}

func (d *differ) routes() {
	duplicates := map[RouteKey][]Route{}
	for _, r := range d.have.Duplicates {
		duplicates[r.RouteKey] = append(duplicates[r.RouteKey], r.Route)
	}
	for key, want := range d.want.Routes {
		if d.blockedHops[want.NextHop] {
			continue
		}
		have, there := d.have.Routes[key]
		if want.Protocol == protocolKernel {
			var present []Route
			if there {
				present = append([]Route{have}, duplicates[key]...)
			}
			d.connected(key, want, present)
			continue
		}
		if have.Protocol == protocolKernel && d.cleared[key.Dst] {
			there = false
		}
		d.route(key, want, have, there, duplicates[key])
	}
	for key, have := range d.have.Routes {
		if _, wanted := d.want.Routes[key]; wanted {
			continue
		}
		for _, r := range append([]Route{have}, duplicates[key]...) {
			switch e := (RouteEntry{key, r}); {
			case d.goneRoute(r):
			case d.oursRoute(r):
				d.loose(phaseLooseRoutes, e)
			default:
				d.preferred(e)
			}
		}
	}
}

// route plans one wanted route over what the kernel has under its key: the
// first is the one that packets take, the others are duplicates.
func (d *differ) route(key RouteKey, want, have Route, there bool, duplicates []Route) {
	after, before := RouteEntry{key, want}, RouteEntry{key, have}
	hop := d.want.NextHops[want.NextHop]
	switch {
	case !there:
		d.add(phaseRoutes, put(change.Create, after, nil, ""))
		return
	case !d.oursRoute(have) && !sameHop(d.have.hop(have), hop):
		d.conflicts = append(d.conflicts, change.Conflict{
			Kind: "route", Name: after.name(),
			Reason: "a route to this prefix is there and is not polder's: " + routeText(have),
			Remedy: fmt.Sprintf("remove it with `ip route del %s`, or stop whoever made it", key.Dst),
		})
		return
	case slices.ContainsFunc(duplicates, d.oursRoute):
		d.dropDuplicates(key, append([]Route{have}, duplicates...))
		d.add(phaseRoutes, put(change.Replace, after, nil, reasonDuplicate))
	case d.goneRoute(have):
		d.add(phaseRoutes, put(change.Replace, after, nil, reasonNextHopReplaced))
	case have == want:
	case have.Other && have.NextHop == want.NextHop:
		// The metrics of a route by a nexthop object are not written over: the
		// kernel finds the old ones again (fib_semantics.c, fib_find_info_nh).
		d.add(phaseRoutes, put(change.Replace, after, before, ""))
	case have.Protocol != Protocol && sameHop(d.have.hop(have), hop):
		d.add(phaseRoutes, put(change.Adopt, after, before, ""))
	default:
		d.add(phaseRoutes, put(change.Update, after, before, ""))
	}
}

// preferred reports a foreign route to a wanted prefix that packets take in
// place of ours, because its metric is lower. Ours is written all the same: it
// is not in the way of anything.
func (d *differ) preferred(e RouteEntry) {
	family := spec.FamilyOf(e.Dst.Addr())
	for _, metric := range []uint32{defaultMetric(family), connectedMetric(family)} {
		want, wanted := d.want.Routes[RouteKey{Dst: e.Dst, Metric: metric}]
		if !wanted || e.Metric >= metric || e.Protocol == protocolKernel && d.cleared[e.Dst] || sameHop(d.have.hop(e.Route), d.want.hop(want)) {
			continue
		}
		d.conflicts = append(d.conflicts, change.Conflict{
			Kind: "route", Name: e.name(),
			Reason: "a route that is not polder's is preferred to its own by its metric: " + routeText(e.Route),
			Remedy: fmt.Sprintf("remove it with `ip route del %s metric %d`, or stop whoever made it", e.Dst, e.Metric),
		})
	}
}

// dropDuplicates removes all of several routes of one key, so that the wanted
// one can be written: the kernel refuses to make the first equal to one that
// follows. Those with a nexthop object go first, because to a deletion without
// one the IPv6 code prefers any that has one, whatever its gateway (route.c,
// ip6_route_del).
func (d *differ) dropDuplicates(key RouteKey, routes []Route) {
	slices.SortStableFunc(routes, func(a, b Route) int { return cmp.Compare(min(b.NextHop, 1), min(a.NextHop, 1)) })
	for _, r := range routes {
		if d.oursRoute(r) {
			d.add(phaseClearRoutes, remove(RouteEntry{key, r}, reasonDuplicate))
		}
	}
}

// goneRoute says that a route goes with its link or nexthop object, before
// anything new is written.
func (d *differ) goneRoute(r Route) bool {
	if r.NextHop != 0 {
		return d.goneHops[r.NextHop]
	}
	return d.gone[r.Link]
}

// oursRoute says that a route bears our protocol, or leads over a link of
// ours: a VTEP with all its routes is ours, also those that flannel left.
// Routes that the kernel makes with an address are not touched.
func (d *differ) oursRoute(r Route) bool {
	if r.Protocol == Protocol {
		return true
	}
	if r.Protocol == protocolKernel {
		return false
	}
	link := d.have.hop(r).Link
	have, there := d.have.Links[link]
	if !there || d.blocked[link] || have.Type != TypeVXLAN {
		return false
	}
	_, wanted := d.want.Links[link]
	return wanted || have.Marked()
}

// hop is where a route leads, directly or by a nexthop object.
func (s State) hop(r Route) NextHop {
	if r.NextHop == 0 {
		return NextHop{Gateway: r.Gateway, Link: r.Link, OnLink: r.OnLink, Other: r.Other}
	}
	return s.NextHops[r.NextHop]
}

// sameHop compares where packets go, whoever wrote it.
func sameHop(a, b NextHop) bool {
	return a.Gateway == b.Gateway && a.Link == b.Link && a.OnLink == b.OnLink && !a.Other && !b.Other
}

func routeText(r Route) string {
	switch {
	case r.Other:
		return "multipath, not unicast, or with metrics of its own, proto " + protocolText(r.Protocol)
	case r.NextHop != 0:
		return fmt.Sprintf("nhid %d proto %s", r.NextHop, protocolText(r.Protocol))
	case r.Gateway.IsValid():
		return fmt.Sprintf("via %s dev %s proto %s", r.Gateway, r.Link, protocolText(r.Protocol))
	default:
		return fmt.Sprintf("dev %s proto %s", r.Link, protocolText(r.Protocol))
	}
}
