package e2e

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/internal/lab/packet"
	"github.com/poldernet/polder/internal/peers"
	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
)

// besideNodes are those that a pod network is made on which is not polder's.
var besideNodes = nodeNames[:2]

// makers make a pod network on besideNodes.
var makers = map[string]func(*network){
	"a bridge and routes": (*network).plainBridges,
	"flannel":             func(n *network) { n.flannel(peers.NFTables, besideNodes) },
}

// plainBridges makes a pod network with ip(8).
func (n *network) plainBridges() {
	n.t.Helper()
	for k, node := range besideNodes {
		k, peer := k+1, 2-k
		n.sh(node, fmt.Sprintf(`
			echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
			ip link add cni0 type bridge; ip link set cni0 up
			ip addr add 10.244.%[1]d.1/24 dev cni0; ip addr add fd00:10:244:%[1]d::1/64 dev cni0 nodad
			for port in veth1 veth2; do ip link set $port master cni0; done
			nft "add table inet theirs; add chain inet theirs forward { type filter hook forward priority 5; }; add rule inet theirs forward counter"
			ip route add 10.244.%[2]d.0/24 via 192.0.2.1%[2]d; ip route add fd00:10:244:%[2]d::/64 via 2001:db8:2::1%[2]d
		`, k, peer))
	}
	for _, node := range besideNodes {
		n.settle(node)
	}
}

// policyOnly is a cluster's spec without the network block.
func (c cluster) policyOnly() string {
	text, _ := c.text()
	_, rest, _ := strings.Cut(text, "\n}\n")
	return "cluster = \"e2e\"\n" + rest
}

// TestPolicyOnly: without a network block, policies hold in a pod network that
// somebody else has made, on one node and across nodes, in both families, by an
// apply and by a daemon. Nothing of it is changed but the sysctls without which
// nothing could be enforced, and destroy leaves it exactly as it was.
func TestPolicyOnly(t *testing.T) {
	t.Parallel()
	for name, beside := range makers {
		t.Run(name, func(t *testing.T) {
			c := cluster{backend: backendVXLAN, pods: dual, oneLink: true, more: everythingDenied}
			n := up(t, c)
			beside(n)
			// Not what polder needs: it has something to put back.
			for _, node := range besideNodes {
				n.sh(node, "cd /proc/sys/net/bridge; echo 0 >bridge-nf-call-iptables; echo 0 >bridge-nf-call-ip6tables")
			}
			n.spec = load(t, c.policyOnly())
			n.open(0)
			before := map[string]string{}
			for _, node := range besideNodes {
				before[node] = n.settled(node)
			}

			n.apply("n1", n.spec, reconcile.ModeApply)
			d := n.run("n2", c.policyOnly())
			d.settle("its start")
			n.closed(100)
			n.liars()
			for _, node := range besideNodes {
				n.expectInSync(node)
				if now := notPolders(n.settled(node)); now != notPolders(before[node]) {
					t.Errorf("%s: an apply changes what is not polder's:\n%s", node, difference(notPolders(before[node]), now))
				}
			}
			n.sh("n2", "nft delete table inet polder; nft delete table bridge polder; echo 0 >/proc/sys/net/bridge/bridge-nf-call-iptables")
			d.settle("damage")
			n.closed(200)

			d.end()
			for _, node := range besideNodes {
				n.apply(node, nil, reconcile.ModeDestroy)
				if after := n.settled(node); after != before[node] {
					t.Errorf("%s: destroy leaves\n%s", node, difference(before[node], after))
				}
				n.expectForgotten(node)
			}
			n.open(300)
		})
	}
}

// enforcing are the sysctls without which the bridge shows policies no packets.
var enforcing = regexp.MustCompile(`(?m)^bridge/bridge-nf-call-ip6?tables:.*\n`)

// notPolders is what of a snapshot is somebody else's.
func notPolders(snapshot string) string {
	parts := slices.DeleteFunc(strings.Split(enforcing.ReplaceAllString(snapshot, ""), "\ntable "), func(object string) bool {
		return strings.HasPrefix(object, "inet polder ") || strings.HasPrefix(object, "bridge polder ")
	})
	return strings.TrimSpace(strings.Join(parts, "\ntable "))
}

// besideWays are ways on one node and across nodes, between pods and nodes.
var besideWays = [][2]string{{"p11", "p12"}, {"p11", "p21"}, {"p22", "p11"}, {"n2", "p11"}, {"p11", "n2"}, {"p12", "n1"}}

// open expects that what the policies deny arrives without them, at ports behind
// a number.
func (n *network) open(port uint16) {
	n.t.Helper()
	for _, f := range dual {
		for _, way := range besideWays {
			port++
			ear := n.openEar(lab.UDP, way[1], f, firstPort+port)
			n.knock(lab.UDP, way[0], ear)
			ear.hears(n.t, fmt.Sprintf("from %s to %s over %s, without policies", way[0], way[1], f))
		}
	}
}

// closed expects that it does not arrive, and that what they allow does.
func (n *network) closed(port uint16) {
	n.t.Helper()
	for _, f := range dual {
		for _, way := range besideWays {
			for _, protocol := range []lab.Protocol{lab.TCP, lab.UDP} {
				port++
				ear := n.openEar(protocol, way[1], f, firstPort+port)
				n.knock(protocol, way[0], ear)
				ear.hearsNothing(n.t, fmt.Sprintf("%s from %s to %s over %s", protocol, way[0], way[1], f), n.beside(way[0], way[1], f, siblingPort+port))
			}
		}
	}
}

// liars have a pod use the address of the other one of its node, to a port that
// policies allow to both.
func (n *network) liars() {
	n.t.Helper()
	port := uint16(siblingPort + 900)
	for _, f := range dual {
		ear := n.openEar(lab.UDP, "p21", f, port)
		for liar, victim := range map[string]string{"p11": "p12", "p12": "p11"} {
			gateway, err := spec.ParseMAC(strings.TrimSpace(n.sh("n1", "cat /sys/class/net/cni0/address")))
			if err != nil {
				n.t.Fatal(err)
			}
			own, err := spec.ParseMAC(strings.TrimSpace(n.sh(liar, "cat /sys/class/net/eth0/address")))
			if err != nil {
				n.t.Fatal(err)
			}
			port++
			send := func(source netip.Addr) {
				n.t.Helper()
				p := packet.NewUDP(netip.AddrPortFrom(source, port), ear.at, []byte(knocking))
				if err := n.lab.Pod(liar).Inject("eth0", packet.Ethernet(own, gateway, etherType(f), p)); err != nil {
					n.t.Fatal(err)
				}
			}
			send(n.addressOf(liar, f))
			ear.hears(n.t, fmt.Sprintf("%s with its own address over %s", liar, f))
			send(n.addressOf(victim, f))
			ear.hearsNothing(n.t, fmt.Sprintf("%s in the name of %s over %s", liar, victim, f), n.beside(liar, "p21", f, port))
		}
	}
	if out := n.sh("n1", "nft list counter bridge polder spoof_ip"); !strings.Contains(out, "packets 4 ") {
		n.t.Errorf("4 lies are counted as\n%s", out)
	}
}

func etherType(f spec.Family) uint16 {
	if f == spec.IPv4 {
		return packet.EtherIPv4
	}
	return packet.EtherIPv6
}
