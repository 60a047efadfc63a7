package flannel

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/poldernet/polder/overlay"
	"github.com/poldernet/polder/spec"
)

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// link is a link of a node.
func link(name string, typ overlay.LinkType, mtu int, addresses ...string) overlay.HostLink {
	return overlay.HostLink{Link: overlay.Link{Name: name, Type: typ, MTU: mtu, Up: true}, Addresses: prefixes(addresses...)}
}

// vxlanNode is a node with flannel.1, and a route to one peer.
func vxlanNode() *Node {
	vtep := link("flannel.1", overlay.TypeVXLAN, 1350, "10.244.1.0/32")
	vtep.MAC = spec.MAC{0x0a, 1, 2, 3, 4, 5}
	vtep.VXLAN = overlay.VXLAN{VNI: 1, Port: 8472, Local: netip.MustParseAddr("192.0.2.11"), Device: "eth0"}
	n := &Node{
		Name: "n1",
		Env:  []byte("FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1350\nFLANNEL_IPMASQ=false\n"),
		Links: map[string]overlay.HostLink{
			"eth0":      link("eth0", "", 1500, "192.0.2.99/24", "192.0.2.11/24"),
			"flannel.1": vtep,
			"docker0":   link("docker0", overlay.TypeBridge, 1350, "10.244.1.1/24"),
		},
		State: overlay.NewState(1),
	}
	n.peer("10.244.2.0/24", "192.0.3.12", spec.MAC{0x0a, 9, 9, 9, 9, 9})
	n.State.Ports["veth0"] = overlay.Port{Master: "docker0"}
	// Of somebody else, in the pod network.
	n.State.Routes[overlay.RouteKey{Dst: netip.MustParsePrefix("10.244.9.0/28")}] = overlay.Route{Gateway: netip.MustParseAddr("192.0.2.1"), Link: "eth0"}
	return n
}

// peer adds what flannel writes about another node.
func (n *Node) peer(subnet, address string, mac spec.MAC) {
	p := netip.MustParsePrefix(subnet)
	n.State.Routes[overlay.RouteKey{Dst: p}] = overlay.Route{Gateway: p.Addr(), Link: "flannel.1", OnLink: true}
	n.State.Neighbours[overlay.NeighbourKey{Link: "flannel.1", Addr: p.Addr()}] = overlay.Neighbour{MAC: mac, Permanent: true}
	n.State.FDB[overlay.FDBKey{Link: "flannel.1", MAC: mac, Dst: netip.MustParseAddr(address)}] = overlay.FDBEntry{Permanent: true}
}

// imported is what a node becomes, if it is a valid spec.
func imported(t *testing.T, n *Node) (text string, s *spec.Spec) {
	t.Helper()
	got, diags := n.Import("edge")
	if len(diags) > 0 {
		t.Fatalf("%s", rendered(t, EnvFile, n.Env, diags))
	}
	laidOut(t, got)
	return strings.ReplaceAll(string(got), "\n  # ", " "), load(t, got)
}

func TestImportNode(t *testing.T) {
	text, s := imported(t, vxlanNode())
	if s.Network.Masquerade != nil || s.Network.MTU != 1350 || s.Network.Bridge != (spec.Bridge{Name: "docker0"}) || s.Network.Backend.DirectRouting {
		t.Errorf("the network is %+v", s.Network)
	}
	own, other := s.Node("n1"), s.Node("node-192-0-3-12")
	if !strings.Contains(strings.ReplaceAll(text, "\n# ", " "), "`polder import flannel --kubernetes` writes a spec without them") {
		t.Errorf("nothing is said of Kubernetes in\n%s", text)
	}
	if own == nil || other == nil || len(s.Nodes) != 2 {
		t.Fatalf("nodes in\n%s", text)
	}
	if own.Addresses[0].Addr.String() != "192.0.2.11" || own.VTEPMAC.IPv4.String() != "0a:01:02:03:04:05" || other.VTEPMAC.IPv4.String() != "0a:09:09:09:09:09" || other.Subnets[0].String() != "10.244.2.0/24" {
		t.Errorf("n1 is %+v, the other %+v", own, other)
	}
}

// What polder has not is told, and the rest is imported.
func TestImportNodeWithMore(t *testing.T) {
	for name, test := range map[string]struct {
		change  func(n *Node)
		comment string
		backend spec.BackendType
	}{
		"learning": {func(n *Node) {
			l := n.Links["flannel.1"]
			l.VXLAN.Learning = true
			n.Links["flannel.1"] = l
		}, "dropped: Learning of flannel.1", spec.VXLAN},
		"GBP": {func(n *Node) {
			l := n.Links["flannel.1"]
			l.VXLAN.Other = true
			n.Links["flannel.1"] = l
		}, "dropped: a feature of flannel.1", spec.VXLAN},
		"wireguard": {func(n *Node) {
			delete(n.Links, "flannel.1")
			n.State = overlay.NewState(0)
			n.Links["flannel-wg"] = link("flannel-wg", "wireguard", 1420, "10.244.1.0/32")
			n.Default.IPv4 = "eth0"
		}, `dropped: the backend "wireguard"`, spec.VXLAN},
		"alone": {func(n *Node) {
			delete(n.Links, "flannel.1")
			n.State = overlay.NewState(0)
			n.Default.IPv4 = "eth0"
		}, "Nothing here says how packets reach other nodes", spec.HostGW},
		"no pods": {func(n *Node) { delete(n.Links, "docker0") }, "No bridge has the first address", spec.VXLAN},
	} {
		t.Run(name, func(t *testing.T) {
			n := vxlanNode()
			test.change(n)
			text, s := imported(t, n)
			if !strings.Contains(text, test.comment) || s.Network.Backend.Type != test.backend || s.Node("n1") == nil {
				t.Errorf("no %q, or not %s, in\n%s", test.comment, test.backend, text)
			}
		})
	}
}

// Where Kubernetes tells of nodes, the spec has none, nor what only they are about.
func TestImportNodeInKubernetes(t *testing.T) {
	n := vxlanNode()
	n.Kubernetes = true
	text, s := imported(t, n)
	if s.Kubernetes == nil || s.Network.Compat != spec.CompatFlannel || len(s.Nodes) != 0 || s.Network.Backend.Device.IPv4 != "flannel.1" {
		t.Errorf("got %+v of\n%s", s.Network, text)
	}
	for _, idle := range []string{"subnet_len", "SubnetMin", "device", "--kubernetes"} {
		if strings.Contains(text, idle) {
			t.Errorf("%s is of no use in\n%s", idle, text)
		}
	}
	delete(n.Links, "flannel.1")
	n.Links["flannel-wg"] = link("flannel-wg", "wireguard", 1420, "10.244.1.0/32")
	if text, s = imported(t, n); s.Kubernetes == nil || s.Network.Compat != "" {
		t.Errorf("nobody shares WireGuard with polder, in\n%s", text)
	}
}

func TestOfKubernetes(t *testing.T) {
	for arguments, want := range map[string]bool{
		"/opt/bin/flanneld --ip-masq --kube-subnet-mgr":        true,
		"flanneld -kube-subnet-mgr -iface eth0":                true,
		"flanneld -kube-subnet-mgr=t":                          true,
		"flanneld --kube-subnet-mgr=false":                     false,
		"flanneld --kube-subnet-mgr --kube-subnet-mgr=false":   false,
		"flanneld --ip-masq --etcd-endpoints=http://192.0.2.9": false,
		"flanneld --net-config-path kube-subnet-mgr":           false,
		"": false,
	} {
		if got := OfKubernetes(strings.Fields(arguments)); got != want {
			t.Errorf("%q: %t", arguments, got)
		}
	}
}

// A node of both families that knows another in one family only has a block for
// itself, and says so.
func TestImportNodeWithoutAPair(t *testing.T) {
	n := vxlanNode()
	n.Env = append(n.Env, "FLANNEL_IPV6_NETWORK=fd00:10:244::/48\nFLANNEL_IPV6_SUBNET=fd00:10:244:1::1/64\n"...)
	n.Links["eth0"] = link("eth0", "", 1500, "fe80::1/64", "192.0.2.11/24", "2001:db8::11/64")
	v6 := n.Links["flannel.1"]
	v6.Name, v6.Addresses, v6.VXLAN.Local = "flannel-v6.1", prefixes("fd00:10:244:1::/128"), netip.MustParseAddr("2001:db8::11")
	v6.MAC[5]++
	n.Links["flannel-v6.1"] = v6
	text, s := imported(t, n)
	if len(s.Nodes) != 1 || s.Nodes[0].Addresses[1].Addr.String() != "2001:db8::11" || !strings.Contains(text, "IPv6 routes to 0 nodes, and 1 in the other family") {
		t.Errorf("nodes %+v in\n%s", s.Nodes, text)
	}
}

func TestImportNodeFails(t *testing.T) {
	for name, test := range map[string]struct {
		change func(n *Node)
		want   string
	}{
		"no address": {func(n *Node) {
			delete(n.Links, "flannel.1")
			n.State = overlay.NewState(0)
		}, "is not to be seen"},
		"several networks": {func(n *Node) { n.Env = []byte("FLANNEL_NETWORK=10.244.0.0/16,10.245.0.0/16\n") }, "several CIDRs"},
		"empty":            {func(n *Node) { n.Env = nil }, "no FLANNEL_NETWORK"},
		"half":             {func(n *Node) { n.Env = []byte("FLANNEL_NETWORK=10.244.0.0/16\n") }, "one without the other"},
		"elsewhere":        {func(n *Node) { n.Env = []byte("FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.1.1.1/24\n") }, "none of at least four"},
		"values":           {func(n *Node) { n.Env = []byte("FLANNEL_IPV6_SUBNET=10.1.1.1/24\nFLANNEL_MTU=x\nFLANNEL_IPMASQ=yes\n") }, "no IPv6 CIDR"},
	} {
		t.Run(name, func(t *testing.T) {
			n := vxlanNode()
			test.change(n)
			text, diags := n.Import("edge")
			if got := string(rendered(t, EnvFile, n.Env, diags)); text != nil || !diags.HasErrors() || !strings.Contains(got, test.want) {
				t.Errorf("no %q in\n%s%s", test.want, got, text)
			}
		})
	}
}

// FuzzEnv: whatever is in a subnet.env, a node becomes a valid spec or is told
// what is wrong.
func FuzzEnv(f *testing.F) {
	f.Add(vxlanNode().Env)
	f.Add([]byte("FLANNEL_NETWORK=10.0.0.0/8\nFLANNEL_SUBNET=10.1.1.1/24\nFLANNEL_IPV6_NETWORK=fd00::/48\nFLANNEL_IPV6_SUBNET=fd00:0:0:1::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		n := vxlanNode()
		n.Env = text
		n.Default = spec.PerFamily[string]{IPv4: "eth0", IPv6: "eth0"}
		got, diags := n.Import("edge")
		rendered(t, EnvFile, text, diags)
		if diags.HasErrors() == (got != nil) {
			t.Fatalf("%v and %q", diags, got)
		}
		if got != nil {
			laidOut(t, got)
			load(t, got)
		}
	})
}
