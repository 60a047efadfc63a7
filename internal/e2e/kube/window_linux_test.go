package kube

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/poldernet/polder/internal/e2e/process"
	"github.com/poldernet/polder/internal/kubetest"
	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/spec"
)

// phase counts what becomes of probes while something happens.
type phase struct {
	name string
	sent atomic.Int64 // to each address of both pods, by each prober
	// Of the pod that is closed: probes that it has heard. Of its twin: answers.
	heard, answers spec.PerFamily[*atomic.Int64]
}

// vigil are probes of a pod that is closed and of its twin, which is not.
type vigil struct {
	*testing.T
	closed, open []netip.Addr
	now          atomic.Pointer[phase]
	sent         chan struct{} // wakes who waits
	phases       []*phase
}

const (
	probeEvery = 2 * time.Millisecond
	// probesEach is how many probes are of one connection.
	probesEach = 25
	// dialsAt is how long a connection is tried, in which time SYN is sent once.
	dialsAt = 20 * time.Millisecond
)

// begin begins a phase.
func (v *vigil) begin(name string) {
	p := &phase{name: name}
	for _, f := range spec.Families {
		p.heard.Set(f, new(atomic.Int64))
		p.answers.Set(f, new(atomic.Int64))
	}
	v.phases = append(v.phases, p)
	v.now.Store(p)
}

// more waits for so many probes more.
func (v *vigil) more(n int64) {
	p := v.now.Load()
	for until := p.sent.Load() + n; p.sent.Load() < until; {
		<-v.sent
	}
}

// serve lets a pod answer, whatever address it is asked by. Who is closed hears
// nothing.
func (v *vigil) serve(ns *lab.Namespace, closed bool) (stop func()) {
	v.Helper()
	var l net.Listener
	var c net.PacketConn
	err := ns.Do(func() (err error) {
		if l, err = net.Listen("tcp", fmt.Sprintf(":%d", cniPort)); err == nil {
			c, err = net.ListenPacket("udp", fmt.Sprintf(":%d", cniPort))
		}
		return err
	})
	if err != nil {
		v.Fatal(err)
	}
	hear := func(from net.Addr) {
		if closed {
			v.now.Load().heard.Get(spec.FamilyOf(netip.MustParseAddrPort(from.String()).Addr().Unmap())).Add(1)
		}
	}
	var ended sync.WaitGroup
	ended.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			hear(conn.RemoteAddr())
			_ = conn.Close() // it has nothing to say
		}
	})
	ended.Go(func() {
		b := make([]byte, 64)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			hear(from)
			_, _ = c.WriteTo(b[:n], from) // or a policy drops it
		}
	})
	stop = sync.OnceFunc(func() {
		_, _ = l.Close(), c.Close()
		ended.Wait()
	})
	v.Cleanup(stop)
	return stop
}

// probe probes both pods from a namespace, all their addresses at the same time.
func (v *vigil) probe(from *lab.Namespace) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var ended sync.WaitGroup
	ended.Go(func() { v.ask(ctx, from) })
	for i, to := range append(append([]netip.Addr{}, v.closed...), v.open...) {
		ended.Go(func() {
			for ctx.Err() == nil {
				if dial(from, netip.Addr{}, to, dialsAt) {
					v.answered(to, i < len(v.closed))
				}
			}
		})
	}
	stop = sync.OnceFunc(func() {
		cancel()
		ended.Wait()
	})
	v.Cleanup(stop)
	return stop
}

// found waits until the twin is reached from each namespace. It announces its IPv4
// address only; who asked for the other one before there was anybody asks again after
// a second (RFC 4861, RetransTimer), in which there are hundreds of probes.
func (v *vigil) found(from ...*lab.Namespace) {
	v.Helper()
	for _, ns := range from {
		for _, to := range v.open {
			for began := time.Now(); !dial(ns, netip.Addr{}, to, dialsAt); {
				if time.Since(began) > patience {
					v.Fatalf("%s does not reach %s", ns.Name(), to)
				}
			}
		}
	}
}

// answered notes that somebody has answered.
func (v *vigil) answered(by netip.Addr, closed bool) {
	p := v.now.Load()
	if closed {
		p.heard.Get(spec.FamilyOf(by)).Add(1)
	} else {
		p.answers.Get(spec.FamilyOf(by)).Add(1)
	}
}

// ask sends a datagram to every address, again and again, by one connection after
// the other.
func (v *vigil) ask(ctx context.Context, from *lab.Namespace) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		var conns []net.PacketConn
		err := from.Do(func() error {
			for _, network := range []string{"udp4", "udp6"} {
				c, err := net.ListenPacket(network, ":0")
				if err != nil {
					return err
				}
				conns = append(conns, c)
			}
			return nil
		})
		if err != nil {
			v.Error(err)
			return
		}
		var ended sync.WaitGroup
		for _, c := range conns {
			ended.Go(func() {
				b := make([]byte, 64)
				for {
					_, from, err := c.ReadFrom(b)
					if err != nil {
						return
					}
					by := netip.MustParseAddrPort(from.String()).Addr().Unmap()
					v.answered(by, by == v.closed[0] || by == v.closed[1])
				}
			})
		}
		for range probesEach {
			<-tick.C
			for _, to := range append(append([]netip.Addr{}, v.closed...), v.open...) {
				c := conns[0]
				if to.Is6() {
					c = conns[1]
				}
				_, _ = c.WriteTo([]byte("?"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, cniPort))) // it may have no way there
			}
			v.now.Load().sent.Add(1)
			select {
			case v.sent <- struct{}{}:
			default: // nobody waits, or is awake already
			}
		}
		for _, c := range conns {
			_ = c.Close()
		}
		ended.Wait()
	}
}

// report prints the phases. In none has the closed pod heard anything; in those in
// which its twin had a network all the time, that one has answered most.
func (v *vigil) report(always ...string) {
	v.Helper()
	must := map[string]bool{}
	for _, name := range always {
		must[name] = true
	}
	for _, p := range v.phases {
		v.Logf("%-34s %5d probes of each address; closed: %d over IPv4 and %d over IPv6; its twin: %d and %d", p.name+":",
			p.sent.Load(), p.heard.IPv4.Load(), p.heard.IPv6.Load(), p.answers.IPv4.Load(), p.answers.IPv6.Load())
		for _, f := range spec.Families {
			if n := p.heard.Get(f).Load(); n > 0 {
				v.Errorf("%s: of the probes over %s, the closed pod has got %d", p.name, f, n)
			}
			if must[p.name] && p.answers.Get(f).Load() < p.sent.Load()/2 {
				v.Errorf("%s: over %s the twin has answered %d only", p.name, f, p.answers.Get(f).Load())
			}
		}
	}
}

// TestNoWindow: a pod that is isolated is so from the instant on at which it can have
// a program, whatever happens to the daemon, the API server and the node. It is
// probed before that, too: what is sent then must not come to it later.
func TestNoWindow(t *testing.T) {
	c := inCluster(t, true)
	c.api.Namespace(t, "shop", nil)
	c.api.Policy(t, "shop", "closed", `{podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress]}`)
	c.settle("a policy")
	r, wire := c.engines["n1"], c.wires["n1"]
	uids := map[string]string{}
	object := func(node, name, app string) {
		uids[name] = string(c.api.Pod(t, kubetest.Pod{Namespace: "shop", Name: name, Node: node, Labels: map[string]string{"app": app}}).UID)
	}
	sandbox := func(name string) kubetest.Attachment {
		return kubetest.Attachment{Namespace: "shop", Name: name, UID: uids[name], Sandbox: c.sandbox(name), Ports: []kubetest.PortMapping{}}
	}
	object("n1", "near", "web")
	object("n2", "far", "web")
	near, far := sandbox("near"), sandbox("far")
	r.attach(near)
	c.engines["n2"].attach(far)

	v := &vigil{T: t, sent: make(chan struct{}, 1),
		closed: []netip.Addr{netip.MustParseAddr("10.244.1.3"), netip.MustParseAddr("fd00:10:244:1::3")},
		open:   []netip.Addr{netip.MustParseAddr("10.244.1.4"), netip.MustParseAddr("fd00:10:244:1::4")},
	}
	v.begin("before it is there")
	stopNear := v.probe(near.Sandbox)
	v.probe(far.Sandbox)
	v.more(50)

	v.begin("its creation")
	object("n1", "closed", "db")
	object("n1", "open", "web")
	closed, open := sandbox("closed"), sandbox("open")
	attach := func(a kubetest.Attachment, want []netip.Addr) (stop func()) {
		t.Helper()
		if got := r.attach(a); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("%s got %v", a.Name, got)
		}
		return v.serve(a.Sandbox, a.Name == closed.Name) // from now on it can have a program
	}
	stopClosed := attach(closed, v.closed)
	stopOpen := attach(open, v.open)
	v.more(200)
	v.begin("while nothing happens")
	v.more(400)

	v.begin("kill -9 of the daemon")
	for range 3 {
		r.Kill()
		v.more(50)
		r.Start()
		c.settle("a restart")
	}
	v.more(50)

	v.begin("an API server that refuses")
	c.must(wire.Refuse())
	r.Says("nothing is heard", func(m process.Metrics) bool { return m["polder_cluster_heard"] == 0 })
	r.Kill()
	r.Start()
	r.Says("the cluster is unknown", func(m process.Metrics) bool {
		return m["polder_cluster_known"] == 0 && m["polder_cluster_heard"] == 0
	})
	r.expectQuoted(sandbox("late"))
	v.more(200)
	c.must(wire.Open())
	c.settle("a refusal")

	v.begin("an API server that is silent")
	wire.Stall()
	v.more(100)
	c.must(c.api.Stop())
	r.Kill()
	r.Start()
	v.more(200)
	c.must(c.api.Start(c.Context()))
	c.must(wire.Open())
	c.settle("silence")

	v.begin("a reboot, before the daemon")
	stopNear()
	r.Kill()
	stopClosed()
	stopOpen()
	c.reboot("n1")
	near, closed, open = sandbox("near"), sandbox("closed"), sandbox("open")
	for range 5 {
		if _, err := r.Add(t.Context(), closed); code(err) != types.ErrTryAgainLater {
			t.Errorf("adding a pod before the daemon: %v", err)
		}
		c.must(r.Del(t.Context(), closed))
		v.more(20)
	}
	v.begin("a reboot, with the daemon")
	r.Start()
	r.attach(near)
	v.probe(near.Sandbox)
	attach(closed, v.closed)
	attach(open, v.open)
	v.more(200)
	v.found(near.Sandbox, far.Sandbox)
	v.begin("after the reboot")
	c.settle("a reboot")
	v.more(400)

	v.report("while nothing happens", "kill -9 of the daemon", "an API server that refuses", "an API server that is silent", "after the reboot")
}

// reboot leaves a node as it is when it has been started again: without links but
// that to the others, without rules, and without what is kept in /run.
func (c *cluster) reboot(node string) {
	c.Helper()
	c.sh(node, `
		for link in $(ls /sys/class/net | grep -v '^lo$\|^eth0$'); do ip link del $link 2>/dev/null || true; done
		ip nexthop flush; nft flush ruleset; rm -rf /run/cni
		echo 0 >/proc/sys/net/ipv4/ip_forward; echo 0 >/proc/sys/net/ipv6/conf/all/forwarding`)
	kept, err := filepath.Glob(filepath.Join(c.stateDir(node), "*"))
	c.must(err)
	for _, file := range kept {
		c.must(os.RemoveAll(file))
	}
}
