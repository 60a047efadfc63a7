package overlay

import (
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/spec"
)

var update = flag.Bool("update", false, "write the golden files anew")

// text lists what is desired, one object a line.
func (d *Desired) text() string {
	var objects []object
	for _, l := range d.Links {
		objects = append(objects, l)
	}
	for k, p := range d.Ports {
		objects = append(objects, portEntry{k, p})
	}
	for k, a := range d.Addresses {
		objects = append(objects, addressEntry{k, a})
	}
	for k, n := range d.Neighbours {
		objects = append(objects, neighbourEntry{k, n})
	}
	for k, p := range d.Proxies {
		objects = append(objects, proxyEntry{k, p})
	}
	for k, e := range d.FDB {
		objects = append(objects, fdbRow{k, e})
	}
	for id, n := range d.NextHops {
		objects = append(objects, nextHopEntry{id, n})
	}
	for k, r := range d.Routes {
		objects = append(objects, RouteEntry{k, r})
	}
	for path, value := range d.Sysctls {
		objects = append(objects, sysctlEntry{path, value})
	}
	kinds := []string{"link", "port", "address", "neighbour", "proxy", "fdb", "nexthop", "route", "sysctl"}
	slices.SortFunc(objects, func(a, b object) int {
		if a.kind() != b.kind() {
			return slices.Index(kinds, a.kind()) - slices.Index(kinds, b.kind())
		}
		return strings.Compare(a.name(), b.name())
	})
	var b strings.Builder
	for _, o := range objects {
		fmt.Fprintf(&b, "%s %s:", o.kind(), o.name())
		for _, a := range o.attrs() {
			fmt.Fprintf(&b, " %s %s", a.Name, a.After)
		}
		b.WriteByte('\n')
	}
	for _, p := range d.Peers {
		fmt.Fprintf(&b, "peer %s %s: direct %t address %s nhid %d\n", p.Node, p.Subnet, p.Direct, p.Address, p.NextHop)
	}
	for _, c := range d.Findings {
		fmt.Fprintf(&b, "finding %s %s: %s: %s\n", c.Kind, c.Name, c.Reason, c.Remedy)
	}
	for _, w := range d.Warnings {
		fmt.Fprintf(&b, "warning %s\n", w)
	}
	return b.String()
}

// behindRouter puts the last node behind a router of the host's.
func behindRouter(c cluster, f Facts) {
	for path := range f.Paths {
		for _, family := range c.underlay {
			if path == nodeAddress(family, c.nodes) {
				f.Paths[path] = HostPath{Link: "eth0", Gateway: linkPrefix(family).Addr().Next()}
			}
		}
	}
}

// TestCompile compares what is desired on n1, for every backend and choice of
// families, with what was looked at before. The third node is behind a router.
func TestCompile(t *testing.T) {
	choices := []struct {
		name           string
		pods, underlay []spec.Family
	}{
		{"ipv4", onlyIPv4, onlyIPv4},
		{"ipv6", onlyIPv6, onlyIPv6},
		{"dual", dual, dual},
		{"ipv6-over-ipv4", onlyIPv6, onlyIPv4},
		{"dual-over-ipv6", dual, onlyIPv6},
	}
	for _, b := range []struct {
		name    string
		backend spec.Backend
	}{{"vxlan", vxlan()}, {"direct", direct()}, {"host-gw", hostGW()}} {
		for _, f := range choices {
			if b.name != "vxlan" && !slices.Equal(f.pods, f.underlay) {
				continue // which spec refuses
			}
			c := cluster{nodes: 3, families: f.pods, underlay: f.underlay, backend: b.backend}
			t.Run(b.name+"-"+f.name, func(t *testing.T) {
				facts := c.facts()
				behindRouter(c, facts)
				golden(t, "compile/"+b.name+"-"+f.name, c, facts)
			})
		}
	}
}

// TestCompileAgainstHost: what the host has to do with it.
func TestCompileAgainstHost(t *testing.T) {
	shape := cluster{nodes: 2, families: dual, underlay: dual, backend: vxlan()}
	for _, test := range []struct {
		name  string
		alter func(*Facts)
	}{
		{"adopted-bridge", func(f *Facts) {
			f.Links["cni0"] = HostLink{Link: Link{Name: "cni0", Type: TypeBridge, MAC: spec.MAC{2, 0xaa, 0, 0, 0, 1}, MTU: 1430, Up: true}}
			f.Links["veth1"] = HostLink{Link: Link{Name: "veth1", Up: true}, Master: "cni0"}
			f.Links["veth2"] = HostLink{Link: Link{Name: "veth2"}, Master: "cni0"}
			f.Links["veth3"] = HostLink{Link: Link{Name: "veth3", Up: true}, Master: "docker0"}
		}},
		{"marked-bridge", func(f *Facts) {
			mark := Mark{Cluster: "former", MAC: spec.MAC{2, 0xaa, 0, 0, 0, 1}}
			f.Links["cni0"] = HostLink{Link: Link{Name: "cni0", Type: TypeBridge, Alias: mark.String(), MAC: spec.MAC{2, 0xbb, 0, 0, 0, 1}}}
		}},
		{"enslaved-vtep", func(f *Facts) {
			f.Links["polder.1"] = HostLink{Link: Link{Name: "polder.1", Type: TypeVXLAN, Up: true}, Master: "cni0"}
		}},
		{"small-underlay", func(f *Facts) {
			l := f.Links["eth0"]
			l.MTU = 1400
			f.Links["eth0"] = l
		}},
		{"advertised-default", func(f *Facts) { f.RADefaults = []string{"eth0", "wlan.7"} }},
		{"old-kernel", func(f *Facts) { f.AddressProtocol, f.BridgeNetfilter = false, false }},
	} {
		t.Run(test.name, func(t *testing.T) {
			facts := shape.facts()
			test.alter(&facts)
			golden(t, "compile/host-"+test.name, shape, facts)
		})
	}
}

func golden(t *testing.T, name string, c cluster, facts Facts) {
	t.Helper()
	sp := c.spec()
	d, err := Compile(sp, sp.Nodes[0], facts)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("testdata", filepath.FromSlash(name)+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(d.text()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := d.text(); got != string(want) {
		t.Errorf("%s is\n%s\nand not\n%s", file, got, want)
	}
}

// TestCompileWithoutNetwork: a spec without a network block wants nothing.
func TestCompileWithoutNetwork(t *testing.T) {
	sp := &spec.Spec{Cluster: "test", Nodes: []*spec.Node{{Name: "n1"}}}
	d, err := Compile(sp, sp.Nodes[0], Facts{})
	if err != nil || d.text() != "" {
		t.Errorf("it wants %q: %v", d.text(), err)
	}
}

// TestForeignBridge: where only policies are enforced, a bridge that is not there, or is
// none, is told of.
func TestForeignBridge(t *testing.T) {
	sp := &spec.Spec{Cluster: "test", Nodes: []*spec.Node{{Name: "n1"}}, Policies: []*spec.Policy{{}}, Enforcement: spec.Enforcement{Bridge: "cni0"}}
	for kind, warnings := range map[LinkType]int{"": 1, TypeBridge: 0, TypeVXLAN: 1} {
		d, err := Compile(sp, sp.Nodes[0], Facts{BridgeNetfilter: true, Links: map[string]HostLink{"cni0": {Link: Link{Type: kind}}}})
		if err != nil || len(d.Warnings) != warnings {
			t.Errorf("with a link of type %q: %q, %v", kind, d.Warnings, err)
		}
	}
}

// TestEndpointPorts: an endpoint's interface becomes a port when it is there,
// and never when the node itself needs it.
func TestEndpointPorts(t *testing.T) {
	for _, families := range [][]spec.Family{onlyIPv4, onlyIPv6} {
		c := cluster{nodes: 2, families: families, underlay: families, backend: vxlan()}
		facts := c.facts()
		facts.Links["veth1"] = HostLink{Link: Link{Name: "veth1"}}
		sp := c.spec()
		for name, e := range map[string]spec.Endpoint{
			"here":      {Node: "n1", Interface: "veth1"},
			"not yet":   {Node: "n1", Interface: "veth2"},
			"elsewhere": {Node: "n2", Interface: "eth0"},
			"by others": {Node: "n1"},
			"underlay":  {Node: "n1", Interface: "eth0"},
		} {
			e.Name = name
			sp.Endpoints = append(sp.Endpoints, &e)
		}
		d, err := Compile(sp, sp.Nodes[0], facts)
		if err != nil {
			t.Fatal(err)
		}
		if want := map[string]Port{"veth1": {Master: "cni0", Hairpin: true, Up: true}}; !maps.Equal(d.Ports, want) || !maps.Equal(d.Declared, map[string]bool{"veth1": true}) {
			t.Errorf("%v: ports %v, declared %v", families, d.Ports, d.Declared)
		}
		want := []change.Conflict{{
			Kind: "port", Name: "eth0",
			Reason: `endpoint "underlay" wants it in the pod network, and it is this node's underlay: the node would be cut off`,
			Remedy: "correct the endpoint's interface",
		}}
		if !slices.Equal(d.Findings, want) {
			t.Errorf("%v: findings %+v", families, d.Findings)
		}
	}
}

// TestHostGatewayFindings: a peer that plain routes cannot reach is named with
// the reason, and the others are led to.
func TestHostGatewayFindings(t *testing.T) {
	c := cluster{nodes: 5, families: onlyIPv4, underlay: onlyIPv4, backend: hostGW()}
	facts := c.facts()
	delete(facts.Paths, nodeAddress(spec.IPv4, 3))
	facts.Paths[nodeAddress(spec.IPv4, 4)] = HostPath{Link: "lo", Local: true}
	behindRouter(c, facts)
	sp := c.spec()
	d, err := Compile(sp, sp.Nodes[0], facts)
	if err != nil {
		t.Fatal(err)
	}
	var reasons []string
	for _, f := range d.Findings {
		reasons = append(reasons, f.Name+": "+f.Reason)
	}
	want := []string{
		"10.244.3.0/24: this host has no route to node n3 at 192.0.2.13",
		"10.244.4.0/24: the address of node n4, 192.0.2.14, is this host's own",
		"10.244.5.0/24: node n5 at 192.0.2.15 is behind the gateway 192.0.2.1, and host-gw works only between nodes on one link",
	}
	if !slices.Equal(reasons, want) {
		t.Errorf("findings\n%s\nwant\n%s", strings.Join(reasons, "\n"), strings.Join(want, "\n"))
	}
	if len(d.Peers) != 1 || d.Peers[0].Node != "n2" {
		t.Errorf("peers: %+v", d.Peers)
	}
}

// TestMTU: the pods' MTU is the smallest of what applies, or an error that says
// what does not fit.
func TestMTU(t *testing.T) {
	for _, test := range []struct {
		pods, underlay []spec.Family
		backend        spec.Backend
		link, asked    int
		bridge         int // 0: an error
		text           string
	}{
		{onlyIPv4, onlyIPv4, vxlan(), 1500, 0, 1450, ""},
		{onlyIPv6, onlyIPv6, vxlan(), 1500, 0, 1430, ""},
		{onlyIPv6, onlyIPv4, vxlan(), 1500, 0, 1450, ""},
		{dual, dual, vxlan(), 9000, 0, 8930, ""},
		{dual, dual, vxlan(), 9000, 1400, 1400, ""},
		{dual, dual, hostGW(), 1500, 0, 1500, ""},
		{dual, dual, vxlan(), 1350, 0, 1280, ""},
		{dual, dual, vxlan(), 1349, 0, 0, "underlay eth0 has MTU 1349, which leaves 1279 for pods: IPv6 needs 1280"},
		{onlyIPv4, onlyIPv4, vxlan(), 1349, 0, 1299, ""},
		{onlyIPv4, onlyIPv4, vxlan(), 1500, 1451, 0, "mtu 1451 does not fit the underlay: eth0 has MTU 1500, and the backend takes 50 of it, which leaves 1450"},
		{onlyIPv4, onlyIPv4, hostGW(), 1500, 1501, 0, "mtu 1501 does not fit the underlay: eth0 has MTU 1500, and the backend takes 0 of it, which leaves 1500"},
	} {
		c := cluster{nodes: 2, families: test.pods, underlay: test.underlay, backend: test.backend, mtu: test.asked}
		facts := c.facts()
		l := facts.Links["eth0"]
		l.MTU = test.link
		facts.Links["eth0"] = l
		sp := c.spec()
		d, err := Compile(sp, sp.Nodes[0], facts)
		switch {
		case test.bridge == 0:
			if err == nil || err.Error() != "polder.hcl:2: "+test.text {
				t.Errorf("%+v: error %v", test, err)
			}
		case err != nil:
			t.Errorf("%+v: %v", test, err)
		case d.Links["cni0"].MTU != test.bridge:
			t.Errorf("%+v: the bridge gets %d", test, d.Links["cni0"].MTU)
		}
	}
}

// TestChooseUnderlay goes through the ways to choose, and to fail.
func TestChooseUnderlay(t *testing.T) {
	c := cluster{nodes: 2, families: onlyIPv4, underlay: onlyIPv4, backend: vxlan()}
	address := netip.MustParseAddr
	links := map[string]HostLink{
		"lo":   {Link: Link{Name: "lo", MTU: 65536}},
		"eth0": {Link: Link{Name: "eth0", MTU: 1500}, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.11/24")}},
		"eth1": {Link: Link{Name: "eth1", MTU: 1500}, Addresses: []netip.Prefix{
			netip.MustParsePrefix("fe80::1/64"), netip.MustParsePrefix("169.254.0.9/16"), netip.MustParsePrefix("198.51.100.7/24"),
		}},
		"eth2": {Link: Link{Name: "eth2", MTU: 1500}, Addresses: []netip.Prefix{netip.MustParsePrefix("2001:db8::7/64")}},
		"cni0": {Link: Link{Name: "cni0", MTU: 1500}, Addresses: []netip.Prefix{netip.MustParsePrefix("203.0.113.1/24")}},
	}
	paths := map[netip.Addr]HostPath{
		address("203.0.113.9"):  {Link: "eth1", Gateway: address("198.51.100.1")},
		address("198.51.100.7"): {Link: "lo", Local: true},
	}
	for _, test := range []struct {
		name          string
		node, network spec.Underlay
		own           string // "": 192.0.2.11
		link, local   string
		text          string
	}{
		{name: "by the node's address", link: "eth0", local: "192.0.2.11"},
		{name: "by name", network: spec.Underlay{Interface: "eth1"}, link: "eth1", local: "198.51.100.7"},
		{name: "by an address", network: spec.Underlay{Address: address("198.51.100.7")}, link: "eth1", local: "198.51.100.7"},
		{name: "by the address of another family", network: spec.Underlay{Address: address("fe80::1")}, link: "eth1", local: "198.51.100.7"},
		{name: "by a route", network: spec.Underlay{RouteTo: address("203.0.113.9")}, link: "eth1", local: "198.51.100.7"},
		{name: "the node's own choice first", node: spec.Underlay{Interface: "eth0"}, network: spec.Underlay{Interface: "eth1"}, link: "eth0", local: "192.0.2.11"},
		{name: "nobody has the address", own: "192.0.2.99",
			text: "no interface of this host has 192.0.2.99, the address of node \"n1\": is this node \"n1\"? If the address is translated on the way, choose the interface with `underlay { interface = \"…\" }`"},
		{name: "no such name", network: spec.Underlay{Interface: "eth9"}, text: `underlay interface "eth9" does not exist on this host; it has cni0, eth0, eth1, eth2, lo`},
		{name: "no such address", network: spec.Underlay{Address: address("192.0.2.98")}, text: "no interface of this host has the underlay address 192.0.2.98"},
		{name: "no route", network: spec.Underlay{RouteTo: address("192.0.2.97")}, text: "this host has no route to 192.0.2.97, which is to choose the underlay interface"},
		{name: "a route to itself", network: spec.Underlay{RouteTo: address("198.51.100.7")}, text: "the route to 198.51.100.7 leads to no interface of an underlay: the address is this host's own"},
		{name: "no address of the family", network: spec.Underlay{Interface: "eth2"}, text: "underlay interface eth2 has no ipv4 address to send from"},
		{name: "the pods' bridge", own: "203.0.113.1", text: "underlay interface cni0 has the name of a link that polder makes: name the bridge, or the backend's device, otherwise"},
	} {
		t.Run(test.name, func(t *testing.T) {
			sp := c.spec()
			sp.Network.Underlay, sp.Nodes[0].Underlay = test.network, test.node
			if test.own != "" {
				sp.Nodes[0].Addresses[0].Addr = address(test.own)
			}
			d, err := Compile(sp, sp.Nodes[0], Facts{Links: links, Paths: paths})
			if test.text != "" {
				if err == nil || err.Error() != "polder.hcl:11: "+test.text {
					t.Fatalf("error %v\nwant %s", err, test.text)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if vtep := d.Links["polder.1"].VXLAN; d.Underlay.IPv4 != test.link || vtep.Device != test.link || vtep.Local != address(test.local) {
				t.Errorf("underlay %q, VTEP %+v", d.Underlay.IPv4, vtep)
			}
		})
	}
}

// TestQuestions asks for the peers' addresses only where plain routes may lead
// to them: of 5,000 peers that is the longest part of a plan.
func TestQuestions(t *testing.T) {
	for _, test := range []struct {
		backend spec.Backend
		to      string
		want    string
	}{
		{vxlan(), "", "[]"},
		{vxlan(), "203.0.113.9", "[203.0.113.9]"},
		{direct(), "", "[192.0.2.12 2001:db8::12 192.0.2.13 2001:db8::13]"},
		{hostGW(), "203.0.113.9", "[203.0.113.9 192.0.2.12 2001:db8::12 192.0.2.13 2001:db8::13]"},
	} {
		sp := cluster{nodes: 3, families: dual, underlay: dual, backend: test.backend}.spec()
		if test.to != "" {
			sp.Network.Underlay.RouteTo = netip.MustParseAddr(test.to)
		}
		if got := fmt.Sprint(questions(sp, sp.Nodes[0])); got != test.want {
			t.Errorf("%s %t %q: %s, want %s", test.backend.Type, test.backend.DirectRouting, test.to, got, test.want)
		}
	}
}
