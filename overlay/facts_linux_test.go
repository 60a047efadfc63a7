package overlay

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/poldernet/polder/internal/change"
)

// TestForeignTunnel: the kernel has one VTEP for a VNI, a port and a family,
// and one without a local address is of IPv4.
func TestForeignTunnel(t *testing.T) {
	sp := cluster{nodes: 2, families: onlyIPv4, underlay: onlyIPv4, backend: vxlan()}.spec()
	for name, command := range map[string]string{
		"local address":    "ip link add vx7 type vxlan id 1 dstport 8472 local 192.0.2.11 dev eth0",
		"no local address": "ip link add vx7 type vxlan id 1 dstport 8472 dev eth0",
		"multicast":        "ip link add vx7 type vxlan id 1 dstport 8472 group 239.1.1.1 dev eth0",
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.sh(command)
			plan := h.plan(sp)
			if len(plan.Conflicts) != 1 || plan.Conflicts[0].Name != "polder.1" {
				t.Errorf("conflicts: %+v", plan.Conflicts)
			}
			h.apply(plan) // and what is left of it succeeds
		})
	}
	h := newHost(t)
	h.sh("ip link add vx7 type vxlan id 1 dstport 8472 local 2001:db8::11 dev eth0")
	h.converge(sp)
}

// TestPathsOfPeers: what the kernel says of the way to a peer, however its
// routes are written down.
func TestPathsOfPeers(t *testing.T) {
	sp := cluster{nodes: 8, families: onlyIPv4, underlay: dual, backend: direct()}.spec()
	h := newHost(t)
	h.sh(`ip route add 192.0.2.13 via 192.0.2.1
		ip route add 192.0.2.14 via inet6 fe80::1 dev eth0
		ip nexthop add id 7 via 192.0.2.1 dev eth0; ip route add 192.0.2.15 nhid 7
		ip nexthop add id 8 via 2001:db8::1 dev eth0; ip -6 route add 2001:db8::16 nhid 8
		ip route add unreachable 192.0.2.16; ip route add blackhole 192.0.2.17
		ip route add prohibit 192.0.2.18; ip -6 route add unreachable 2001:db8::18`)
	var facts Facts
	err := h.ns.Do(func() error {
		r, err := OpenReader()
		if err != nil {
			return err
		}
		defer func() { _ = r.Close() }()
		scope := ScopeOf(sp, sp.Nodes[0])
		scope.Ask = append(scope.Ask, nodeAddress(onlyIPv4[0], 1))
		observed, err := r.Read(t.Context(), scope)
		if err != nil {
			return err
		}
		facts = observed.Facts
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	eth0 := func(gateway string) HostPath {
		p := HostPath{Link: "eth0"}
		if gateway != "" {
			p.Gateway = netip.MustParseAddr(gateway)
		}
		return p
	}
	want := map[string]HostPath{
		"192.0.2.11":   {Link: "lo", Local: true},
		"192.0.2.12":   eth0(""),
		"2001:db8::12": eth0(""),
		"192.0.2.13":   eth0("192.0.2.1"),
		"192.0.2.14":   eth0("fe80::1"),
		"192.0.2.15":   eth0("192.0.2.1"),
		"2001:db8::16": eth0("2001:db8::1"),
	}
	for addr, path := range want {
		if got := facts.Paths[netip.MustParseAddr(addr)]; got != path {
			t.Errorf("the path to %s is %+v, want %+v", addr, got, path)
		}
	}
	for _, addr := range []string{"192.0.2.16", "192.0.2.17", "192.0.2.18", "2001:db8::18"} {
		if got, there := facts.Paths[netip.MustParseAddr(addr)]; there {
			t.Errorf("there is a path to %s: %+v", addr, got)
		}
	}
}

// TestAdvertisedByOthers: where a program of the host's own handles router
// advertisements, the kernel's accept_ra is 0 and stays so.
func TestAdvertisedByOthers(t *testing.T) {
	sp := cluster{nodes: 2, families: dual, underlay: dual, backend: vxlan()}.spec()
	for _, accept := range []string{"0", "1", "2"} {
		h := newHost(t)
		h.sh("echo " + accept + " >/proc/sys/net/ipv6/conf/eth0/accept_ra; ip -6 route add default via fe80::1 dev eth0 proto ra")
		var ops []string
		for _, op := range h.plan(sp).Ops {
			if op.Change.Name == "net.ipv6.conf.eth0.accept_ra" {
				ops = append(ops, string(op.Change.Action))
			}
		}
		want := "[]"
		if accept == "1" {
			want = "[" + string(change.Update) + "]"
		}
		if got := fmt.Sprint(ops); got != want {
			t.Errorf("accept_ra %s: %s, want %s", accept, got, want)
		}
	}
}
