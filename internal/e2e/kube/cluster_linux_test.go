package kube

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/poldernet/polder/internal/e2e/process"
	"github.com/poldernet/polder/internal/kubetest"
	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/spec"
)

// clusterLab has two nodes of polder's, a node without polder, and somebody outside.
const clusterLab = `link "lan" {}
node "n1" {
  link "lan" {}
}
node "n2" {
  link "lan" {}
}
node "n3" {
  link "lan" {}
}
host "outside" {
  link "lan" { addresses = ["192.0.2.99/24", "2001:db8:2::99/64"] }
}
`

// clusterMachines are for the lab: daemons have their nodes from the API server.
const clusterMachines = `
node "n1" {
  addresses = ["192.0.2.11/24", "2001:db8:2::11/64"]
  subnets   = ["10.244.1.0/24", "fd00:10:244:1::/64"]
}
node "n2" {
  addresses = ["192.0.2.12/24", "2001:db8:2::12/64"]
  subnets   = ["10.244.2.0/24", "fd00:10:244:2::/64"]
}
node "n3" {
  addresses = ["192.0.2.13/24", "2001:db8:2::13/64"]
  subnets   = ["10.244.3.0/24", "fd00:10:244:3::/64"]
}
`

// clusterSpec has policies of its own for the namespace barrier alone: which of them
// selects something says which labels of it a daemon has heard of.
const clusterSpec = `cluster = "e2e"
network {
  pod_cidrs = ["10.244.0.0/16", "fd00:10:244::/48"]
  backend "vxlan" {
    direct_routing = true
  }
}
policy "turn-0" {
  namespace_selector = "turn == '0'"
  ingress {
    action = "allow"
    ports  = ["9/tcp"]
  }
}
policy "turn-1" {
  namespace_selector = "turn == '1'"
  ingress {
    action = "allow"
    ports  = ["9/tcp"]
  }
}
`

// nodeNames are the nodes with a daemon.
var nodeNames = []string{"n1", "n2"}

// foreignNode is the node without a daemon. Its pods are addresses of its own.
const foreignNode = "n3"

// foreignPods is how many pods that node has room for.
const foreignPods = 4

// cluster is an API server, and nodes with daemons that have all but their policies
// of the namespace barrier from there.
type cluster struct {
	*network
	api     *kubetest.API
	engines map[string]*engine
	wires   map[string]*kubetest.Forwarder
	absent  map[string]*claim // the Nodes that are gone of nodes with a daemon, which go on with them
	turn    int
}

// inCluster makes one, in which packets between nodes go directly or by VXLAN.
func inCluster(t *testing.T, direct bool) *cluster {
	t.Helper()
	text := strings.Replace(clusterSpec, "direct_routing = true", fmt.Sprintf("direct_routing = %t", direct), 1)
	c := &cluster{network: up(t, clusterLab, text+clusterMachines), engines: map[string]*engine{}, wires: map[string]*kubetest.Forwarder{}, absent: map[string]*claim{}}
	for _, machine := range []string{foreignNode, "outside"} {
		for i := 1; i <= 3; i++ {
			if machine != fmt.Sprintf("n%d", i) {
				c.sh(machine, fmt.Sprintf("ip route add 10.244.%[1]d.0/24 via 192.0.2.1%[1]d; ip -6 route add fd00:10:244:%[1]d::/64 via 2001:db8:2::1%[1]d", i))
			}
		}
	}
	if !direct {
		c.tunnel()
	}
	for i := 1; i <= foreignPods; i++ {
		for _, subnet := range []int{3, otherSubnet} {
			c.sh("n3", fmt.Sprintf("ip addr add 10.244.%[1]d.%[2]d/32 dev lo; ip -6 addr add fd00:10:244:%[1]d::%[2]d/128 dev lo", subnet, i))
		}
	}
	c.api = kubetest.Start(t)
	access := c.api.ServiceAccount(t, metav1.NamespaceSystem, "polder", kubetest.Rules(t, "../../../deploy/kubernetes/base/rbac.yaml")...)
	c.api.Namespace(t, "barrier", map[string]string{"turn": "0"})
	c.api.Node(t, "barrier", nil, []string{"10.244.255.0/24"})
	at := netip.MustParseAddrPort("127.0.0.1:6443")
	for i, name := range nodeNames {
		c.api.Node(t, name, addressesOf(i+1).texts(), subnetsOf(i+1).texts())
		c.api.Pod(t, kubetest.Pod{Namespace: "barrier", Name: name, Node: name, IPs: []string{fmt.Sprintf("10.244.%d.250", i+1)}})
	}
	for _, name := range nodeNames {
		wire, err := kubetest.Forward(c.Node(name), at, c.api.Addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = wire.Close() })
		c.wires[name] = wire
		c.engines[name] = c.engine(name, text+"kubernetes {}\n", "--kubeconfig", c.api.Kubeconfig(t, access, at))
	}
	return c
}

// tunnel has the foreign node send to the pods of the others by VXLAN, and take in
// what they send so.
func (c *cluster) tunnel() {
	c.Helper()
	for k, f := range spec.Families {
		name := c.Spec.Network.Backend.Device.Get(f)
		mac := func(node string) spec.MAC { return c.Spec.VTEPMAC(c.Spec.Node(node), f) }
		c.sh(foreignNode, fmt.Sprintf("ip link add %s address %s type vxlan id %d dev eth0 local %s dstport %d nolearning; ip link set %[1]s up",
			name, mac(foreignNode), c.Spec.Network.Backend.VNI, addressesOf(3)[k], c.Spec.Network.Backend.Port))
		for i, node := range nodeNames {
			via := pair{"169.254.0.1", "fe80::1"}[k] + fmt.Sprint(i) // nobody's
			c.sh(foreignNode, fmt.Sprintf("ip neigh add %s lladdr %s dev %s; bridge fdb add %[2]s dst %[4]s dev %[3]s; ip route replace %[5]s via %[1]s dev %[3]s onlink",
				via, mac(node), name, addressesOf(i + 1)[k], subnetsOf(i + 1)[k]))
		}
	}
}

// settle waits until every daemon has heard of all that was written to the API
// server up to now, and it is in the kernel. What is watched comes in order: last
// come a policy, pods that it selects, and the labels of a namespace, and the
// daemons count packets of the policies that select something. Before these comes a
// node that cannot have a part in the network, of which daemons say so.
func (c *cluster) settle(after string) {
	c.Helper()
	last := fmt.Sprintf("turn-%d", c.turn)
	c.turn++
	unsuited := fmt.Sprintf("10.244.%d.%d", 200+c.turn/250, 1+c.turn%250) // it is one of pods
	c.api.SetNode(c, "barrier", unsuited)
	for _, r := range c.engines {
		r.awaitCluster()
		r.Await(0, "nodes, after "+after, func(l process.Line) bool {
			return l.Event == "warning" && strings.Contains(l.Text, unsuited+" ")
		})
	}
	turn, parity := fmt.Sprint(c.turn), fmt.Sprint(c.turn%2)
	port := intstr.FromInt32(9)
	selecting := networkingv1.NetworkPolicySpec{
		PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"turn": turn}},
		Ingress:     []networkingv1.NetworkPolicyIngressRule{{Ports: []networkingv1.NetworkPolicyPort{{Port: &port}}}},
	}
	c.setPolicy(&networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "barrier", Name: "turn-" + turn}, Spec: selecting})
	for name := range c.engines {
		c.setPodLabels("barrier", name, map[string]string{"turn": turn})
	}
	c.setNamespaceLabels("barrier", map[string]string{"turn": parity})
	for name, r := range c.engines {
		there, failing := 1.0, 0.0
		if c.absent[name] != nil {
			there, failing = 0, 1 // which says so
		}
		r.Says("it has heard of all before turn "+turn+", after "+after, func(m process.Metrics) bool {
			return m["polder_in_sync"] == there && m.Sum("polder_failing_objects") == failing && m["polder_cluster_known"] == 1 &&
				counts(m, "networkpolicy barrier/turn-"+turn) && counts(m, "policy turn-"+parity) && !counts(m, fmt.Sprintf("policy turn-%d", (c.turn+1)%2))
		})
	}
	if last != "turn-0" {
		c.deletePolicy("barrier", last)
	}
}

// awaitCluster waits until the daemon hears the API server. When that one has been
// away for long, client-go waits for up to a minute before it asks again.
func (r *engine) awaitCluster() {
	r.Helper()
	for began := time.Now(); r.Metrics()["polder_cluster_heard"] != 1; r.Pause() {
		if time.Since(began) > kubetest.Patience {
			r.Stuck("hear the API server")
		}
	}
}

// counts says that a node counts the packets of a policy's first rule.
func counts(m process.Metrics, policy string) bool {
	for series := range m {
		if strings.HasPrefix(series, "polder_policy_packets_total{") && strings.Contains(series, `policy="`+policy+`",rule="1"`) {
			return true
		}
	}
	return false
}

func (c *cluster) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

// setPolicy makes a policy, or changes it.
func (c *cluster) setPolicy(p *networkingv1.NetworkPolicy) {
	c.Helper()
	client, ctx := c.api.Client.NetworkingV1().NetworkPolicies(p.Namespace), context.Background()
	old, err := client.Get(ctx, p.Name, metav1.GetOptions{})
	if err != nil {
		_, err = client.Create(ctx, p, metav1.CreateOptions{})
	} else {
		old.Spec = p.Spec
		_, err = client.Update(ctx, old, metav1.UpdateOptions{})
	}
	c.must(err)
}

func (c *cluster) deletePolicy(namespace, name string) {
	c.Helper()
	c.must(c.api.Client.NetworkingV1().NetworkPolicies(namespace).Delete(context.Background(), name, metav1.DeleteOptions{}))
}

func (c *cluster) setPodLabels(namespace, name string, labels map[string]string) {
	c.Helper()
	client, ctx := c.api.Client.CoreV1().Pods(namespace), context.Background()
	p, err := client.Get(ctx, name, metav1.GetOptions{})
	c.must(err)
	p.Labels = labels
	_, err = client.Update(ctx, p, metav1.UpdateOptions{})
	c.must(err)
}

func (c *cluster) setNamespaceLabels(name string, labels map[string]string) {
	c.Helper()
	client, ctx := c.api.Client.CoreV1().Namespaces(), context.Background()
	ns, err := client.Get(ctx, name, metav1.GetOptions{})
	c.must(err)
	ns.Labels = labels
	_, err = client.Update(ctx, ns, metav1.UpdateOptions{})
	c.must(err)
}

// sandbox is a pod's network namespace before it is attached.
func (c *cluster) sandbox(name string) *lab.Namespace {
	c.Helper()
	ns, err := lab.NewNamespace(name)
	c.must(err)
	c.Cleanup(func() { _ = ns.Close() }) // most are closed before
	return ns
}

// attach attaches a pod as a runtime does: again and again as long as it is told to
// try later. It says which addresses the pod has.
func (r *engine) attach(a kubetest.Attachment) (addresses []netip.Addr) {
	r.Helper()
	for began := time.Now(); ; {
		// Of the addresses that are free it gets the first, which was somebody's, with
		// each try.
		err := r.Node.Do(func() error {
			stale, err := filepath.Glob("/run/cni/networks/*/last_reserved_ip.*")
			for _, file := range stale {
				err = errors.Join(err, os.Remove(file))
			}
			return err
		})
		if err != nil {
			r.Fatal(err)
		}
		result, err := r.Add(context.Background(), a)
		if err == nil {
			for _, ip := range result.IPs {
				address, _ := netip.AddrFromSlice(ip.Address.IP)
				addresses = append(addresses, address.Unmap())
			}
			return addresses
		}
		if code(err) != types.ErrTryAgainLater || time.Since(began) > process.Endurance {
			r.Fatalf("attaching %s: %v\n%s", a.Name, err, r.Logbook.Tail())
		}
		if err := r.Del(context.Background(), a); err != nil {
			r.Fatal(err)
		}
	}
}

// setStatus sets the phase and addresses of a pod's object.
func (c *cluster) setStatus(namespace, name string, phase corev1.PodPhase, addresses []netip.Addr) {
	c.Helper()
	p, err := c.api.Client.CoreV1().Pods(namespace).Get(context.Background(), name, metav1.GetOptions{})
	c.must(err)
	var ips []string
	for _, a := range addresses {
		ips = append(ips, a.String())
	}
	c.api.SetPod(c, p, phase, ips...)
}
