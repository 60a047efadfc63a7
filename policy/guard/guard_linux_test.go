package guard

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/internal/lab/packet"
	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/nft/nat"
	"github.com/poldernet/polder/policy/drop"
	"github.com/poldernet/polder/spec"
)

func TestMain(m *testing.M) { lab.Main(m) }

// The outside host is on the nodes' link, and answers pods that come without
// masquerading.
const topology = `
link "lan" {}
node "n1" {
  link "lan" {}
}
node "n2" {
  link "lan" {}
}
host "outside" {
  link "lan" { addresses = ["192.0.2.99/24", "2001:db8:1::99/64"] }
}
`

// network is the two nodes with the pod network that polder would make, made
// with ip(8), and polder's rules.
type network struct {
	*lab.Lab
	t    *testing.T
	spec *spec.Spec
}

func newNetwork(t *testing.T, s *spec.Spec) *network {
	t.Helper()
	lab.Require(t)
	for _, tool := range []string{"ip", "bridge", "nft", "conntrack"} {
		if _, err := exec.LookPath(tool); err != nil && os.Getenv("POLDER_KERNEL") == "require" {
			t.Fatal(err)
		} else if err != nil {
			t.Skipf("this test makes its network and reads counters with %s", tool)
		}
	}
	topo, diags := lab.ParseTopology("test.lab.hcl", []byte(topology))
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	l, err := lab.Up(context.Background(), topo, s)
	if err != nil {
		t.Fatal(err)
	}
	n := &network{l, t, s}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	for k := 1; k <= 2; k++ {
		n.podNetwork(k)
		n.rules(s.Nodes[k-1])
	}
	n.sh("outside", "ip route add 10.244.1.0/24 via 192.0.2.11; ip route add 10.244.2.0/24 via 192.0.2.12")
	n.sh("outside", "ip route add fd00:10:244:1::/64 via 2001:db8:1::11; ip route add fd00:10:244:2::/64 via 2001:db8:1::12")
	// A default route is a way back to every address.
	for _, node := range []string{"n1", "n2"} {
		n.sh(node, "ip route add default via 192.0.2.99; ip -6 route add default via 2001:db8:1::99")
	}
	return n
}

// podNetwork makes bridge, VTEPs and routes of node k. Routes use nexthop
// objects, as polder's do: the source check looks routes up.
func (n *network) podNetwork(k int) {
	n.t.Helper()
	peer := 3 - k
	script := fmt.Sprintf(`
		sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
		ip link add cni0 address 02:00:00:00:00:0%[1]d type bridge
		sysctl -qw net.ipv6.conf.cni0.accept_dad=0
		ip link set cni0 mtu 1430 up
		ip addr add 10.244.%[1]d.1/24 dev cni0
		ip addr add fd00:10:244:%[1]d::1/64 dev cni0 nodad
		ip link set veth-web-%[1]d master cni0
		ip link set veth-db-%[1]d master cni0
	`, k)
	for i, f := range []struct{ link, local, remote, subnet, gateway, own string }{
		{"vx4", fmt.Sprintf("192.0.2.1%d", k), fmt.Sprintf("192.0.2.1%d", peer), fmt.Sprintf("10.244.%d.0/24", peer), fmt.Sprintf("10.244.%d.0", peer), fmt.Sprintf("10.244.%d.0/32", k)},
		{"vx6", fmt.Sprintf("2001:db8:1::1%d", k), fmt.Sprintf("2001:db8:1::1%d", peer), fmt.Sprintf("fd00:10:244:%d::/64", peer), fmt.Sprintf("fd00:10:244:%d::", peer), fmt.Sprintf("fd00:10:244:%d::/128 nodad", k)},
	} {
		if n.spec.Network.Backend.Type == spec.HostGW {
			script += fmt.Sprintf("ip nexthop add id %[1]d via %[2]s dev eth0\nip route add %[3]s nhid %[1]d\n", i+1, f.remote, f.subnet)
			continue
		}
		script += fmt.Sprintf(`
			ip link add %[1]s address 02:00:00:0%[7]d:00:0%[8]d mtu 1430 type vxlan id 7 dstport 8472 local %[2]s dev eth0 nolearning
			ip link set %[1]s up
			ip addr add dev %[1]s %[10]s
			bridge fdb append 02:00:00:0%[7]d:00:0%[9]d dev %[1]s dst %[3]s self permanent
			ip neigh replace %[5]s lladdr 02:00:00:0%[7]d:00:0%[9]d dev %[1]s nud permanent
			ip nexthop add id %[6]d via %[5]s dev %[1]s onlink
			ip route add %[4]s nhid %[6]d
		`, f.link, f.local, f.remote, f.subnet, f.gateway, i+1, i, k, peer, f.own)
	}
	n.sh(fmt.Sprintf("n%d", k), script)
	if err := n.SyncPodMTU(); err != nil {
		n.t.Fatal(err)
	}
}

func (n *network) rules(node *spec.Node) {
	n.t.Helper()
	want := nft.Merge(nat.Compile(n.spec, node), Compile(n.spec, node, n.links(node)))
	err := n.Node(node.Name).Do(func() error {
		w, err := nft.OpenWriter()
		if err != nil {
			return err
		}
		r, err := nft.OpenReader()
		if err != nil {
			return errors.Join(err, w.Close())
		}
		defer r.Close()
		observed, gen, err := r.Read(context.Background(), want.ID())
		if err == nil {
			_, err = w.Commit(context.Background(), nft.Diff(nft.Ruleset{want}, observed), gen)
		}
		return errors.Join(err, w.Close())
	})
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *network) links(node *spec.Node) Links {
	links := testLinks
	for _, a := range node.Addresses {
		links.Local.Set(spec.FamilyOf(a.Addr), a.Addr)
	}
	if n.spec.Network.Backend.Type == spec.HostGW {
		links.VTEPs = spec.PerFamily[string]{}
	}
	return links
}

func (n *network) sh(machine, script string) string {
	n.t.Helper()
	out, err := n.Machine(machine).Command(context.Background(), "sh", "-ec", script).CombinedOutput()
	if err != nil {
		n.t.Fatalf("on %s: %v\n%s", machine, err, out)
	}
	return string(out)
}

// counted is the number of packets that were dropped for a reason.
func (n *network) counted(node string, reason drop.Reason) int {
	n.t.Helper()
	m := regexp.MustCompile(`packets (\d+) `).FindStringSubmatch(n.sh(node, "nft list counter inet polder "+string(reason)))
	if m == nil {
		n.t.Fatalf("%s has no counter %s", node, reason)
	}
	i, err := strconv.Atoi(m[1])
	if err != nil {
		n.t.Fatal(err)
	}
	return i
}

// mac is the address of a machine's interface.
func (n *network) mac(machine, link string) spec.MAC {
	n.t.Helper()
	fields := strings.Fields(n.sh(machine, "ip -br link show dev "+link))
	m, err := spec.ParseMAC(fields[2])
	if err != nil {
		n.t.Fatal(err)
	}
	return m
}

// frame is one that is sent by hand.
type frame struct {
	from     string // machine; its eth0
	to       string // "gateway": the bridge of the pod's node; else a node's eth0
	src, dst string
	vxlan    string      // "": plain UDP to port 4789; else the inner destination
	reason   drop.Reason // why n1 must drop it
}

// Every forged packet is dropped, counted for the reason that there is, and
// reaches nobody.
func TestForgedPacketsAreDropped(t *testing.T) {
	const pod, stranger, wrong = drop.GuardPod, drop.GuardStranger, drop.GuardInterface
	newNetwork(t, twoNodes(spec.VXLAN, &spec.Masquerade{})).expectDropped(map[string]frame{
		"pod speaks VXLAN to its node":               {"web-1", "gateway", "10.244.1.5", "192.0.2.11", "10.244.1.6", pod},
		"pod speaks VXLAN to its node, IPv6":         {"web-1", "gateway", "fd00:10:244:1::5", "2001:db8:1::11", "fd00:10:244:1::6", pod},
		"pod speaks VXLAN to another node":           {"web-1", "gateway", "10.244.1.5", "192.0.2.12", "10.244.2.6", pod},
		"pod speaks VXLAN to another node, IPv6":     {"web-1", "gateway", "fd00:10:244:1::5", "2001:db8:1::12", "fd00:10:244:2::6", pod},
		"pod speaks VXLAN to its gateway":            {"web-1", "gateway", "10.244.1.5", "10.244.1.1", "10.244.1.6", pod},
		"pod speaks VXLAN as the other node":         {"web-1", "gateway", "192.0.2.12", "192.0.2.11", "10.244.1.6", pod},
		"pod speaks VXLAN to everybody":              {"web-1", "broadcast", "10.244.1.5", "10.244.1.255", "10.244.1.6", pod},
		"pod speaks VXLAN round the bridge":          {"web-1", "round the bridge", "192.0.2.12", "192.0.2.11", "10.244.1.6", stranger},
		"outside host speaks VXLAN":                  {"outside", "n1", "192.0.2.99", "192.0.2.11", "10.244.1.6", stranger},
		"outside host speaks VXLAN, IPv6":            {"outside", "n1", "2001:db8:1::99", "2001:db8:1::11", "fd00:10:244:1::6", stranger},
		"outside host speaks VXLAN as a pod":         {"outside", "n1", "10.244.2.5", "192.0.2.11", "10.244.1.6", pod},
		"outside host as a pod of another node":      {"outside", "n1", "10.244.2.5", "10.244.1.6", "", wrong},
		"outside host as a pod of this node":         {"outside", "n1", "10.244.1.5", "10.244.1.6", "", wrong},
		"outside host as a pod, IPv6":                {"outside", "n1", "fd00:10:244:2::5", "fd00:10:244:1::6", "", wrong},
		"outside host as the gateway":                {"outside", "n1", "10.244.1.1", "10.244.1.6", "", wrong},
		"pod as a pod of another node":               {"web-1", "gateway", "10.244.2.5", "192.0.2.99", "", wrong},
		"pod as a pod of another node, IPv6":         {"web-1", "gateway", "fd00:10:244:2::5", "2001:db8:1::99", "", wrong},
		"pod as its gateway":                         {"web-1", "gateway", "10.244.1.1", "192.0.2.99", "", wrong},
		"pod as its gateway, IPv6":                   {"web-1", "gateway", "fd00:10:244:1::1", "2001:db8:1::99", "", wrong},
		"outside host as another node's pod to node": {"outside", "n1", "10.244.2.5", "192.0.2.11", "", wrong},
		"outside host as nobody's pod":               {"outside", "n1", "10.244.77.5", "10.244.1.6", "", wrong},
		"outside host as nobody's pod, IPv6":         {"outside", "n1", "fd00:10:244:77::5", "fd00:10:244:1::6", "", wrong},
		"pod as nobody's pod":                        {"web-1", "gateway", "10.244.77.5", "192.0.2.99", "", wrong},
	})
}

// A node that accepts what comes directly does so from pods of other nodes to
// its own pods, by the underlay.
func TestForgedPacketsAreDroppedWherePlainOnesAreAccepted(t *testing.T) {
	const wrong, nobody = drop.GuardInterface, drop.GuardNobody
	for name, s := range map[string]*spec.Spec{
		"vxlan":   accepting(twoNodes(spec.VXLAN, &spec.Masquerade{})),
		"host-gw": twoNodes(spec.HostGW, &spec.Masquerade{}),
	} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t, s)
			forged := map[string]frame{
				"outside host as a pod of this node":       {"outside", "n1", "10.244.1.5", "10.244.1.6", "", wrong},
				"outside host as a pod of this node, IPv6": {"outside", "n1", "fd00:10:244:1::5", "fd00:10:244:1::6", "", wrong},
				"outside host as the gateway":              {"outside", "n1", "10.244.1.1", "10.244.1.6", "", wrong},
				"outside host as nobody's pod":             {"outside", "n1", "10.244.77.5", "10.244.1.6", "", nobody},
				"outside host as nobody's pod, IPv6":       {"outside", "n1", "fd00:10:244:77::5", "fd00:10:244:1::6", "", nobody},
				"pod as a pod of another node":             {"web-1", "gateway", "10.244.2.5", "10.244.1.1", "", wrong},
				"pod as a pod of another node, IPv6":       {"web-1", "gateway", "fd00:10:244:2::5", "fd00:10:244:1::1", "", wrong},
				"pod as nobody's pod":                      {"web-1", "gateway", "10.244.77.5", "192.0.2.99", "", nobody},
			}
			if s.Network.Backend.Type == spec.VXLAN {
				forged["outside host as another node's pod to the node"] = frame{"outside", "n1", "10.244.2.5", "192.0.2.11", "", wrong}
				forged["outside host as another node's pod to a third"] = frame{"outside", "n1", "fd00:10:244:2::5", "2001:db8:1::12", "", wrong}
			}
			n.expectDropped(forged)
		})
	}
}

// expectDropped sends frames, each of which must be dropped for its reason.
func (n *network) expectDropped(frames map[string]frame) {
	t := n.t
	for name, f := range frames {
		t.Run(name, func(t *testing.T) {
			n.t = t
			var taps []*lab.Tap
			for _, victim := range []string{"db-1", "db-2", "outside"} {
				if victim == f.from {
					continue
				}
				tap, err := n.machine(victim).Tap("eth0")
				if err != nil {
					t.Fatal(err)
				}
				defer tap.Close()
				taps = append(taps, tap)
			}
			before := n.counted("n1", f.reason)
			if err := n.machine(f.from).Inject("eth0", n.build(f)); err != nil {
				t.Fatal(err)
			}
			n.waitCounted("n1", f.reason, before)
			for _, tap := range taps {
				frames, err := tap.Drain()
				if err != nil {
					t.Fatal(err)
				}
				for _, got := range frames {
					if p, err := packet.Dissect(got.Data); err == nil && p.DstPort == forgedPort && !got.Outgoing {
						t.Errorf("%s received %+v", tap.Machine, p)
					}
				}
			}
		})
	}
	n.t = t
}

// While two nodes hold different opinions of the path between them, what each
// sends by its own path arrives.
func TestEitherPathIsAccepted(t *testing.T) {
	n := newNetwork(t, accepting(twoNodes(spec.VXLAN, &spec.Masquerade{})))
	n.sh("n2", "ip nexthop replace id 1 via 192.0.2.11 dev eth0; ip nexthop replace id 2 via 2001:db8:1::11 dev eth0")
	wire, err := n.Wire(8472)
	if err != nil {
		t.Fatal(err)
	}
	defer wire.Close()
	for _, f := range []struct{ from, to, addr string }{
		{"web-1", "db-2", "10.244.2.6"}, {"web-1", "db-2", "fd00:10:244:2::6"},
		{"web-2", "db-1", "10.244.1.6"}, {"web-2", "db-1", "fd00:10:244:1::6"},
		{"n1", "db-2", "10.244.2.6"}, {"n2", "db-1", "fd00:10:244:1::6"},
	} {
		for _, protocol := range []lab.Protocol{lab.UDP, lab.TCP, lab.ICMP} {
			r, err := wire.Probe(lab.Flow{From: n.machine(f.from), To: n.machine(f.to), Addr: netip.MustParseAddr(f.addr), Protocol: protocol, Timeout: 3 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			if !r.Answered || len(r.Sightings) == 0 || r.Sightings[0].Encapsulated() != strings.HasSuffix(f.from, "1") {
				t.Errorf("%s from %s to %s of %s: %+v", protocol, f.from, f.addr, f.to, r)
			}
		}
	}
}

// Where pods reach nodes without masquerading, what comes in by the underlay
// with the address of a peer's pod is let in to the host, and to nobody else.
func TestExceptionIsForTheHostOnly(t *testing.T) {
	n := newNetwork(t, twoNodes(spec.VXLAN, nil))
	for name, f := range map[string]frame{
		"a peer's pod to a pod":       {"outside", "n1", "10.244.2.5", "10.244.1.6", "", ""},
		"a peer's pod to a pod, IPv6": {"outside", "n1", "fd00:10:244:2::5", "fd00:10:244:1::6", "", ""},
		"a pod of ours to the host":   {"outside", "n1", "10.244.1.5", "192.0.2.11", "", ""},
		"the gateway to the host":     {"outside", "n1", "10.244.1.1", "192.0.2.11", "", ""},
		"by a pod's interface":        {"web-1", "gateway", "10.244.2.5", "192.0.2.11", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			n.t = t
			const wrong = drop.GuardInterface
			before := n.counted("n1", wrong)
			if err := n.machine(f.from).Inject("eth0", n.build(f)); err != nil {
				t.Fatal(err)
			}
			n.waitCounted("n1", wrong, before)
		})
	}
	n.t = t
}

// waitCounted waits until more than before has been dropped for a reason.
func (n *network) waitCounted(node string, reason drop.Reason, before int) {
	n.t.Helper()
	for deadline := time.Now().Add(2 * time.Second); n.counted(node, reason) == before; {
		if time.Now().After(deadline) {
			n.t.Fatalf("not counted as %s in\n%s", reason, n.sh(node, "nft list table inet polder"))
		}
	}
}

func (n *network) machine(name string) *lab.Namespace {
	if strings.Contains(name, "-") {
		return n.Pod(name)
	}
	return n.Machine(name)
}

const forgedPort = 4321

func (n *network) build(f frame) []byte {
	n.t.Helper()
	udp := func(src, dst string, port uint16, data []byte) []byte {
		return packet.NewUDP(netip.AddrPortFrom(netip.MustParseAddr(src), 999), netip.AddrPortFrom(netip.MustParseAddr(dst), port), data)
	}
	etherType := func(dst string) uint16 {
		if netip.MustParseAddr(dst).Is4() {
			return packet.EtherIPv4
		}
		return packet.EtherIPv6
	}
	src := n.mac(f.from, "eth0")
	var dst spec.MAC
	switch f.to {
	case "gateway":
		dst = n.mac("n"+f.from[len(f.from)-1:], "cni0")
	case "round the bridge":
		dst = spec.MAC{0x01, 0x80, 0xc2, 0x00, 0x00, 0x0e} // LLDP's
	case "broadcast":
		dst = spec.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	default:
		dst = n.mac(f.to, "eth0")
	}
	if f.vxlan == "" {
		return packet.Ethernet(src, dst, etherType(f.dst), udp(f.src, f.dst, forgedPort, []byte("forged")))
	}
	// The inner frame is for the VTEP that receives it, from a pod elsewhere.
	vtep, inner := "vx4", "10.244.2.7"
	if etherType(f.dst) == packet.EtherIPv6 {
		vtep, inner = "vx6", "fd00:10:244:2::7"
	}
	node := "n1"
	if strings.HasSuffix(f.dst, "12") {
		node, inner = "n2", strings.Replace(inner, "244:2:", "244:1:", 1)
		inner = strings.Replace(inner, "244.2.", "244.1.", 1)
	}
	wrapped := packet.Ethernet(spec.MAC{2, 0, 0, 0, 0, 9}, n.mac(node, vtep), etherType(f.vxlan), udp(inner, f.vxlan, forgedPort, []byte("forged")))
	return packet.Ethernet(src, dst, etherType(f.dst), udp(f.src, f.dst, 8472, packet.NewVXLAN(7, wrapped)))
}

// The forged packets do get through where there is no guard: else the test
// above would prove nothing.
func TestForgedPacketsWouldArrive(t *testing.T) {
	n := newNetwork(t, twoNodes(spec.VXLAN, &spec.Masquerade{}))
	n.sh("n1", "nft delete table inet polder")
	n.sh("n2", "nft delete table inet polder")
	for name, f := range map[string]struct {
		frame
		victim string
	}{
		"VXLAN to its node":       {frame{"web-1", "gateway", "10.244.1.5", "192.0.2.11", "10.244.1.6", ""}, "db-1"},
		"VXLAN to its node, IPv6": {frame{"web-1", "gateway", "fd00:10:244:1::5", "2001:db8:1::11", "fd00:10:244:1::6", ""}, "db-1"},
		"VXLAN to another node":   {frame{"web-1", "gateway", "10.244.1.5", "192.0.2.12", "10.244.2.6", ""}, "db-2"},
		"VXLAN from outside":      {frame{"outside", "n1", "192.0.2.99", "192.0.2.11", "10.244.1.6", ""}, "db-1"},
		"a pod's address outside": {frame{"outside", "n1", "10.244.2.5", "10.244.1.6", "", ""}, "db-1"},
		"nobody's address":        {frame{"outside", "n1", "fd00:10:244:77::5", "fd00:10:244:1::6", "", ""}, "db-1"},
		"another pod's address":   {frame{"web-1", "gateway", "10.244.2.5", "192.0.2.99", "", ""}, "outside"},
	} {
		t.Run(name, func(t *testing.T) {
			n.t = t
			tap, err := n.machine(f.victim).Tap("eth0")
			if err != nil {
				t.Fatal(err)
			}
			defer tap.Close()
			if err := n.machine(f.from).Inject("eth0", n.build(f.frame)); err != nil {
				t.Fatal(err)
			}
			_, err = tap.Wait(time.Now().Add(2*time.Second), func(got lab.Frame) bool {
				p, err := packet.Dissect(got.Data)
				return err == nil && p.DstPort == forgedPort
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	n.t = t
}

// What is legitimate passes, and nothing of it is counted as dropped.
func TestLegitimateTrafficPasses(t *testing.T) {
	for name, s := range map[string]*spec.Spec{
		"vxlan":                  twoNodes(spec.VXLAN, &spec.Masquerade{}),
		"vxlan, not masqueraded": twoNodes(spec.VXLAN, nil),
		"vxlan, accepting":       accepting(twoNodes(spec.VXLAN, nil)),
		"vxlan, nodes excepted":  twoNodes(spec.VXLAN, &spec.Masquerade{Except: []netip.Prefix{prefix("192.0.2.0/28"), prefix("2001:db8:1::/64")}}),
		"host-gw":                twoNodes(spec.HostGW, &spec.Masquerade{RandomFully: true}),
	} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t, s)
			wire, err := n.Wire(8472)
			if err != nil {
				t.Fatal(err)
			}
			defer wire.Close()
			for _, f := range []struct{ from, to, addr string }{
				{"web-1", "db-1", "10.244.1.6"}, {"web-1", "db-1", "fd00:10:244:1::6"},
				{"web-1", "db-2", "10.244.2.6"}, {"web-1", "db-2", "fd00:10:244:2::6"},
				{"web-1", "n1", "10.244.1.1"}, {"web-1", "n1", "fd00:10:244:1::1"},
				{"web-1", "n1", "192.0.2.11"}, {"web-1", "n1", "2001:db8:1::11"},
				{"web-1", "n2", "192.0.2.12"}, {"web-1", "n2", "2001:db8:1::12"},
				{"web-1", "outside", "192.0.2.99"}, {"web-1", "outside", "2001:db8:1::99"},
				{"n1", "db-1", "10.244.1.6"}, {"n1", "db-2", "10.244.2.6"}, {"n1", "db-2", "fd00:10:244:2::6"},
				{"n1", "n1", "10.244.1.1"}, {"n1", "n1", "fd00:10:244:1::1"},
			} {
				for _, protocol := range []lab.Protocol{lab.UDP, lab.TCP, lab.ICMP} {
					r, err := wire.Probe(lab.Flow{From: n.machine(f.from), To: n.machine(f.to), Addr: netip.MustParseAddr(f.addr), Protocol: protocol, Timeout: 3 * time.Second})
					if err != nil {
						t.Fatal(err)
					}
					if !r.Reached || !r.Answered {
						t.Errorf("%s from %s to %s of %s: %+v", protocol, f.from, f.addr, f.to, r)
					}
				}
			}
			for _, node := range []string{"n1", "n2"} {
				if text := n.sh(node, "nft list table inet polder"); regexp.MustCompile(`\tpackets [1-9]`).MatchString(text) {
					t.Errorf("%s dropped something:\n%s", node, text)
				}
				if entries := n.sh(node, "conntrack -L -p udp --orig-port-dst 8472; conntrack -L -f ipv6 -p udp --orig-port-dst 8472"); strings.Contains(entries, "dport=8472") {
					t.Errorf("%s tracks VXLAN:\n%s", node, entries)
				}
			}
		})
	}
}
