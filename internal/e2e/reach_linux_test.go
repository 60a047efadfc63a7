package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
)

var backends = []struct {
	name    string
	block   string
	oneLink bool
	path    func(from, to string) lab.Path // between nodes
}{
	{"vxlan", backendVXLAN, false, func(_, _ string) lab.Path { return lab.PathVXLAN }},
	{"direct-routing", backendDirect, false, func(from, to string) lab.Path {
		if from == "n3" || to == "n3" {
			return lab.PathVXLAN
		}
		return lab.PathDirect
	}},
	{"host-gw", backendHostGW, true, func(_, _ string) lab.Path { return lab.PathDirect }},
}

// TestReachability is every backend with every choice of families: every pod
// reaches every other with its own source, by the intended path, and the
// outside with its node's.
func TestReachability(t *testing.T) {
	for _, b := range backends {
		for _, fs := range []families{ipv4, ipv6, dual} {
			t.Run(b.name+" "+fs.String(), func(t *testing.T) {
				n := up(t, cluster{backend: b.block, pods: fs, oneLink: b.oneLink})
				n.applyAll()
				for _, node := range nodeNames {
					if plan := n.plan(node, n.spec, reconcile.ModeApply); !plan.Empty() {
						t.Errorf("a second plan on %s is not empty: %+v", node, plan.Changes)
					}
				}
				wire, err := n.lab.Wire(8472)
				if err != nil {
					t.Fatal(err)
				}
				defer func() {
					if err := wire.Close(); err != nil {
						t.Error(err)
					}
				}()
				for _, f := range fs {
					n.probePods(wire, f, b.path)
					n.probeOutside(wire, f)
					n.probeSizes(f)
				}
			})
		}
	}
}

// probePods sends every protocol from every pod to every other.
func (n *network) probePods(wire *lab.Wire, f spec.Family, path func(from, to string) lab.Path) {
	for _, from := range n.spec.Endpoints {
		for _, to := range n.spec.Endpoints {
			if from == to {
				continue
			}
			want := lab.PathBridge
			if from.Node != to.Node {
				want = path(from.Node, to.Node)
			}
			for _, protocol := range []lab.Protocol{lab.UDP, lab.TCP, lab.ICMP, lab.SCTP} {
				r, err := wire.Probe(lab.Flow{From: n.lab.Pod(from.Name), To: n.lab.Pod(to.Name), Addr: address(to, f), Protocol: protocol, Timeout: 5 * time.Second})
				what := fmt.Sprintf("%s %s to %s over %s", protocol, from.Name, to.Name, f)
				switch {
				case err != nil:
					n.t.Fatalf("%s: %v", what, err)
				case !r.Reached || !r.Answered && protocol != lab.SCTP:
					n.t.Errorf("%s: %+v", what, r)
				case r.Source != address(from, f):
					n.t.Errorf("%s: arrived from %s", what, r.Source)
				case r.Path() != want:
					n.t.Errorf("%s: went by %q, not by %q: %+v", what, r.Path(), want, r.Sightings)
				}
			}
		}
	}
}

// probeOutside sends from every pod to the host outside.
func (n *network) probeOutside(wire *lab.Wire, f spec.Family) {
	for _, from := range n.spec.Endpoints {
		node, _ := n.spec.Node(from.Node).Address(f)
		for _, protocol := range []lab.Protocol{lab.UDP, lab.TCP, lab.ICMP} {
			r, err := wire.Probe(lab.Flow{From: n.lab.Pod(from.Name), To: n.lab.Host("outside"), Addr: outside(f), Protocol: protocol, Timeout: 5 * time.Second})
			if err != nil || !r.Answered || r.Source != node.Addr {
				n.t.Errorf("%s %s to the outside over %s: %v %+v", protocol, from.Name, f, err, r)
			}
		}
	}
}

// probeSizes sends packets that must not be fragmented: one of the pods' MTU
// arrives, and one byte more is answered by the node that cannot forward it.
func (n *network) probeSizes(f spec.Family) {
	mtu := 0
	if _, err := fmt.Sscan(n.sh("n1", `ip -o link show cni0 | sed 's/.* mtu \([0-9]*\) .*/\1/'`), &mtu); err != nil {
		n.t.Fatal(err)
	}
	from, targets := n.lab.Pod("p11"), []string{"p12", "p21", "p31"}
	for _, name := range targets {
		to := n.endpoint(name)
		r, err := lab.ProbeSize(from, n.lab.Pod(name), address(to, f), mtu, 5*time.Second)
		if err != nil || !r.Delivered {
			n.t.Errorf("a packet of %d bytes to %s over %s: %v %+v", mtu, name, f, err, r)
		}
	}
	// A pod that believes in a larger MTU is told by the node that cannot
	// forward: its own, or, where the way there is wider, the other.
	if err := n.lab.SetPodMTU(mtu + 100); err != nil {
		n.t.Fatal(err)
	}
	for _, name := range []string{"p21", "p31"} {
		to := n.endpoint(name)
		r, err := lab.ProbeSize(from, n.lab.Pod(name), address(to, f), mtu+1, 5*time.Second)
		if err != nil || r.Delivered || r.MTU != mtu || !r.Reporter.IsValid() {
			n.t.Errorf("a packet of %d bytes to %s over %s: %v %+v, want an answer that says %d", mtu+1, name, f, err, r, mtu)
		}
	}
	if err := n.lab.SyncPodMTU(); err != nil {
		n.t.Fatal(err)
	}
}
