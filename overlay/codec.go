package overlay

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/poldernet/polder/spec"
)

// Numbers of netlink.h, rtnetlink.h, neighbour.h, nexthop.h. They are written
// out so that encoding and decoding build, and are fuzzed, everywhere.
const (
	flagRequest  = 0x1
	flagACK      = 0x4
	flagDumpIntr = 0x10
	flagDump     = 0x300
	flagReplace  = 0x100
	flagExcl     = 0x200
	flagCreate   = 0x400

	msgError = 0x2
	msgDone  = 0x3

	rtmNewRoute, rtmDelRoute, rtmGetRoute             = 24, 25, 26
	rtmNewNeigh, rtmDelNeigh, rtmGetNeigh             = 28, 29, 30
	rtmNewNextHop, rtmDelNextHop, rtmGetNextHop       = 104, 105, 106
	familyInet, familyInet6, familyBridge             = 2, 10, 7
	ndaDst, ndaLLAddr, ndaIfindex                     = 1, 2, 8
	ndaPort, ndaVNI, ndaNHID                          = 6, 7, 13
	ndaProtocol                                       = 12
	nudFailed, nudPermanent, ntfSelf, ntfProxy        = 0x20, 0x80, 0x02, 0x08
	nhaID, nhaOIF, nhaGateway                         = 1, 5, 6
	nhaGroup, nhaBlackhole, nhaEncapType, nhaFDB      = 2, 4, 7, 11
	rtaDst, rtaOIF, rtaGateway, rtaPriority           = 1, 4, 5, 6
	rtaPrefSrc, rtaMetrics                            = 7, 8
	rtaMultipath, rtaTable, rtaEncap, rtaVia          = 9, 15, 22, 18
	rtaNHID                                           = 30
	rtnhOnlink                                        = 4
	tableMain, scopeUniverse, scopeLink, scopeNowhere = 254, 0, 253, 255
	routeUnicast, routeLocal                          = 1, 2
	routeCloned                                       = 0x200
	protocolRA                                        = 9
)

func rtFamily(f spec.Family) byte {
	if f == spec.IPv4 {
		return familyInet
	}
	return familyInet6
}

// ndmsg is struct ndmsg of neighbour.h, 12 bytes.
func ndmsg(family byte, ifindex int, state uint16, flags byte) []byte {
	b := make([]byte, 12, 48)
	b[0] = family
	binary.NativeEndian.PutUint32(b[4:], uint32(ifindex))
	binary.NativeEndian.PutUint16(b[8:], state)
	b[10] = flags
	return b
}

func encodeNeighbour(n neighbourEntry, ifindex int, del bool) message {
	b := ndmsg(rtFamily(spec.FamilyOf(n.Addr)), ifindex, nudPermanent, 0)
	b = appendAddr(b, ndaDst, n.Addr)
	if del {
		return message{rtmDelNeigh, 0, b}
	}
	return message{rtmNewNeigh, flagCreate | flagReplace, appendAttr(b, ndaLLAddr, n.MAC[:])}
}

// encodeProxy writes a proxy. One that is there gets the protocol; it keeps the one
// that it has where there is none to write.
func encodeProxy(p proxyEntry, ifindex int, del bool) message {
	b := ndmsg(rtFamily(spec.FamilyOf(p.Addr)), ifindex, 0, ntfProxy)
	b = appendAddr(b, ndaDst, p.Addr)
	if del {
		return message{rtmDelNeigh, 0, b}
	}
	if p.Protocol != 0 {
		b = appendAttr(b, ndaProtocol, []byte{p.Protocol})
	}
	return message{rtmNewNeigh, flagCreate | flagReplace, b}
}

// encodeFDB writes a row. A deletion without a destination takes all rows of
// the MAC.
func encodeFDB(f fdbRow, ifindex int, del bool) message {
	b := ndmsg(familyBridge, ifindex, nudPermanent, ntfSelf)
	b = appendAttr(b, ndaLLAddr, f.MAC[:])
	if f.Dst.IsValid() && (!del || !f.Other) {
		b = appendAddr(b, ndaDst, f.Dst)
	}
	if del {
		return message{rtmDelNeigh, 0, b}
	}
	return message{rtmNewNeigh, flagCreate | flagReplace, b}
}

// rawNeigh is a decoded struct ndmsg with the attributes that matter.
type rawNeigh struct {
	family  byte // AF_BRIDGE: a row of a forwarding database
	ifindex int
	state   uint16
	flags   byte
	dst     netip.Addr
	mac     spec.MAC
	proto   uint8
	other   bool // of an FDB row, see FDBEntry
}

func decodeNeigh(b []byte) (rawNeigh, error) {
	if len(b) < 12 {
		return rawNeigh{}, fmt.Errorf("neighbour message of %d bytes", len(b))
	}
	n := rawNeigh{
		family:  b[0],
		ifindex: int(int32(binary.NativeEndian.Uint32(b[4:]))),
		state:   binary.NativeEndian.Uint16(b[8:]),
		flags:   b[10],
	}
	err := eachAttr(b[12:], func(kind uint16, v []byte) {
		switch kind {
		case ndaDst:
			n.dst = addrFrom(v)
		case ndaLLAddr:
			if len(v) == len(n.mac) {
				n.mac = spec.MAC(v)
			}
		case ndaProtocol:
			if len(v) == 1 {
				n.proto = v[0]
			}
		case ndaPort, ndaVNI, ndaIfindex, ndaNHID:
			n.other = true // the kernel says only what is not the VTEP's own
		}
	})
	if err != nil {
		return rawNeigh{}, fmt.Errorf("neighbour message: %w", err)
	}
	return n, nil
}

// encodeNextHop writes struct nhmsg of nexthop.h, 8 bytes, and its attributes.
func encodeNextHop(n nextHopEntry, ifindex int, del bool) message {
	b := make([]byte, 8, 56)
	if del {
		return message{rtmDelNextHop, 0, appendAttr32(b, nhaID, n.id)}
	}
	b[0] = rtFamily(spec.FamilyOf(n.Gateway))
	b[2] = n.Protocol
	if n.OnLink {
		binary.NativeEndian.PutUint32(b[4:], rtnhOnlink)
	}
	b = appendAttr32(b, nhaID, n.id)
	b = appendAddr(b, nhaGateway, n.Gateway)
	b = appendAttr32(b, nhaOIF, uint32(ifindex))
	return message{rtmNewNextHop, flagCreate | flagReplace, b}
}

// decodeNextHop reads a nexthop object; its link comes as an index.
func decodeNextHop(b []byte) (id uint32, ifindex int, n NextHop, err error) {
	if len(b) < 8 {
		return 0, 0, n, fmt.Errorf("nexthop message of %d bytes", len(b))
	}
	n.Protocol = b[2]
	n.OnLink = binary.NativeEndian.Uint32(b[4:])&rtnhOnlink != 0
	err = eachAttr(b[8:], func(kind uint16, v []byte) {
		switch kind {
		case nhaID:
			id = uint32From(v)
		case nhaGateway:
			n.Gateway = addrFrom(v)
		case nhaOIF:
			ifindex = int(uint32From(v))
		case nhaGroup, nhaBlackhole, nhaEncapType, nhaFDB:
			n.Other = true
		}
	})
	if err != nil {
		return 0, 0, n, fmt.Errorf("nexthop message: %w", err)
	}
	return id, ifindex, n, nil
}

// rtmsg is struct rtmsg of rtnetlink.h, 12 bytes.
func rtmsg(key RouteKey, protocol, scope, kind byte) []byte {
	b := make([]byte, 12, 72)
	b[0] = rtFamily(spec.FamilyOf(key.Dst.Addr()))
	b[1] = byte(key.Dst.Bits())
	b[3] = key.TOS
	b[4], b[5], b[6], b[7] = tableMain, protocol, scope, kind
	return b
}

// encodeRoute writes a route. A deletion names everything that it knows, so
// that it takes exactly this one of several.
func encodeRoute(r RouteEntry, ifindex int, del bool) message {
	scope, kind := byte(scopeUniverse), byte(routeUnicast)
	switch {
	case del:
		scope = scopeNowhere // any
		if r.Other {
			kind = 0 // any
		}
	case r.NextHop == 0 && !r.Gateway.IsValid():
		scope = scopeLink
	}
	b := rtmsg(r.RouteKey, r.Protocol, scope, kind)
	b = appendAddr(b, rtaDst, r.Dst.Addr())
	if r.Metric != 0 {
		b = appendAttr32(b, rtaPriority, r.Metric)
	}
	if r.Source.IsValid() {
		b = appendAddr(b, rtaPrefSrc, r.Source)
	}
	switch {
	case r.NextHop != 0:
		b = appendAttr32(b, rtaNHID, r.NextHop)
	case !r.Other:
		if r.OnLink {
			binary.NativeEndian.PutUint32(b[8:], rtnhOnlink)
		}
		if r.Gateway.IsValid() {
			b = appendAddr(b, rtaGateway, r.Gateway)
		}
		if ifindex != 0 {
			b = appendAttr32(b, rtaOIF, uint32(ifindex))
		}
	}
	if del {
		return message{rtmDelRoute, 0, b}
	}
	return message{rtmNewRoute, flagCreate | flagReplace, b}
}

// rawRoute is a decoded route; its link comes as an index.
type rawRoute struct {
	RouteEntry
	ifindex int
	table   uint32
	kind    byte // RTN_*
	cloned  bool // a cached copy, not of the table
}

func decodeRoute(b []byte) (rawRoute, error) {
	if len(b) < 12 {
		return rawRoute{}, fmt.Errorf("route message of %d bytes", len(b))
	}
	r := rawRoute{table: uint32(b[4]), kind: b[7]}
	family, bits := b[0], int(b[1])
	flags := binary.NativeEndian.Uint32(b[8:])
	r.TOS, r.Protocol = b[3], b[5]
	r.OnLink = flags&rtnhOnlink != 0
	r.cloned = flags&routeCloned != 0
	r.Other = r.kind != routeUnicast
	dst := netip.IPv4Unspecified()
	if family == familyInet6 {
		dst = netip.IPv6Unspecified()
	}
	err := eachAttr(b[12:], func(kind uint16, v []byte) {
		switch kind {
		case rtaDst:
			dst = addrFrom(v)
		case rtaOIF:
			r.ifindex = int(uint32From(v))
		case rtaGateway:
			r.Gateway = addrFrom(v)
		case rtaPriority:
			r.Metric = uint32From(v)
		case rtaPrefSrc:
			r.Source = addrFrom(v)
		case rtaTable:
			r.table = uint32From(v)
		case rtaNHID:
			r.NextHop = uint32From(v)
		case rtaVia: // of the other family: struct rtvia, a 16 bit family and the address
			r.Gateway, r.Other = addrFrom(v[min(2, len(v)):]), true
		case rtaMetrics, rtaMultipath, rtaEncap:
			r.Other = true
		}
	})
	if err != nil {
		return rawRoute{}, fmt.Errorf("route message: %w", err)
	}
	if r.Dst, err = dst.Prefix(bits); err != nil {
		return rawRoute{}, fmt.Errorf("route message: %w", err)
	}
	if r.NextHop != 0 {
		// The kernel adds what the object says; the object says it already.
		r.Gateway, r.ifindex, r.OnLink = netip.Addr{}, 0, false
	}
	return r, nil
}

// encodeRouteGet asks where packets to an address would go.
func encodeRouteGet(a netip.Addr) message {
	b := make([]byte, 12, 36)
	b[0] = rtFamily(spec.FamilyOf(a))
	b[1] = byte(a.BitLen())
	return message{rtmGetRoute, 0, appendAddr(b, rtaDst, a)}
}
