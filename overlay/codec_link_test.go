package overlay

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

// linkMessage is a link as the kernel says it, of any family but AF_BRIDGE.
func linkMessage(l rawLink) []byte {
	b := ifinfomsg(0, l)
	b = appendAttr(b, iflaIfname, append([]byte(l.Name), 0))
	b = appendAttr(b, iflaAddress, l.MAC[:])
	b = appendAttr32(b, iflaMTU, uint32(l.MTU))
	if l.Alias != "" {
		b = appendAttr(b, iflaIfalias, []byte(l.Alias)) // without a zero byte, for once
	}
	info := appendAttr(nil, iflaInfoKind, append([]byte(l.Type), 0))
	if l.Type == TypeVXLAN {
		data := appendAttr32(nil, vxlanID, l.VXLAN.VNI)
		data = appendAttr(data, vxlanPort, binary.BigEndian.AppendUint16(nil, l.VXLAN.Port))
		local := uint16(vxlanLocal)
		if l.VXLAN.Local.Is6() {
			local = vxlanLocal6
		}
		data = appendAddr(data, local, l.VXLAN.Local)
		data = appendAttr32(data, vxlanLink, uint32(l.device))
		data = appendAttr(data, vxlanLearning, []byte{byte(btoi(l.VXLAN.Learning))})
		data = appendAttr(data, vxlanL3Miss, []byte{byte(btoi(l.VXLAN.Other))})
		info = appendAttr(info, iflaInfoData|0x8000, data)
	}
	if l.master != 0 {
		b = appendAttr32(b, iflaMaster, uint32(l.master))
		info = appendAttr(info, iflaInfoSlaveKind, []byte("bridge\x00"))
		info = appendAttr(info, iflaInfoSlaveData|0x8000, memberAttrs(l))
	}
	return appendAttr(b, iflaLinkinfo|0x8000, info)
}

// portMessage is a port of a bridge as the bridge says it.
func portMessage(l rawLink) []byte {
	b := ifinfomsg(familyBridge, l)
	b = appendAttr(b, iflaIfname, append([]byte(l.Name), 0))
	b = appendAttr32(b, iflaMaster, uint32(l.master))
	return appendAttr(b, iflaProtinfo|0x8000, memberAttrs(l))
}

func memberAttrs(l rawLink) []byte {
	return appendAttr(appendAttr(nil, 1, []byte{3}), iflaBrportMode, []byte{byte(btoi(l.Hairpin))})
}

func ifinfomsg(family byte, l rawLink) []byte {
	b := make([]byte, 16)
	b[0] = family
	binary.NativeEndian.PutUint32(b[4:], uint32(l.ifindex))
	binary.NativeEndian.PutUint32(b[8:], uint32(btoi(l.Up)*iffUp|btoi(l.carrier)*iffLowerUp))
	return b
}

// addressMessage is an address as the kernel says it.
func addressMessage(a rawAddress) []byte {
	b := make([]byte, 8)
	b[0], b[1] = rtFamily(1), byte(a.prefix.Bits())
	if a.prefix.Addr().Is6() {
		b[0] = familyInet6
	}
	binary.NativeEndian.PutUint32(b[4:], uint32(a.ifindex))
	b = appendAddr(b, ifaAddress, a.prefix.Addr())
	if a.prefix.Addr().Is4() {
		b = appendAddr(b, ifaLocal, a.prefix.Addr())
	}
	b = appendAttr32(b, ifaFlags, uint32(btoi(a.Tentative)*ifaTentative|btoi(a.last)*ifaDeprecated))
	if a.Protocol != 0 {
		b = appendAttr(b, ifaProto, []byte{a.Protocol})
	}
	return b
}

func drawRawLink(t *rapid.T) rawLink {
	l := rawLink{ifindex: drawIndex(t), carrier: rapid.Bool().Draw(t, "carrier")}
	l.Name = rapid.StringMatching(`[a-z][a-z0-9.-]{0,14}`).Draw(t, "name")
	l.Alias = rapid.StringMatching(`[a-z =]{0,40}`).Draw(t, "alias")
	l.Type = rapid.SampledFrom([]LinkType{TypeBridge, TypeVXLAN, "veth"}).Draw(t, "type")
	l.MAC, l.MTU, l.Up = drawMAC(t), rapid.IntRange(68, 65535).Draw(t, "mtu"), rapid.Bool().Draw(t, "up")
	if l.Type == TypeVXLAN {
		l.device = drawIndex(t)
		l.VXLAN = VXLAN{
			VNI: rapid.Uint32Max(1<<24-1).Draw(t, "vni"), Port: rapid.Uint16().Draw(t, "port"),
			Local:    drawAddr(t, drawFamily(t), "local"),
			Learning: rapid.Bool().Draw(t, "learning"), Other: rapid.Bool().Draw(t, "other"),
		}
	}
	if rapid.Bool().Draw(t, "is a port") {
		l.master, l.Hairpin = drawIndex(t), rapid.Bool().Draw(t, "hairpin")
	}
	return l
}

func TestLinkRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawRawLink(t)
		if got, err := decodeLink(linkMessage(want)); err != nil || got != want {
			t.Fatalf("%+v is read as %+v: %v", want, got, err)
		}
	})
}

func TestPortRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawRawLink(t)
		got, err := decodePort(portMessage(want))
		if err != nil || got.ifindex != want.ifindex || got.master != want.master || got.bridgeMember != want.bridgeMember {
			t.Fatalf("%+v is read as %+v: %v", want, got, err)
		}
	})
}

func TestAddressRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFamily(t)
		want := rawAddress{
			Address: Address{Protocol: rapid.Byte().Draw(t, "proto"), Tentative: rapid.Bool().Draw(t, "tentative")},
			ifindex: drawIndex(t), last: rapid.Bool().Draw(t, "deprecated"),
			prefix: netip.PrefixFrom(drawAddr(t, f, "address"), rapid.IntRange(0, f.Bits()).Draw(t, "length")),
		}
		if got, err := decodeAddress(addressMessage(want)); err != nil || got != want {
			t.Fatalf("%+v is read as %+v: %v", want, got, err)
		}
	})
}

// TestPointToPoint: of an address with a peer, the length is the peer's.
func TestPointToPoint(t *testing.T) {
	b := make([]byte, 8)
	b[0], b[1] = familyInet, 24
	b = appendAddr(b, ifaAddress, netip.MustParseAddr("192.0.2.1"))
	b = appendAddr(b, ifaLocal, netip.MustParseAddr("10.0.0.1"))
	if got, err := decodeAddress(b); err != nil || got.prefix != netip.MustParsePrefix("10.0.0.1/32") {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestTruncatedLinks: what ends early is an error.
func TestTruncatedLinks(t *testing.T) {
	short := appendAttr(ifinfomsg(0, rawLink{}), iflaLinkinfo, []byte{9, 0, 4, 0})
	for name, err := range map[string]error{
		"link": func() error { _, err := decodeLink(make([]byte, 15)); return err }(),
		"info": func() error { _, err := decodeLink(short); return err }(),
		"port": func() error { _, err := decodePort(make([]byte, 15)); return err }(),
		"nested": func() error {
			_, err := decodePort(appendAttr(make([]byte, 16), iflaProtinfo, []byte{9, 0, 4, 0}))
			return err
		}(),
		"address": func() error { _, err := decodeAddress(make([]byte, 7)); return err }(),
		"empty":   func() error { _, err := decodeAddress(make([]byte, 8)); return err }(),
		"netconf": func() error { _, _, err := decodeNetconf([]byte{familyInet}); return err }(),
	} {
		if err == nil {
			t.Errorf("a truncated %s is read", name)
		}
	}
}

// FuzzEvent: no message makes a decoder panic, nor the judgement of what it
// says.
func FuzzEvent(f *testing.F) {
	c := cluster{nodes: 3, families: dual, underlay: dual, backend: direct()}
	o := c.observed(f)
	for _, row := range concernRows {
		f.Add(row.kind, uint16(0), row.body(o))
	}
	f.Fuzz(func(t *testing.T, kind, flags uint16, b []byte) {
		e, ok, err := decodeEvent(kind, flags, b)
		if ok == (e.of == nil) || ok && err != nil {
			t.Fatalf("%d %x: %+v %t %v", kind, b, e, ok, err)
		}
		o.Concerns(e)
	})
}
