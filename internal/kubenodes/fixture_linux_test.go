package kubenodes

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/poldernet/polder/internal/cluster"
	"github.com/poldernet/polder/internal/kubetest"
	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
)

// The sandbox ends with the tests, and the API server with the sandbox.
func TestMain(m *testing.M) { lab.Main(m) }

// machines is the lab: a link with nodes, and a pod on each of the first two, which
// is where a runtime would have put it. What daemons read has no nodes.
const (
	machines = `cluster = "lab"
network {
  pod_cidrs = ["10.244.0.0/16", "fd00:10:244::/48"]
}
node "n1" {
  addresses = ["192.0.2.11/24", "2001:db8::11/64"]
  subnets   = ["10.244.1.0/24", "fd00:10:244:1::/64"]
}
node "n2" {
  addresses = ["192.0.2.12/24", "2001:db8::12/64"]
  subnets   = ["10.244.2.0/24", "fd00:10:244:2::/64"]
}
node "n4" {
  addresses = ["192.0.2.14/24", "2001:db8::14/64"]
  subnets   = ["10.244.4.0/24", "fd00:10:244:4::/64"]
}
endpoint "p1" {
  node      = "n1"
  interface = "veth1"
  addresses = ["10.244.1.5", "fd00:10:244:1::5"]
}
endpoint "p2" {
  node      = "n2"
  interface = "veth2"
  addresses = ["10.244.2.5", "fd00:10:244:2::5"]
}
`
	wires = `link "lan" {}
node "n1" {
  link "lan" {}
}
node "n2" {
  link "lan" {}
}
node "n4" {
  link "lan" {}
}
`
)

// world is a lab with an API server, in which daemons run.
type world struct {
	*testing.T
	*kubetest.API
	lab    *lab.Lab
	spec   *spec.Spec // the lab's
	config *rest.Config
	text   string // the spec of daemons
}

func newWorld(t *testing.T, text string) *world {
	t.Helper()
	lab.Require(t)
	config, diags := spec.LoadText("machines.hcl", []byte(machines))
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	topology, diags := lab.ParseTopology("wires.hcl", []byte(wires))
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	w := &world{T: t, API: kubetest.Start(t), spec: config.Spec, text: text}
	var err error
	if w.lab, err = lab.Up(t.Context(), topology, config.Spec); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.lab.Close(); err != nil {
			t.Error(err)
		}
	})
	w.Namespace(t, "polder", nil)
	w.config = w.ServiceAccount(t, "polder", "polder", kubetest.Rules(t, "../../deploy/kubernetes/base/rbac.yaml")...)
	return w
}

// daemon runs polder on a node until the test ends.
func (w *world) daemon(node string) *reconcile.Daemon {
	w.Helper()
	d, stop := w.daemonIn(node, w.TempDir())
	w.Cleanup(stop)
	return d
}

// daemonIn runs polder on a node, with a folder, until it is stopped.
func (w *world) daemonIn(node, dir string) (*reconcile.Daemon, func()) {
	w.Helper()
	file := filepath.Join(dir, "polder.hcl")
	if err := os.WriteFile(file, []byte(w.text), 0o600); err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done, opened := make(chan error, 1), make(chan *reconcile.Daemon, 1)
	go func() {
		done <- w.lab.Node(node).Do(func() error {
			d, err := reconcile.OpenDaemon(reconcile.DaemonOptions{
				Source: reconcile.Source{Path: file}, Node: node, StateDir: filepath.Join(dir, "state"),
				Cluster: func(*spec.Kubernetes) reconcile.Cluster {
					return cluster.New(node, func() (*rest.Config, error) { return w.config, nil })
				},
			})
			if err != nil {
				return err
			}
			opened <- d
			d.Run(ctx)
			return d.Close()
		})
	}()
	stop := func() {
		cancel()
		if err := <-done; err != nil {
			w.Error(err)
		}
	}
	select {
	case d := <-opened:
		return d, stop
	case err := <-done:
		w.Fatal(err)
	}
	return nil, nil
}

// run runs a command on a node.
func (w *world) run(node, command string) (string, error) {
	out, err := w.lab.Node(node).Command(context.Background(), "sh", "-c", command).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (w *world) must(node, command string) string {
	w.Helper()
	out, err := w.run(node, command)
	if err != nil {
		w.Fatalf("%s: %v\n%s", command, err, out)
	}
	return out
}

// until waits for something to be so.
func (w *world) until(what string, is func() (bool, any)) {
	w.Helper()
	ctx, stop := context.WithTimeout(w.Context(), kubetest.Patience)
	defer stop()
	retry := time.NewTicker(50 * time.Millisecond)
	defer retry.Stop()
	for {
		ok, state := is()
		if ok {
			return
		}
		select {
		case <-ctx.Done():
			w.Fatalf("waited in vain for %s: %v", what, state)
		case <-retry.C:
		}
	}
}

func (w *world) node(name string) *corev1.Node {
	w.Helper()
	n, err := w.Client.CoreV1().Nodes().Get(w.Context(), name, metav1.GetOptions{})
	if err != nil {
		w.Fatal(err)
	}
	return n
}

// patch changes a Node as a user does.
func (w *world) patch(name, text string) {
	w.Helper()
	if _, err := w.Client.CoreV1().Nodes().Patch(w.Context(), name, types.StrategicMergePatchType, []byte(text), metav1.PatchOptions{}); err != nil {
		w.Fatal(err)
	}
}

// annotated waits until a Node has annotations.
func (w *world) annotated(name string, want map[string]string) {
	w.Helper()
	w.until("annotations of "+name, func() (bool, any) {
		has := w.node(name).Annotations
		for key, value := range want {
			if has[key] != value {
				return false, fmt.Sprintf("%s is %q and not %q", key, has[key], value)
			}
		}
		return true, nil
	})
}

// condition waits until a Node has a condition with a text in its message.
func (w *world) condition(name string, t corev1.NodeConditionType, status corev1.ConditionStatus, reason string, texts ...string) {
	w.Helper()
	w.until(fmt.Sprintf("%s of %s", t, name), func() (bool, any) {
		for _, c := range w.node(name).Status.Conditions {
			if c.Type != t {
				continue
			}
			ok := c.Status == status && c.Reason == reason
			for _, text := range texts {
				ok = ok && strings.Contains(c.Message, text)
			}
			return ok, c
		}
		return false, "there is none"
	})
}

// plug makes the pods' interfaces ports of their nodes' bridges.
func (w *world) plug() {
	w.Helper()
	for _, e := range w.spec.Endpoints {
		w.until("the bridge of "+e.Node, func() (bool, any) {
			out, err := w.run(e.Node, "ip link set "+e.Interface+" master cni0")
			return err == nil, out
		})
	}
}

// reach has the pods of n1 and n2 reach each other. A bridge asks for no IPv6 neighbour
// before its own link-local address is no longer tentative (addrconf.c).
func (w *world) reach() {
	w.Helper()
	for _, node := range []string{"n1", "n2"} {
		w.until("addresses of "+node, func() (bool, any) {
			out, err := w.run(node, `ip -o link show up | grep -v ' state UP \| state UNKNOWN '; ip -6 addr show tentative`)
			return err == nil && out == "", out
		})
	}
	wire, err := w.lab.Wire(8472)
	if err != nil {
		w.Fatal(err)
	}
	defer func() {
		if err := wire.Close(); err != nil {
			w.Error(err)
		}
	}()
	for from, to := range map[string]string{"p1": "p2", "p2": "p1"} {
		for _, e := range w.spec.Endpoints {
			if e.Name != to {
				continue
			}
			for _, a := range e.Addresses {
				w.encapsulated(wire, lab.Flow{From: w.lab.Pod(from), To: w.lab.Pod(to), Addr: a, Protocol: lab.UDP})
			}
		}
	}
}

// encapsulated has a packet arrive, and travel in VXLAN of the VNI 1 over an underlay
// of its own family.
func (w *world) encapsulated(wire *lab.Wire, f lab.Flow) {
	w.Helper()
	r, err := wire.Probe(f)
	if err != nil {
		w.Fatal(err)
	}
	if !r.Reached || !r.Answered {
		w.Errorf("%s is not reached: %+v", f.Addr, r)
		return
	}
	for _, s := range r.Sightings {
		if !s.Encapsulated() || s.VNI != 1 || s.OuterSrc.Is4() != f.Addr.Is4() {
			w.Errorf("to %s it travels as %+v", f.Addr, s)
		}
	}
}

// mac is that of a link.
func (w *world) mac(node, link string) string {
	w.Helper()
	fields := strings.Fields(w.must(node, "ip -br link show "+link))
	if len(fields) < 3 {
		w.Fatalf("%v", fields)
	}
	return fields[2]
}
