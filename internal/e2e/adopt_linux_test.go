package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"regexp"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
)

// The MACs that flannel drew at random, and that its peers know.
func flannelMAC(node int, f spec.Family) string {
	return fmt.Sprintf("12:c6:65:89:b%d:e%d", f, node)
}

// flannelNode is what flanneld v0.28 and the bridge plugin leave on a node of
// a dual stack VXLAN cluster: devices, addresses, the peer's entries and
// routes, iptables-like masquerading in nftables, and pods on cni0.
func flannelNode(node, peer int) string {
	r := strings.NewReplacer("$N", fmt.Sprint(node), "$P", fmt.Sprint(peer),
		"$MAC4", flannelMAC(node, spec.IPv4), "$MAC6", flannelMAC(node, spec.IPv6),
		"$REMOTE4", flannelMAC(peer, spec.IPv4), "$REMOTE6", flannelMAC(peer, spec.IPv6))
	return r.Replace(`
		echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
		ip link add cni0 type bridge; ip link set cni0 mtu 1430 up
		for i in 1 2; do ip link set veth$i mtu 1430 master cni0 up; ip link set veth$i type bridge_slave hairpin on; done
		ip addr add 10.244.$N.1/24 dev cni0; ip addr add fd00:10:244:$N::1/64 dev cni0 nodad
		ip link add flannel.1 address $MAC4 mtu 1450 type vxlan id 1 dstport 8472 local 192.0.2.1$N dev eth0 nolearning
		ip link add flannel-v6.1 address $MAC6 mtu 1430 type vxlan id 1 dstport 8472 local 2001:db8:2::1$N dev eth0 nolearning
		echo 0 >/proc/sys/net/ipv6/conf/cni0/accept_ra
		echo 0 >/proc/sys/net/ipv6/conf/flannel.1/accept_ra; echo 0 >/proc/sys/net/ipv6/conf/flannel-v6.1/accept_ra
		ip addr add 10.244.$N.0/32 dev flannel.1; ip link set flannel.1 up
		ip addr add fd00:10:244:$N::/128 dev flannel-v6.1 nodad; ip link set flannel-v6.1 up
		ip neigh replace 10.244.$P.0 lladdr $REMOTE4 dev flannel.1 nud permanent
		bridge fdb replace $REMOTE4 dev flannel.1 dst 192.0.2.1$P self permanent
		ip route replace 10.244.$P.0/24 via 10.244.$P.0 dev flannel.1 onlink
		ip neigh replace fd00:10:244:$P:: lladdr $REMOTE6 dev flannel-v6.1 nud permanent
		bridge fdb replace $REMOTE6 dev flannel-v6.1 dst 2001:db8:2::1$P self permanent
		ip route replace fd00:10:244:$P::/64 via fd00:10:244:$P:: dev flannel-v6.1 onlink
		nft add table ip flannel-ipv4
		nft add chain ip flannel-ipv4 postrtg '{ type nat hook postrouting priority srcnat; }'
		nft add rule ip flannel-ipv4 postrtg ip saddr 10.244.$N.0/24 ip daddr 10.244.0.0/16 return
		nft add rule ip flannel-ipv4 postrtg ip saddr 10.244.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random`)
}

// flannelCluster is the spec that a user writes to take such nodes over.
func flannelCluster() cluster {
	c := cluster{
		backend: `backend "vxlan" { device = { ipv4 = "flannel.1", ipv6 = "flannel-v6.1" } }`,
		pods:    dual,
		nodes:   map[string]string{},
	}
	for i := range 2 {
		c.nodes[fmt.Sprintf("n%d", i+1)] = fmt.Sprintf("vtep_mac = { ipv4 = %q, ipv6 = %q }", flannelMAC(i+1, spec.IPv4), flannelMAC(i+1, spec.IPv6))
	}
	return c
}

// traffic is a stream of pings, one every two milliseconds.
type traffic struct {
	name    string
	answers *atomic.Int64
	stop    func() (sent, received int)
}

// flow waits until so many more answers have come.
func (f traffic) flow(t *testing.T, more int64) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for want := f.answers.Load() + more; f.answers.Load() < want; {
		if time.Now().After(deadline) {
			t.Fatalf("%s: no more answers", f.name)
		}
		runtime.Gosched()
	}
}

// ping starts a stream from a pod and returns when the first answer is in.
func (n *network) ping(from, to string) traffic {
	n.t.Helper()
	return n.pingFrom(n.lab.Pod(from), from, to)
}

// pingFrom is ping from any namespace, a node's for one.
func (n *network) pingFrom(ns *lab.Namespace, from, to string) traffic {
	n.t.Helper()
	r, w := io.Pipe()
	cmd := ns.Command(context.Background(), "ping", "-n", "-i", "0.002", to)
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	answers := &atomic.Int64{}
	done := make(chan [2]int, 1)
	go func() {
		var counts [2]int
		for s := bufio.NewScanner(r); s.Scan(); {
			if strings.Contains(s.Text(), "bytes from") {
				answers.Add(1)
			}
			if m := summary.FindStringSubmatch(s.Text()); m != nil {
				_, _ = fmt.Sscan(m[1], &counts[0])
				_, _ = fmt.Sscan(m[2], &counts[1])
			}
		}
		done <- counts
	}()
	f := traffic{from + " to " + to, answers, func() (int, int) {
		_ = cmd.Process.Signal(syscall.SIGINT)
		_ = cmd.Wait() // exits with 1 if anything was lost
		_ = w.Close()
		counts := <-done
		return counts[0], counts[1]
	}}
	f.flow(n.t, 1)
	return f
}

var summary = regexp.MustCompile(`(\d+) packets transmitted, (\d+) received`)

// TestAdoptFlannel: on a node as flannel leaves it, the plan stamps and adds,
// nothing else, and the traffic that runs through it loses no packet, neither
// when polder takes over nor when it lets go again.
func TestAdoptFlannel(t *testing.T) {
	n := up(t, flannelCluster())
	// n3 stays away: flannel knew two nodes.
	for i := range 2 {
		n.sh(fmt.Sprintf("n%d", i+1), flannelNode(i+1, 2-i))
	}
	if err := n.lab.SyncPodMTU(); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		n.settle(fmt.Sprintf("n%d", i+1))
	}
	var streams []traffic
	for _, to := range []string{"10.244.2.5", "fd00:10:244:2::5", "10.244.1.6", "fd00:10:244:1::6", "192.0.4.99"} {
		streams = append(streams, n.ping("p11", to))
	}
	gateway := n.sh("n1", "ip -br link show cni0")
	plan := n.apply("n1", n.spec, reconcile.ModeApply)
	for _, c := range plan.Changes {
		n.expectStamp(c)
	}
	if s := change.Summarize(plan.Changes); s.Adopt < 3+2+4 {
		t.Errorf("adopted %d objects: want links, routes and addresses among them", s.Adopt)
	}
	n.apply("n2", n.spec, reconcile.ModeApply)
	if now := n.sh("n1", "ip -br link show cni0"); now != gateway {
		t.Errorf("the bridge was %s and is %s", gateway, now)
	}
	n.apply("n1", nil, reconcile.ModeRelease)
	n.apply("n1", n.spec, reconcile.ModeApply)
	for _, s := range streams {
		s.flow(t, 100)
		if sent, received := s.stop(); received < sent-1 { // the last may be on its way
			t.Errorf("%s: %d sent, %d came back", s.name, sent, received)
		}
	}
}

// settle waits until duplicate address detection is over, as it is on a node
// that has been up for a while.
func (n *network) settle(node string) {
	n.t.Helper()
	for strings.TrimSpace(n.sh(node, "ip -6 addr show tentative")) != "" {
		runtime.Gosched()
	}
}

// expectStamp fails on what is neither a stamp nor an addition. The third node
// is news to the flannel nodes, so it is added.
func (n *network) expectStamp(c change.Change) {
	n.t.Helper()
	switch {
	case c.Action == change.Adopt, c.Action == change.Create:
	default:
		n.t.Errorf("the plan does more than stamp and add: %+v", c)
	}
}
