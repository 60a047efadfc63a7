package overlay

import (
	"net/netip"
	"testing"

	"github.com/poldernet/polder/internal/change"
)

// TestReleaseOfRoutes: a route gets the gateway of its nexthop object, which goes
// once no route needs it. One that a route of others uses is given away.
func TestReleaseOfRoutes(t *testing.T) {
	state := NewState(0)
	route := func(dst string, r Route) { state.Routes[RouteKey{Dst: netip.MustParsePrefix(dst)}] = r }
	state.NextHops[7] = NextHop{Gateway: netip.MustParseAddr("10.244.2.0"), Link: "flannel.1", OnLink: true, Protocol: Protocol}
	state.NextHops[8] = NextHop{Gateway: netip.MustParseAddr("192.0.2.13"), Link: "eth0", Protocol: Protocol}
	route("10.244.2.0/24", Route{NextHop: 7, Protocol: Protocol})
	route("10.244.3.0/24", Route{NextHop: 8, Protocol: Protocol})
	route("10.99.0.0/24", Route{NextHop: 8, Protocol: protocolBoot})

	var routes []Route
	hops := map[uint32]change.Action{}
	for i, op := range Release(state).Ops {
		switch o := op.object.(type) {
		case RouteEntry:
			routes = append(routes, o.Route)
			if i != len(routes)-1 {
				t.Errorf("the route to %s comes when nexthop objects may be gone", o.Dst)
			}
		case nextHopEntry:
			hops[o.id] = op.Change.Action
		}
	}
	want := []Route{
		{Gateway: netip.MustParseAddr("10.244.2.0"), Link: "flannel.1", OnLink: true, Protocol: protocolBoot},
		{Gateway: netip.MustParseAddr("192.0.2.13"), Link: "eth0", Protocol: protocolBoot},
	}
	if len(routes) != 2 || routes[0] != want[0] || routes[1] != want[1] {
		t.Errorf("the routes become %+v, want %+v", routes, want)
	}
	if len(hops) != 2 || hops[7] != change.Delete || hops[8] != change.Release {
		t.Errorf("what becomes of the nexthop objects: %v", hops)
	}
}
