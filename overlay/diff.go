package overlay

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/spec"
)

// Plan is what leads from an observed state to the desired one.
type Plan struct {
	Ops       []Op // in the order in which they are to be applied
	Conflicts []change.Conflict
	Warnings  []string
}

// Why an operation is there, where its attributes alone do not say it. These
// are part of the JSON form of a plan.
const (
	reasonLinkReplaced    = "link_replaced"    // went with the link that it was on
	reasonMACWritten      = "mac_written"      // writing a MAC flushes the neighbours
	reasonNextHopReplaced = "nexthop_replaced" // went with the nexthop object
	reasonDADFailed       = "tentative"        // under, or failed, duplicate address detection
	reasonDuplicate       = "duplicate"        // a second object for one key
)

// Diff compares. Additions come before removals, so that what is reachable
// before and after stays reachable between: a peer moves from one path to
// another by the write to its nexthop object, when everything that the new
// path needs is there, and while the old one still is. Links that must make
// room for a new one are the exception.
//
// A desired state without objects removes everything of ours.
func Diff(desired *Desired, observed State) Plan {
	d := differ{
		want:        desired.State,
		have:        observed,
		pods:        desired.Pods,
		declared:    desired.Declared,
		blocked:     map[string]bool{},
		leaving:     map[string]bool{},
		gone:        map[string]bool{},
		flushed:     map[string]bool{},
		goneHops:    map[uint32]bool{},
		blockedHops: map[uint32]bool{},
		cleared:     map[netip.Prefix]bool{},
	}
	d.conflicts = append(d.conflicts, desired.Findings...)
	d.links()
	d.sysctls()
	d.addresses()
	d.ports()
	d.neighbours()
	d.proxies()
	d.fdb()
	d.nextHops()
	d.routes()
	slices.SortStableFunc(d.conflicts, func(a, b change.Conflict) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	return Plan{Ops: d.ops(), Conflicts: d.conflicts, Warnings: d.warnings}
}

type differ struct {
	want, have State
	pods       []netip.Prefix
	declared   map[string]bool
	conflicts  []change.Conflict
	warnings   []string

	blocked     map[string]bool // wanted links whose name is taken, and those that stay in their place: nothing on them is planned
	leaving     map[string]bool // observed links that are deleted, with all that is on them
	gone        map[string]bool // those of them that are deleted before anything new is written
	flushed     map[string]bool // links whose MAC is written, which flushes their neighbours
	goneHops    map[uint32]bool // observed nexthop objects that go, with their routes
	blockedHops map[uint32]bool // wanted nexthop objects that cannot be made

	cleared map[netip.Prefix]bool // whose addresses, and with them the kernel's routes, go ahead of time

	phases [phaseCount][]*Op
}

// The phases of a plan, in order.
type phase int

const (
	phaseSysctls       phase = iota // of the host
	phaseMakeRoom                   // links in the way of new ones
	phaseLinks                      //
	phaseLinkSysctls                // of our links
	phaseClearAddrs                 // addresses in the way of new ones
	phaseAddresses                  //
	phaseUnwantedAddrs              // in the way of routes; later than new ones, because with its last IPv4 address a link loses its neighbours and routes (fib_frontend.c, fib_disable_ip)
	phasePorts                      //
	phaseNeighbours                 //
	phaseFDB                        //
	phaseNextHops                   //
	phaseClearRoutes                // duplicates, which are in the way of the write
	phaseRoutes                     //
	phaseLooseRoutes                // from here on: what is no longer wanted
	phaseLooseHops                  //
	phaseLooseFDB                   //
	phaseLooseNeighbs               //
	phaseLooseAddrs                 //
	phaseLooseLinks                 //
	phaseCount
)

func (d *differ) add(p phase, op Op) { d.phases[p] = append(d.phases[p], &op) }

// ops joins the phases. Within one, order is by name, but for sysctls: there
// accept_ra comes before forwarding, or the host would lose its default route
// for a moment. Operations of one name, such as duplicate routes, keep the
// order in which they were added.
func (d *differ) ops() []Op {
	// Names beside each other: the sort of many operations is what a plan
	// takes longest for.
	type place struct {
		rank, at int
		name     string
	}
	var places []place
	count := 0
	for _, ops := range d.phases {
		count += len(ops)
	}
	all := make([]Op, 0, count)
	for _, ops := range d.phases {
		places = places[:0]
		for i, op := range ops {
			places = append(places, place{sysctlRank(*op), i, op.Change.Name})
		}
		slices.SortFunc(places, func(a, b place) int {
			return cmp.Or(cmp.Compare(a.rank, b.rank), strings.Compare(a.name, b.name), cmp.Compare(a.at, b.at))
		})
		for _, p := range places {
			all = append(all, *ops[p.at])
		}
	}
	return all
}

func (d *differ) addresses() {
	for key, have := range d.have.Addresses {
		if _, wanted := d.want.Addresses[key]; wanted || !d.oursAddress(key, have) {
			continue
		}
		p := phaseLooseAddrs
		switch {
		case d.otherLength(key):
			p = phaseClearAddrs
		case d.inTheWay(key):
			p = phaseUnwantedAddrs
			d.cleared[key.Prefix.Masked()] = true
		case d.leaving[key.Link]:
			continue // it goes with the link
		}
		d.loose(p, addressEntry{key, have})
	}
	for key, want := range d.want.Addresses {
		if d.blocked[key.Link] {
			continue
		}
		after := addressEntry{key, want}
		have, there := d.have.Addresses[key]
		before := addressEntry{key, have}
		switch {
		case there && d.gone[key.Link]:
			d.add(phaseAddresses, put(change.Replace, after, nil, reasonLinkReplaced))
		case !there:
			d.add(phaseAddresses, put(change.Create, after, nil, ""))
		case have.Tentative:
			// Detection does not end by a write: the address goes and comes.
			d.add(phaseAddresses, put(change.Replace, after, before, reasonDADFailed))
		case have.Expires:
			d.add(phaseAddresses, put(change.Update, after, before, ""))
		case have.Protocol != want.Protocol:
			d.add(phaseAddresses, put(change.Adopt, after, before, ""))
		}
	}
}

// otherLength says that an IPv6 address is wanted with another prefix length.
// The kernel does not keep both.
func (d *differ) otherLength(key AddressKey) bool {
	for wanted := range d.want.Addresses {
		if wanted.Link == key.Link && wanted.Prefix.Addr() == key.Prefix.Addr() && key.Prefix.Addr().Is6() {
			return true
		}
	}
	return false
}

// inTheWay says that an address has to go before routes are written: the
// kernel takes no next hop that is the host's own, and it makes a route of its
// own to the address's prefix, which may have become a peer's.
func (d *differ) inTheWay(key AddressKey) bool {
	for route, want := range d.want.Routes {
		if want.Protocol == protocolKernel {
			continue
		}
		if route.Dst == key.Prefix.Masked() || d.want.NextHops[want.NextHop].Gateway == key.Prefix.Addr() {
			return true
		}
	}
	return false
}

// oursAddress says that an address of one of our links is ours to remove: it
// bears our protocol, or, where the kernel keeps none, lies in the pod network.
// Other addresses that somebody gave to the link stay.
func (d *differ) oursAddress(key AddressKey, have Address) bool {
	_, wanted := d.want.Links[key.Link]
	if !wanted && !d.leaving[key.Link] || d.gone[key.Link] || d.blocked[key.Link] {
		return false
	}
	return have.Protocol == Protocol || slices.ContainsFunc(d.pods, func(p netip.Prefix) bool { return p.Contains(key.Prefix.Addr()) })
}

func (d *differ) ports() {
	for link, want := range d.want.Ports {
		if d.blocked[want.Master] || d.blocked[link] {
			continue
		}
		have, there := d.have.Ports[link]
		if !d.declared[link] {
			// Whoever attached it may have closed it on purpose, as the CNI
			// plugin "bridge" does for portIsolation.
			want.Limits = have.Limits
		}
		after := portEntry{link, want}
		before := portEntry{link, have}
		switch {
		case !there:
			continue // not a link of this host (any more)
		case have.Master != "" && have.Master != want.Master && want.Master != "" && !d.have.Links[have.Master].Marked():
			d.conflicts = append(d.conflicts, change.Conflict{
				Kind: "port", Name: link,
				Reason: "it is already a port of " + have.Master + ", which is not polder's",
				Remedy: "take it off with `ip link set " + link + " nomaster`, or correct the endpoint's interface",
			})
		case d.gone[have.Master] && have.Master == want.Master:
			d.add(phasePorts, put(change.Replace, after, nil, reasonLinkReplaced))
		case have != want:
			d.add(phasePorts, put(change.Update, after, before, ""))
		}
	}
}

func (d *differ) neighbours() {
	for key, want := range d.want.Neighbours {
		if d.blocked[key.Link] {
			continue
		}
		after := neighbourEntry{key, want}
		have, there := d.have.Neighbours[key]
		switch {
		case !there:
			d.add(phaseNeighbours, put(change.Create, after, nil, ""))
		case d.gone[key.Link]:
			d.add(phaseNeighbours, put(change.Replace, after, nil, reasonLinkReplaced))
		case d.flushed[key.Link]:
			d.add(phaseNeighbours, put(change.Replace, after, nil, reasonMACWritten))
		case have != want:
			d.add(phaseNeighbours, put(change.Update, after, neighbourEntry{key, have}, ""))
		}
	}
	for key, have := range d.have.Neighbours {
		// One that is not permanent is the kernel's: it comes and goes.
		if _, wanted := d.want.Neighbours[key]; !wanted && have.Permanent && d.onOurs(key.Link) {
			d.loose(phaseLooseNeighbs, neighbourEntry{key, have})
		}
	}
}

// proxies plans for whom the bridge answers. Others' that nobody wants stay.
func (d *differ) proxies() {
	for key, want := range d.want.Proxies {
		have, there := d.have.Proxies[key]
		after := proxyEntry{key, want}
		switch {
		case d.blocked[key.Link]:
		case !there:
			d.add(phaseNeighbours, put(change.Create, after, nil, ""))
		case d.gone[key.Link]:
			d.add(phaseNeighbours, put(change.Replace, after, nil, reasonLinkReplaced))
		case have != want:
			d.add(phaseNeighbours, put(change.Adopt, after, proxyEntry{key, have}, ""))
		}
	}
	for key, have := range d.have.Proxies {
		if _, wanted := d.want.Proxies[key]; !wanted && have.Protocol == Protocol && !d.leaving[key.Link] {
			d.loose(phaseLooseNeighbs, proxyEntry{key, have})
		}
	}
}

func (d *differ) fdb() {
	type mac struct {
		link string
		mac  spec.MAC
	}
	foul := map[mac]FDBKey{} // a row that only goes with all others of the MAC
	for key, have := range d.have.FDB {
		if have.Other && !d.gone[key.Link] {
			foul[mac{key.Link, key.MAC}] = key
		}
	}
	made := map[mac]bool{}
	for key, want := range d.want.FDB {
		if d.blocked[key.Link] {
			continue
		}
		after := fdbRow{key, want}
		have, there := d.have.FDB[key]
		of := mac{key.Link, key.MAC}
		bad, isFoul := foul[of]
		switch {
		case isFoul:
			made[of] = true
			d.add(phaseFDB, put(change.Replace, after, fdbRow{bad, d.have.FDB[bad]}, ""))
		case !there:
			d.add(phaseFDB, put(change.Create, after, nil, ""))
		case d.gone[key.Link]:
			d.add(phaseFDB, put(change.Replace, after, nil, reasonLinkReplaced))
		case have != want:
			d.add(phaseFDB, put(change.Update, after, fdbRow{key, have}, ""))
		}
	}
	for key, have := range d.have.FDB {
		if _, wanted := d.want.FDB[key]; !wanted && !made[mac{key.Link, key.MAC}] && d.onOurs(key.Link) {
			d.loose(phaseLooseFDB, fdbRow{key, have})
		}
	}
}

// onOurs says that a link is ours and stays, so that what is on it and not
// wanted has to be removed. What is on a link that goes, goes with it.
func (d *differ) onOurs(link string) bool {
	if d.leaving[link] || d.blocked[link] {
		return false
	}
	_, wanted := d.want.Links[link]
	return wanted || d.have.Links[link].Marked()
}

func (d *differ) loose(p phase, o object) { d.add(p, remove(o, "")) }
