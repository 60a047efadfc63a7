package e2e

import (
	"net/netip"
	"testing"
	"time"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/spec"
)

// TestMasquerade sends packets across every edge that flannel's six iptables
// rules draw, in both families, and looks at the source that arrives.
func TestMasquerade(t *testing.T) {
	n := up(t, cluster{backend: backendVXLAN, pods: dual, network: `masquerade { except = ["192.0.3.0/24", "2001:db8:3::/64"] }`})
	n.applyAll()
	// The world outside sends what is for pods to n1.
	n.sh("outside", "ip route add 10.244.0.0/16 via 192.0.4.1; ip -6 route add fd00:10:244::/48 via 2001:db8:4::1")
	n.sh("r1", "ip route add 10.244.0.0/16 via 192.0.2.11; ip -6 route add fd00:10:244::/48 via 2001:db8:2::11")
	wire, err := n.lab.Wire(8472)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := wire.Close(); err != nil {
			t.Error(err)
		}
	}()
	host := n.lab.Host("outside")
	for _, f := range dual {
		own, _ := n.spec.Node("n1").Address(f)
		other, _ := n.spec.Node("n2").Address(f)
		excepted, _ := n.spec.Node("n3").Address(f)
		subnet, _ := n.spec.Node("n1").Subnet(f)
		pod, remote := address(n.endpoint("p11"), f), address(n.endpoint("p21"), f)
		for _, c := range []struct {
			name     string
			from, to *lab.Namespace
			addr     netip.Addr
			source   netip.Addr
		}{
			{"a pod to a pod of its node", n.lab.Pod("p11"), n.lab.Pod("p12"), address(n.endpoint("p12"), f), pod},
			{"a pod to a pod of another node", n.lab.Pod("p11"), n.lab.Pod("p21"), remote, pod},
			{"a pod to the outside", n.lab.Pod("p11"), host, outside(f), own.Addr},
			{"a pod to its own node", n.lab.Pod("p11"), n.lab.Node("n1"), own.Addr, pod},
			{"a pod to another node", n.lab.Pod("p11"), n.lab.Node("n2"), other.Addr, own.Addr},
			{"a pod to an exception", n.lab.Pod("p11"), n.lab.Node("n3"), excepted.Addr, pod},
			{"the outside to a pod of the node that it comes to", host, n.lab.Pod("p11"), pod, outside(f)},
			{"the outside to a pod of another node", host, n.lab.Pod("p21"), remote, subnet.Addr()},
			{"the node to a pod of its own", n.lab.Node("n1"), n.lab.Pod("p11"), pod, subnet.Addr().Next()},
			{"the node to a pod of another", n.lab.Node("n1"), n.lab.Pod("p21"), remote, subnet.Addr()},
		} {
			for _, protocol := range []lab.Protocol{lab.UDP, lab.TCP} {
				n.expectSource(wire, lab.Flow{From: c.from, To: c.to, Addr: c.addr, Protocol: protocol, Timeout: 5 * time.Second}, c.name+" over "+f.String(), c.source)
			}
		}
		n.probeMarked(wire, f, pod, own.Addr)
	}
}

func (n *network) expectSource(wire *lab.Wire, flow lab.Flow, name string, source netip.Addr) {
	n.t.Helper()
	r, err := wire.Probe(flow)
	if err != nil || !r.Answered || r.Source != source {
		n.t.Errorf("%s by %s: %v, arrived from %s and not from %s: %+v", name, flow.Protocol, err, r.Source, source, r)
	}
}

// probeMarked has somebody else mark what a pod sends. kube-proxy's bit keeps
// us from masquerading, whatever stands beside it; other bits do not.
func (n *network) probeMarked(wire *lab.Wire, f spec.Family, pod, node netip.Addr) {
	n.t.Helper()
	for mark, source := range map[string]netip.Addr{"0x4000": pod, "0x14000": pod, "0x8000": node, "0x1": node} {
		n.sh("n1", `nft add table inet marks; nft flush table inet marks
			nft add chain inet marks pre '{ type filter hook prerouting priority mangle; }'
			nft add rule inet marks pre iifname cni0 meta mark set `+mark)
		n.expectSource(wire, lab.Flow{From: n.lab.Pod("p11"), To: n.lab.Host("outside"), Addr: outside(f), Protocol: lab.UDP, Timeout: 5 * time.Second},
			"marked "+mark+" over "+f.String(), source)
	}
	n.sh("n1", "nft delete table inet marks")
}
