package peers

import (
	"errors"
	"maps"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/poldernet/polder/internal/kubetest"
	"github.com/poldernet/polder/internal/kubetest/program"
	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/spec"
)

// daemons are flanneld on some of a cluster's nodes.
type daemons struct {
	t       testing.TB
	program string
	dir     string // of logs
	network *spec.Network
	nodes   map[string]*lab.Namespace
	running map[string]*kubetest.Daemon
}

func newDaemons(t testing.TB, network *spec.Network, nodes map[string]*lab.Namespace) daemons {
	t.Helper()
	return daemons{
		t: t, program: program.Need(t, program.Flannel), dir: t.TempDir(),
		network: network, nodes: nodes, running: map[string]*kubetest.Daemon{},
	}
}

// start runs flanneld on a node and returns when it says that it is ready.
func (d *daemons) start(node string, argv ...string) {
	d.t.Helper()
	if d.network.Masquerade != nil {
		argv = append(argv, "-ip-masq")
	}
	daemon := kubetest.NewDaemon(d.nodes[node], node, d.dir, argv...)
	if err := daemon.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.running[node] = daemon
}

// Stop ends flanneld on a node. What it made in the kernel stays.
func (d *daemons) Stop(node string) {
	d.t.Helper()
	if err := d.running[node].Stop(); err != nil {
		d.t.Fatal(err)
	}
	delete(d.running, node)
}

// CPU is the CPU time that flanneld on a node has used up to now, with the
// programs that it has run.
func (d *daemons) CPU(node string) time.Duration {
	d.t.Helper()
	used, err := d.running[node].CPU()
	if err != nil {
		d.t.Fatal(err)
	}
	return used
}

// Memory is what of flanneld on a node is resident now, and at most up to now.
func (d *daemons) Memory(node string) (now, peak int) {
	d.t.Helper()
	now, peak, err := d.running[node].Memory()
	if err != nil {
		d.t.Fatal(err)
	}
	return now, peak
}

// await waits until every node that runs has routes to the subnets that it has
// been told of, and no more. flannel writes a peer's route after everything else
// about the peer.
func (d *daemons) await(told func(node string) map[netip.Prefix]bool) {
	d.t.Helper()
	for node, daemon := range d.running {
		deadline := time.Now().Add(kubetest.Patience)
		for {
			have, err := d.routes(node)
			if err != nil {
				d.t.Fatal(err)
			}
			want := told(node)
			if maps.Equal(have, want) {
				break
			}
			if time.Now().After(deadline) {
				d.t.Fatalf("flanneld on %s made routes to %v, not to %v\n%s", node, have, want, daemon.Tail())
			}
			runtime.Gosched()
		}
	}
}

// routes are the destinations in the pod network that a node reaches through
// others.
func (d *daemons) routes(node string) (map[netip.Prefix]bool, error) {
	routes := map[netip.Prefix]bool{}
	for _, family := range []string{"-4", "-6"} {
		out, err := d.nodes[node].Command(d.t.Context(), "ip", family, "route", "show").Output()
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(out)) {
			to, rest, _ := strings.Cut(line, " ")
			p, err := netip.ParsePrefix(to)
			if err != nil || !strings.HasPrefix(rest, "via ") {
				continue // the default route, or one to a link
			}
			if pods, ok := d.network.PodRange(spec.FamilyOf(p.Addr())); ok && pods.CIDR.Contains(p.Addr()) {
				routes[p] = true
			}
		}
	}
	return routes, nil
}

func (d *daemons) close() {
	var errs []error
	for _, daemon := range d.running {
		errs = append(errs, daemon.Stop())
	}
	if err := errors.Join(errs...); err != nil {
		d.t.Error(err)
	}
}
