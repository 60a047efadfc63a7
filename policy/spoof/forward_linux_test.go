package spoof

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/internal/lab/packet"
	"github.com/poldernet/polder/policy/drop"
	"github.com/poldernet/polder/spec"
)

// marking is a filter that sees what crosses the bridge, and lets all pass.
var marking = fmt.Sprintf(`nft 'table inet filter {
	chain forward {
		type filter hook forward priority filter; policy accept;
		iifname "cni0" oifname "cni0" meta mark set meta mark | 0x%x
	}
}'`, MarkFiltered)

// flushed makes pods ask for their neighbours anew.
func (n *network) flushed(pods ...string) {
	n.t.Helper()
	for _, p := range pods {
		n.sh(p, "ip neigh flush dev eth0")
	}
}

// Where br_netfilter does its work, what policies have seen passes, and their
// bit of the mark is taken off; others are left alone.
func TestFilteredPasses(t *testing.T) {
	n := newNetwork(t, isolation())
	n.sh("n1", marking)
	n.sh("n1", `nft 'table bridge look {
		chain forward {
			type filter hook forward priority 20; policy accept;
			meta mark & 0x00100000 != 0 counter comment "bit"
			meta mark & 0x00200000 != 0 counter comment "other"
		}
	}
	table inet other { chain forward { type filter hook forward priority 1; meta mark set meta mark | 0x00200000; }; }'`)
	n.flushed("web", "db", "free", "stray")
	for _, pair := range [][2]string{{"web", "db"}, {"db", "web"}, {"stray", "db"}, {"db", "free"}, {"web", "free"}} {
		to := podNamed(pair[1])
		n.reaches(pair[0], pair[1], to.ip.IPv4, to.ip.IPv6)
	}
	n.reaches("db", "n1", gateway.ip.IPv4, gateway.ip.IPv6)
	n.reaches("n1", "db", db.ip.IPv4, db.ip.IPv6)
	if counted := n.counters(); len(counted) > 0 {
		t.Errorf("counted %v", counted)
	}
	look := n.sh("n1", "nft list table bridge look")
	if !strings.Contains(look, `counter packets 0 bytes 0 comment "bit"`) || strings.Contains(look, `counter packets 0 bytes 0 comment "other"`) {
		t.Errorf("behind the bridge's filter:\n%s", look)
	}
}

// Where br_netfilter is told to leave frames alone, nothing of the family goes
// to an isolated endpoint or from it, and all else does.
func TestUnfilteredIsDropped(t *testing.T) {
	n := newNetwork(t, isolation())
	n.sh("n1", marking)
	for _, f := range spec.Families {
		sysctl := map[spec.Family]string{spec.IPv4: "iptables", spec.IPv6: "ip6tables"}[f]
		t.Run(f.String(), func(t *testing.T) {
			n.t = t
			n.sh("n1", "sysctl -qw net.bridge.bridge-nf-call-"+sysctl+"=0")
			for _, pair := range [][2]string{{"web", "db"}, {"db", "web"}, {"stray", "db"}} {
				before := n.counters()[drop.Unfiltered]
				if r := n.probe(pair[0], pair[1], podNamed(pair[1]).ip.Get(f), lab.UDP, 300*time.Millisecond); r.Reached {
					t.Errorf("%s reached %s: %+v", pair[0], pair[1], r)
				}
				if after := n.counters()[drop.Unfiltered]; after == before {
					t.Errorf("%s to %s: nothing was counted", pair[0], pair[1])
				}
			}
			n.reaches("web", "free", free.ip.Get(f))
			n.reaches("n1", "db", db.ip.Get(f))
			n.reaches("db", "n1", gateway.ip.Get(f))
			n.reaches("web", "db", db.ip.Get(f.Other()))
			n.sh("n1", "sysctl -qw net.bridge.bridge-nf-call-"+sysctl+"=1")
			n.reaches("web", "db", db.ip.Get(f))
		})
	}
	n.t = t
}

// Tags keep br_netfilter away, too: where an isolated endpoint's port is not
// claimed, tagged IP does not come to it either.
func TestTaggedIsUnfiltered(t *testing.T) {
	n := newNetwork(t, Host{Isolated: spec.PerFamily[[]netip.Addr]{IPv4: []netip.Addr{stray.ip.IPv4}, IPv6: []netip.Addr{stray.ip.IPv6}}})
	n.sh("n1", marking)
	n.sh("n1", "ip link set veth-alien master cni0")
	alien := pod("alien", 20)
	n.run(byFamily(func(f spec.Family) map[string]attempt {
		src := alien.Addresses[map[spec.Family]int{spec.IPv4: 0, spec.IPv6: 1}[f]]
		honest := frame(alien.MAC, stray.mac, udp(src, 1, stray.ip.Get(f), 2))
		return map[string]attempt{
			"no tag":   {"alien", [][]byte{honest}, "stray", ""},
			"a tag":    {"alien", tagged(honest, packet.EtherVLAN, 0), "stray", drop.Unfiltered},
			"two tags": {"alien", tagged(honest, packet.EtherVLAN, 0, packet.EtherVLAN, 0), "stray", drop.SpoofEtherType},
		}
	}))
}

// An isolated endpoint is reached by the addresses that policies know, and by
// no others.
func TestIsolatedHasNoOtherAddresses(t *testing.T) {
	n := newNetwork(t, isolation())
	n.sh("n1", marking)
	all := packet.MulticastMAC(addr("224.0.0.251"))
	n.run(map[string]attempt{
		"broadcast":                {"web", frames(web.mac, broadcast, udp(web.ip.IPv4, 1, addr("255.255.255.255"), 2)), "db", drop.Unjudged},
		"broadcast, to its MAC":    {"web", frames(web.mac, db.mac, udp(web.ip.IPv4, 1, addr("255.255.255.255"), 2)), "db", drop.Unjudged},
		"the subnet's broadcast":   {"web", frames(web.mac, db.mac, udp(web.ip.IPv4, 1, addr("10.244.1.255"), 2)), "db", drop.Unjudged},
		"a group":                  {"web", frames(web.mac, all, udp(web.ip.IPv4, 1, addr("224.0.0.251"), 2)), "db", drop.Unjudged},
		"a group, IPv6":            {"web", frames(web.mac, broadcast, udp(web.ip.IPv6, 1, addr("ff02::fb"), 2)), "db", drop.Unjudged},
		"a group, to its MAC":      {"web", [][]byte{packet.Ethernet(web.mac, db.mac, packet.EtherIPv6, udp(web.ip.IPv6, 1, allNodes, 2))}, "db", drop.Unjudged},
		"its link-local address":   {"web", frames(web.mac, db.mac, udp(web.ll, 1, db.ll, 2)), "db", drop.Unjudged},
		"link-local, from another": {"web", frames(web.mac, db.mac, udp(web.ip.IPv6, 1, db.ll, 2)), "db", drop.Unjudged},
		"from its link-local":      {"db", frames(db.mac, web.mac, udp(db.ll, 1, web.ll, 2)), "web", drop.Unjudged},
		"from it, to gateway":      {"db", frames(db.mac, gateway.mac, udp(db.ll, 1, gateway.ll, 2)), "gateway", drop.Unjudged},
		"ping of its link-local":   {"web", frames(web.mac, db.mac, ping(web.ll, db.ll, 8)), "db", drop.Unjudged},

		"its address":            {"web", frames(web.mac, db.mac, udp(web.ip.IPv4, 1, db.ip.IPv4, 2)), "db", ""},
		"its address, IPv6":      {"web", frames(web.mac, db.mac, udp(web.ip.IPv6, 1, db.ip.IPv6, 2)), "db", ""},
		"NS for its link-local":  {"web", frames(web.mac, db.mac, solicit(web.ll, db.ll, web.mac)), "db", ""},
		"NA to its link-local":   {"web", frames(web.mac, db.mac, packet.NewICMP(web.ll, db.ll, packet.NeighborAdvert, 0, packet.NeighborBody(packet.FlagSolicited, web.ll, 0, spec.MAC{}))), "db", ""},
		"NS from its link-local": {"db", frames(db.mac, web.mac, solicit(db.ll, web.ll, db.mac)), "web", ""},
		"RS from its link-local": {"db", frames(db.mac, web.mac, packet.NewICMP(db.ll, allRouters, packet.RouterSolicit, 0, make([]byte, 4))), "gateway", ""},
		"RA of a router":         {"stray", frames(stray.mac, db.mac, routerAdvert(stray.ll)), "db", ""},
		"ARP":                    {"web", frames(web.mac, broadcast, packet.ARP(packet.ARPRequest, web.mac, web.ip.IPv4, spec.MAC{}, db.ip.IPv4)), "db", ""},
		"DHCP server's answer":   {"stray", frames(stray.mac, broadcast, udp(stray.ip.IPv4, 67, addr("255.255.255.255"), 68)), "db", ""},
		"DHCPv6 client":          {"db", frames(db.mac, broadcast, udp(db.ll, 546, dhcpServers, 547)), "gateway", ""},
	})
	// Here something is counted all the same: db's own answer that no client is
	// there, and the copy of what is for a group that db does not get.
	for to, sent := range map[string][][]byte{
		"db":    frames(stray.mac, db.mac, udp(stray.ll, 547, db.ll, 546)),
		"stray": frames(web.mac, all, udp(web.ip.IPv4, 1, addr("224.0.0.251"), 2)),
	} {
		tap := n.tap(to)
		defer tap.Close()
		if err := n.Machine(map[string]string{"db": "stray", "stray": "web"}[to]).Inject("eth0", sent...); err != nil {
			t.Fatal(err)
		}
		n.arrives(tap, sent)
	}
}

// IP that comes in by a claimed port's own name does not come far. LLDP's group
// is one that bridges do not look at.
func TestClaimedPortIsNoInterface(t *testing.T) {
	n := newNetwork(t, Host{})
	n.rules(CompileINet(n.spec, n.spec.Nodes[0]))
	lldp := spec.MAC{1, 0x80, 0xc2, 0, 0, 0x0e}
	for _, from := range []who{web, gateway, {ip: spec.PerFamily[netip.Addr]{IPv4: addr("192.0.2.12"), IPv6: addr("2001:db8:1::12")}}} {
		for _, f := range spec.Families {
			p := udp(from.ip.Get(f), 1, gateway.ip.Get(f), 2)
			before := n.counted("inet")
			if err := n.Machine("web").Inject("eth0", packet.Ethernet(web.mac, lldp, etherType(p), p)); err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(2 * time.Second); n.counted("inet")[drop.SpoofReserved] == before[drop.SpoofReserved]; {
				if time.Now().After(deadline) {
					t.Fatalf("from %s: not counted", from.ip.Get(f))
				}
			}
		}
	}
	n.reaches("web", "n1", gateway.ip.IPv4, gateway.ip.IPv6)
	n.reaches("web", "db", db.ip.IPv4, db.ip.IPv6)
}
