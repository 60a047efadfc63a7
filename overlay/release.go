package overlay

import (
	"cmp"
	"maps"
	"slices"

	"github.com/poldernet/polder/internal/change"
)

// Release plans to take our marks off and to leave every object in place:
// packets go on as they did, and polder knows the objects no more. Routes and
// nexthop objects become those of ip(8).
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
	for id, have := range observed.NextHops {
		if have.Protocol == Protocol && !have.Other {
			want := have
			want.Protocol = protocolBoot
			ops = append(ops, put(change.Release, nextHopEntry{id, want}, nextHopEntry{id, have}, ""))
		}
	}
	for key, have := range observed.Routes {
		if have.Protocol == Protocol && !have.Other {
			want := have
			want.Protocol = protocolBoot
			ops = append(ops, put(change.Release, RouteEntry{key, want}, RouteEntry{key, have}, ""))
		}
	}
	slices.SortFunc(ops, func(a, b Op) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Change.Name, b.Change.Name))
	})
	return Plan{Ops: ops}
}

// rank puts nexthop objects before the routes that use them.
func rank(op Op) int {
	return slices.Index([]string{"link", "address", "proxy", "nexthop", "route"}, op.Change.Kind)
}
