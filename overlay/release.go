package overlay

import (
	"cmp"
	"maps"
	"slices"

	"github.com/poldernet/polder/internal/change"
)

// Release plans to take our marks off and to leave every object in place:
// packets go on as they did, and polder knows the objects no more. Routes become
// those of ip(8), with gateways of their own: one with a nexthop object is not
// found by who deletes it by its gateway (fib_semantics.c, fib_nh_match), which is
// how flannel deletes a peer that has gone.
func Release(observed State) Plan {
	var ops []Op
	for _, name := range slices.Sorted(maps.Keys(observed.Links)) {
		if have := observed.Links[name]; have.Marked() {
			want := have
			want.Alias = ""
			ops = append(ops, put(change.Release, want, have, ""))
		}
	}
	for key, have := range observed.Addresses {
		if have.Protocol == Protocol {
			ops = append(ops, put(change.Release, addressEntry{key, Address{}}, addressEntry{key, have}, ""))
		}
	}
	for key, have := range observed.Proxies {
		if have.Protocol == Protocol {
			ops = append(ops, put(change.Release, proxyEntry{key, Proxy{}}, proxyEntry{key, have}, ""))
		}
	}
	used := map[uint32]bool{} // by routes that are not ours
	for key, have := range observed.Routes {
		if have.Protocol != Protocol || have.Other {
			used[have.NextHop] = true
			continue
		}
		want := have
		want.Protocol = protocolBoot
		if hop, ok := observed.NextHops[have.NextHop]; ok && !hop.Other {
			want.NextHop, want.Gateway, want.Link, want.OnLink = 0, hop.Gateway, hop.Link, hop.OnLink
		}
		ops = append(ops, put(change.Release, RouteEntry{key, want}, RouteEntry{key, have}, ""))
	}
	for id, have := range observed.NextHops {
		if have.Protocol != Protocol || have.Other {
			continue
		}
		if used[id] {
			want := have
			want.Protocol = protocolBoot
			ops = append(ops, put(change.Release, nextHopEntry{id, want}, nextHopEntry{id, have}, ""))
		} else {
			ops = append(ops, remove(nextHopEntry{id, have}, ""))
		}
	}
	slices.SortFunc(ops, func(a, b Op) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Change.Name, b.Change.Name))
	})
	return Plan{Ops: ops}
}

// rank puts nexthop objects after the routes that used them.
func rank(op Op) int {
	return slices.Index([]string{"link", "address", "proxy", "route", "nexthop"}, op.Change.Kind)
}
