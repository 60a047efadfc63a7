package overlay

import (
	"net/netip"
	"testing"
	"time"

	"github.com/poldernet/polder/spec"
)

// Indices of the links of cluster.observed, and of one that is not there.
const (
	ifEth0 = iota + 1
	ifCni0
	ifVTEP
	ifVTEP6
	ifPort
	ifForeign
	ifUnknown
)

// observed is a reading of node n1, on which everything is as it should be. It
// has a port, v1, and a foreign link, f1.
func (c cluster) observed(t testing.TB) *Observed {
	sp := c.spec()
	desired, err := Compile(sp, sp.Nodes[0], c.facts())
	if err != nil {
		t.Fatal(err)
	}
	o := newObserved(ScopeOf(sp, sp.Nodes[0]))
	index := map[string]int{"eth0": ifEth0, "cni0": ifCni0, "polder.1": ifVTEP, "polder-v6.1": ifVTEP6}
	links := []rawLink{
		{Link: Link{Name: "eth0", MTU: 1500, Up: true}, ifindex: ifEth0, carrier: true},
		{Link: Link{Name: "v1", Type: "veth", MTU: 1400, Up: true}, ifindex: ifPort, master: ifCni0, carrier: true, bridgeMember: bridgeMember{Hairpin: true}},
		{Link: Link{Name: "f1", Type: "veth", MTU: 1500, Up: true}, ifindex: ifForeign, carrier: true},
	}
	for _, l := range desired.Links {
		raw := rawLink{Link: l, ifindex: index[l.Name], device: index[l.VXLAN.Device], carrier: true}
		raw.VXLAN.Device = ""
		links = append(links, raw)
	}
	addresses := []rawAddress{{ifindex: ifForeign, prefix: netip.MustParsePrefix("198.51.100.1/24")}}
	for _, f := range c.underlay {
		addresses = append(addresses, rawAddress{ifindex: ifEth0, prefix: netip.PrefixFrom(nodeAddress(f, 1), linkPrefix(f).Bits())})
	}
	for key, a := range desired.Addresses {
		addresses = append(addresses, rawAddress{Address: a, ifindex: index[key.Link], prefix: key.Prefix})
	}
	o.setLinks(links, addresses)
	o.State.Neighbours, o.State.FDB, o.State.NextHops, o.State.Routes = desired.Neighbours, desired.FDB, desired.NextHops, desired.Routes
	o.State.Sysctls = desired.Sysctls
	o.State.NextHops[7] = NextHop{Gateway: netip.MustParseAddr("192.0.2.1"), Link: "eth0", Protocol: 4}
	o.State.NextHops[8] = NextHop{Gateway: netip.MustParseAddr("192.0.2.2"), Link: "eth0", Protocol: 4}
	o.State.NextHops[9] = NextHop{Other: true, Protocol: 4}
	o.State.Routes[RouteKey{Dst: netip.MustParsePrefix("10.200.0.0/24")}] = Route{NextHop: 8, Protocol: 4}
	o.State.Duplicates = []RouteEntry{{RouteKey{Dst: podSubnet(spec.IPv4, 2)}, Route{Link: "f1", Protocol: 4}}}
	o.Facts.Paths = c.facts().Paths
	o.Facts.Paths[nodeAddress(spec.IPv4, 3)] = HostPath{Link: "eth0", Gateway: netip.MustParseAddr("192.0.2.1")}
	o.advertised = map[string]bool{"eth0": true}
	o.index()
	return o
}

func (o *Observed) altered(ifindex int, alter func(*rawLink)) []byte {
	l := o.links[ifindex].raw
	alter(&l)
	return linkMessage(l)
}

func aRoute(dst, via string, ifindex int, protocol uint8) []byte {
	e := RouteEntry{RouteKey{Dst: netip.MustParsePrefix(dst)}, Route{Protocol: protocol}}
	if e.Dst.Addr().Is6() {
		e.Metric = 1024
	}
	if via != "" {
		e.Gateway = netip.MustParseAddr(via)
	}
	return encodeRoute(e, ifindex, false).body
}

func (o *Observed) aHop(id uint32, alter func(*NextHop), ifindex int) []byte {
	n := o.State.NextHops[id]
	alter(&n)
	return encodeNextHop(nextHopEntry{id, n}, ifindex, false).body
}

func anAddress(prefix string, ifindex int, protocol uint8, tentative bool) []byte {
	return addressMessage(rawAddress{Address: Address{Protocol: protocol, Tentative: tentative}, ifindex: ifindex, prefix: netip.MustParsePrefix(prefix)})
}

func aNetconf(f spec.Family, ifindex int, forwarding uint32) []byte {
	b := appendAttr32([]byte{rtFamily(f), 0, 0, 0}, netconfaIfindex, uint32(ifindex))
	return appendAttr32(b, netconfaForwarding, forwarding)
}

func nothing(*rawLink) {}

// says is a message that is the same whatever was read.
func says(b []byte) func(*Observed) []byte { return func(*Observed) []byte { return b } }

func ourHopID(o *Observed) uint32 {
	return o.State.Routes[RouteKey{Dst: podSubnet(spec.IPv4, 2)}].NextHop
}

func ourNeighbour(o *Observed, alter func(*neighbourEntry), ifindex int) []byte {
	key := NeighbourKey{"polder.1", podSubnet(spec.IPv4, 2).Addr()}
	n := neighbourEntry{key, o.State.Neighbours[key]}
	alter(&n)
	return encodeNeighbour(n, ifindex, false).body
}

func ourRow(o *Observed, alter func(*fdbRow), ifindex int) []byte {
	var row fdbRow
	for key, e := range o.State.FDB {
		if key.Link == "polder.1" && (row.Link == "" || key.Dst.Less(row.Dst)) {
			row = fdbRow{key, e}
		}
	}
	alter(&row)
	return encodeFDB(row, ifindex, false).body
}

// concernRow is an event, as the kernel says it, and what it concerns.
type concernRow struct {
	name string
	kind uint16
	body func(o *Observed) []byte
	want Class
}

// concernRows are events on a host with direct routing (paths of peers matter)
// and, unless one is direct, VTEPs.
var concernRows = []concernRow{
	{"our bridge, said again", rtmNewLink, func(o *Observed) []byte { return o.altered(ifCni0, nothing) }, 0},
	{"our bridge's carrier", rtmNewLink, func(o *Observed) []byte { return o.altered(ifCni0, func(l *rawLink) { l.carrier = false }) }, 0},
	{"our bridge's MTU", rtmNewLink, func(o *Observed) []byte { return o.altered(ifCni0, func(l *rawLink) { l.MTU-- }) }, Everything},
	{"our bridge is gone", rtmDelLink, func(o *Observed) []byte { return o.altered(ifCni0, nothing) }, Everything},
	{"our VTEP's MAC", rtmNewLink, func(o *Observed) []byte { return o.altered(ifVTEP, func(l *rawLink) { l.MAC[5]++ }) }, Everything},
	{"our VTEP's device", rtmNewLink, func(o *Observed) []byte { return o.altered(ifVTEP, func(l *rawLink) { l.device = ifForeign }) }, Everything},
	{"our VTEP in a bridge", rtmNewLink, func(o *Observed) []byte { return o.altered(ifVTEP, func(l *rawLink) { l.master = ifUnknown }) }, Everything},
	{"a link of our bridge's name", rtmNewLink, func(o *Observed) []byte {
		return o.altered(ifForeign, func(l *rawLink) { l.ifindex, l.Name = ifUnknown, "cni0" })
	}, Everything},
	{"a link with a mark", rtmNewLink, func(o *Observed) []byte {
		return o.altered(ifForeign, func(l *rawLink) { l.ifindex, l.Name, l.Type, l.Alias = ifUnknown, "x", TypeBridge, "polder cluster=x" })
	}, Everything},
	{"a VXLAN device", rtmNewLink, func(o *Observed) []byte {
		return o.altered(ifVTEP, func(l *rawLink) { l.ifindex, l.Name, l.Alias = ifUnknown, "x", "" })
	}, Links},
	{"a foreign link", rtmNewLink, func(o *Observed) []byte {
		return o.altered(ifForeign, func(l *rawLink) { l.ifindex, l.Name = ifUnknown, "x" })
	}, 0},
	{"a foreign link that we never saw is gone", rtmDelLink, func(o *Observed) []byte {
		return o.altered(ifForeign, func(l *rawLink) { l.ifindex = ifUnknown })
	}, 0},
	{"a foreign link becomes a port", rtmNewLink, func(o *Observed) []byte { return o.altered(ifForeign, func(l *rawLink) { l.master = ifCni0 }) }, Links},
	{"a foreign link is renamed", rtmNewLink, func(o *Observed) []byte { return o.altered(ifForeign, func(l *rawLink) { l.Name = "f2" }) }, Everything},
	{"a foreign link's MTU", rtmNewLink, func(o *Observed) []byte { return o.altered(ifForeign, func(l *rawLink) { l.MTU = 9000 }) }, 0},
	{"a message of a wireless driver", rtmNewLink, func(o *Observed) []byte { return o.altered(ifEth0, func(l *rawLink) { l.Name = "" }) }, 0},
	{"a port leaves", rtmNewLink, func(o *Observed) []byte { return o.altered(ifPort, func(l *rawLink) { l.master = 0 }) }, Links},
	{"a port's hairpin", rtmNewLink, func(o *Observed) []byte { return o.altered(ifPort, func(l *rawLink) { l.Hairpin = false }) }, Links},
	{"a port's carrier", rtmNewLink, func(o *Observed) []byte { return o.altered(ifPort, func(l *rawLink) { l.carrier = false }) }, 0},
	{"a port, by the bridge", rtmNewLink, func(o *Observed) []byte { return portMessage(o.links[ifPort].raw) }, 0},
	{"a port's hairpin, by the bridge", rtmNewLink, says(portMessage(rawLink{ifindex: ifPort, master: ifCni0})), Links},
	{"a port leaves, by the bridge", rtmDelLink, func(o *Observed) []byte { return portMessage(o.links[ifPort].raw) }, Links},
	{"a port of a foreign bridge", rtmNewLink, says(portMessage(rawLink{ifindex: ifForeign, master: ifUnknown})), 0},
	{"the underlay's MTU", rtmNewLink, func(o *Observed) []byte { return o.altered(ifEth0, func(l *rawLink) { l.MTU = 1400 }) }, Links},
	{"the underlay is down", rtmNewLink, func(o *Observed) []byte { return o.altered(ifEth0, func(l *rawLink) { l.Up = false }) }, Links | Routes | Paths},
	{"the underlay has no carrier", rtmNewLink, func(o *Observed) []byte { return o.altered(ifEth0, func(l *rawLink) { l.carrier = false }) }, Links | Routes | Paths},

	{"our address, said again", rtmNewAddr, says(anAddress("10.244.1.1/24", ifCni0, Protocol, false)), 0},
	{"our address of another protocol", rtmNewAddr, says(anAddress("10.244.1.1/24", ifCni0, 0, false)), Links},
	{"our address tentative", rtmNewAddr, says(anAddress("fd00:10:244:1::1/64", ifCni0, Protocol, true)), Links},
	{"our address is gone", rtmDelAddr, says(anAddress("10.244.1.1/24", ifCni0, Protocol, false)), Links | Routes | Neighbours},
	{"a link-local address of our bridge", rtmNewAddr, says(anAddress("fe80::1/64", ifCni0, 0, true)), 0},
	{"an address that nobody knew is gone", rtmDelAddr, says(anAddress("10.9.9.9/24", ifCni0, 0, false)), 0},
	{"the node's address, said again", rtmNewAddr, says(anAddress("192.0.2.11/24", ifEth0, 0, false)), 0},
	{"the node's address is gone", rtmDelAddr, says(anAddress("192.0.2.11/24", ifEth0, 0, false)), Links | Routes | Paths},
	{"the node's address on a new link", rtmNewAddr, says(anAddress("192.0.2.11/32", ifUnknown, 0, false)), Links},
	{"a foreign address", rtmNewAddr, says(anAddress("198.51.100.2/24", ifForeign, 0, false)), 0},
	{"a foreign address in the pod network", rtmNewAddr, says(anAddress("10.250.0.1/24", ifForeign, 0, false)), Links},

	{"a route of ours, said again", rtmNewRoute, func(o *Observed) []byte {
		key := RouteKey{Dst: podSubnet(spec.IPv4, 2)}
		return encodeRoute(RouteEntry{key, o.State.Routes[key]}, 0, false).body
	}, 0},
	{"a route of ours is gone", rtmDelRoute, says(aRoute("10.244.2.0/24", "", 0, Protocol)), Routes},
	{"a duplicate, said again", rtmNewRoute, says(aRoute("10.244.2.0/24", "", ifForeign, 4)), 0},
	{"a route in the pod network", rtmNewRoute, says(aRoute("10.244.9.0/24", "", ifForeign, 4)), Routes},
	{"a route over our VTEP", rtmNewRoute, says(aRoute("203.0.113.0/24", "", ifVTEP, 4)), Routes},
	{"a foreign route", rtmNewRoute, says(aRoute("203.0.113.0/24", "192.0.2.1", ifEth0, 4)), 0},
	{"a foreign route is gone", rtmDelRoute, says(aRoute("203.0.113.0/24", "192.0.2.1", ifEth0, 4)), 0},
	{"a route to a peer", rtmNewRoute, says(aRoute("192.0.2.12/32", "192.0.2.1", ifEth0, 4)), Paths},
	{"a route that ends before the first peer", rtmNewRoute, says(aRoute("192.0.2.8/30", "192.0.2.1", ifEth0, 4)), 0},
	{"a default route", rtmNewRoute, says(aRoute("0.0.0.0/0", "192.0.2.1", ifEth0, 4)), Paths},
	{"a default route by advertisement, said again", rtmNewRoute, says(aRoute("::/0", "fe80::1", ifEth0, protocolRA)), Paths},
	{"a default route by advertisement, over another link", rtmNewRoute, says(aRoute("::/0", "fe80::1", ifForeign, protocolRA)), Routes | Paths},
	{"a default route by advertisement is gone", rtmDelRoute, says(aRoute("::/0", "fe80::1", ifEth0, protocolRA)), Routes | Paths},
	{"a route in a table of others", rtmNewRoute, says(appendAttr32(aRoute("10.244.9.0/24", "", ifForeign, 4), rtaTable, 1000)), 0},
	{"a rule", rtmNewRule, says(make([]byte, 12)), Paths},

	{"our nexthop object, said again", rtmNewNextHop, func(o *Observed) []byte { return o.aHop(ourHopID(o), func(*NextHop) {}, ifEth0) }, 0},
	{"our nexthop object leads elsewhere", rtmNewNextHop, func(o *Observed) []byte { return o.aHop(ourHopID(o), func(*NextHop) {}, ifForeign) }, Routes},
	{"our nexthop object is gone", rtmDelNextHop, func(o *Observed) []byte { return o.aHop(ourHopID(o), func(*NextHop) {}, ifEth0) }, Routes},
	{"a nexthop object with our protocol", rtmNewNextHop, func(o *Observed) []byte {
		return o.aHop(70, func(n *NextHop) { n.Protocol = Protocol; n.Gateway = nodeAddress(spec.IPv4, 9) }, ifEth0)
	}, Routes | Paths},
	{"one that leads to a peer", rtmNewNextHop, func(o *Observed) []byte {
		return o.aHop(7, func(n *NextHop) { n.Gateway = nodeAddress(spec.IPv4, 9) }, ifEth0)
	}, Paths},
	{"one of others that a route of the pod network uses", rtmNewNextHop, func(o *Observed) []byte {
		return o.aHop(8, func(n *NextHop) { n.Gateway = nodeAddress(spec.IPv4, 9) }, ifEth0)
	}, Routes},
	{"one that nobody knew and by which a peer was reached is gone", rtmDelNextHop, func(o *Observed) []byte {
		return o.aHop(71, func(n *NextHop) { n.Gateway, n.Protocol = netip.MustParseAddr("192.0.2.1"), 4 }, ifEth0)
	}, Paths},
	{"one that nobody knew is gone", rtmDelNextHop, func(o *Observed) []byte {
		return o.aHop(71, func(n *NextHop) { n.Gateway, n.Protocol = nodeAddress(spec.IPv4, 9), 4 }, ifEth0)
	}, 0},
	{"a group", rtmNewNextHop, says(appendAttr(appendAttr32([]byte{0, 0, 4, 0, 0, 0, 0, 0}, nhaID, 9), nhaGroup, make([]byte, 8))), Paths},

	{"a neighbour of a foreign link", rtmNewNeigh, func(o *Observed) []byte { return ourNeighbour(o, func(n *neighbourEntry) { n.MAC[5]++ }, ifEth0) }, 0},
	{"forwarding, as it should be", rtmNewNetconf, says(aNetconf(spec.IPv4, netconfAll, 1)), 0},
	{"forwarding is off", rtmNewNetconf, says(aNetconf(spec.IPv6, netconfAll, 0)), Sysctls},
	{"our bridge does not forward", rtmNewNetconf, says(aNetconf(spec.IPv4, ifCni0, 0)), Sysctls},
	{"a foreign link does not forward", rtmNewNetconf, says(aNetconf(spec.IPv4, ifForeign, 0)), 0},
	{"new links' default", rtmNewNetconf, says(aNetconf(spec.IPv4, -2, 0)), 0},
}

// tunnelRows are events on a host whose peers are reached by VXLAN alone.
var tunnelRows = []concernRow{
	{"our neighbour, said again", rtmNewNeigh, func(o *Observed) []byte { return ourNeighbour(o, func(*neighbourEntry) {}, ifVTEP) }, 0},
	{"our neighbour's MAC", rtmNewNeigh, func(o *Observed) []byte { return ourNeighbour(o, func(n *neighbourEntry) { n.MAC[5]++ }, ifVTEP) }, Neighbours},
	{"our neighbour is gone", rtmDelNeigh, func(o *Observed) []byte { return ourNeighbour(o, func(*neighbourEntry) {}, ifVTEP) }, Neighbours},
	{"a stray neighbour", rtmNewNeigh, func(o *Observed) []byte {
		return ourNeighbour(o, func(n *neighbourEntry) { n.Addr = n.Addr.Next() }, ifVTEP)
	}, Neighbours},
	{"a neighbour that nobody knew is gone", rtmDelNeigh, func(o *Observed) []byte {
		return ourNeighbour(o, func(n *neighbourEntry) { n.Addr = n.Addr.Next() }, ifVTEP)
	}, 0},
	{"one that fails as it is deleted", rtmNewNeigh, func(o *Observed) []byte {
		b := ourNeighbour(o, func(n *neighbourEntry) { n.Addr = n.Addr.Next() }, ifVTEP)
		b[8] = nudFailed
		return b
	}, 0},
	{"our neighbour fails", rtmNewNeigh, func(o *Observed) []byte {
		b := ourNeighbour(o, func(*neighbourEntry) {}, ifVTEP)
		b[8] = nudFailed
		return b
	}, Neighbours},
	{"multicast on our VTEP", rtmNewNeigh, func(o *Observed) []byte {
		return ourNeighbour(o, func(n *neighbourEntry) { n.Addr = netip.MustParseAddr("224.0.0.22") }, ifVTEP)
	}, 0},
	{"our row, said again", rtmNewNeigh, func(o *Observed) []byte { return ourRow(o, func(*fdbRow) {}, ifVTEP) }, 0},
	{"our row to another port", rtmNewNeigh, func(o *Observed) []byte { return appendAttr32(ourRow(o, func(*fdbRow) {}, ifVTEP), ndaPort, 1) }, FDB},
	{"our row leads elsewhere", rtmNewNeigh, func(o *Observed) []byte {
		return ourRow(o, func(f *fdbRow) { f.Dst = f.Dst.Next().Next().Next() }, ifVTEP)
	}, FDB},
	{"our row is gone", rtmDelNeigh, func(o *Observed) []byte { return ourRow(o, func(*fdbRow) {}, ifVTEP) }, FDB},
	{"a row of a bridge", rtmNewNeigh, func(o *Observed) []byte {
		b := ourRow(o, func(f *fdbRow) { f.MAC[5]++ }, ifVTEP)
		b[10] = 0 // without NTF_SELF
		return b
	}, 0},
	{"our VTEP's carrier", rtmNewLink, func(o *Observed) []byte { return o.altered(ifVTEP, func(l *rawLink) { l.carrier = false }) }, Routes},
	{"a default route", rtmNewRoute, says(aRoute("0.0.0.0/0", "192.0.2.1", ifEth0, 4)), 0},
	{"a rule", rtmNewRule, says(make([]byte, 12)), 0},
	{"the underlay is gone", rtmDelLink, func(o *Observed) []byte { return o.altered(ifEth0, nothing) }, Links | Routes | Paths},
}

func TestConcerns(t *testing.T) {
	for _, test := range []struct {
		backend spec.Backend
		rows    []concernRow
	}{{direct(), concernRows}, {vxlan(), tunnelRows}} {
		c := cluster{nodes: 3, families: dual, underlay: dual, backend: test.backend}
		for _, row := range test.rows {
			t.Run(row.name, func(t *testing.T) {
				o := c.observed(t)
				e, ok, err := decodeEvent(row.kind, 0, row.body(o))
				if !ok || err != nil {
					t.Fatal(ok, err)
				}
				if got := o.Concerns(e); got != row.want {
					t.Errorf("it concerns %s, want %s", got, row.want)
				}
				// Of what was received before a class was read, that class shows
				// what happened.
				e.at = time.Now()
				o.began[Links.bit()], o.began[Routes.bit()] = e.at.Add(1), e.at
				if got, want := o.Concerns(e), row.want&^Links; got != want {
					t.Errorf("after the links were read it concerns %s, want %s", got, want)
				}
			})
		}
	}
}

// TestTouched: a verification reads what operations have changed.
func TestTouched(t *testing.T) {
	for _, test := range []struct {
		object object
		want   Class
	}{
		{Link{}, Everything},
		{portEntry{}, Links},
		{addressEntry{AddressKey{Prefix: netip.MustParsePrefix("fd00::/64")}, Address{}}, Links | Routes},
		{addressEntry{AddressKey{Prefix: netip.MustParsePrefix("10.0.0.0/24")}, Address{}}, Links | Routes | Neighbours},
		{neighbourEntry{}, Neighbours},
		{fdbRow{}, FDB},
		{nextHopEntry{}, Routes},
		{RouteEntry{}, Routes},
		{sysctlEntry{ForwardingSwitch(spec.IPv4), "1"}, Sysctls},
		{sysctlEntry{ForwardingSwitch(spec.IPv6), "1"}, Sysctls | Routes | Paths},
		{sysctlEntry{linkSysctl("cni0", "disable_ipv6"), "0"}, Sysctls | Links | Neighbours | Routes},
	} {
		if got := Touched([]Op{{object: test.object}}); got != test.want {
			t.Errorf("%T: %s, want %s", test.object, got, test.want)
		}
	}
}

// BenchmarkForeignRoute is a route of others, from the bytes to the judgement,
// on a node with 5,000 peers whose paths all matter.
func BenchmarkForeignRoute(b *testing.B) {
	c := cluster{nodes: 5000, families: onlyIPv4, underlay: onlyIPv4, backend: direct()}
	o := c.observed(b)
	body := aRoute("203.0.113.7/32", "192.0.2.1", ifEth0, 4)
	b.ReportAllocs()
	for b.Loop() {
		e, _, err := decodeEvent(rtmNewRoute, 0, body)
		if err != nil || o.Concerns(e) != 0 {
			b.Fatal(err)
		}
	}
}
