package spoof

import (
	"net/netip"
	"testing"
	"time"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/internal/lab/packet"
	"github.com/poldernet/polder/policy/drop"
	"github.com/poldernet/polder/spec"
)

// A port that nothing claims takes no claimed identity, with or without a tag;
// it may do all else.
func TestUnclaimedPort(t *testing.T) {
	n := newNetwork(t, Host{})
	zero := spec.MAC{}
	send := func(reason drop.Reason, packets ...[]byte) attempt {
		return attempt{"stray", frames(stray.mac, db.mac, packets...), "db", reason}
	}
	toGateway := func(tags []uint16, reason drop.Reason, p []byte) attempt {
		return attempt{"stray", tagged(frame(stray.mac, gateway.mac, p), tags...), "gateway", reason}
	}
	n.run(merged(
		byFamily(func(f spec.Family) map[string]attempt {
			s, d, w, g := stray.ip.Get(f), db.ip.Get(f), web.ip.Get(f), gateway.ip.Get(f)
			forged, honest := udp(w, 1, g, 2), udp(s, 1, g, 2)
			single, double := []uint16{packet.EtherVLAN, 0}, []uint16{packet.EtherQinQ, 0, packet.EtherVLAN, 0}
			return map[string]attempt{
				"own address":              send("", udp(s, 1, d, 2)),
				"nobody's address":         send("", udp(nobody.Get(f), 1, d, 2)),
				"a remote pod's address":   send("", udp(remote.Get(f), 1, d, 2)),
				"another MAC":              {"stray", frames(nobodyMAC, db.mac, udp(s, 1, d, 2)), "db", ""},
				"a claimed address":        send(drop.SpoofClaimed, udp(w, 1, d, 2)),
				"a claimed address, later": send(drop.SpoofClaimed, packet.Fragments(ping(w, d, 3000), 1400)[1]),
				"the gateway's address":    send(drop.SpoofClaimed, udp(g, 1, d, 2)),
				"the VTEP's address":       send(drop.SpoofClaimed, udp(vtep.Get(f), 1, d, 2)),
				"a claimed MAC":            {"stray", frames(web.mac, db.mac, udp(s, 1, d, 2)), "db", drop.SpoofClaimed},
				"the gateway's MAC":        {"stray", frames(gateway.mac, db.mac, udp(s, 1, d, 2)), "db", drop.SpoofClaimed},
				"the VTEP's MAC":           {"stray", frames(oneNode().VTEPMAC(n.spec.Nodes[0], f), db.mac, udp(s, 1, d, 2)), "db", drop.SpoofClaimed},

				"a tag, to gateway":                     toGateway(single, "", honest),
				"a tag, claimed, to gateway":            toGateway(single, drop.SpoofClaimed, forged),
				"a VLAN's tag, claimed, to gateway":     toGateway([]uint16{packet.EtherVLAN, 7}, drop.SpoofClaimed, forged),
				"two tags, claimed, to gateway":         toGateway(double, drop.SpoofEtherType, forged),
				"three tags, claimed, to gateway":       toGateway(append(single, double...), drop.SpoofEtherType, forged),
				"two tags of VLANs":                     toGateway([]uint16{packet.EtherQinQ, 9, packet.EtherVLAN, 0}, "", honest),
				"a tag, to claimed":                     {"stray", tagged(frame(stray.mac, db.mac, udp(s, 1, d, 2)), single...), "db", drop.SpoofEtherType},
				"a VLAN's tag, to claimed":              {"stray", tagged(frame(stray.mac, db.mac, udp(s, 1, d, 2)), packet.EtherVLAN, 3), "db", drop.SpoofEtherType},
				"two tags of VLANs, to claimed":         {"stray", tagged(frame(stray.mac, db.mac, udp(s, 1, d, 2)), packet.EtherQinQ, 9, packet.EtherVLAN, 3), "db", drop.SpoofEtherType},
				"DHCP server":                           send("", udp(s, families.Get(f).serverPort, d, 68)),
				"redirect":                              send("", redirect(s, d)),
				"another type":                          {"stray", [][]byte{packet.Ethernet(stray.mac, gateway.mac, 0x88b5, []byte("of an experimental type, long enough"))}, "gateway", ""},
				"another type, to claimed":              {"stray", [][]byte{packet.Ethernet(stray.mac, db.mac, 0x88b5, []byte("of an experimental type, long enough"))}, "db", drop.SpoofEtherType},
				"a claimed address, to a group":         {"stray", [][]byte{packet.Ethernet(stray.mac, spec.MAC{1, 0x80, 0xc2, 0, 0, 2}, etherType(forged), forged)}, "gateway", drop.SpoofClaimed},
				"a claimed address, to a group, tagged": {"stray", tagged(packet.Ethernet(stray.mac, spec.MAC{1, 0x80, 0xc2, 0, 0, 2}, etherType(forged), forged), single...), "gateway", drop.SpoofClaimed},
			}
		}),
		map[string]attempt{
			"ARP":                       send("", packet.ARP(packet.ARPRequest, stray.mac, stray.ip.IPv4, zero, db.ip.IPv4)),
			"ARP for nobody":            send("", packet.ARP(packet.ARPReply, stray.mac, nobody.IPv4, db.mac, db.ip.IPv4)),
			"ARP for claimed":           send(drop.SpoofClaimed, packet.ARP(packet.ARPReply, stray.mac, web.ip.IPv4, db.mac, db.ip.IPv4)),
			"ARP for the gateway":       send(drop.SpoofClaimed, packet.ARP(packet.ARPReply, stray.mac, gateway.ip.IPv4, db.mac, db.ip.IPv4)),
			"ARP with a claimed MAC":    send(drop.SpoofClaimed, packet.ARP(packet.ARPReply, web.mac, stray.ip.IPv4, db.mac, db.ip.IPv4)),
			"tagged ARP for claimed":    toGateway([]uint16{packet.EtherVLAN, 0}, drop.SpoofClaimed, packet.ARP(packet.ARPReply, stray.mac, web.ip.IPv4, gateway.mac, gateway.ip.IPv4)),
			"NA":                        send("", advert(stray.ip.IPv6, stray.ip.IPv6, stray.mac)),
			"NS":                        send("", solicit(stray.ip.IPv6, db.ip.IPv6, stray.mac)),
			"DAD":                       send("", dad(stray.ip.IPv6)),
			"RA":                        send("", routerAdvert(stray.ll)),
			"NA for claimed":            send(drop.SpoofClaimed, advert(stray.ip.IPv6, web.ip.IPv6, stray.mac)),
			"NA for the gateway":        send(drop.SpoofClaimed, advert(stray.ip.IPv6, gateway.ip.IPv6, stray.mac)),
			"NA for the gateway's LL":   send(drop.SpoofClaimed, advert(stray.ip.IPv6, gateway.ll, stray.mac)),
			"NA for claimed, behind":    send(drop.SpoofClaimed, packet.Extend(advert(stray.ip.IPv6, web.ip.IPv6, stray.mac), packet.DestOptions, 16)),
			"DAD for claimed":           send(drop.SpoofClaimed, dad(web.ip.IPv6)),
			"NS as claimed":             send(drop.SpoofClaimed, solicit(web.ip.IPv6, db.ip.IPv6, stray.mac)),
			"from a claimed link-local": send(drop.SpoofClaimed, udp(web.ll, 1, db.ip.IPv6, 2)),
			"RA as the gateway":         send(drop.SpoofClaimed, routerAdvert(gateway.ll)),
		},
	))
}

// What comes in by a port in a frame to a group of bridges does not cross the
// bridge. Claimed ports send nothing that way.
func TestClaimedPortGoesNotRoundTheBridge(t *testing.T) {
	n := newNetwork(t, Host{})
	for last := range byte(16) {
		n.run(byFamily(func(f spec.Family) map[string]attempt {
			p := udp(web.ip.Get(f), 1, gateway.ip.Get(f), 2)
			dst := spec.MAC{1, 0x80, 0xc2, 0, 0, last}
			if last == 0x01 || last == 0x0e {
				return nil // the one is dropped by the bridge, the other not seen by its hooks
			}
			return map[string]attempt{dst.String(): {"web", [][]byte{packet.Ethernet(web.mac, dst, etherType(p), p)}, "gateway", drop.SpoofReserved}}
		}))
	}
}

// A bridge of somebody else's with the same subnet keeps all its frames.
func TestForeignBridgeIsUntouched(t *testing.T) {
	n := newNetwork(t, Host{Isolated: spec.PerFamily[[]netip.Addr]{IPv4: []netip.Addr{db.ip.IPv4}, IPv6: []netip.Addr{db.ip.IPv6}}})
	alien, alien2 := pod("alien", 20), pod("alien2", 21)
	send := func(p []byte) attempt {
		return attempt{"alien", frames(alien.MAC, alien2.MAC, p), "alien2", ""}
	}
	ll := linkLocal(alien.MAC)
	n.run(merged(byFamily(func(f spec.Family) map[string]attempt {
		i := 0
		if f == spec.IPv6 {
			i = 1
		}
		a, a2 := alien.Addresses[i], alien2.Addresses[i]
		honest := frame(alien.MAC, alien2.MAC, udp(a, 1, a2, 2))
		return map[string]attempt{
			"datagram":      send(udp(a, 1, a2, 2)),
			"other address": send(udp(nobody.Get(f), 1, a2, 2)),
			"DHCP":          send(udp(a, families.Get(f).serverPort, a2, 68)),
			"redirect":      send(redirect(a, a2)),
			"a tag":         {"alien", tagged(honest, packet.EtherVLAN, 0), "alien2", ""},
			"a VLAN's tag":  {"alien", tagged(honest, packet.EtherVLAN, 5), "alien2", ""},
			"two tags":      {"alien", tagged(honest, packet.EtherQinQ, 4, packet.EtherVLAN, 5), "alien2", ""},
			"another type":  {"alien", [][]byte{packet.Ethernet(alien.MAC, alien2.MAC, 0x88b5, []byte("of an experimental type, long enough"))}, "alien2", ""},
		}
	}), map[string]attempt{
		"ARP": send(packet.ARP(packet.ARPReply, alien.MAC, alien.Addresses[0], alien2.MAC, alien2.Addresses[0])),
		"RA":  send(routerAdvert(ll)),
		"NA":  send(advert(ll, alien.Addresses[1], alien.MAC)),
	}))
	n.reaches("alien", "alien2", alien2.Addresses...)
}

// A claim that moves to another port is that port's at once, and the old one's
// no longer.
func TestClaimsMove(t *testing.T) {
	n := newNetwork(t, Host{})
	moved := oneNode()
	for _, e := range moved.Endpoints {
		switch e.Name {
		case "web":
			e.Addresses = []netip.Addr{nobody.IPv4, nobody.IPv6}
		case "free":
			e.Addresses, e.MAC = []netip.Addr{web.ip.IPv4, web.ip.IPv6}, free.mac
		case "stray":
			e.Interface = "veth-stray"
		}
	}
	n.rules(Compile(moved, moved.Nodes[0], Host{}))
	n.sh("web", "ip -4 addr flush dev eth0; ip -6 addr flush dev eth0 scope global") // or it still answers for it
	n.run(byFamily(func(f spec.Family) map[string]attempt {
		to := db.ip.Get(f)
		return map[string]attempt{
			"its old address":               {"web", frames(web.mac, db.mac, udp(web.ip.Get(f), 1, to, 2)), "db", drop.SpoofIP},
			"its new address":               {"web", frames(web.mac, db.mac, udp(nobody.Get(f), 1, to, 2)), "db", ""},
			"another's old address":         {"free", frames(free.mac, db.mac, udp(web.ip.Get(f), 1, to, 2)), "db", ""},
			"another MAC, bound now":        {"free", frames(nobodyMAC, db.mac, udp(web.ip.Get(f), 1, to, 2)), "db", drop.SpoofMAC},
			"an address of its own":         {"stray", frames(stray.mac, db.mac, udp(stray.ip.Get(f), 1, to, 2)), "db", ""},
			"nobody's address, claimed now": {"stray", frames(stray.mac, db.mac, udp(remote.Get(f), 1, to, 2)), "db", drop.SpoofIP},
		}
	}))
}

// What pods do by themselves passes, and nothing of it is counted.
func TestHonestTrafficPasses(t *testing.T) {
	n := newNetwork(t, Host{})
	both := func(w who) []netip.Addr { return []netip.Addr{w.ip.IPv4, w.ip.IPv6} }
	for _, from := range []string{"web", "free", "stray"} {
		n.reaches(from, "db", both(db)...)
		n.reaches(from, "n1", both(gateway)...)
		n.reaches("n1", from, both(podNamed(from))...)
		n.reaches("db", from, both(podNamed(from))...)
	}
	if counted := n.counters(); len(counted) > 0 {
		t.Errorf("counted %v", counted)
	}
}

func (n *network) reaches(from, to string, addrs ...netip.Addr) {
	n.t.Helper()
	for _, a := range addrs {
		for _, protocol := range []lab.Protocol{lab.UDP, lab.TCP, lab.ICMP} {
			if r := n.probe(from, to, a, protocol, 3*time.Second); !r.Answered {
				n.t.Errorf("%s from %s to %s of %s: %+v; counted %v", protocol, from, a, to, r, n.counters())
			}
		}
	}
}

func (n *network) probe(from, to string, a netip.Addr, p lab.Protocol, timeout time.Duration) lab.Report {
	n.t.Helper()
	wire, err := n.Wire(8472)
	if err != nil {
		n.t.Fatal(err)
	}
	defer wire.Close()
	r, err := wire.Probe(lab.Flow{From: n.Machine(from), To: n.Machine(to), Addr: a, Protocol: p, Timeout: timeout})
	if err != nil {
		n.t.Fatal(err)
	}
	return r
}
