package kube

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/poldernet/polder/internal/e2e/process"
	"github.com/poldernet/polder/internal/kubetest"
	"github.com/poldernet/polder/internal/lab"
)

// cniSpec is of one node, and isolates the pods with the label app=db.
const cniSpec = `cluster = "e2e"
network {
  pod_cidrs = ["10.244.0.0/16", "fd00:10:244::/48"]
  backend "vxlan" {}
}
node "n1" {
  addresses = ["192.0.2.11/24", "2001:db8:2::11/64"]
  subnets   = ["10.244.1.0/24", "fd00:10:244:1::/64"]
}
policy "db" {
  selector = "app == 'db'"
  types    = ["ingress"]
}
`

// cniPod has that label. Its runtime gives it another address.
const cniPod = `endpoint "closed" {
  node      = "n1"
  namespace = "shop"
  addresses = ["10.244.1.200"]
  labels    = { app = "db" }
}
`

// oneNode is a lab of one node.
const oneNode = `link "lan" {}
node "n1" {
  link "lan" {}
}
`

const cniPort = 5432

// serve lets a pod accept connections, as its program does when it starts.
func (r *engine) serve(a kubetest.Attachment) {
	r.Helper()
	var l net.Listener
	err := a.Sandbox.Do(func() (err error) {
		l, err = new(net.ListenConfig).Listen(context.Background(), "tcp", fmt.Sprintf(":%d", cniPort))
		return err
	})
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
}

// dial says whether a connection is made within so long.
func dial(from *lab.Namespace, source, to netip.Addr, within time.Duration) bool {
	var c net.Conn
	err := from.Do(func() (err error) {
		d := net.Dialer{Timeout: within}
		if source.IsValid() {
			d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
		}
		c, err = d.DialContext(context.Background(), "tcp", netip.AddrPortFrom(to, cniPort).String())
		return err
	})
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

// reaches expects that connections are made to all addresses, or to none.
func (r *engine) reaches(what string, from *lab.Namespace, to []netip.Addr, want bool) {
	r.Helper()
	within := process.Endurance
	if !want {
		within = 300 * time.Millisecond
	}
	for _, a := range to {
		if got := dial(from, netip.Addr{}, a, within); got != want {
			r.Errorf("%s: %s reaches %s: %t", what, from.Name(), a, got)
		}
	}
}

// knocker tries to connect, again and again.
type knocker struct {
	tries, answers atomic.Int64
	stop           context.CancelFunc
	done           chan struct{}
}

// knocks begins to try, from a pod, for each address.
func (r *engine) knocks(from kubetest.Attachment, to []netip.Addr) *knocker {
	ctx, stop := context.WithCancel(context.Background())
	k := &knocker{stop: stop, done: make(chan struct{})}
	go func() {
		defer close(k.done)
		for ctx.Err() == nil {
			for _, a := range to {
				if dial(from.Sandbox, netip.Addr{}, a, 5*time.Millisecond) {
					k.answers.Add(1)
				}
				k.tries.Add(1)
			}
		}
	}()
	r.Cleanup(func() { k.end() })
	return k
}

// more waits for so many tries more.
func (k *knocker) more(n int64) {
	for until := k.tries.Load() + n; k.tries.Load() < until; {
		<-time.After(time.Millisecond)
	}
}

// end says how often it was answered.
func (k *knocker) end() int64 {
	k.stop()
	<-k.done
	return k.answers.Load()
}

// code is that of a plugin's error, 0 without one.
func code(err error) uint {
	var e *types.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return 0
}

// A runtime attaches pods by the list that the daemon writes.
func TestCNI(t *testing.T) {
	n := up(t, oneNode, cniSpec)
	r := n.engine("n1", cniSpec+cniPod)
	ctx, node := t.Context(), n.Node("n1")
	if err := r.Status(ctx); err != nil {
		t.Fatal(err)
	}
	prober := r.sandbox("prober")
	r.add(prober)

	// The next two pods get the addresses after the prober's.
	closedTo := []netip.Addr{netip.MustParseAddr("10.244.1.3"), netip.MustParseAddr("fd00:10:244:1::3")}
	openTo := []netip.Addr{netip.MustParseAddr("10.244.1.4"), netip.MustParseAddr("fd00:10:244:1::4")}
	closedKnocks, openKnocks := r.knocks(prober, closedTo), r.knocks(prober, openTo)
	closed, open := r.sandbox("closed"), r.sandbox("open")
	for _, p := range []struct {
		pod kubetest.Attachment
		to  []netip.Addr
	}{{closed, closedTo}, {open, openTo}} {
		if got := r.add(p.pod); fmt.Sprint(got) != fmt.Sprint(p.to) {
			t.Fatalf("%s got %v", p.pod.Name, got)
		}
		rules := n.sh("n1", "nft list ruleset")
		r.serve(p.pod) // from now on there is somebody to answer
		for _, a := range p.to {
			if !strings.Contains(rules, a.String()) {
				t.Errorf("when %s was attached, %s was not in the kernel:\n%s", p.pod.Name, a, rules)
			}
		}
		if err := r.Check(ctx, p.pod); err != nil {
			t.Error(err)
		}
	}
	r.reaches("the node probes its pods", node, closedTo, true)
	r.reaches("a pod that nobody isolates", prober.Sandbox, openTo, true)
	closedKnocks.more(100)
	if n := openKnocks.end(); n == 0 {
		t.Error("no knock was answered by the pod that is open")
	}

	t.Run("spoofing", func(t *testing.T) {
		own := in(t, prober.Sandbox, "cat /sys/class/net/eth0/address")
		in(t, prober.Sandbox, "ip addr add 10.244.1.99/24 dev eth0")
		if dial(prober.Sandbox, netip.MustParseAddr("10.244.1.99"), openTo[0], 300*time.Millisecond) {
			t.Error("it speaks with an address that it was not given")
		}
		in(t, prober.Sandbox, "ip addr del 10.244.1.99/24 dev eth0; ip link set eth0 address 02:00:00:00:00:99")
		if dial(prober.Sandbox, netip.Addr{}, openTo[0], 300*time.Millisecond) {
			t.Error("it speaks with a MAC that it was not given")
		}
		in(t, prober.Sandbox, "ip link set eth0 address "+strings.TrimSpace(own))
		r.reaches("with its own", prober.Sandbox, openTo[:1], true)
	})

	t.Run("without the daemon", func(t *testing.T) {
		r.Kill()
		if err := r.Status(ctx); code(err) != types.ErrPluginNotAvailable {
			t.Errorf("status: %v", err)
		}
		late := r.sandbox("late")
		if _, err := r.Add(ctx, late); code(err) != types.ErrTryAgainLater {
			t.Errorf("add: %v", err)
		}
		for range 2 {
			if err := r.Del(ctx, late); err != nil {
				t.Error(err)
			}
		}
		if links := in(t, late.Sandbox, "ls /sys/class/net"); strings.Contains(links, "eth0") {
			t.Errorf("it has %s", links)
		}
		if err := r.Check(ctx, closed); code(err) != types.ErrTryAgainLater {
			t.Errorf("check: %v", err)
		}
		// A pod that ends now ends for the daemon by GC.
		if err := r.Del(ctx, open); err != nil {
			t.Error(err)
		}
		r.Start()
		r.Ready()
		if err := r.Check(ctx, closed); err != nil {
			t.Errorf("after the restart: %v", err)
		}
		if rules := n.sh("n1", "nft list ruleset"); !strings.Contains(rules, openTo[0].String()) {
			t.Errorf("the pod that ended is not known: the test shows nothing\n%s", rules)
		}
		if err := r.GC(ctx, prober, closed); err != nil {
			t.Error(err)
		}
		for begin := time.Now(); strings.Contains(n.sh("n1", "nft list ruleset"), openTo[0].String()); r.Pause() {
			if time.Since(begin) > process.Endurance {
				t.Fatalf("GC leaves it\n%s", n.sh("n1", "nft list ruleset"))
			}
		}
		if err := errors.Join(r.Check(ctx, closed), r.Check(ctx, prober)); err != nil {
			t.Errorf("GC took what is there: %v", err)
		}
	})
	closedKnocks.more(100)
	if n := closedKnocks.end(); n != 0 {
		t.Errorf("of %d knocks at the pod that is closed, %d were answered", closedKnocks.tries.Load(), n)
	}

	t.Run("check", func(t *testing.T) {
		r.Kill()
		if err := os.Remove(filepath.Join(n.stateDir("n1"), "attachments.json")); err != nil {
			t.Fatal(err)
		}
		r.Start()
		r.Ready()
		if err := r.Check(ctx, closed); code(err) != types.ErrUnknownContainer {
			t.Errorf("check: %v", err)
		}
		for range 2 {
			if err := r.Del(ctx, closed); err != nil {
				t.Error(err)
			}
		}
	})

	// The pods lose their network with the bridge.
	t.Run("held", func(t *testing.T) {
		in(t, node, n.polder+" destroy --auto-approve --state-dir "+n.stateDir("n1"))
		r.awaitList(false)
		if err := r.Status(ctx); code(err) != types.ErrLimitedConnectivity || !strings.Contains(err.Error(), "held until polder apply") {
			t.Errorf("status: %v", err)
		}
		in(t, node, n.polder+" apply --auto-approve --state-dir "+n.stateDir("n1"))
		r.awaitList(true)
		if err := r.Status(ctx); err != nil {
			t.Error(err)
		}
	})
}
