package overlay

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/poldernet/polder/spec"
)

// watching is a host whose kernel is listened to.
type watching struct {
	host
	sp      *spec.Spec
	reader  *Reader
	writer  *Writer
	watcher *Watcher
}

func newWatching(t *testing.T, sp *spec.Spec) *watching {
	w := &watching{host: newHost(t), sp: sp}
	// Two readings see the same only if no address is being probed meanwhile.
	w.sh("for f in /proc/sys/net/ipv6/conf/*/accept_dad; do echo 0 >$f; done")
	w.do(func() (err error) {
		if w.reader, err = OpenReader(); err != nil {
			return err
		}
		if w.writer, err = OpenWriter(""); err != nil {
			return err
		}
		w.watcher, err = OpenWatcher()
		return err
	})
	t.Cleanup(func() {
		if err := errors.Join(w.reader.Close(), w.writer.Close(), w.watcher.Close()); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *watching) do(fn func() error) {
	w.t.Helper()
	if err := w.ns.Do(fn); err != nil {
		w.t.Fatal(err)
	}
}

// events are those that are there.
func (w *watching) events() (events []Event) {
	w.t.Helper()
	err := w.watcher.conn.Control(func(fd uintptr) {
		for {
			more, err := w.watcher.drain(int(fd))
			if err != nil {
				w.t.Error(err)
			}
			if events = append(events, more...); len(more) == 0 {
				return
			}
		}
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return events
}

// read is a reading that no event came between, and all events before it.
func (w *watching) read() (o *Observed, events []Event) {
	w.t.Helper()
	for {
		events = append(events, w.events()...)
		w.do(func() (err error) {
			o, err = w.reader.Read(context.Background(), ScopeOf(w.sp, w.sp.Node("n1")))
			return err
		})
		more := w.events()
		if len(more) == 0 {
			return o, events
		}
		events = append(events, more...)
	}
}

func (w *watching) refresh(old *Observed, c Class) (o *Observed) {
	w.t.Helper()
	w.do(func() (err error) {
		o, err = w.reader.Refresh(context.Background(), old, c)
		return err
	})
	return o
}

// plan is what a reading leads to. Sysctls, which a reading does not hold, are
// read now.
func (w *watching) plan(o *Observed) (plan Plan, text string) {
	w.t.Helper()
	desired, err := Compile(w.sp, w.sp.Node("n1"), o.Facts)
	if err != nil {
		text, _, _ = strings.Cut(err.Error(), "it has") // a list of all links
		return Plan{}, text
	}
	var paths []string
	for path := range desired.Sysctls {
		paths = append(paths, path)
	}
	state := o.State
	w.do(func() (err error) {
		state.Sysctls, err = w.reader.Sysctls(paths)
		return err
	})
	plan = Diff(desired, state)
	lines := strings.Split(plan.text(), "\n")
	slices.Sort(lines) // conflicts of one object come in any order
	return plan, desired.text() + fmt.Sprintf("underlay %v local %v\n", desired.Underlay, desired.Local) + strings.Join(lines, "\n")
}

func (w *watching) apply(plan Plan) {
	w.t.Helper()
	w.do(func() error {
		w.writer.Apply(context.Background(), plan.Ops, func(i int, err error) {
			if err != nil {
				w.t.Logf("operation %d: %v", i, err)
			}
		})
		return nil
	})
}

func concerns(o *Observed, events []Event) (c Class) {
	for _, e := range events {
		c |= o.Concerns(e)
	}
	return c
}

// silent is what the kernel tells nobody: of a link that is down, that its alias
// changes, and how it is a port (dev.c, netdev_state_change).
func silent(before, after *Observed) Class {
	for i, now := range after.links {
		was, there := before.links[i]
		if there && !now.Up && (was.Alias != now.Alias || was.raw.bridgeMember != now.raw.bridgeMember) {
			return Links
		}
	}
	return 0
}

func describeEvents(o *Observed, events []Event) string {
	var b strings.Builder
	for _, e := range events {
		fmt.Fprintf(&b, "%-12s gone=%-5t %T%+v\n", o.Concerns(e), e.gone, e.of, e.of)
	}
	return b.String()
}

// happenings are what others do on a host, and what of it may matter to us.
var happenings = []string{
	"ip link add f1 type veth peer name f2", "ip link set f1 up", "ip link set f2 up", "ip link set f1 down", "ip link del f1",
	"ip link set f1 name f9", "ip link set f9 name f1", "ip link set f1 mtu 1400", "ip link set f1 address 02:00:00:00:77:01",
	"ip addr add 198.51.100.1/24 dev f1", "ip addr add 198.51.100.9/24 dev f1", "ip addr del 198.51.100.1/24 dev f1",
	"ip addr add 192.0.2.11/32 dev f1", "ip addr del 192.0.2.11/32 dev f1", "ip addr add 10.130.0.1/24 dev f1",
	"ip link add br5 type bridge", "ip link set f1 master br5", "ip link set f1 master cni0", "ip link set f1 nomaster", "ip link del br5",
	"bridge link set dev f1 hairpin on", "ip link set v1 nomaster", "ip link set v1 master cni0", "bridge link set dev v1 hairpin on", "bridge link set dev v1 hairpin off",
	"ip link set v1 type bridge_slave hairpin on", "ip link set p1 down", "ip link set p1 up", "ip link set v1 down; ip link set v1 up",
	"ip link set polder.1 master br5", "ip link set polder.1 nomaster",
	"ip link set eth0 mtu 1400", "ip link set eth0 mtu 1500", "ip link set eth0 down", "ip link set eth0 up", "ip link set wire down", "ip link set wire up",
	"ip addr del 192.0.2.11/24 dev eth0", "ip addr add 192.0.2.11/24 dev eth0", "ip addr add 192.0.2.200/24 dev eth0", "ip addr del 192.0.2.200/24 dev eth0",
	"ip addr add 2001:db8::11/64 dev eth0 nodad", "ip addr add 2001:db8::99/64 dev eth0", "ip addr del 2001:db8::99/64 dev eth0",
	"ip link set eth0 down; ip link set eth0 name eth7; ip link set eth7 up", "ip link set eth7 down; ip link set eth7 name eth0; ip link set eth0 up",
	"ip route add 203.0.113.0/24 via 192.0.2.1", "ip route del 203.0.113.0/24", "ip route add default via 192.0.2.1", "ip route del default",
	"ip route add 192.0.2.12/32 via 192.0.2.1", "ip route replace 192.0.2.12/32 via 192.0.2.77", "ip route del 192.0.2.12/32", "ip route add 192.0.2.13/32 dev f1",
	"ip route add unreachable 192.0.2.13/32", "ip -6 route add 2001:db8::12/128 via 2001:db8::1", "ip -6 route del 2001:db8::12/128",
	"ip -6 route add default via fe80::1 dev eth0 proto ra", "ip -6 route del default via fe80::1 dev eth0 proto ra", "ip -6 route add default via fe80::2 dev f1 proto ra",
	"ip route add 10.244.60.0/24 dev f1", "ip route add 10.244.60.0/24 dev f1 metric 5", "ip route append 10.244.60.0/24 via 198.51.100.7", "ip route del 10.244.60.0/24",
	"ip -6 route add fd00:10:244:60::/64 dev f1", "ip -6 route append fd00:10:244:60::/64 via 2001:db8::8", "ip -6 route append fd00:10:244:60::/64 via 2001:db8::9",
	"ip -6 route del fd00:10:244:60::/64 via 2001:db8::8", "ip route add 10.244.2.0/24 via 198.51.100.7 metric 9", "ip route add 10.244.2.0/25 via 192.0.2.1 proto 87",
	"ip rule add to 192.0.2.13 lookup 100", "ip rule del to 192.0.2.13 lookup 100", "ip route add 192.0.2.13 via 192.0.2.1 table 100", "ip route flush table 100",
	"ip nexthop add id 7 via 192.0.2.1 dev eth0", "ip nexthop replace id 7 via 192.0.2.77 dev eth0", "ip nexthop replace id 7 via 198.51.100.7 dev f1", "ip nexthop del id 7",
	"ip nexthop add id 8 via 192.0.2.78 dev eth0", "ip nexthop replace id 9 group 7/8", "ip nexthop replace id 9 group 8", "ip nexthop del id 9",
	"ip route replace 192.0.2.12/32 nhid 7", "ip route replace 192.0.2.12/32 nhid 9", "ip route add 10.244.61.0/24 nhid 7", "ip route add 10.244.61.0/24 nhid 9",
	"ip nexthop add id 77 via 192.0.2.1 dev eth0 proto 87", "ip nexthop del id 77",
	"ip link add vx5 type vxlan id 5 dstport 8472 local 192.0.2.11 dev eth0", "ip link add vx5 type vxlan id 1 dstport 8472 local 192.0.2.11 dev eth0", "ip link del vx5",
	"ip link set vx5 alias 'polder cluster=test'", "ip link set f1 alias 'polder cluster=test'", "ip link set f1 alias ''",
	"ip neigh replace 192.0.2.12 lladdr 02:00:00:00:88:01 dev eth0", "ip neigh del 192.0.2.12 dev eth0", "bridge fdb add 02:00:00:00:88:01 dev v1 master static",
	"bridge fdb add 02:00:00:00:88:02 dev vx5 dst 192.0.2.99 self permanent", "ip neigh replace 10.244.9.9 lladdr 02:00:00:00:88:01 dev cni0",
	"ip link add v2 type veth peer name p2; ip link set v2 up", "ip link del v2", "ip link set v2 master cni0",
	"echo 1 >/proc/sys/net/ipv4/conf/f1/forwarding", "echo 0 >/proc/sys/net/ipv4/conf/f1/forwarding",
	"ip addr flush dev cni0", "ip addr flush dev polder.1", "ip -6 addr flush dev polder-v6.1", "ip route flush proto 87", "ip neigh flush dev polder.1 nud permanent",
	"ip addr add 10.244.1.1/24 dev cni0", "ip addr add fd00:10:244:1::1/64 dev cni0",
}

// TestConcernsMissNothing: whatever happens on the host, after the classes that
// the events concern were read again, the plan is that of a full reading. In
// particular, where they concern nothing, nothing has changed.
func TestConcernsMissNothing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := cluster{nodes: 3, backend: rapid.SampledFrom([]spec.Backend{vxlan(), direct(), hostGW()}).Draw(rt, "backend")}
		c.families = rapid.SampledFrom([][]spec.Family{onlyIPv4, onlyIPv6, dual}).Draw(rt, "families")
		c.underlay = c.families
		sp := c.spec()
		sp.Endpoints = []*spec.Endpoint{{Name: "e", Node: "n1", Interface: "v2"}}
		switch rapid.IntRange(0, 3).Draw(rt, "underlay") {
		case 0:
			sp.Network.Underlay.Interface = "eth0"
		case 1:
			sp.Network.Underlay.RouteTo = nodeAddress(c.families[0], 2)
		}
		w := newWatching(t, sp)
		w.sh("ip link add v1 type veth peer name p1; ip link set v1 up; ip link set p1 up; ip link add f1 type veth peer name f2; ip link set f1 up; ip addr add 198.51.100.1/24 dev f1")
		held, _ := w.read()
		plan, _ := w.plan(held)
		w.apply(plan)
		w.sh("ip link set v1 master cni0")
		held, _ = w.read()
		did := []string{}
		for i := range rapid.IntRange(1, 12).Draw(rt, "steps") {
			label := fmt.Sprint("step ", i)
			repaired := false
			switch rapid.IntRange(0, 5).Draw(rt, label) {
			case 0:
				command := rapid.SampledFrom(damages).Draw(rt, label+" damage").command
				w.sh("(" + command + ") 2>/dev/null || true")
				did = append(did, command)
			case 1:
				plan, text := w.plan(held)
				w.apply(plan)
				repaired = true
				did = append(did, "repair by "+text)
				held = w.refresh(held, Touched(plan.Ops))
			default:
				command := rapid.SampledFrom(happenings).Draw(rt, label+" happening")
				w.sh("(" + command + ") 2>/dev/null || true")
				did = append(did, command)
			}
			fresh, events := w.read()
			if c := concerns(fresh, events) &^ Sysctls; repaired && c != 0 {
				rt.Fatalf("after %s the echo concerns %s:\n%s", strings.Join(did, "\n"), c, describeEvents(fresh, events))
			}
			classes := concerns(held, events) | silent(held, fresh)
			partial := w.refresh(held, classes)
			_, got := w.plan(partial)
			_, want := w.plan(fresh)
			if got != want {
				rt.Fatalf("after %s, of which %s was read again, the plan is\n%s\nand after a full reading\n%s\nevents\n%s",
					strings.Join(did, "\n"), classes, got, want, describeEvents(held, events))
			}
			held = partial
		}
	})
}

// TestSilentLosses: with its link's carrier or state the kernel removes nexthop
// objects and IPv4 routes, and announces none of these.
func TestSilentLosses(t *testing.T) {
	for _, command := range []string{"ip link set wire down", "ip link set eth0 down"} {
		t.Run(command, func(t *testing.T) {
			w := newWatching(t, cluster{nodes: 3, families: onlyIPv4, underlay: onlyIPv4, backend: hostGW()}.spec())
			held, _ := w.read()
			plan, _ := w.plan(held)
			w.apply(plan)
			held, _ = w.read()
			eth0 := 0
			for i, l := range held.links {
				if l.Name == "eth0" {
					eth0 = i
				}
			}
			w.sh(command)
			var classes Class
			waitFor(t, w.watcher, func(e Event) bool {
				classes |= held.Concerns(e)
				l, ok := e.of.(rawLink)
				return ok && l.ifindex == eth0 && !l.carrier
			})
			if fresh, _ := w.read(); len(fresh.State.NextHops) > 0 || len(held.State.NextHops) != 2 {
				t.Fatalf("the nexthop objects were %v and are %v", held.State.NextHops, fresh.State.NextHops)
			}
			if classes&(Links|Routes|Paths) != Links|Routes|Paths {
				t.Errorf("it concerns %s", classes)
			}
		})
	}
}

// TestForeignFlap: routes of others come and go, as they do where a routing
// daemon runs.
func TestForeignFlap(t *testing.T) {
	w := newWatching(t, cluster{nodes: 3, families: dual, underlay: dual, backend: direct()}.spec())
	held, _ := w.read()
	plan, _ := w.plan(held)
	w.apply(plan)
	held, _ = w.read()
	w.sh(`for verb in add del; do
		for i in $(seq 0 999); do echo route $verb 198.18.$((i / 250)).$((i % 250))/32 via 192.0.2.1 proto bird; done | ip -batch -
	done`)
	events := w.events()
	if c := concerns(held, events); len(events) < 2000 || c != 0 {
		t.Errorf("%d events concern %s", len(events), c)
	}
}

// TestWatcherOverflow: what the kernel had to drop is said, and what comes
// after that is heard again.
func TestWatcherOverflow(t *testing.T) {
	h := newHost(t)
	var w *Watcher
	err := h.ns.Do(func() (err error) { w, err = openWatcher(4096); return err })
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	for range 3 {
		h.sh("for i in $(seq 1 200); do echo route add 198.18.0.$i/32 via 192.0.2.1; done | ip -batch -; ip route flush root 198.18.0.0/16")
		if _, err := w.Next(t.Context()); !errors.Is(err, ErrLost) {
			t.Fatalf("after an overflow: %v", err)
		}
		for _, verb := range []string{"add", "del"} {
			h.sh("ip route " + verb + " 203.0.113.0/24 via 192.0.2.1")
			waitFor(t, w, func(e Event) bool {
				r, ok := e.of.(rawRoute)
				return ok && r.Dst.String() == "203.0.113.0/24" && e.gone == (verb == "del")
			})
		}
	}
}

// waitFor waits for an event.
func waitFor(t *testing.T, w *Watcher, is func(Event) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		events, err := w.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(events, is) {
			return
		}
	}
}

// TestWatcherEnds: a wait ends with its context or with the watcher, at once,
// and nothing is left of it.
func TestWatcherEnds(t *testing.T) {
	h := newHost(t)
	files := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	h.sh("true")
	before, goroutines := files(), runtime.NumGoroutine()
	for range 50 {
		var w *Watcher
		if err := h.ns.Do(func() (err error) { w, err = OpenWatcher(); return err }); err != nil {
			t.Fatal(err)
		}
		for _, end := range []func(context.CancelFunc) error{
			func(cancel context.CancelFunc) error { cancel(); return context.Canceled },
			func(context.CancelFunc) error { _ = w.Close(); return os.ErrClosed },
		} {
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() {
				var err error
				for err == nil { // the host's own link-local address may have come
					_, err = w.Next(ctx)
				}
				ended <- err
			}()
			want := end(cancel)
			if err := <-ended; !errors.Is(err, want) {
				t.Fatalf("the wait ended with %v, want %v", err, want)
			}
			cancel()
		}
		if _, err := w.Next(t.Context()); !errors.Is(err, os.ErrClosed) {
			t.Fatalf("a closed watcher: %v", err)
		}
	}
	if after := files(); after > before {
		t.Errorf("%d descriptors were open, and are %d", before, after)
	}
	for runtime.NumGoroutine() > goroutines {
		runtime.Gosched()
	}
}

// TestWatcherAfterCancel: a context that ends late takes no later wait along.
func TestWatcherAfterCancel(t *testing.T) {
	h := newHost(t)
	var w *Watcher
	if err := h.ns.Do(func() (err error) { w, err = OpenWatcher(); return err }); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	for i := range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		h.sh(fmt.Sprintf("ip route add 198.18.0.%d/32 via 192.0.2.1", i))
		go cancel()
		for got := 0; got == 0; { // one of the two hears it
			events, err := w.Next(ctx)
			if errors.Is(err, context.Canceled) {
				events, err = w.Next(t.Context())
			}
			if err != nil {
				t.Fatal(err)
			}
			got = len(events)
		}
	}
}
