package kubescale

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/poldernet/polder/internal/kubetest"
	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/internal/peers"
	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/spec"
)

const specText = `cluster = "scale"
kubernetes {}
network {
  pod_cidrs  = ["10.0.0.0/8"]
  subnet_min = "10.0.0.0"
  compat     = "flannel"
  backend "vxlan" {}
  masquerade {}
}
`

// server is where daemons reach the API server.
var server = netip.MustParseAddrPort("127.0.0.1:6443")

// stand is the node 0 in a fresh namespace, and a daemon that runs there. Namespaces are
// taken down at the end: meanwhile the kernel holds the lock for which a write to
// ip_forward spins, and the next daemon would pay for that.
type stand struct {
	*world
	ns     *lab.Namespace
	wire   *kubetest.Forwarder
	cpu    func() time.Duration
	memory func() (now, peak int)
	end    func() // of the daemon
}

func (w *world) stand() *stand {
	w.Helper()
	ns, err := lab.NewNamespace(machine(0).name())
	if err != nil {
		w.Fatal(err)
	}
	s := &stand{world: w, ns: ns}
	w.Cleanup(func() {
		if s.wire != nil {
			if err := s.wire.Close(); err != nil {
				w.Error(err)
			}
		}
		if err := ns.Close(); err != nil {
			w.Error(err)
		}
	})
	// By the default route flanneld finds the underlay.
	setUp := fmt.Sprintf("ip link add eth0 type veth peer name wire; ip link set wire up; ip link set eth0 up; ip addr add %s/12 dev eth0; ip route add default dev eth0", machine(0).address())
	if out, err := ns.Command(w.Context(), "sh", "-ec", setUp).CombinedOutput(); err != nil {
		w.Fatalf("%v\n%s", err, out)
	}
	if s.wire, err = kubetest.Forward(ns, server, w.api.Addr); err != nil {
		w.Fatal(err)
	}
	return s
}

// polder is the program that is measured.
type polder struct{ file, kubeconfig, dir string }

func (w *world) build() polder {
	w.Helper()
	dir := w.TempDir()
	p := polder{filepath.Join(dir, "polder"), w.api.Kubeconfig(w, w.api.Config(), server), dir}
	if out, err := exec.Command("go", "build", "-o", p.file, "github.com/poldernet/polder/cmd/polder").CombinedOutput(); err != nil {
		w.Fatalf("building: %v\n%s", err, out)
	}
	if err := os.WriteFile(filepath.Join(dir, "polder.hcl"), []byte(specText), 0o600); err != nil {
		w.Fatal(err)
	}
	return p
}

// polder runs polder, and is how long it took to be in sync.
func (s *stand) polder(p polder) time.Duration {
	s.Helper()
	state, err := os.MkdirTemp(p.dir, "state")
	if err != nil {
		s.Fatal(err)
	}
	d := kubetest.NewDaemon(s.ns, "polder", p.dir, p.file, "run", "--spec", filepath.Join(p.dir, "polder.hcl"),
		"--node", machine(0).name(), "--state-dir", state, "--kubeconfig", p.kubeconfig)
	began := time.Now()
	if err := d.Start(); err != nil {
		s.Fatal(err)
	}
	took := time.Since(began)
	s.cpu = func() time.Duration {
		used, err := d.CPU()
		if err != nil {
			s.Fatalf("%v\n%s", err, d.Tail())
		}
		return used
	}
	s.memory = func() (int, int) {
		now, peak, err := d.Memory()
		if err != nil {
			s.Fatal(err)
		}
		return now, peak
	}
	s.end = func() {
		if err := d.Stop(); err != nil {
			s.Error(err)
		}
	}
	return took
}

// flannel is flanneld on the node 0, with rules of nftables: with iptables it runs
// programs all the time.
type flannel struct {
	*peers.KubeFlannel
	nodes map[string]*lab.Namespace
}

func (w *world) flannel() flannel {
	w.Helper()
	config, diags := spec.LoadText("polder.hcl", []byte(specText))
	if diags.HasErrors() {
		w.Fatal(diags)
	}
	nodes := map[string]*lab.Namespace{}
	return flannel{peers.NewKubeFlannel(w, w.api, server, config.Spec.Network, nodes, peers.NFTables), nodes}
}

// flannel runs flanneld, and is how long it took until the route to the last peer was
// there, which is what it writes last of each.
func (s *stand) flannel(f flannel) time.Duration {
	s.Helper()
	name := machine(0).name()
	f.nodes[name] = s.ns
	r := s.routes()
	began := time.Now()
	f.Start(name)
	s.cpu = func() time.Duration { return f.CPU(name) }
	s.memory = func() (int, int) { return f.Memory(name) }
	s.end = func() { f.Stop(name) }
	missing := map[string]bool{}
	for i := 1; i < s.sizes.nodes; i++ {
		missing[machine(i).subnet().String()] = true
	}
	timeout := time.After(kubetest.Patience)
	for len(missing) > 0 {
		select {
		case u := <-r:
			if u.Dst != nil {
				delete(missing, u.Dst.String())
			}
		case <-timeout:
			s.Fatalf("routes to %d peers are missing: %v", len(missing), slices.Collect(maps.Keys(missing))[0])
		}
	}
	return time.Since(began)
}

// routes are what the kernel says of routes from now on.
type routes chan netlink.RouteUpdate

func (s *stand) routes() routes {
	s.Helper()
	r, ended := make(routes, 20_000), make(chan struct{})
	s.Cleanup(func() { close(ended) })
	err := s.ns.Do(func() error {
		return netlink.RouteSubscribeWithOptions(r, ended, netlink.RouteSubscribeOptions{ReceiveBufferSize: 4 << 20})
	})
	if err != nil {
		s.Fatal(err)
	}
	return r
}

// await waits until the kernel tells that a route has come or gone, and says when.
func (s *stand) await(r routes, kind uint16, p netip.Prefix) time.Time {
	s.Helper()
	timeout := time.After(kubetest.Patience)
	for {
		select {
		case u := <-r:
			if u.Type == kind && u.Dst != nil && u.Dst.String() == p.String() {
				return time.Now()
			}
		case <-timeout:
			s.Fatalf("waited in vain for the route to %s", p)
		}
	}
}

// commits are when something was committed to our tables, from now on.
type commits chan time.Time

func (s *stand) commits() commits {
	s.Helper()
	c, opened := make(commits, 1000), make(chan error)
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		err := s.ns.Do(func() error {
			w, err := nft.OpenWatcher()
			opened <- err
			if err != nil {
				return nil
			}
			defer w.Close()
			for {
				commit, err := w.Next(ctx)
				if err != nil {
					return err
				}
				if commit.Touches([]nft.TableID{{Family: nft.INet, Name: nft.TableName}}) {
					c <- time.Now()
				}
			}
		})
		if ctx.Err() == nil {
			s.Error(err)
		}
	}()
	if err := <-opened; err != nil {
		s.Fatal(err)
	}
	s.Cleanup(stop)
	return c
}

// rest is after what time without another commit nothing follows of an event.
const rest = 200 * time.Millisecond

// next are the commits of one event.
func (s *stand) next(c commits) (all []time.Time) {
	s.Helper()
	quiet := time.NewTimer(kubetest.Patience)
	defer quiet.Stop()
	for {
		select {
		case t := <-c:
			all = append(all, t)
			quiet.Reset(rest)
		case <-quiet.C:
			if len(all) == 0 {
				s.Fatal("waited in vain for a commit")
			}
			return all
		}
	}
}
