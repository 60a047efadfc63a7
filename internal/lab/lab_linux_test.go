package lab_test

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/internal/lab/packet"
	"github.com/poldernet/polder/spec"
)

const vxlanPort = 8472

// threeNodes is the dual-stack example's spec, as far as a lab needs it.
func threeNodes() *spec.Spec {
	s := &spec.Spec{Cluster: "test"}
	for i, link := range []string{"192.0.2.1%d/24 2001:db8:1::1%d/64", "192.0.2.1%d/24 2001:db8:1::1%d/64", "198.51.100.1%d/24 2001:db8:2::1%d/64"} {
		k := i + 1
		n := &spec.Node{Name: fmt.Sprintf("n%d", k), Subnets: []netip.Prefix{
			netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", k)),
			netip.MustParsePrefix(fmt.Sprintf("fd00:10:244:%d::/64", k)),
		}}
		for _, f := range strings.Fields(fmt.Sprintf(link, k, k)) {
			p := netip.MustParsePrefix(f)
			n.Addresses = append(n.Addresses, spec.NodeAddress{Addr: p.Addr(), Link: p.Masked()})
		}
		s.Nodes = append(s.Nodes, n)
		for host, name := range map[int]string{5: "web", 6: "db"} {
			s.Endpoints = append(s.Endpoints, &spec.Endpoint{
				Name: fmt.Sprintf("%s-%d", name, k), Node: n.Name, Interface: fmt.Sprintf("veth-%s-%d", name, k),
				MAC: spec.MAC{2, 0, 0, 0xaa, byte(k), byte(host)},
				Addresses: []netip.Addr{
					netip.MustParseAddr(fmt.Sprintf("10.244.%d.%d", k, host)),
					netip.MustParseAddr(fmt.Sprintf("fd00:10:244:%d::%d", k, host)),
				},
			})
		}
	}
	return s
}

func up(t *testing.T) *lab.Lab {
	t.Helper()
	lab.Require(t)
	l, err := threeNodesUp()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func sh(t *testing.T, n *lab.Namespace, script string) string {
	t.Helper()
	out, err := n.Command(context.Background(), "sh", "-ec", script).CombinedOutput()
	if err != nil {
		t.Fatalf("on %s: %v\n%s", n.Name(), err, out)
	}
	return strings.TrimSpace(string(out))
}

// podNetwork makes with ip(8) what polder would: a bridge on every node, plain
// routes between n1 and n2, VXLAN to n3, and NAT. The lab is tested without
// polder, so that one is not believed because of the other.
func podNetwork(t *testing.T, l *lab.Lab, mtu int) {
	t.Helper()
	for k := 1; k <= 3; k++ {
		link, vtep := fmt.Sprintf("192.0.2.1%d", k), fmt.Sprintf("02:00:00:0f:00:0%d", k)
		if k == 3 {
			link = "198.51.100.13"
		}
		script := fmt.Sprintf(`
			sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
			ip link add cni0 address 02:00:00:00:00:0%[1]d type bridge
			# Not on creation: then the bridge goes on to follow its ports
			# (net/bridge/br_if.c, br_mtu_auto_adjust).
			ip link set cni0 mtu %[4]d up
			ip addr add 10.244.%[1]d.1/24 dev cni0
			ip addr add fd00:10:244:%[1]d::1/64 dev cni0 nodad
			ip link set veth-web-%[1]d master cni0
			ip link set veth-db-%[1]d master cni0
			ip link add vx1 address %[3]s mtu %[4]d type vxlan id 7 dstport 8472 local %[2]s dev eth0 nolearning
			ip link set vx1 up
			nft 'table ip nat { chain post { type nat hook postrouting priority 100;
				ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 masquerade; }; }'
			nft 'table ip6 nat { chain post { type nat hook postrouting priority 100;
				ip6 saddr fd00:10:244::/48 ip6 daddr != fd00:10:244::/48 masquerade; }; }'
		`, k, link, vtep, mtu)
		for peer := 1; peer <= 3; peer++ {
			direct := peer != 3 && k != 3
			switch {
			case peer == k:
			case direct:
				script += fmt.Sprintf(`
					ip route add 10.244.%[1]d.0/24 via 192.0.2.1%[1]d
					ip route add fd00:10:244:%[1]d::/64 via 2001:db8:1::1%[1]d
				`, peer)
			default:
				dst := fmt.Sprintf("192.0.2.1%d", peer)
				if peer == 3 {
					dst = "198.51.100.13"
				}
				script += fmt.Sprintf(`
					bridge fdb append 02:00:00:0f:00:0%[1]d dev vx1 dst %[2]s self permanent
					ip neigh replace 10.244.%[1]d.0 lladdr 02:00:00:0f:00:0%[1]d dev vx1 nud permanent
					ip neigh replace fd00:10:244:%[1]d:: lladdr 02:00:00:0f:00:0%[1]d dev vx1 nud permanent
					ip route add 10.244.%[1]d.0/24 via 10.244.%[1]d.0 dev vx1 onlink
					ip route add fd00:10:244:%[1]d::/64 via fd00:10:244:%[1]d:: dev vx1 onlink
				`, peer, dst)
			}
		}
		sh(t, l.Node(fmt.Sprintf("n%d", k)), script)
	}
	if err := l.SyncPodMTU(); err != nil {
		t.Fatal(err)
	}
}

func TestProbesSeeThePath(t *testing.T) {
	l := up(t)
	podNetwork(t, l, 1450)
	wire, err := l.Wire(vxlanPort)
	if err != nil {
		t.Fatal(err)
	}
	defer wire.Close()

	type want struct {
		to   string
		addr string
		path lab.Path
		nat  string
	}
	for _, w := range []want{
		{"db-1", "10.244.1.6", lab.PathBridge, ""},
		{"db-1", "fd00:10:244:1::6", lab.PathBridge, ""},
		{"web-2", "10.244.2.5", lab.PathDirect, ""},
		{"web-2", "fd00:10:244:2::5", lab.PathDirect, ""},
		{"web-3", "10.244.3.5", lab.PathVXLAN, ""},
		{"web-3", "fd00:10:244:3::5", lab.PathVXLAN, ""},
		{"outside", "203.0.113.99", lab.PathDirect, "192.0.2.11"},
		{"outside", "2001:db8:3::99", lab.PathDirect, "2001:db8:1::11"},
	} {
		for _, protocol := range []lab.Protocol{lab.UDP, lab.TCP, lab.ICMP, lab.SCTP} {
			t.Run(fmt.Sprintf("%s %s", w.addr, protocol), func(t *testing.T) {
				r, err := wire.Probe(lab.Flow{From: l.Pod("web-1"), To: l.Machine(w.to), Addr: netip.MustParseAddr(w.addr), Protocol: protocol, Timeout: 3 * time.Second})
				if err != nil {
					t.Fatal(err)
				}
				if !r.Reached || r.Path() != w.path || r.NAT() != (w.nat != "") || r.Answered != (protocol != lab.SCTP) {
					t.Fatalf("%+v, path %q", r, r.Path())
				}
				if w.nat != "" && r.Source.String() != w.nat {
					t.Errorf("source %v, want %s", r.Source, w.nat)
				}
				for _, s := range r.Sightings {
					if s.Encapsulated() && (s.VNI != 7 || s.OuterSrc.String() != "192.0.2.11") {
						t.Errorf("sighting %+v", s)
					}
				}
			})
		}
	}
}

func TestProbeOfNothing(t *testing.T) {
	l := up(t)
	wire, err := l.Wire(vxlanPort)
	if err != nil {
		t.Fatal(err)
	}
	defer wire.Close()
	// No node has a bridge yet: the pods' gateway does not answer.
	r, err := wire.Probe(lab.Flow{From: l.Pod("web-1"), To: l.Pod("web-2"), Addr: netip.MustParseAddr("10.244.2.5"), Protocol: lab.UDP, Timeout: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if r.Reached || r.Answered || r.Path() != lab.PathNone {
		t.Errorf("%+v", r)
	}
	// The nodes reach each other and the outside.
	for to, addr := range map[string]string{"n2": "2001:db8:1::12", "n3": "198.51.100.13", "outside": "2001:db8:3::99"} {
		r, err := wire.Probe(lab.Flow{From: l.Node("n1"), To: l.Machine(to), Addr: netip.MustParseAddr(addr), Protocol: lab.TCP})
		if err != nil || !r.Answered || r.Path() != lab.PathDirect || r.NAT() {
			t.Errorf("n1 to %s: %+v, %v", to, r, err)
		}
	}
}

func TestProbeSize(t *testing.T) {
	const mtu = 1400
	l := up(t)
	podNetwork(t, l, mtu)
	for _, to := range []string{"10.244.3.5", "fd00:10:244:3::5"} {
		addr := netip.MustParseAddr(to)
		gateway := "10.244.1.1"
		if addr.Is6() {
			gateway = "fd00:10:244:1::1"
		}
		probe := func(size int) lab.SizeReport {
			t.Helper()
			r, err := lab.ProbeSize(l.Pod("web-1"), l.Pod("web-3"), addr, size, 3*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		if err := l.SyncPodMTU(); err != nil {
			t.Fatal(err)
		}
		if r := probe(mtu); !r.Delivered {
			t.Errorf("%s: a packet of the MTU: %+v", to, r)
		}
		// The pod's own interface refuses more than its MTU.
		if r := probe(mtu + 1); r.Delivered || r.MTU != mtu || r.Reporter.IsValid() {
			t.Errorf("%s: one byte more, from an interface of that MTU: %+v", to, r)
		}
		// With a larger interface, the gateway answers.
		if err := l.SetPodMTU(1500); err != nil {
			t.Fatal(err)
		}
		if r := probe(mtu); !r.Delivered {
			t.Errorf("%s: a packet of the path's MTU: %+v", to, r)
		}
		if r := probe(mtu + 1); r.Delivered || r.MTU != mtu || r.Reporter.String() != gateway {
			t.Errorf("%s: one byte more: %+v, want %d from %s", to, r, mtu, gateway)
		}
	}
}

// A frame that is injected comes out at the other end of the veth as it was.
func TestInjectAndTap(t *testing.T) {
	l := up(t)
	tap, err := l.Node("n1").Tap("veth-web-1")
	if err != nil {
		t.Fatal(err)
	}
	defer tap.Close()
	src := netip.MustParseAddrPort("10.244.1.99:1")
	dst := netip.MustParseAddrPort("10.244.1.1:2")
	frame := packet.Ethernet(spec.MAC{2, 0, 0, 0, 0, 9}, spec.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, packet.EtherIPv4,
		packet.NewUDP(src, dst, []byte("crafted")))
	if err := l.Pod("web-1").Inject("eth0", frame); err != nil {
		t.Fatal(err)
	}
	got, err := tap.Wait(time.Now().Add(3*time.Second), func(f lab.Frame) bool {
		p, err := packet.Dissect(f.Data)
		return err == nil && p.Src == src.Addr()
	})
	if err != nil || got.Outgoing || !bytes.Equal(got.Data, frame) {
		t.Errorf("%+v, %v; want % x", got, err, frame)
	}
}

func TestMountSpec(t *testing.T) {
	l := up(t)
	if err := l.MountSpec("testdata"); err != nil {
		t.Fatal(err)
	}
	if got := sh(t, l.Pod("db-3"), "ls /etc/polder/three-nodes.lab.hcl"); got != "/etc/polder/three-nodes.lab.hcl" {
		t.Error(got)
	}
}
