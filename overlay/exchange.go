package overlay

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/spec"
)

// Exchange is what becomes of a desired state where some nodes have become others: the
// objects that were wanted for those, and the objects that are wanted for these.
type Exchange struct{ before, after State }

// Exchange makes of a desired state what Compile makes of a spec in which some nodes
// have become others, by name and in order: those that are gone or have changed, as they
// were, and those that have come or changed, as they are. The facts are those of before,
// but for the paths to these nodes. It changes d, which its caller has to have for
// himself; or it reports false and changes nothing, where all has to be compiled.
func (d *Desired) Exchange(sp *spec.Spec, node *spec.Node, facts Facts, gone, come []*spec.Node) (*Exchange, bool) {
	x := &Exchange{NewState(0), NewState(0)}
	if sp.Network == nil {
		return x, true
	}
	for _, n := range slices.Concat(gone, come) {
		if n.Name == node.Name || n.Range.Filename != "" { // what is wrong with one of the files is told as a finding
			return nil, false
		}
	}
	for _, n := range gone {
		from, to := d.peersOf(n.Name)
		for _, p := range d.Peers[from:to] {
			d.lend(x.before, p)
		}
	}
	part := &Desired{State: x.after, VTEPs: d.VTEPs}
	c := newCompiler(part, sp, node, facts)
	for _, n := range come {
		c.peer(n)
	}
	if !d.leaves(x.before) || !d.takes(x.before, x.after) {
		return nil, false
	}

	exchange(d.Neighbours, x.before.Neighbours, x.after.Neighbours)
	exchange(d.FDB, x.before.FDB, x.after.FDB)
	exchange(d.NextHops, x.before.NextHops, x.after.NextHops)
	exchange(d.Routes, x.before.Routes, x.after.Routes)
	for _, n := range gone {
		from, to := d.peersOf(n.Name)
		d.Peers = slices.Delete(d.Peers, from, to)
	}
	for _, p := range slices.Backward(part.Peers) {
		at, _ := d.peersOf(p.Node)
		d.Peers = slices.Insert(d.Peers, at, p)
	}
	left := slices.DeleteFunc(slices.Clone(d.LeftOut), func(l spec.LeftOut) bool {
		return slices.ContainsFunc(gone, func(n *spec.Node) bool { return n.Name == l.Node })
	})
	d.LeftOut = append(left, part.LeftOut...)
	slices.SortStableFunc(d.LeftOut, func(a, b spec.LeftOut) int { return cmp.Compare(a.Node, b.Node) })
	return x, true
}

func exchange[K comparable, V any](m, before, after map[K]V) {
	for key := range before {
		delete(m, key)
	}
	maps.Copy(m, after)
}

// peersOf is where those of a node are.
func (d *Desired) peersOf(node string) (from, to int) {
	from, _ = slices.BinarySearchFunc(d.Peers, node, func(p Peer, node string) int { return cmp.Compare(p.Node, node) })
	for to = from; to < len(d.Peers) && d.Peers[to].Node == node; to++ {
	}
	return from, to
}

// lend copies what is wanted for a peer.
func (d *Desired) lend(s State, p Peer) {
	route := RouteKey{Dst: p.Subnet, Metric: defaultMetric(spec.FamilyOf(p.Subnet.Addr()))}
	hop := d.NextHops[p.NextHop]
	s.Routes[route], s.NextHops[p.NextHop] = d.Routes[route], hop
	if p.Direct {
		return
	}
	neighbour := NeighbourKey{hop.Link, hop.Gateway}
	row := FDBKey{hop.Link, d.Neighbours[neighbour].MAC, p.Address}
	s.Neighbours[neighbour], s.FDB[row] = d.Neighbours[neighbour], d.FDB[row]
}

// leaves says that nexthop objects can go without another one getting their ID: the
// hash of that would be the same, and it would have moved on past them.
func (d *Desired) leaves(gone State) bool {
	for id := range gone.NextHops {
		if _, met := d.NextHops[nextID(id)]; met {
			return false
		}
	}
	return true
}

// takes says that nobody has the IDs of the nexthop objects that come.
func (d *Desired) takes(gone, come State) bool {
	for id := range come.NextHops {
		_, taken := d.NextHops[id]
		if _, free := gone.NextHops[id]; taken && !free {
			return false
		}
	}
	return true
}

// Plan is what Diff plans where an observed state is as it was desired before the
// exchange. It reports false where that has to be asked, because something of others is
// in the way, or was in the way.
func (x *Exchange) Plan(desired *Desired, observed State) (Plan, bool) {
	have, routes := NewState(0), map[netip.Prefix]bool{}
	have.Links = observed.Links
	for _, s := range []State{x.before, x.after} {
		some(have.Neighbours, observed.Neighbours, s.Neighbours)
		some(have.FDB, observed.FDB, s.FDB)
		some(have.NextHops, observed.NextHops, s.NextHops)
		some(have.Routes, observed.Routes, s.Routes)
		for key := range s.Routes {
			routes[key.Dst] = true
		}
	}
	alien := func(key RouteKey, r Route, known bool) bool {
		_, goes := x.before.NextHops[r.NextHop] // and takes its routes along
		return routes[key.Dst] && (!known || r.Protocol != Protocol) || goes && !known
	}
	for key, r := range observed.Routes {
		if _, known := have.Routes[key]; alien(key, r, known) {
			return Plan{}, false
		}
	}
	if slices.ContainsFunc(observed.Duplicates, func(e RouteEntry) bool { return alien(e.RouteKey, e.Route, false) }) {
		return Plan{}, false
	}
	want := x.after
	want.Links = desired.Links
	plan := Diff(&Desired{State: want}, have)
	plan.Warnings = nil // about links, and nothing new
	return plan, len(plan.Conflicts) == 0 && !slices.ContainsFunc(plan.Ops, func(op Op) bool { return !op.plain() })
}

// some copies what is there of some keys.
func some[K comparable, V any](to, from, keys map[K]V) {
	for key := range keys {
		if v, there := from[key]; there {
			to[key] = v
		}
	}
}

// plain says that the operation does to one object of a peer what it says, and nothing
// to any other.
func (o Op) plain() bool {
	switch o.object.(type) {
	case neighbourEntry, fdbRow, nextHopEntry, RouteEntry:
		return o.Change.Action == change.Create || o.Change.Action == change.Update || o.Change.Action == change.Delete
	}
	return false
}

// Wrote takes it that a plain operation, of an Exchange's plan, has been carried out: it
// has made what it says of the object. What has become of that since, the kernel tells.
// It changes o, which its caller has to have for himself.
func (o *Observed) Wrote(op Op) {
	switch e := op.object.(type) {
	case neighbourEntry:
		wrote(o.State.Neighbours, e.NeighbourKey, e.Neighbour, op.delete)
	case fdbRow:
		wrote(o.State.FDB, e.FDBKey, e.FDBEntry, op.delete)
	case nextHopEntry:
		wrote(o.State.NextHops, e.id, e.NextHop, op.delete)
		o.hangs[e.Link] |= Routes
	case RouteEntry:
		wrote(o.State.Routes, e.RouteKey, e.Route, op.delete)
	}
}

func wrote[K comparable, V any](m map[K]V, key K, v V, gone bool) {
	if gone {
		delete(m, key)
	} else {
		m[key] = v
	}
}

// ask has o be a reading for a spec in which some nodes have become others. answer
// gives the host's paths to addresses. It changes o, which its caller has to have for
// himself, or it reports false where all has to be read.
func (o *Observed) ask(sp *spec.Spec, node *spec.Node, gone, come []*spec.Node, answer func([]netip.Addr) (map[netip.Addr]HostPath, error)) (bool, error) {
	scope := ScopeOf(sp, node)
	like := o.scope
	like.Ask = scope.Ask
	if !scope.Equal(like) {
		return false, nil
	}
	before, after := peerQuestions(sp, node, gone), peerQuestions(sp, node, come)
	if len(before)+len(after) > 0 {
		paths, err := answer(after)
		if err != nil {
			return false, err
		}
		for _, a := range before {
			if at, there := slices.BinarySearchFunc(o.asked, a, netip.Addr.Compare); there {
				o.asked = slices.Delete(o.asked, at, at+1)
			}
			if a != scope.routeTo {
				delete(o.Facts.Paths, a)
			}
		}
		for _, a := range after {
			at, _ := slices.BinarySearchFunc(o.asked, a, netip.Addr.Compare)
			o.asked = slices.Insert(o.asked, at, a)
			if path, there := paths[a]; there {
				o.Facts.Paths[a] = path
				o.noteDependence(path)
			}
		}
	}
	o.scope = scope
	return true, nil
}

// noteDependence notes on what a path hangs.
func (o *Observed) noteDependence(path HostPath) {
	o.hangs[path.Link] |= Paths
	o.vias[path] = true
}
