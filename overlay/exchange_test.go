package overlay

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"pgregory.net/rapid"

	"github.com/poldernet/polder/spec"
)

// meeting are names of nodes whose nexthop objects have the same hash, or hashes that
// follow each other.
var meeting = sync.OnceValue(func() (names []string) {
	owners := map[uint32]string{}
	for i := range 60_000 {
		name := fmt.Sprintf("n%d", i+100)
		for _, f := range spec.Families {
			id := hashNextHop("test", nextHopOwner{name, f})
			for _, other := range []string{owners[id], owners[id-1], owners[id+1]} {
				if other != "" && len(names) < 24 {
					names = append(names, other, name)
				}
			}
			owners[id] = name
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
})

// drawPeer draws a node of a cluster, with what no other has.
func drawPeer(t *rapid.T, c cluster, names []string, name string) *spec.Node {
	i := 10 + slices.Index(names, name)
	n := &spec.Node{Name: name}
	variant := rapid.IntRange(0, 2).Draw(t, "variant of "+name)
	for _, f := range c.families {
		if rapid.IntRange(0, 5).Draw(t, "lacks") == 0 {
			continue
		}
		a := nodeAddress(f, i+40*variant)
		if rapid.IntRange(0, 3).Draw(t, "is elsewhere") == 0 {
			a = netip.AddrFrom4([4]byte{198, 51, 100, byte(i)})
			if f == spec.IPv6 {
				a = netip.MustParseAddr(fmt.Sprintf("2001:db8:9::%x", i))
			}
		}
		n.Addresses = append(n.Addresses, spec.NodeAddress{Addr: a})
		n.Subnets = append(n.Subnets, podSubnet(f, i+40*rapid.IntRange(0, 1).Draw(t, "subnet")))
		if rapid.Bool().Draw(t, "publishes") {
			n.VTEPMAC.Set(f, spec.MAC{2, byte(f), 0, 0, byte(variant), byte(i)})
		}
	}
	return n
}

// shift is what is only in the first and what is only in the second list, in order.
func shift(before, after []*spec.Node) (gone, come []*spec.Node) {
	less := func(a, b []*spec.Node) []*spec.Node {
		return slices.DeleteFunc(slices.Clone(a), func(n *spec.Node) bool { return slices.Contains(b, n) })
	}
	return less(before, after), less(after, before)
}

// TestNoExchange: what concerns the node itself, or a node of the files, is no exchange.
func TestNoExchange(t *testing.T) {
	c := cluster{nodes: 3, families: dual, underlay: dual, backend: vxlan()}
	sp := c.spec()
	sp.Kubernetes, sp.Nodes[0].Range = &spec.Kubernetes{}, hcl.Range{}
	d, err := Compile(sp, sp.Nodes[0], c.facts())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range sp.Nodes[:2] {
		for _, lists := range [][2][]*spec.Node{{{n}, nil}, {nil, {n}}} {
			if _, ok := d.Exchange(sp, sp.Nodes[0], c.facts(), lists[0], lists[1]); ok {
				t.Errorf("%s is exchanged", n.Name)
			}
		}
	}
}

// TestExchange: wherever nodes of a cluster come, change and go, an exchange comes to
// what compiling, comparing and reading all comes to; and nothing that the kernel tells
// of what was written makes anybody read it. What others put in the way is seen.
func TestExchange(t *testing.T) {
	exchanged, refused, planned, unplanned := 0, 0, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		c := cluster{
			nodes: 1, families: rapid.SampledFrom([][]spec.Family{onlyIPv4, onlyIPv6, dual}).Draw(t, "pods"),
			backend: rapid.SampledFrom([]spec.Backend{vxlan(), direct(), hostGW()}).Draw(t, "backend"),
		}
		c.underlay = c.families
		var addresses []netip.Prefix
		for _, f := range c.underlay {
			addresses = append(addresses, netip.PrefixFrom(nodeAddress(f, 1), linkPrefix(f).Bits()))
		}
		m := NewModel(Link{Name: "eth0", MTU: 1500}, addresses...)
		base := c.spec()
		base.Kubernetes = &spec.Kubernetes{}
		own := base.Nodes[0]
		own.Name = rapid.SampledFrom([]string{"n0", "n2", "n999999"}).Draw(t, "own name")
		if rapid.IntRange(0, 2).Draw(t, "by route") == 0 {
			base.Network.Underlay.RouteTo = nodeAddress(c.underlay[0], 10) // a peer's, perhaps
		}
		names := append([]string{"n1", "n3", "n4"}, meeting()...)
		peers := map[string]*spec.Node{}
		with := func() *spec.Spec {
			sp := *base
			sp.Nodes = append(slices.Collect(maps.Values(peers)), own)
			slices.SortFunc(sp.Nodes, func(a, b *spec.Node) int { return cmp.Compare(a.Name, b.Name) })
			return &sp
		}
		sp := with()
		var o *Observed
		var d *Desired
		diff := func(d *Desired) Plan { // without switches, which Read does not read
			plain := *d
			plain.Sysctls = nil
			return Diff(&plain, o.State)
		}
		anew := func() {
			for range 2 { // the first one makes links
				o = m.Read(ScopeOf(sp, own))
				var err error
				if d, err = Compile(sp, own, o.Facts); err != nil {
					t.Fatal(err)
				}
				for _, op := range Diff(d, o.State).Ops {
					_ = m.Apply(op)
				}
			}
			o = m.Read(ScopeOf(sp, own))
			if d, _ = Compile(sp, own, o.Facts); len(diff(d).Ops) > 0 {
				t.Fatalf("not in sync:\n%s", diff(d).text())
			}
			m.Events()
		}
		anew()
		for range rapid.IntRange(1, 8).Draw(t, "steps") {
			for range rapid.IntRange(1, 4).Draw(t, "changes") {
				name := rapid.SampledFrom(names).Draw(t, "who")
				if delete(peers, name); rapid.IntRange(0, 2).Draw(t, "goes") > 0 {
					peers[name] = drawPeer(t, c, names, name)
				}
			}
			before := sp
			sp = with()
			gone, come := shift(before.Nodes, sp.Nodes)
			var foreign []RouteEntry
			for _, n := range come {
				if rapid.IntRange(0, 8).Draw(t, "foreign") == 0 && len(n.Subnets) > 0 {
					f := spec.FamilyOf(n.Subnets[0].Addr())
					metric := rapid.SampledFrom([]uint32{defaultMetric(f), 5}).Draw(t, "metric")
					e := RouteEntry{RouteKey{Dst: n.Subnets[0], Metric: metric}, Route{Link: "eth0", Protocol: 4}}
					if m.AddRoute(e) == nil {
						foreign = append(foreign, e)
					}
				}
			}
			if len(gone) > 0 && rapid.IntRange(0, 8).Draw(t, "a foreign user") == 0 {
				from, to := d.peersOf(gone[0].Name)
				for _, p := range d.Peers[from:to] {
					f := spec.FamilyOf(p.Subnet.Addr())
					e := RouteEntry{RouteKey{Dst: podSubnet(f, 200), Metric: defaultMetric(f)}, Route{NextHop: p.NextHop, Protocol: 4}}
					if m.AddRoute(e) == nil {
						foreign = append(foreign, e)
					}
				}
			}
			var stranger uint32
			if len(come) > 0 && rapid.IntRange(0, 8).Draw(t, "a foreign nexthop") == 0 {
				id := hashNextHop(sp.Cluster, nextHopOwner{come[0].Name, c.families[0]})
				if _, taken := m.state.NextHops[id]; !taken && m.putNextHop(nextHopEntry{id, NextHop{Gateway: nodeAddress(c.families[0], 5), Link: "eth0", Protocol: 4}}) == nil {
					stranger = id
				}
			}
			renew := func() {
				for _, e := range foreign {
					m.dropRoute(e, true)
				}
				if stranger != 0 {
					m.dropNextHop(stranger, true)
				}
				anew()
			}
			if foreign != nil || stranger != 0 {
				m.Events()
				o = m.Read(ScopeOf(before, own))
				if p := diff(d); len(p.Ops)+len(p.Conflicts) > 0 {
					renew()
					continue
				}
			}
			if !m.Ask(o, sp, own, gone, come) {
				t.Fatal("all has to be read")
			}
			fresh := m.Read(ScopeOf(sp, own))
			if !reflect.DeepEqual(o.Facts, fresh.Facts) || !slices.Equal(o.asked, fresh.asked) || !o.scope.Equal(fresh.scope) {
				t.Fatalf("known is\n%+v\nand read from the beginning\n%+v", o.Facts, fresh.Facts)
			}
			full, err := Compile(sp, own, o.Facts)
			if err != nil {
				t.Fatal(err)
			}
			held := d.Clone()
			x, ok := d.Exchange(sp, own, o.Facts, gone, come)
			if !ok {
				refused++
				if !reflect.DeepEqual(d.Clone(), held) {
					t.Fatal("what cannot be exchanged has been")
				}
				renew()
				continue
			}
			exchanged++
			if d.String() != full.String() || !slices.Equal(d.Peers, full.Peers) || !slices.Equal(d.LeftOut, full.LeftOut) {
				t.Fatalf("exchanged:\n%s%v\n%v\ncompiled:\n%s%v\n%v", d, d.Peers, d.LeftOut, full, full.Peers, full.LeftOut)
			}
			plan, ok := x.Plan(d, o.State)
			all := diff(full)
			if !ok {
				unplanned++
				if foreign == nil && stranger == 0 {
					t.Fatalf("it is not planned, and all comes to\n%s", all.text())
				}
				renew()
				continue
			}
			planned++
			if plan.text() != all.text() {
				t.Fatalf("planned:\n%sand all:\n%s", plan.text(), all.text())
			}
			for _, op := range plan.Ops {
				if err := m.Apply(op); err != nil {
					t.Fatal(err)
				}
				o.Wrote(op)
			}
			fresh = m.Read(ScopeOf(sp, own))
			if o.State.String() != fresh.State.String() {
				t.Fatalf("taken to be written:\n%s\nread:\n%s", o.State, fresh.State)
			}
			for _, e := range m.Events() {
				if class := o.Concerns(e); class != 0 {
					t.Fatalf("%+v makes %s be read", e.of, class)
				}
			}
			for via := range fresh.vias {
				if !o.vias[via] {
					t.Fatalf("%v is a path, and is not known to be one", via)
				}
			}
			for link, class := range fresh.hangs {
				if class&^o.hangs[link] != 0 {
					t.Fatalf("%s hang on %s, and are not known to", class, link)
				}
			}
			if p := diff(d); len(p.Ops)+len(p.Conflicts) > 0 || foreign != nil || stranger != 0 {
				renew()
			}
		}
	})
	t.Logf("%d exchanged, %d refused; %d planned, %d not", exchanged, refused, planned, unplanned)
	if exchanged < 10*refused || refused == 0 || planned < 2*unplanned || unplanned == 0 {
		t.Errorf("the test shows little")
	}
}
