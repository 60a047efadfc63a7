package overlay

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/spec"
)

// simulate carries operations out on a state as the kernel would, with what it
// takes along: links take what is on them, a MAC write the neighbours, a
// nexthop object its routes.
func simulate(s *State, ops []Op) error {
	for _, op := range ops {
		if err := simulateOne(s, op); err != nil {
			return fmt.Errorf("%s %s %s: %w", op.Change.Action, op.Change.Kind, op.Change.Name, err)
		}
	}
	return nil
}

func simulateOne(s *State, op Op) error {
	switch o := op.object.(type) {
	case Link:
		old, there := s.Links[o.Name]
		if op.delete {
			s.dropLink(o.Name)
			return nil
		}
		if op.Change.Action == change.Replace && there {
			return fmt.Errorf("file exists")
		}
		if !there {
			for _, l := range s.Links {
				if sameTunnel(l, o) {
					return fmt.Errorf("VNI in use by %s", l.Name)
				}
			}
		} else if old.MAC != o.MAC {
			maps.DeleteFunc(s.Neighbours, func(k NeighbourKey, _ Neighbour) bool { return k.Link == o.Name })
		}
		s.Links[o.Name] = o
		if !old.Up {
			s.connect(o.Name)
		}
	case portEntry:
		s.Ports[o.link] = o.Port
	case addressEntry:
		if op.delete {
			s.dropAddress(o.AddressKey)
			if o.Prefix.Addr().Is4() {
				s.disableIPv4(o.Link)
			}
			return nil
		}
		for k := range s.Addresses {
			if k.Link == o.Link && k.Prefix.Addr() == o.Prefix.Addr() && k != o.AddressKey && k.Prefix.Addr().Is6() {
				return fmt.Errorf("%s is there with another length", k.Prefix)
			}
		}
		_, there := s.Addresses[o.AddressKey]
		s.Addresses[o.AddressKey] = o.Address
		if !there {
			s.connect(o.Link)
		}
	case neighbourEntry:
		if op.delete {
			delete(s.Neighbours, o.NeighbourKey)
			return nil
		}
		if _, there := s.Links[o.Link]; !there {
			return fmt.Errorf("no link %s", o.Link)
		}
		s.Neighbours[o.NeighbourKey] = o.Neighbour
	case fdbRow:
		if op.delete {
			delete(s.FDB, o.FDBKey)
			if o.Other {
				s.dropFDB(o.Link, o.MAC)
			}
			return nil
		}
		for k, row := range s.FDB {
			if op.Change.Action != change.Replace && row.Other && k.Link == o.Link && k.MAC == o.MAC {
				return fmt.Errorf("%s is there with features", k.MAC)
			}
		}
		s.dropFDB(o.Link, o.MAC) // one destination for a unicast MAC
		s.FDB[o.FDBKey] = o.FDBEntry
	case nextHopEntry:
		for k := range s.Addresses {
			if !op.delete && k.Prefix.Addr() == o.Gateway {
				return fmt.Errorf("gateway is a local address")
			}
		}
		old, there := s.NextHops[o.id]
		if op.delete || op.Change.Action == change.Replace {
			s.dropNextHop(o.id)
			if op.delete {
				return nil
			}
			there = false
		}
		if there && (old.Other || old.Gateway.Is4() != o.Gateway.Is4()) {
			return fmt.Errorf("cannot be replaced")
		}
		s.NextHops[o.id] = o.NextHop
	case RouteEntry:
		if op.delete {
			s.dropRoute(o)
			return nil
		}
		for k := range s.Addresses {
			if k.Prefix.Masked() == o.Dst && k.Prefix.Addr() != o.Dst.Addr() && o.Protocol != protocolKernel {
				return fmt.Errorf("%s is a subnet of this host", o.Dst)
			}
		}
		if _, there := s.NextHops[o.NextHop]; !there && o.NextHop != 0 {
			return fmt.Errorf("no nexthop object %d", o.NextHop)
		}
		for _, d := range s.Duplicates {
			if d == o {
				return fmt.Errorf("file exists")
			}
		}
		s.Routes[o.RouteKey] = o.Route
	case sysctlEntry:
		s.Sysctls[o.path] = o.value
	}
	return nil
}

func (s *State) dropFDB(link string, mac spec.MAC) {
	maps.DeleteFunc(s.FDB, func(k FDBKey, _ FDBEntry) bool { return k.Link == link && k.MAC == mac })
}

func (s *State) dropLink(name string) {
	delete(s.Links, name)
	maps.DeleteFunc(s.Addresses, func(k AddressKey, _ Address) bool { return k.Link == name })
	maps.DeleteFunc(s.Neighbours, func(k NeighbourKey, _ Neighbour) bool { return k.Link == name })
	maps.DeleteFunc(s.FDB, func(k FDBKey, _ FDBEntry) bool { return k.Link == name })
	maps.DeleteFunc(s.Sysctls, func(path, _ string) bool { return SysctlLink(path) == name })
	for id, hop := range s.NextHops {
		if hop.Link == name {
			s.dropNextHop(id)
		}
	}
	s.Duplicates = slices.DeleteFunc(s.Duplicates, func(e RouteEntry) bool { return e.NextHop == 0 && e.Link == name })
	for k, r := range s.Routes {
		if r.NextHop == 0 && r.Link == name {
			s.dropRoute(RouteEntry{k, r})
		}
	}
}

// connect makes the routes that the kernel makes with a link's addresses.
func (s *State) connect(link string) {
	for k := range s.Addresses {
		if k.Link != link || k.Prefix.IsSingleIP() || !s.Links[link].Up {
			continue
		}
		e := connectedRoute(link, k.Prefix.Addr(), k.Prefix.Masked())
		if first, taken := s.Routes[e.RouteKey]; !taken {
			s.Routes[e.RouteKey] = e.Route
		} else if first != e.Route && !slices.Contains(s.Duplicates, e) {
			s.Duplicates = append(s.Duplicates, e)
		}
	}
}

// dropAddress deletes an address and its connected route.
func (s *State) dropAddress(key AddressKey) {
	delete(s.Addresses, key)
	s.dropRoute(connectedRoute(key.Link, key.Prefix.Addr(), key.Prefix.Masked()))
}

// disableIPv4 is what the kernel does to a link without an IPv4 address.
func (s *State) disableIPv4(link string) {
	for k := range s.Addresses {
		if k.Link == link && k.Prefix.Addr().Is4() {
			return
		}
	}
	maps.DeleteFunc(s.Neighbours, func(k NeighbourKey, _ Neighbour) bool { return k.Link == link && k.Addr.Is4() })
	for id, hop := range s.NextHops {
		if hop.Link == link && hop.Gateway.Is4() {
			s.dropNextHop(id)
		}
	}
}

func (s *State) dropNextHop(id uint32) {
	delete(s.NextHops, id)
	s.Duplicates = slices.DeleteFunc(s.Duplicates, func(e RouteEntry) bool { return e.NextHop == id })
	for k, r := range s.Routes {
		if r.NextHop == id {
			s.dropRoute(RouteEntry{k, r})
		}
	}
}

// dropRoute deletes one route; a duplicate moves up.
func (s *State) dropRoute(e RouteEntry) {
	var rest []RouteEntry
	gone := false
	if s.Routes[e.RouteKey] == e.Route {
		delete(s.Routes, e.RouteKey)
		gone = true
	}
	for _, d := range s.Duplicates {
		switch _, taken := s.Routes[d.RouteKey]; {
		case d == e && !gone:
			gone = true
		case d.RouteKey == e.RouteKey && !taken:
			s.Routes[d.RouteKey] = d.Route
		default:
			rest = append(rest, d)
		}
	}
	s.Duplicates = rest
}

func (s State) clone() State {
	return State{
		Links: maps.Clone(s.Links), Ports: maps.Clone(s.Ports), Addresses: maps.Clone(s.Addresses),
		Neighbours: maps.Clone(s.Neighbours), FDB: maps.Clone(s.FDB), NextHops: maps.Clone(s.NextHops),
		Routes: maps.Clone(s.Routes), Duplicates: append([]RouteEntry(nil), s.Duplicates...), Sysctls: maps.Clone(s.Sysctls),
	}
}

// text is a plan for test logs.
func (p Plan) text() string {
	var b strings.Builder
	for _, op := range p.Ops {
		fmt.Fprintf(&b, "%s %s %s %s %v\n", op.Change.Action, op.Change.Kind, op.Change.Name, op.Change.Reason, op.Change.Attrs)
	}
	for _, c := range p.Conflicts {
		fmt.Fprintf(&b, "conflict %+v\n", c)
	}
	return b.String()
}

func drawCluster(t *rapid.T, label string) cluster {
	c := cluster{
		nodes:    rapid.IntRange(1, 5).Draw(t, label+" nodes"),
		families: rapid.SampledFrom([][]spec.Family{onlyIPv4, onlyIPv6, dual}).Draw(t, label+" pods"),
		backend:  rapid.SampledFrom([]spec.Backend{vxlan(), direct(), hostGW()}).Draw(t, label+" backend"),
		mtu:      rapid.SampledFrom([]int{0, 1300}).Draw(t, label+" mtu"),
		bridge:   rapid.SampledFrom([]string{"cni0", "br9"}).Draw(t, label+" bridge"),
		first:    rapid.SampledFrom([]int{1, 3, 40}).Draw(t, label+" first"),
	}
	c.underlay = c.families
	if c.backend.Type == spec.VXLAN && !c.backend.DirectRouting {
		c.underlay = rapid.SampledFrom([][]spec.Family{onlyIPv4, onlyIPv6, dual}).Draw(t, label+" underlay")
		c.backend.VNI = rapid.SampledFrom([]uint32{1, 7}).Draw(t, label+" vni")
		c.backend.Device.IPv4 = rapid.SampledFrom([]string{"polder.1", "vx"}).Draw(t, label+" device")
		if rapid.Bool().Draw(t, label+" swapped") {
			c.backend.Device.IPv4, c.backend.Device.IPv6 = c.backend.Device.IPv6, c.backend.Device.IPv4
		}
	}
	return c
}

// damage alters a state at random, as somebody with ip(8) might.
func damage(t *rapid.T, s *State) {
	for i := range rapid.IntRange(0, 6).Draw(t, "damages") {
		label := fmt.Sprintf("damage %d", i)
		switch rapid.IntRange(0, 9).Draw(t, label) {
		case 0:
			if name, ok := drawKey(t, label, s.Links); ok {
				s.dropLink(name)
			}
		case 1:
			if name, ok := drawKey(t, label, s.Links); ok {
				l := s.Links[name]
				switch rapid.IntRange(0, 6).Draw(t, label+" of link") {
				case 0:
					l.MAC[5]++
				case 1:
					l.MTU--
				case 2:
					l.Up = false
					for k := range s.Addresses {
						if k.Link == name {
							s.dropRoute(connectedRoute(name, k.Prefix.Addr(), k.Prefix.Masked()))
						}
					}
				case 3:
					l.Alias = "polder cluster=other"
				case 4:
					l.VXLAN.Learning = l.Type == TypeVXLAN
				case 5:
					l.VXLAN.Other = l.Type == TypeVXLAN
				case 6:
					if l.Type == TypeVXLAN {
						l.TTL, l.DF = 1, rapid.Byte().Draw(t, label+" df")
					} else {
						l.STP, l.VLANFiltering = true, rapid.Bool().Draw(t, label+" vlans")
					}
				}
				s.Links[name] = l
			}
		case 2:
			if key, ok := drawKey(t, label, s.Addresses); ok {
				if rapid.Bool().Draw(t, label+" expires") {
					s.Addresses[key] = Address{Protocol: Protocol, Expires: true}
					break
				}
				s.dropAddress(key)
				if rapid.Bool().Draw(t, label+" other length") {
					key.Prefix = netip.PrefixFrom(key.Prefix.Addr(), key.Prefix.Bits()-1)
					s.Addresses[key] = Address{Protocol: Protocol}
				}
			}
		case 3:
			if key, ok := drawKey(t, label, s.Neighbours); ok {
				n := s.Neighbours[key]
				n.MAC[0] ^= 4
				s.Neighbours[key] = n
				key.Addr = key.Addr.Next()
				s.Neighbours[key] = n
			}
		case 4:
			if key, ok := drawKey(t, label, s.FDB); ok {
				if rapid.Bool().Draw(t, label+" stays") {
					delete(s.FDB, key)
				}
				key.Dst = key.Dst.Next()
				s.FDB[key] = FDBEntry{Permanent: true, Other: rapid.Bool().Draw(t, label+" features")}
			}
		case 5:
			if id, ok := drawKey(t, label, s.NextHops); ok {
				hop := s.NextHops[id]
				hop.Gateway = hop.Gateway.Next()
				hop.Other = rapid.Bool().Draw(t, label+" group")
				s.NextHops[id] = hop
			}
		case 6:
			if id, ok := drawKey(t, label, s.NextHops); ok {
				s.dropNextHop(id)
			}
		case 7:
			if key, ok := drawKey(t, label, s.Routes); ok {
				r := s.Routes[key]
				s.Duplicates = append(s.Duplicates, RouteEntry{key, r})
				r.Protocol, r.NextHop, r.Link, r.Gateway = Protocol, 0, "eth0", key.Dst.Addr().Next()
				s.Routes[key] = r
			}
		case 8:
			if key, ok := drawKey(t, label, s.Routes); ok {
				r := s.Routes[key]
				key.Metric += 5
				s.Routes[key] = r
			}
		case 9:
			if path, ok := drawKey(t, label, s.Sysctls); ok {
				s.Sysctls[path] = "9"
			}
		}
	}
}

func drawKey[K comparable, V any](t *rapid.T, label string, m map[K]V) (K, bool) {
	var none K
	if len(m) == 0 {
		return none, false
	}
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	// Map order is random; the draw must not be.
	sortByText(keys)
	return rapid.SampledFrom(keys).Draw(t, label+" key"), true
}

func sortByText[K any](keys []K) {
	for i := range keys {
		for j := i; j > 0 && fmt.Sprint(keys[j]) < fmt.Sprint(keys[j-1]); j-- {
			keys[j], keys[j-1] = keys[j-1], keys[j]
		}
	}
}

// TestDiffLeadsToDesired: from any state that came of one spec and was then
// damaged, the plan for another leads to that, without a step that the kernel
// would refuse; and a second plan is empty.
func TestDiffLeadsToDesired(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		state := NewState(0)
		for i := range 2 {
			c := drawCluster(t, fmt.Sprint("spec ", i))
			sp := c.spec()
			desired, err := Compile(sp, sp.Nodes[0], c.facts())
			if err != nil {
				t.Fatal(err)
			}
			plan := Diff(desired, state.clone())
			if len(plan.Conflicts) > 0 {
				t.Fatalf("conflicts: %+v", plan.Conflicts)
			}
			if err := simulate(&state, plan.Ops); err != nil {
				t.Fatalf("%v\nin\n%s", err, plan.text())
			}
			if again := Diff(desired, state); len(again.Ops)+len(again.Conflicts) > 0 {
				t.Fatalf("after\n%s\nthe plan is not empty:\n%s", plan.text(), again.text())
			}
			damage(t, &state)
		}
		plan := Diff(&Desired{State: NewState(0)}, state.clone())
		if err := simulate(&state, plan.Ops); err != nil {
			t.Fatal(err)
		}
		for name, l := range state.Links {
			if l.Marked() {
				t.Fatalf("destroy left link %s", name)
			}
		}
		if len(state.Routes)+len(state.NextHops)+len(state.Duplicates) > 0 {
			t.Fatalf("destroy left %v %v %v", state.Routes, state.NextHops, state.Duplicates)
		}
	})
}
