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

	"github.com/poldernet/polder/internal/peers"
	"github.com/poldernet/polder/reconcile"
)

// daemon is `polder run` on n0, within the benchmark's process.
type daemon struct {
	host
	*reconcile.Daemon
	file   string
	handle *netlink.Handle
}

// newDaemon starts a daemon and waits until it is in sync.
func newDaemon(b *testing.B, count int) *daemon {
	b.Helper()
	c := newCluster(b, count)
	d := &daemon{host: newHost(b), file: filepath.Join(c.dir, "polder.hcl")}
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
	d.await(0, reconcile.EventReady)
	return d
}

// await waits for the first event of a type after seq.
func (d *daemon) await(seq uint64, of reconcile.EventType) reconcile.Event {
	d.b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for e := range d.Journal().After(ctx, seq) {
		if e.Type == of {
			return e
		}
	}
	d.b.Fatalf("waited in vain for %s; %s", of, d.Condition())
	return reconcile.Event{}
}

// routes are what the kernel says of them.
type routes struct {
	b       *testing.B
	updates chan netlink.RouteUpdate
}

// witness listens to what becomes of the routes.
func (h host) witness() routes {
	h.b.Helper()
	r := routes{h.b, make(chan netlink.RouteUpdate, 20_000)}
	ended := make(chan struct{})
	h.b.Cleanup(func() { close(ended) })
	err := h.ns.Do(func() error {
		return netlink.RouteSubscribeWithOptions(r.updates, ended, netlink.RouteSubscribeOptions{ReceiveBufferSize: 4 << 20})
	})
	if err != nil {
		h.b.Fatal(err)
	}
	return r
}

// comes waits until the kernel tells that a route has come, and says when.
func (r routes) comes(p netip.Prefix) time.Time { return r.next(unix.RTM_NEWROUTE, p) }

// goes is the same of one that goes.
func (r routes) goes(p netip.Prefix) time.Time { return r.next(unix.RTM_DELROUTE, p) }

func (r routes) next(kind uint16, p netip.Prefix) time.Time {
	r.b.Helper()
	want, timeout := p.String(), time.After(20*time.Second)
	for {
		select {
		case u := <-r.updates:
			if u.Type == kind && u.Dst != nil && u.Dst.String() == want {
				return time.Now()
			}
		case <-timeout:
			r.b.Fatalf("waited in vain for the route to %s", p)
		}
	}
}

// latencies reports the median and the 99th percentile, and the daemon's CPU
// time for one.
func latencies(b *testing.B, took []time.Duration, cpu time.Duration) {
	b.ReportMetric(quantile(took, 0.5), "p50-ms")
	b.ReportMetric(quantile(took, 0.99), "p99-ms")
	b.ReportMetric(milliseconds(cpu)/float64(len(took)), "cpu-ms/event")
	b.ReportMetric(0, "ns/op")
}

// quantile is in milliseconds.
func quantile(took []time.Duration, q float64) float64 {
	sorted := slices.Sorted(slices.Values(took))
	return milliseconds(sorted[int(q*float64(len(sorted)-1))])
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// pause is between two breaks: of those that come faster than they are repaired,
// the daemon lets some wait.
const pause = 100 * time.Millisecond

// BenchmarkRepair is a peer's route deleted by somebody, among so many peers:
// the time until it is there again.
func BenchmarkRepair(b *testing.B) {
	for _, count := range []int{10, 5000} {
		b.Run(fmt.Sprint(count, " peers"), func(b *testing.B) {
			d := newDaemon(b, count)
			routes := d.witness()
			var took []time.Duration
			before := self()
			for i := range b.N {
				p := node{1 + i%count}.subnet()
				dst := &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
				begin := time.Now()
				if err := d.handle.RouteDel(&netlink.Route{Dst: dst}); err != nil {
					b.Fatal(err)
				}
				took = append(took, routes.comes(p).Sub(begin))
				<-time.After(pause)
			}
			latencies(b, took, self()-before)
		})
	}
}

// BenchmarkSpecChange is a peer more in the file: the time from the file's
// rename until the route to it is there, which is the last of its objects, and
// how much of that had passed when the spec was read.
func BenchmarkSpecChange(b *testing.B) {
	for _, count := range []int{10, 5000} {
		b.Run(fmt.Sprint(count, " peers"), func(b *testing.B) {
			d := newDaemon(b, count)
			routes := d.witness()
			with, without := specText(count+1), specText(count)
			p := node{count + 1}.subnet()
			var took, loaded []time.Duration
			before := self()
			for range b.N {
				seq := d.Journal().Last()
				begin := d.save(with)
				took = append(took, routes.comes(p).Sub(begin))
				loaded = append(loaded, d.await(seq, reconcile.EventSpecLoaded).Time.Sub(begin))
				d.save(without)
				routes.goes(p)
				<-time.After(pause)
			}
			latencies(b, took, (self()-before)/2)
			b.ReportMetric(quantile(loaded, 0.5), "loaded-p50-ms")
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

// BenchmarkIdle is what a daemon costs while nothing happens, as a share of one
// CPU.
func BenchmarkIdle(b *testing.B) {
	b.Run("polder", func(b *testing.B) {
		newDaemon(b, 5000)
		idle(b, self)
	})
	for _, rules := range []peers.Rules{peers.IPTables, peers.NFTables} {
		b.Run("flanneld, "+string(rules), func(b *testing.B) { idle(b, newFlannel(b, 5000, rules).cpu) })
	}
}

// calm waits until a daemon has nothing left to do from its start.
func calm(cpu func() time.Duration) {
	for busy := true; busy; {
		before := cpu()
		<-time.After(time.Second)
		busy = cpu()-before > 10*time.Millisecond
	}
}

func idle(b *testing.B, cpu func() time.Duration) {
	calm(cpu)
	const long = 30 * time.Second
	before, begin := cpu(), time.Now()
	<-time.After(long)
	b.ReportMetric(100*(cpu()-before).Seconds()/time.Since(begin).Seconds(), "%cpu")
	b.ReportMetric(0, "ns/op")
}

// foreign are others' doings, and how many events one is.
var foreign = []struct {
	name string
	run  func(h host) time.Duration
	each int
}{
	{"1,000 routes come and go", func(h host) time.Duration {
		var routes strings.Builder
		for i := range 1000 {
			fmt.Fprintf(&routes, "route add 198.18.%d.%d/32 dev eth0\n", i/256, i%256)
		}
		add := routes.String()
		return h.batch("ip", add) + h.batch("ip", strings.ReplaceAll(add, "route add", "route del"))
	}, 2000},
	{"nftables commits", func(h host) time.Duration {
		return h.run("sh", "-ec", "for i in $(seq 100); do nft 'add table ip foreign; flush table ip foreign; add chain ip foreign c'; done")
	}, 100},
}

// BenchmarkForeign is what others' doings cost a daemon, beside what it costs
// those who do it.
func BenchmarkForeign(b *testing.B) {
	for _, of := range foreign {
		b.Run(of.name+"/polder", func(b *testing.B) {
			d := newDaemon(b, 5000)
			calm(self)
			rounds := total(d.Condition())
			bother(b, d.host, self, of.run, of.each)
			b.ReportMetric(float64(total(d.Condition())-rounds), "rounds")
		})
		b.Run(of.name+"/flanneld", func(b *testing.B) {
			f := newFlannel(b, 5000, peers.IPTables)
			calm(f.cpu)
			bother(b, f.host, f.cpu, of.run, of.each)
		})
	}
}

func bother(b *testing.B, h host, cpu func() time.Duration, run func(host) time.Duration, each int) {
	before := cpu()
	var theirs time.Duration
	for range b.N {
		theirs += run(h)
	}
	ours := cpu() - before
	b.ReportMetric(float64(ours.Microseconds())/float64(b.N*each), "us/event")
	b.ReportMetric(ours.Seconds()/theirs.Seconds(), "daemon/them")
	b.ReportMetric(0, "ns/op")
}

func total(c reconcile.Condition) (n uint64) {
	for cause, count := range c.Counters.Rounds {
		if cause != reconcile.CauseCheck {
			n += count
		}
	}
	return n
}
