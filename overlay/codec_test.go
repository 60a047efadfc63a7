package overlay

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"github.com/poldernet/polder/spec"
)

func drawAddr(t *rapid.T, f spec.Family, label string) netip.Addr {
	n := f.Bits() / 8
	a, _ := netip.AddrFromSlice(rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, label))
	return a
}

func drawFamily(t *rapid.T) spec.Family {
	return rapid.SampledFrom(spec.Families[:]).Draw(t, "family")
}

func drawMAC(t *rapid.T) (mac spec.MAC) {
	copy(mac[:], rapid.SliceOfN(rapid.Byte(), len(mac), len(mac)).Draw(t, "mac"))
	return mac
}

// drawIndex is an interface index: positive, 31 bits.
func drawIndex(t *rapid.T) int { return rapid.IntRange(1, 1<<31-1).Draw(t, "ifindex") }

func TestNeighbourRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := neighbourEntry{NeighbourKey{"vx", drawAddr(t, drawFamily(t), "addr")}, Neighbour{drawMAC(t), true}}
		ifindex := drawIndex(t)
		m := encodeNeighbour(n, ifindex, false)
		got, err := decodeNeigh(m.body)
		want := rawNeigh{family: rtFamily(spec.FamilyOf(n.Addr)), ifindex: ifindex, state: nudPermanent, dst: n.Addr, mac: n.MAC}
		if err != nil || got != want || m.kind != rtmNewNeigh {
			t.Fatalf("%+v is read as %+v, want %+v: %v", n, got, want, err)
		}
	})
}

func TestFDBRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		row := fdbRow{FDBKey{"vx", drawMAC(t), drawAddr(t, drawFamily(t), "dst")}, FDBEntry{Permanent: true}}
		ifindex := drawIndex(t)
		for _, del := range []bool{false, true} {
			row.Other = del && rapid.Bool().Draw(t, "other")
			want := rawNeigh{family: familyBridge, ifindex: ifindex, state: nudPermanent, flags: ntfSelf, dst: row.Dst, mac: row.MAC}
			if row.Other {
				want.dst = netip.Addr{} // all rows of the MAC
			}
			got, err := decodeNeigh(encodeFDB(row, ifindex, del).body)
			if err != nil || got != want {
				t.Fatalf("%+v is read as %+v, want %+v: %v", row, got, want, err)
			}
		}
	})
}

// TestFDBFeatures: each attribute that makes a row send elsewhere is seen.
func TestFDBFeatures(t *testing.T) {
	row := fdbRow{FDBKey{"vx", spec.MAC{2, 0, 0, 0, 0, 1}, netip.MustParseAddr("192.0.2.12")}, FDBEntry{Permanent: true}}
	for name, kind := range map[string]uint16{"port": 6, "vni": 7, "ifindex": 8, "nexthop": 13} {
		b := appendAttr32(encodeFDB(row, 3, false).body, kind, 9)
		if got, err := decodeNeigh(b); err != nil || !got.other {
			t.Errorf("%s: %+v %v", name, got, err)
		}
	}
}

func TestNextHopRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := nextHopEntry{rapid.Uint32().Draw(t, "id"), NextHop{
			Gateway: drawAddr(t, drawFamily(t), "gateway"), OnLink: rapid.Bool().Draw(t, "onlink"), Protocol: rapid.Byte().Draw(t, "proto"),
		}}
		want := drawIndex(t)
		id, ifindex, got, err := decodeNextHop(encodeNextHop(n, want, false).body)
		if err != nil || id != n.id || ifindex != want || got != n.NextHop {
			t.Fatalf("%+v on %d is read as %d %+v on %d: %v", n, want, id, got, ifindex, err)
		}
		if id, _, _, err := decodeNextHop(encodeNextHop(n, want, true).body); err != nil || id != n.id {
			t.Fatalf("the deletion of %d is of %d: %v", n.id, id, err)
		}
	})
}

func drawRoute(t *rapid.T) (RouteEntry, int) {
	f := drawFamily(t)
	dst, err := drawAddr(t, f, "dst").Prefix(rapid.IntRange(0, f.Bits()).Draw(t, "length"))
	if err != nil {
		t.Fatal(err)
	}
	e := RouteEntry{RouteKey{Dst: dst, Metric: rapid.Uint32().Draw(t, "metric")}, Route{Protocol: rapid.Byte().Draw(t, "proto")}}
	if f == spec.IPv4 {
		e.TOS = rapid.Byte().Draw(t, "tos")
	}
	ifindex := 0
	if rapid.Bool().Draw(t, "by nexthop object") {
		e.NextHop = rapid.Uint32Min(1).Draw(t, "nhid")
	} else {
		ifindex = drawIndex(t)
		e.OnLink = rapid.Bool().Draw(t, "onlink")
		if rapid.Bool().Draw(t, "by gateway") {
			e.Gateway = drawAddr(t, f, "gateway")
		}
	}
	if rapid.Bool().Draw(t, "with source") {
		e.Source = drawAddr(t, f, "src")
	}
	return e, ifindex
}

// TestRouteRoundTrip: what is written is read again, and a deletion says as
// much as the addition.
func TestRouteRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e, ifindex := drawRoute(t)
		for _, del := range []bool{false, true} {
			got, err := decodeRoute(encodeRoute(e, ifindex, del).body)
			if err != nil || got.RouteEntry != e || got.ifindex != ifindex || got.table != tableMain || got.kind != routeUnicast || got.cloned {
				t.Fatalf("%+v on %d is read as %+v: %v", e, ifindex, got, err)
			}
		}
	})
}

// TestRouteOddities are routes that we never write, as the kernel says them.
func TestRouteOddities(t *testing.T) {
	e := RouteEntry{RouteKey{Dst: netip.MustParsePrefix("10.244.2.0/24")}, Route{Protocol: Protocol}}
	plain := func() []byte { return encodeRoute(e, 3, false).body }
	via := append(binary.NativeEndian.AppendUint16(nil, familyInet6), netip.MustParseAddr("fe80::1").AsSlice()...)
	blackhole := plain()
	blackhole[7] = 6 // RTN_BLACKHOLE
	for name, b := range map[string][]byte{
		"metrics":   appendAttr(plain(), 8, appendAttr32(nil, 2, 1000)),
		"multipath": appendAttr(plain(), 9, make([]byte, 16)),
		"encap":     appendAttr(plain(), 22, nil),
		"via":       appendAttr(plain(), 18, via),
		"blackhole": blackhole,
	} {
		if got, err := decodeRoute(b); err != nil || !got.Other {
			t.Errorf("%s: %+v %v", name, got, err)
		}
	}
	if got, err := decodeRoute(appendAttr(plain(), 18, via)); err != nil || got.Gateway != netip.MustParseAddr("fe80::1") {
		t.Errorf("via: gateway %s: %v", got.Gateway, err)
	}
	if got, err := decodeRoute(appendAttr32(plain(), rtaTable, 1000)); err != nil || got.table != 1000 {
		t.Errorf("table: %+v %v", got, err)
	}
	if got, err := decodeRoute([]byte{familyInet6, 0, 0, 0, tableMain, 9, 0, routeUnicast, 0, 0, 0, 0}); err != nil || got.Dst != netip.MustParsePrefix("::/0") {
		t.Errorf("default: %+v %v", got, err)
	}
}

func TestMessagesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOf(rapid.Custom(func(t *rapid.T) message {
			return message{rapid.Uint16().Draw(t, "kind"), rapid.Uint16().Draw(t, "flags"), rapid.SliceOf(rapid.Byte()).Draw(t, "body")}
		})).Draw(t, "messages")
		var b []byte
		for i, m := range want {
			b = appendMessage(b, m, uint32(i+7))
		}
		i := 0
		err := eachMessage(b, func(kind, flags uint16, seq uint32, body []byte) error {
			m := want[i]
			if kind != m.kind || flags != m.flags|flagRequest || seq != uint32(i+7) || !bytes.Equal(body, m.body) {
				t.Fatalf("message %d, %+v, is read as %d %x %d %x", i, m, kind, flags, seq, body)
			}
			i++
			return nil
		})
		if err != nil || i != len(want) {
			t.Fatalf("%d of %d messages: %v", i, len(want), err)
		}
	})
}

func TestAttrsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type pair struct {
			kind  uint16
			value []byte
		}
		want := rapid.SliceOf(rapid.Custom(func(t *rapid.T) pair {
			return pair{rapid.Uint16Max(nestedFlags-1).Draw(t, "kind") &^ nestedFlags, rapid.SliceOf(rapid.Byte()).Draw(t, "value")}
		})).Draw(t, "attributes")
		var b []byte
		for _, p := range want {
			b = appendAttr(b, p.kind, p.value)
		}
		i := 0
		err := eachAttr(b, func(kind uint16, value []byte) {
			if kind != want[i].kind || !bytes.Equal(value, want[i].value) {
				t.Fatalf("attribute %d, %+v, is read as %d %x", i, want[i], kind, value)
			}
			i++
		})
		if err != nil || i != len(want) {
			t.Fatalf("%d of %d attributes: %v", i, len(want), err)
		}
	})
}

// TestTruncated: a message that ends early is an error, not half an object.
func TestTruncated(t *testing.T) {
	route := RouteEntry{RouteKey{Dst: netip.MustParsePrefix("10.244.2.0/24")}, Route{NextHop: 7}}
	body := encodeRoute(route, 0, false).body
	for n := range body {
		_, err := decodeRoute(body[:n])
		if whole := n == 12 || n == 20; err == nil && !whole { // before an attribute
			t.Errorf("a route of %d of %d bytes is read", n, len(body))
		}
	}
	datagram := appendMessage(nil, message{rtmNewRoute, 0, body}, 1)
	for n := 1; n < len(datagram); n++ {
		if err := eachMessage(datagram[:n], func(uint16, uint16, uint32, []byte) error { return nil }); err == nil {
			t.Errorf("a datagram of %d of %d bytes is read", n, len(datagram))
		}
	}
	for name, err := range map[string]error{
		"neighbour": func() error { _, err := decodeNeigh(make([]byte, 11)); return err }(),
		"nexthop":   func() error { _, _, _, err := decodeNextHop(make([]byte, 7)); return err }(),
	} {
		if err == nil {
			t.Errorf("a truncated %s is read", name)
		}
	}
}

// FuzzDecode feeds the decoders of kernel messages with anything: none may
// panic, and what one reads and we could have written is read the same again.
func FuzzDecode(f *testing.F) {
	f.Add(encodeNeighbour(neighbourEntry{NeighbourKey{Addr: netip.MustParseAddr("10.244.2.0")}, Neighbour{}}, 3, false).body)
	f.Add(encodeFDB(fdbRow{FDBKey{Dst: netip.MustParseAddr("2001:db8::12")}, FDBEntry{}}, 3, false).body)
	f.Add(encodeNextHop(nextHopEntry{7, NextHop{Gateway: netip.MustParseAddr("fd00::1"), OnLink: true}}, 3, false).body)
	f.Add(encodeRoute(RouteEntry{RouteKey{Dst: netip.MustParsePrefix("10.244.2.0/24")}, Route{NextHop: 7, Protocol: Protocol}}, 0, false).body)
	f.Add(encodeRoute(RouteEntry{RouteKey{Dst: netip.MustParsePrefix("fd00::/64"), Metric: 1024}, Route{Gateway: netip.MustParseAddr("fe80::1")}}, 3, false).body)
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = decodeNeigh(b)
		if id, ifindex, n, err := decodeNextHop(b); err == nil && n.Gateway.IsValid() && !n.Other {
			again, index, hop, err := decodeNextHop(encodeNextHop(nextHopEntry{id, n}, ifindex, false).body)
			if err != nil || again != id || index != ifindex || hop != n {
				t.Fatalf("%+v is read again as %+v: %v", n, hop, err)
			}
		}
		r, err := decodeRoute(b)
		if err != nil || r.Other || r.cloned || r.table != tableMain {
			return
		}
		again, err := decodeRoute(encodeRoute(r.RouteEntry, r.ifindex, false).body)
		if err != nil || again.RouteEntry != r.RouteEntry || again.ifindex != r.ifindex {
			t.Fatalf("%+v is read again as %+v: %v", r, again, err)
		}
	})
}

// FuzzEachMessage: no datagram may make the walk panic or go round, and the
// pieces that it finds lie within.
func FuzzEachMessage(f *testing.F) {
	f.Add(appendMessage(appendMessage(nil, message{msgDone, 0, make([]byte, 4)}, 1), message{rtmNewRoute, 0, make([]byte, 13)}, 2))
	f.Add([]byte{0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		total := 0
		err := eachMessage(b, func(_, _ uint16, _ uint32, body []byte) error {
			total += headerLen + len(body)
			return eachAttr(body, func(_ uint16, value []byte) {
				if len(value) > len(body)-attrLen {
					t.Fatalf("an attribute of %d bytes in %d", len(value), len(body))
				}
			})
		})
		if total > len(b) || err == nil && total < len(b)-3*(len(b)/headerLen) {
			t.Fatalf("%d of %d bytes walked: %v", total, len(b), err)
		}
	})
}
