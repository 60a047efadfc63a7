package overlay

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/poldernet/polder/spec"
)

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
func damage(t *rapid.T, m *Model) {
	s := &m.state
	for i := range rapid.IntRange(0, 6).Draw(t, "damages") {
		label := fmt.Sprintf("damage %d", i)
		switch rapid.IntRange(0, 9).Draw(t, label) {
		case 0:
			if name, ok := drawKey(t, label, marked(s.Links)); ok {
				m.dropLink(name)
			}
		case 1:
			if name, ok := drawKey(t, label, marked(s.Links)); ok {
				l := s.Links[name]
				switch rapid.IntRange(0, 6).Draw(t, label+" of link") {
				case 0:
					l.MAC[5]++
				case 1:
					l.MTU--
				case 2:
					l.Up = false
					m.setLink(l)
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
			if key, ok := drawKey(t, label, without(s.Addresses, func(k AddressKey, _ Address) bool { return k.Link == "eth0" })); ok {
				if rapid.Bool().Draw(t, label+" expires") {
					s.Addresses[key] = Address{Protocol: Protocol, Expires: true}
					break
				}
				m.dropAddress(key)
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
				m.dropNextHop(id, true)
			}
		case 7:
			if key, ok := drawKey(t, label, without(s.Routes, func(_ RouteKey, r Route) bool { return r.Link == "eth0" })); ok {
				r := s.Routes[key]
				s.Duplicates = append(s.Duplicates, RouteEntry{key, r})
				r.Protocol, r.NextHop, r.Link, r.Gateway = Protocol, 0, "eth0", key.Dst.Addr().Next()
				s.Routes[key] = r
			}
		case 8:
			if key, ok := drawKey(t, label, without(s.Routes, func(_ RouteKey, r Route) bool { return r.Link == "eth0" })); ok {
				r := s.Routes[key]
				key.Metric += 5
				if r.Protocol == Protocol { // nobody makes the kernel's own
					s.Routes[key] = r
				}
			}
		case 9:
			if path, ok := drawKey(t, label, s.Sysctls); ok {
				s.Sysctls[path] = "9"
			}
		}
	}
}

// marked are our links.
func marked(links map[string]Link) map[string]Link {
	return without(links, func(_ string, l Link) bool { return !l.Marked() })
}

// without is a map without what is the host's own.
func without[K comparable, V any](m map[K]V, host func(K, V) bool) map[K]V {
	m = maps.Clone(m)
	maps.DeleteFunc(m, host)
	return m
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
		m := newModel(dual)
		for i := range 2 {
			c := drawCluster(t, fmt.Sprint("spec ", i))
			sp := c.spec()
			desired, plan := m.plan(t, sp)
			if len(plan.Conflicts) > 0 {
				t.Fatalf("conflicts: %+v", plan.Conflicts)
			}
			m.applyAll(t, plan)
			if _, again := m.plan(t, sp); len(again.Ops)+len(again.Conflicts) > 0 {
				t.Fatalf("after\n%s\nthe plan for\n%s\nis not empty:\n%s", plan.text(), desired.text(), again.text())
			}
			damage(t, m)
		}
		plan := Diff(&Desired{State: NewState(0)}, m.Read(Scope{}).State)
		m.applyAll(t, plan)
		for name := range marked(m.state.Links) {
			t.Fatalf("destroy left link %s", name)
		}
		if left := m.Read(Scope{}).State; len(left.Routes)+len(left.NextHops)+len(left.Duplicates) > 0 {
			t.Fatalf("destroy left %v %v %v", left.Routes, left.NextHops, left.Duplicates)
		}
	})
}

// newModel is node n1 with an underlay of these families.
func newModel(families []spec.Family) *Model {
	var addresses []netip.Prefix
	for _, f := range families {
		addresses = append(addresses, netip.PrefixFrom(nodeAddress(f, 1), linkPrefix(f).Bits()))
	}
	return NewModel(Link{Name: "eth0", Type: "veth", MTU: 1500, MAC: spec.MAC{2, 0, 0, 0, 1, 1}}, addresses...)
}

// plan reads the model and plans for the spec's n1.
func (m *Model) plan(t interface{ Fatal(...any) }, sp *spec.Spec) (*Desired, Plan) {
	o := m.Read(ScopeOf(sp, sp.Nodes[0]))
	desired, err := Compile(sp, sp.Nodes[0], o.Facts)
	if err != nil {
		t.Fatal(err)
	}
	o.State.Sysctls = m.Sysctls(slices.Collect(maps.Keys(desired.Sysctls)))
	return desired, Diff(desired, o.State)
}

func (m *Model) applyAll(t interface{ Fatalf(string, ...any) }, plan Plan) {
	for _, op := range plan.Ops {
		if err := m.Apply(op); err != nil {
			t.Fatalf("%v\nin\n%s", err, plan.text())
		}
	}
}
