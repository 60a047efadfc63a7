package e2e

import (
	"encoding/binary"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/poldernet/polder/internal/lab/packet"
	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
)

// advertisement is a router advertisement (RFC 4861, section 4.2) of a lifetime
// in seconds as a default router, sent by source to all nodes.
func advertisement(source netip.Addr, mac spec.MAC, lifetime uint16) []byte {
	icmp := make([]byte, 16)
	icmp[0] = 134
	icmp[4] = 64 // current hop limit
	binary.BigEndian.PutUint16(icmp[6:], lifetime)
	all := netip.MustParseAddr("ff02::1")
	pseudo := append(append(source.AsSlice(), all.AsSlice()...), 0, 0, 0, byte(len(icmp)), 0, 0, 0, packet.ICMPv6)
	var sum uint32
	for b := append(pseudo, icmp...); len(b) > 0; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(icmp[2:], ^uint16(sum))
	ip := packet.IP(source, all, packet.ICMPv6, icmp)
	ip[7] = 255 // the hop limit that nobody can forge from off the link
	return packet.Ethernet(mac, spec.MAC{0x33, 0x33, 0, 0, 0, 1}, packet.EtherIPv6, ip)
}

// advertise sends an advertisement from a machine's interface.
func (n *network) advertise(machine, link string, lifetime uint16) {
	n.t.Helper()
	var source netip.Addr
	var mac spec.MAC
	err := n.lab.Machine(machine).Do(func() error {
		l, err := net.InterfaceByName(link)
		if err != nil {
			return err
		}
		mac = spec.MAC(l.HardwareAddr)
		return nil
	})
	if err == nil {
		source, err = netip.ParseAddr(strings.TrimSpace(n.sh(machine, "ip -6 -o addr show dev "+link+" scope link | awk '{ sub(\"/.*\", \"\", $4); print $4 }'")))
	}
	if err == nil {
		err = n.lab.Machine(machine).Inject(link, advertisement(source, mac, lifetime))
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

// until runs a command on a machine until it succeeds.
func (n *network) until(machine, command string) {
	n.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; runtime.Gosched() {
		if strings.TrimSpace(n.sh(machine, "if "+command+"; then echo so; fi")) == "so" {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("on %s: this does not come true: %s", machine, command)
		}
	}
}

const defaultAdvertised = "ip -6 route show default | grep -q 'proto ra'"

// TestAdvertisedDefaultRoute: a node that has its IPv6 default route from a
// router keeps it and goes on listening to the router, although it forwards;
// and after destroy all is as it was.
func TestAdvertisedDefaultRoute(t *testing.T) {
	n := up(t, cluster{backend: backendVXLAN, pods: dual})
	n.settle("r1")
	n.sh("n1", "ip -6 route del default")
	n.advertise("r1", "eth0", 1800)
	n.until("n1", defaultAdvertised)
	const sysctls = "cd /proc/sys/net; cat ipv6/conf/eth0/accept_ra ipv6/conf/all/forwarding ipv4/ip_forward"
	before := n.sh("n1", sysctls)

	routes := n.watch("n1", "ip", "-o", "-6", "monitor", "route")
	n.sentinel("n1", routes, "dead:1", "ip -6 route add dead:1:: dev lo; ip -6 route del dead:1::")
	n.apply("n1", n.spec, reconcile.ModeApply)
	n.sh("n1", "ip -6 route add dead:2:: dev lo")
	for _, line := range routes.until(t, "dead:2") {
		if strings.Contains(line, "default") {
			t.Errorf("during apply: %s", line)
		}
	}
	n.sh("n1", "ip -6 route del dead:2::")
	if now := n.sh("n1", sysctls); now != "2\n1\n1\n" {
		t.Errorf("accept_ra, forwarding and ip_forward are %q", now)
	}
	n.expectNothing(n.spec)

	// The router says that it is one no more: what was written stays, so that
	// the next one is heard.
	n.advertise("r1", "eth0", 0)
	n.until("n1", "! "+defaultAdvertised)
	n.expectNothing(n.spec)
	n.advertise("r1", "eth0", 1800)
	n.until("n1", defaultAdvertised)
	n.expectNothing(n.spec)

	n.apply("n1", nil, reconcile.ModeDestroy)
	if now := n.sh("n1", sysctls); now != before {
		t.Errorf("accept_ra, forwarding and ip_forward were %q and are %q", before, now)
	}
	n.until("n1", defaultAdvertised)
	n.expectForgotten("n1")

	// What somebody has changed since is theirs, and stays.
	n.apply("n1", n.spec, reconcile.ModeApply)
	n.sh("n1", "echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_ra")
	n.apply("n1", nil, reconcile.ModeDestroy)
	if now := n.sh("n1", sysctls); now != "0\n"+before[2:] {
		t.Errorf("after somebody wrote accept_ra, destroy leaves %q", now)
	}
	n.expectForgotten("n1")
}

// TestPodIsNoRouter: a pod that advertises itself as a router must not become
// the way that the node's own packets take (CVE-2020-10749). From the port of an
// endpoint an advertisement does not get so far; this one is nobody's.
func TestPodIsNoRouter(t *testing.T) {
	for _, fs := range []families{ipv4, dual} {
		n := up(t, cluster{backend: backendVXLAN, pods: fs})
		for _, e := range n.spec.Endpoints {
			if e.Name == "p11" {
				e.Interface = ""
			}
		}
		n.apply("n1", n.spec, reconcile.ModeApply)
		n.sh("n1", "ip link set veth1 master cni0 up")
		n.until("p11", "ip -6 addr show dev eth0 scope link -tentative | grep -q fe80")
		if fs.String() == "dual" {
			n.sh("n1", "echo 0 >/proc/sys/net/ipv6/conf/cni0/forwarding")
		}
		before := n.sh("n1", "cat /proc/net/snmp6 | grep InRouterAdvertisements")
		n.advertise("p11", "eth0", 1800)
		n.until("n1", "[ \"$(cat /proc/net/snmp6 | grep InRouterAdvertisements)\" != '"+strings.TrimSuffix(before, "\n")+"' ]")
		if routes := n.sh("n1", "ip -6 route show dev cni0"); strings.Contains(routes, "proto ra") {
			t.Errorf("%s: the node took a pod for a router: %s", fs, routes)
		}
	}
}
