package bench

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/reconcile"
)

// daemon is `polder run` on n0, within the benchmark's process.
type daemon struct {
	host
	*reconcile.Daemon
	file   string
	routes chan netlink.RouteUpdate
	handle *netlink.Handle
}

// newDaemon starts a daemon and waits until it is in sync.
func newDaemon(b *testing.B, peers int) *daemon {
	b.Helper()
	c := newCluster(b, peers)
	d := &daemon{host: newHost(b), file: filepath.Join(c.dir, "polder.hcl"), routes: make(chan netlink.RouteUpdate, 4*peers)}
	ctx, stop := context.WithCancel(context.Background())
	opened, done := make(chan error), make(chan error)
	go func() {
		done <- d.ns.Do(func() (err error) {
			d.Daemon, err = reconcile.OpenDaemon(reconcile.DaemonOptions{
				Source: reconcile.Source{Path: d.file}, Node: "n0", StateDir: filepath.Join(c.dir, "state"),
			})
			if err == nil {
				d.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE)
			}
			opened <- err
			if err != nil {
				return err
			}
			defer d.handle.Close()
			d.Run(ctx)
			return nil
		})
	}()
	if err := <-opened; err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			b.Error(err)
		}
		if err := d.Close(); err != nil {
			b.Error(err)
		}
		d.host.close()
	})
	d.await(func(e reconcile.Event) bool { return e.Type == reconcile.EventReady })
	return d
}

// witness listens to what becomes of the routes.
func (d *daemon) witness() {
	d.b.Helper()
	ended := make(chan struct{})
	d.b.Cleanup(func() { close(ended) })
	err := d.ns.Do(func() error {
		return netlink.RouteSubscribeWithOptions(d.routes, ended, netlink.RouteSubscribeOptions{ReceiveBufferSize: 4 << 20})
	})
	if err != nil {
		d.b.Fatal(err)
	}
}

func (d *daemon) await(is func(reconcile.Event) bool) {
	d.b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for e := range d.Journal().After(ctx, 0) {
		if is(e) {
			return
		}
	}
	d.b.Fatalf("waited in vain; %s", d.Condition())
}

// comes waits until the kernel tells that a route has come, and says when.
func (d *daemon) comes(p netip.Prefix) time.Time {
	d.b.Helper()
	want, timeout := p.String(), time.After(20*time.Second)
	for {
		select {
		case u := <-d.routes:
			if u.Type == unix.RTM_NEWROUTE && u.Dst != nil && u.Dst.String() == want {
				return time.Now()
			}
		case <-timeout:
			d.b.Fatalf("the route to %s did not come; %s", p, d.Condition())
		}
	}
}

// latencies reports the median and the 99th percentile, and the daemon's CPU
// time for one.
func latencies(b *testing.B, took []time.Duration, cpu time.Duration) {
	slices.Sort(took)
	at := func(q float64) float64 { return milliseconds(took[int(q*float64(len(took)-1))]) }
	b.ReportMetric(at(0.5), "p50-ms")
	b.ReportMetric(at(0.99), "p99-ms")
	b.ReportMetric(milliseconds(cpu)/float64(len(took)), "cpu-ms/event")
	b.ReportMetric(0, "ns/op")
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// pause is between two breaks: of those that come faster than they are repaired,
// the daemon lets some wait.
const pause = 100 * time.Millisecond

// BenchmarkRepair is a peer's route deleted by somebody, among so many peers:
// the time until it is there again.
func BenchmarkRepair(b *testing.B) {
	for _, peers := range []int{10, 5000} {
		b.Run(fmt.Sprint(peers, " peers"), func(b *testing.B) {
			d := newDaemon(b, peers)
			d.witness()
			var took []time.Duration
			before := self()
			for i := range b.N {
				p := node{1 + i%peers}.subnet()
				dst := &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
				begin := time.Now()
				if err := d.handle.RouteDel(&netlink.Route{Dst: dst}); err != nil {
					b.Fatal(err)
				}
				took = append(took, d.comes(p).Sub(begin))
				<-time.After(pause)
			}
			latencies(b, took, self()-before)
		})
	}
}

// BenchmarkSpecChange is a peer more in the file: the time from the file's
// rename until the route to it is there, which is the last of its objects.
func BenchmarkSpecChange(b *testing.B) {
	for _, peers := range []int{10, 5000} {
		b.Run(fmt.Sprint(peers, " peers"), func(b *testing.B) {
			d := newDaemon(b, peers)
			d.witness()
			with, without := specText(peers+1), specText(peers)
			p := node{peers + 1}.subnet()
			var took []time.Duration
			before := self()
			for range b.N {
				begin := d.save(with)
				took = append(took, d.comes(p).Sub(begin))
				seq := d.Journal().Last()
				d.save(without)
				d.gone(seq, p)
			}
			latencies(b, took, (self()-before)/2)
		})
	}
}

// save replaces the spec's file.
func (d *daemon) save(text []byte) time.Time {
	d.b.Helper()
	next := d.file + ".new"
	if err := os.WriteFile(next, text, 0o600); err != nil {
		d.b.Fatal(err)
	}
	if err := os.Rename(next, d.file); err != nil {
		d.b.Fatal(err)
	}
	return time.Now()
}

// gone waits until the daemon has deleted a route.
func (d *daemon) gone(seq uint64, p netip.Prefix) {
	d.b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for e := range d.Journal().After(ctx, seq) {
		if e.Change != nil && e.Change.Action == change.Delete && e.Change.Kind == "route" && e.Change.Name == p.String() {
			return
		}
	}
	d.b.Fatalf("the route to %s stayed", p)
}

// BenchmarkIdle is what the daemon costs while nothing happens, as a share of
// one CPU.
func BenchmarkIdle(b *testing.B) {
	d := newDaemon(b, 5000)
	const long = 10 * time.Second
	before := self()
	begin := time.Now()
	<-time.After(long)
	b.ReportMetric(100*(self()-before).Seconds()/time.Since(begin).Seconds(), "%cpu")
	b.ReportMetric(0, "ns/op")
	d.Condition()
}

// BenchmarkForeign is what others' doings cost the daemon, beside what it costs
// those who do it.
func BenchmarkForeign(b *testing.B) {
	var routes strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&routes, "route add 198.18.%d.%d/32 dev eth0\n", i/256, i%256)
	}
	add := routes.String()
	for _, of := range []struct {
		name string
		run  func(h host) time.Duration
		each int
	}{
		{"1,000 routes come and go", func(h host) time.Duration {
			return h.batch("ip", add) + h.batch("ip", strings.ReplaceAll(add, "route add", "route del"))
		}, 2000},
		{"nftables commits", func(h host) time.Duration {
			return h.run("sh", "-ec", "for i in $(seq 100); do nft 'add table ip foreign; flush table ip foreign; add chain ip foreign c'; done")
		}, 100},
	} {
		b.Run(of.name, func(b *testing.B) {
			d := newDaemon(b, 5000)
			rounds := total(d.Condition())
			before := self()
			var theirs time.Duration
			for range b.N {
				theirs += of.run(d.host)
			}
			ours := self() - before
			b.ReportMetric(float64(ours.Microseconds())/float64(b.N*of.each), "us/event")
			b.ReportMetric(ours.Seconds()/theirs.Seconds(), "daemon/them")
			b.ReportMetric(float64(total(d.Condition())-rounds), "rounds")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func total(c reconcile.Condition) (n uint64) {
	for cause, count := range c.Counters.Rounds {
		if cause != reconcile.CauseCheck {
			n += count
		}
	}
	return n
}
