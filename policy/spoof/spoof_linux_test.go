package spoof

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/poldernet/polder/internal/lab/packet"
	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/policy/drop"
	"github.com/poldernet/polder/spec"
)

// who is one that can be named in a frame.
type who struct {
	mac spec.MAC
	ip  spec.PerFamily[netip.Addr]
	ll  netip.Addr // link-local
}

func podNamed(name string) who {
	for _, e := range oneNode().Endpoints {
		if e.Name == name {
			m := macOf(e)
			return who{m, spec.PerFamily[netip.Addr]{IPv4: e.Addresses[0], IPv6: e.Addresses[1]}, linkLocal(m)}
		}
	}
	panic("no endpoint " + name)
}

var (
	web, db, free, stray = podNamed("web"), podNamed("db"), podNamed("free"), podNamed("stray")
	gateway              = who{
		oneNode().BridgeMAC(oneNode().Nodes[0]),
		spec.PerFamily[netip.Addr]{IPv4: addr("10.244.1.1"), IPv6: addr("fd00:10:244:1::1")},
		linkLocal(oneNode().BridgeMAC(oneNode().Nodes[0])),
	}
	vtep = spec.PerFamily[netip.Addr]{IPv4: addr("10.244.1.0"), IPv6: addr("fd00:10:244:1::")}
	// One of another node.
	remote = spec.PerFamily[netip.Addr]{IPv4: addr("10.244.2.5"), IPv6: addr("fd00:10:244:2::5")}
	// Ones that nobody has.
	nobody    = spec.PerFamily[netip.Addr]{IPv4: addr("10.244.1.77"), IPv6: addr("fd00:10:244:1::77")}
	nobodyMAC = spec.MAC{2, 0, 0, 0xbb, 0, 1}
	nobodyLL  = addr("fe80::1234:5678")

	broadcast   = spec.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	allNodes    = addr("ff02::1")
	allRouters  = addr("ff02::2")
	listeners   = addr("ff02::16")
	dhcpServers = addr("ff02::1:2")
	none        = spec.PerFamily[netip.Addr]{IPv4: netip.IPv4Unspecified(), IPv6: netip.IPv6Unspecified()}
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func etherType(b []byte) uint16 {
	switch {
	case b[0]>>4 == 4:
		return packet.EtherIPv4
	case b[0]>>4 == 6:
		return packet.EtherIPv6
	}
	return packet.EtherARP
}

// frame is a frame with IP or ARP. Its destination is a group's where the
// packet's is.
func frame(src, dst spec.MAC, p []byte) []byte {
	if t := etherType(p); t == packet.EtherIPv6 {
		if to := netip.AddrFrom16([16]byte(p[24:40])); to.IsMulticast() {
			dst = packet.MulticastMAC(to)
		}
	}
	return packet.Ethernet(src, dst, etherType(p), p)
}

func frames(src, dst spec.MAC, packets ...[]byte) [][]byte {
	var list [][]byte
	for _, p := range packets {
		list = append(list, frame(src, dst, p))
	}
	return list
}

var serial uint32

// udp is a datagram like no other.
func udp(src netip.Addr, sport uint16, dst netip.Addr, dport uint16) []byte {
	serial++
	data := binary.BigEndian.AppendUint32([]byte("a datagram of a test, no. "), serial)
	return packet.NewUDP(netip.AddrPortFrom(src, sport), netip.AddrPortFrom(dst, dport), data)
}

func advert(from, target netip.Addr, mac spec.MAC) []byte {
	return packet.NewICMP(from, allNodes, packet.NeighborAdvert, 0, packet.NeighborBody(packet.FlagOverride, target, packet.TargetLinkAddr, mac))
}

func dad(target netip.Addr) []byte {
	return packet.NewICMP(none.IPv6, packet.SolicitedNode(target), packet.NeighborSolicit, 0, packet.NeighborBody(0, target, 0, spec.MAC{}))
}

func solicit(from, target netip.Addr, mac spec.MAC) []byte {
	return packet.NewICMP(from, packet.SolicitedNode(target), packet.NeighborSolicit, 0, packet.NeighborBody(0, target, packet.SourceLinkAddr, mac))
}

// routerAdvert is one of a router for half an hour.
func routerAdvert(from netip.Addr) []byte {
	return packet.NewICMP(from, allNodes, packet.RouterAdvert, 0, []byte{64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0})
}

// redirect tells that the first hop to an address outside is the sender.
func redirect(from, to netip.Addr) []byte {
	if from.Is4() {
		inner := udp(to, 1, addr("192.0.2.99"), 2)
		return packet.NewICMP(from, to, packet.RedirectIPv4, 1, append(from.AsSlice(), inner...))
	}
	body := append(make([]byte, 4), from.AsSlice()...)
	return packet.NewICMP(from, to, packet.Redirect, 0, append(body, addr("2001:db8:1::99").AsSlice()...))
}

func ping(src, dst netip.Addr, size int) []byte {
	serial++
	body := make([]byte, 4+size)
	binary.BigEndian.PutUint32(body, serial)
	binary.BigEndian.PutUint32(body[len(body)-4:], serial)
	return packet.NewICMP(src, dst, packet.EchoRequest(spec.FamilyOf(src)), 0, body)
}

func tagged(frame []byte, tags ...uint16) [][]byte {
	for i := len(tags) - 2; i >= 0; i -= 2 {
		frame = packet.VLAN(tags[i], tags[i+1], frame)
	}
	return [][]byte{frame}
}

// late is a message that the first fragment does not hold: destination options
// fill that one.
func late(p []byte) [][]byte {
	return packet.Fragments(packet.Extend(p, packet.DestOptions, 64), 64)
}

// byFamily are attempts that each family has.
func byFamily(attempts func(f spec.Family) map[string]attempt) map[string]attempt {
	all := map[string]attempt{}
	for _, f := range spec.Families {
		for name, a := range attempts(f) {
			all[name+", "+f.String()] = a
		}
	}
	return all
}

func merged(lists ...map[string]attempt) map[string]attempt {
	all := map[string]attempt{}
	for _, list := range lists {
		for name, a := range list {
			if _, twice := all[name]; twice {
				panic(name)
			}
			all[name] = a
		}
	}
	return all
}

// What a claimed port may not send is dropped, counted by its reason, and
// arrives nowhere; the honest twin of each arrives.
func TestClaimedPort(t *testing.T) { newNetwork(t, Host{}).run(claimedAttempts()) }

// Without the rules all of it arrives: else the test above would prove nothing.
// br_netfilter itself refuses what is not the IP that the frame says.
func TestWithoutRulesItArrives(t *testing.T) {
	n := newNetwork(t, Host{})
	n.rules(nft.Table{Family: Table.Family, Name: Table.Name})
	all := claimedAttempts()
	for name, a := range all {
		if a.reason == "" || strings.Contains(name, "in a frame of") {
			delete(all, name)
			continue
		}
		a.reason = ""
		all[name] = a
	}
	n.run(all)
}

func claimedAttempts() map[string]attempt {
	return merged(
		byFamily(func(f spec.Family) map[string]attempt {
			w, d, fr := web.ip.Get(f), db.ip.Get(f), free.ip.Get(f)
			server, client := families.Get(f).serverPort, families.Get(f).serverPort+1
			if f == spec.IPv6 {
				client = 546
			}
			honest := frame(web.mac, db.mac, udp(w, 1, d, 2))
			return map[string]attempt{
				"honest":               {"web", [][]byte{honest}, "db", ""},
				"honest, to gateway":   {"web", frames(web.mac, gateway.mac, udp(w, 1, gateway.ip.Get(f), 2)), "gateway", ""},
				"honest, to outside":   {"web", frames(web.mac, gateway.mac, udp(w, 1, remote.Get(f), 2)), "gateway", ""},
				"honest, to unclaimed": {"web", frames(web.mac, stray.mac, udp(w, 1, stray.ip.Get(f), 2)), "stray", ""},

				"nobody's MAC":      {"web", frames(nobodyMAC, db.mac, udp(w, 1, d, 2)), "db", drop.SpoofMAC},
				"a neighbour's MAC": {"web", frames(free.mac, db.mac, udp(w, 1, d, 2)), "db", drop.SpoofMAC},
				"the gateway's MAC": {"web", frames(gateway.mac, db.mac, udp(w, 1, d, 2)), "db", drop.SpoofMAC},

				"a neighbour's address":   {"web", frames(web.mac, db.mac, udp(fr, 1, d, 2)), "db", drop.SpoofIP},
				"nobody's address":        {"web", frames(web.mac, db.mac, udp(nobody.Get(f), 1, d, 2)), "db", drop.SpoofIP},
				"the gateway's address":   {"web", frames(web.mac, db.mac, udp(gateway.ip.Get(f), 1, d, 2)), "db", drop.SpoofIP},
				"the VTEP's address":      {"web", frames(web.mac, db.mac, udp(vtep.Get(f), 1, d, 2)), "db", drop.SpoofIP},
				"a remote pod's address":  {"web", frames(web.mac, db.mac, udp(remote.Get(f), 1, d, 2)), "db", drop.SpoofIP},
				"an address, to gateway":  {"web", frames(web.mac, gateway.mac, udp(fr, 1, gateway.ip.Get(f), 2)), "gateway", drop.SpoofIP},
				"no address":              {"web", frames(web.mac, db.mac, udp(none.Get(f), 1, d, 2)), "db", drop.SpoofIP},
				"no address, ping":        {"web", frames(web.mac, db.mac, ping(none.Get(f), d, 8)), "db", drop.SpoofIP},
				"no address, to a server": {"web", frames(web.mac, db.mac, udp(none.Get(f), 1, d, server)), "db", drop.SpoofIP},

				"a VLAN tag without VLAN":    {"web", tagged(honest, packet.EtherVLAN, 0), "db", drop.SpoofEtherType},
				"a VLAN tag":                 {"web", tagged(honest, packet.EtherVLAN, 5), "db", drop.SpoofEtherType},
				"a provider's tag":           {"web", tagged(honest, packet.EtherQinQ, 0), "db", drop.SpoofEtherType},
				"two tags":                   {"web", tagged(honest, packet.EtherQinQ, 0, packet.EtherVLAN, 0), "db", drop.SpoofEtherType},
				"a tag, and a wrong address": {"web", tagged(frame(web.mac, db.mac, udp(fr, 1, d, 2)), packet.EtherVLAN, 0), "db", drop.SpoofEtherType},
				"a tag, to gateway":          {"web", tagged(frame(web.mac, gateway.mac, udp(w, 1, gateway.ip.Get(f), 2)), packet.EtherVLAN, 0), "gateway", drop.SpoofEtherType},

				"redirect":                  {"web", frames(web.mac, db.mac, redirect(w, d)), "db", drop.SpoofRA},
				"redirect, in fragments":    {"web", frames(web.mac, db.mac, packet.Fragments(redirect(w, d), 8)...), "db", drop.SpoofRA},
				"ping":                      {"web", frames(web.mac, db.mac, ping(w, d, 8)), "db", ""},
				"large ping, in fragments":  {"web", frames(web.mac, db.mac, packet.Fragments(ping(w, d, 3000), 1400)...), "db", ""},
				"a wrong address, later on": {"web", frames(web.mac, db.mac, packet.Fragments(ping(fr, d, 3000), 1400)[1:2]...), "db", drop.SpoofIP},

				"DHCP server":                  {"web", frames(web.mac, db.mac, udp(w, server, d, client)), "db", drop.SpoofDHCP},
				"DHCP server without address":  {"web", frames(web.mac, db.mac, udp(none.Get(f), server, d, client)), "db", drop.SpoofDHCP},
				"DHCP server, in fragments":    {"web", frames(web.mac, db.mac, packet.Fragments(udp(w, server, d, client), 8)...), "db", drop.SpoofDHCP},
				"DHCP client, with an address": {"web", frames(web.mac, db.mac, udp(w, client, d, server)), "db", ""},
				"datagrams, in fragments":      {"web", frames(web.mac, db.mac, packet.Fragments(udp(w, 1, d, 2), 16)...), "db", ""},
			}
		}),
		otherTypes(), arpAttempts(), ndAttempts(), extensions(),
	)
}

func otherTypes() map[string]attempt {
	all := map[string]attempt{
		"DHCP client": {"web", frames(web.mac, broadcast, udp(none.IPv4, 68, addr("255.255.255.255"), 67)), "db", ""},
		"IGMP without address": {"web", frames(web.mac, db.mac, packet.IP(none.IPv4, addr("224.0.0.22"), 2,
			[]byte("an IGMP message, or nearly"))), "db", drop.SpoofIP},
		"IPv4 router advertisement": {"web", frames(web.mac, db.mac, packet.NewICMP(web.ip.IPv4, db.ip.IPv4, packet.RouterAdvertIPv4, 0,
			[]byte{1, 2, 7, 8, 10, 244, 1, 5, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8})), "db", drop.SpoofRA},
		"datagram, behind IPv4 options":    {"web", frames(web.mac, db.mac, packet.ExtendIPv4(udp(web.ip.IPv4, 1, db.ip.IPv4, 2))), "db", ""},
		"DHCP server, behind IPv4 options": {"web", frames(web.mac, db.mac, packet.ExtendIPv4(udp(web.ip.IPv4, 67, db.ip.IPv4, 68))), "db", drop.SpoofDHCP},
		"redirect, behind IPv4 options":    {"web", frames(web.mac, db.mac, packet.ExtendIPv4(redirect(web.ip.IPv4, db.ip.IPv4))), "db", drop.SpoofRA},
		"IPv6 in a frame of IPv4":          {"web", [][]byte{packet.Ethernet(web.mac, db.mac, packet.EtherIPv4, udp(web.ip.IPv6, 1, db.ip.IPv6, 2))}, "db", drop.SpoofHeader},
		"IPv4 in a frame of IPv6":          {"web", [][]byte{packet.Ethernet(web.mac, db.mac, packet.EtherIPv6, udp(web.ip.IPv4, 1, db.ip.IPv4, 2))}, "db", drop.SpoofHeader},
	}
	for _, t := range []uint16{0x0001, 0x0026, 0x8035, 0x8863, 0x8864, 0x8847, 0x88cc, 0x88b5, 0x8906} {
		payload := append([]byte(fmt.Sprintf("of type %04x", t)), make([]byte, 40)...)
		all[fmt.Sprintf("type %04x", t)] = attempt{"web", [][]byte{packet.Ethernet(web.mac, db.mac, t, payload)}, "db", drop.SpoofEtherType}
	}
	return all
}

// arpAttempts are about IPv4's neighbours.
func arpAttempts() map[string]attempt {
	g, w, d, f := gateway.ip.IPv4, web.ip.IPv4, db.ip.IPv4, free.ip.IPv4
	zero := spec.MAC{}
	arp := func(from string, dst spec.MAC, p []byte, reason drop.Reason) attempt {
		return attempt{from, frames(podNamed(from).mac, dst, p), "db", reason}
	}
	foreign := packet.ARP(packet.ARPReply, web.mac, w, db.mac, d)
	foreign[5] = 0 // addresses of no length
	return map[string]attempt{
		"ARP request":              arp("web", broadcast, packet.ARP(packet.ARPRequest, web.mac, w, zero, d), ""),
		"ARP reply":                arp("web", db.mac, packet.ARP(packet.ARPReply, web.mac, w, db.mac, d), ""),
		"gratuitous ARP":           arp("web", broadcast, packet.ARP(packet.ARPRequest, web.mac, w, zero, w), ""),
		"gratuitous ARP reply":     arp("web", broadcast, packet.ARP(packet.ARPReply, web.mac, w, broadcast, w), ""),
		"ARP probe":                arp("web", broadcast, packet.ARP(packet.ARPRequest, web.mac, none.IPv4, zero, w), ""),
		"ARP request, without MAC": arp("free", broadcast, packet.ARP(packet.ARPRequest, free.mac, f, zero, d), ""),

		"gratuitous ARP for the gateway":     arp("web", broadcast, packet.ARP(packet.ARPRequest, web.mac, g, zero, g), drop.SpoofARP),
		"gratuitous ARP for a neighbour":     arp("web", broadcast, packet.ARP(packet.ARPRequest, web.mac, f, zero, f), drop.SpoofARP),
		"gratuitous reply for a neighbour":   arp("web", broadcast, packet.ARP(packet.ARPReply, web.mac, f, broadcast, f), drop.SpoofARP),
		"ARP reply for the gateway":          arp("web", db.mac, packet.ARP(packet.ARPReply, web.mac, g, db.mac, d), drop.SpoofARP),
		"ARP reply for a neighbour":          arp("web", db.mac, packet.ARP(packet.ARPReply, web.mac, f, db.mac, d), drop.SpoofARP),
		"ARP reply for nobody":               arp("web", db.mac, packet.ARP(packet.ARPReply, web.mac, nobody.IPv4, db.mac, d), drop.SpoofARP),
		"ARP request with a wrong MAC":       arp("web", broadcast, packet.ARP(packet.ARPRequest, gateway.mac, w, zero, d), drop.SpoofARP),
		"ARP probe for a neighbour":          arp("web", broadcast, packet.ARP(packet.ARPRequest, web.mac, none.IPv4, zero, f), drop.SpoofARP),
		"ARP reply without address":          arp("web", broadcast, packet.ARP(packet.ARPReply, web.mac, none.IPv4, zero, w), drop.SpoofARP),
		"ARP of another layout":              arp("web", db.mac, foreign, drop.SpoofARP),
		"ARP that is cut short":              arp("web", db.mac, packet.ARP(packet.ARPReply, web.mac, w, db.mac, d)[:13], drop.SpoofARP),
		"ARP reply for the gateway, no MAC":  arp("free", db.mac, packet.ARP(packet.ARPReply, free.mac, g, db.mac, d), drop.SpoofARP),
		"ARP with the gateway's MAC, no MAC": arp("free", db.mac, packet.ARP(packet.ARPReply, gateway.mac, f, db.mac, d), drop.SpoofARP),
	}
}

// ndAttempts are about IPv6's neighbours.
func ndAttempts() map[string]attempt {
	g, w, d, f := gateway.ip.IPv6, web.ip.IPv6, db.ip.IPv6, free.ip.IPv6
	nd := func(from string, p []byte, reason drop.Reason) attempt {
		return attempt{from, frames(podNamed(from).mac, db.mac, p), "db", reason}
	}
	cut := func(p []byte) []byte { // its first 8 bytes are a whole ICMPv6 header
		return packet.Fragments(p, 8)[0]
	}
	report := func(src netip.Addr) []byte {
		b := packet.NewICMP(src, listeners, packet.ListenerReport, 0, append([]byte{0, 0, 0, 1, 4, 0, 0, 0}, packet.SolicitedNode(w).AsSlice()...))
		return packet.Extend(b, packet.HopByHop, 8)
	}
	return map[string]attempt{
		"NA":                         nd("web", advert(w, w, web.mac), ""),
		"NA from link-local":         nd("web", advert(web.ll, w, web.mac), ""),
		"NA for link-local":          nd("web", advert(web.ll, web.ll, web.mac), ""),
		"NS":                         nd("web", solicit(w, d, web.mac), ""),
		"NS for the gateway":         {"web", frames(web.mac, broadcast, solicit(w, g, web.mac)), "gateway", ""},
		"NS from link-local":         nd("web", solicit(web.ll, db.ll, web.mac), ""),
		"DAD":                        nd("web", dad(w), ""),
		"DAD for link-local":         nd("web", dad(web.ll), ""),
		"RS":                         nd("web", packet.NewICMP(web.ll, allRouters, packet.RouterSolicit, 0, make([]byte, 4)), ""),
		"RS without address":         nd("web", packet.NewICMP(none.IPv6, allRouters, packet.RouterSolicit, 0, make([]byte, 4)), ""),
		"MLD report":                 nd("web", report(web.ll), ""),
		"MLD report without address": nd("web", report(none.IPv6), ""),
		"MLDv1 report without address": nd("web", packet.Extend(packet.NewICMP(none.IPv6, packet.SolicitedNode(w), icmpListenerReport, 0,
			append(make([]byte, 4), packet.SolicitedNode(w).AsSlice()...)), packet.HopByHop, 8), ""),
		"DHCPv6 client":                nd("web", udp(web.ll, 546, dhcpServers, 547), ""),
		"NA, no MAC":                   nd("free", advert(f, f, free.mac), ""),
		"NA for some link-local":       nd("free", advert(nobodyLL, nobodyLL, free.mac), ""),
		"DAD for some link-local":      nd("free", dad(nobodyLL), ""),
		"from some link-local, no MAC": nd("free", udp(nobodyLL, 1, db.ll, 2), ""),

		"NA for the gateway":                   nd("web", advert(w, g, web.mac), drop.SpoofND),
		"NA for the gateway's link-local":      nd("web", advert(web.ll, gateway.ll, web.mac), drop.SpoofND),
		"NA for a neighbour":                   nd("web", advert(w, f, web.mac), drop.SpoofND),
		"NA for a neighbour, from link-local":  nd("web", advert(web.ll, d, web.mac), drop.SpoofND),
		"NA for nobody":                        nd("web", advert(w, nobody.IPv6, web.mac), drop.SpoofND),
		"NA for nobody's link-local":           nd("web", advert(w, nobodyLL, web.mac), drop.SpoofND),
		"NA as a neighbour":                    nd("web", advert(f, f, web.mac), drop.SpoofND),
		"NA for own, as a neighbour":           nd("web", advert(f, w, web.mac), drop.SpoofIP),
		"NS as a neighbour":                    nd("web", solicit(f, d, web.mac), drop.SpoofIP),
		"DAD for a neighbour":                  nd("web", dad(f), drop.SpoofND),
		"DAD for the gateway":                  nd("web", dad(g), drop.SpoofND),
		"DAD for a neighbour's link-local":     nd("web", dad(db.ll), drop.SpoofND),
		"from a neighbour's link-local":        nd("web", udp(db.ll, 1, d, 2), drop.SpoofIP),
		"from nobody's link-local":             nd("web", udp(nobodyLL, 1, d, 2), drop.SpoofIP),
		"from the gateway's link-local":        nd("web", udp(gateway.ll, 1, d, 2), drop.SpoofIP),
		"NA for the gateway, no MAC":           nd("free", advert(f, g, free.mac), drop.SpoofND),
		"NA for a neighbour's LL, no MAC":      nd("free", advert(f, db.ll, free.mac), drop.SpoofND),
		"NA for the gateway's LL, no MAC":      nd("free", advert(f, gateway.ll, free.mac), drop.SpoofND),
		"DAD for a neighbour's LL, no MAC":     nd("free", dad(db.ll), drop.SpoofND),
		"from the gateway's LL, no MAC":        nd("free", udp(gateway.ll, 1, d, 2), drop.SpoofIP),
		"from a neighbour's LL, no MAC":        nd("free", udp(db.ll, 1, d, 2), drop.SpoofIP),
		"with a neighbour's address, no MAC":   nd("free", udp(w, 1, d, 2), drop.SpoofIP),
		"with the gateway's MAC, no MAC":       {"free", frames(gateway.mac, db.mac, udp(f, 1, d, 2)), "db", drop.SpoofMAC},
		"with a neighbour's MAC, no MAC":       {"free", frames(web.mac, db.mac, udp(f, 1, d, 2)), "db", drop.SpoofMAC},
		"with nobody's MAC, no MAC":            {"free", frames(nobodyMAC, db.mac, udp(f, 1, d, 2)), "db", ""},
		"RA":                                   nd("web", routerAdvert(web.ll), drop.SpoofRA),
		"RA from the gateway's link-local":     nd("web", routerAdvert(gateway.ll), drop.SpoofRA),
		"RA, no MAC":                           nd("free", routerAdvert(nobodyLL), drop.SpoofRA),
		"DHCPv6 server":                        nd("web", udp(web.ll, 547, db.ll, 546), drop.SpoofDHCP),
		"NA for the gateway, first fragment":   nd("web", cut(advert(w, g, web.mac)), drop.SpoofND),
		"DAD for a neighbour, first fragment":  nd("web", cut(dad(f)), drop.SpoofND),
		"MLD report from a wrong address":      nd("web", report(f), drop.SpoofIP),
		"query for information without source": nd("web", packet.NewICMP(none.IPv6, allNodes, 139, 0, make([]byte, 40)), drop.SpoofIP),
	}
}

// extensions are messages behind extension headers, in front of the fragment
// header or behind it.
func extensions() map[string]attempt {
	g, w, d := gateway.ip.IPv6, web.ip.IPv6, db.ip.IPv6
	messages := map[string]struct {
		packet []byte
		reason drop.Reason
	}{
		"RA":                 {routerAdvert(web.ll), drop.SpoofRA},
		"redirect":           {redirect(w, d), drop.SpoofRA},
		"NA for the gateway": {advert(w, g, web.mac), drop.SpoofND},
		"DAD for another":    {dad(free.ip.IPv6), drop.SpoofND},
		"DHCPv6 server":      {udp(w, 547, d, 546), drop.SpoofDHCP},
		"a wrong address":    {udp(free.ip.IPv6, 1, d, 2), drop.SpoofIP},
		"honest":             {udp(w, 1, d, 2), ""},
		"NA":                 {advert(w, w, web.mac), ""},
	}
	all := map[string]attempt{}
	for name, m := range messages {
		send := func(how string, reason drop.Reason, packets ...[]byte) {
			all[name+", "+how] = attempt{"web", frames(web.mac, db.mac, packets...), "db", reason}
		}
		options := packet.Extend(m.packet, packet.DestOptions, 24)
		send("behind options", m.reason, options)
		send("behind two headers", m.reason, packet.Extend(options, packet.HopByHop, 8))
		send("behind options of 1 KiB", m.reason, packet.Extend(m.packet, packet.DestOptions, 1024))
		if m.reason == "" {
			send("in fragments", "", packet.Fragments(m.packet, 32)...)
		} else if !strings.Contains(name, "NA") && !strings.Contains(name, "DAD") {
			send("in fragments", m.reason, packet.Fragments(m.packet, 8)...)
		}
		// Whoever gets all of these but the last has nothing.
		send("later than the first fragment", drop.SpoofHeader, late(m.packet)...)
		send("later than the first fragment, behind options", drop.SpoofHeader,
			packet.Fragments(packet.Extend(packet.Extend(m.packet, packet.DestOptions, 64), packet.DestOptions, 8), 8)...)
	}
	return all
}
