package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/poldernet/polder/internal/e2e/process"
)

// noise is what other programs do on a node all the time, none of which is
// polder's business.
type noise struct {
	n               *network
	node            string
	commits, routes atomic.Int64 // so far
	making          sync.RWMutex // held by who makes some
	stop            chan struct{}
	running         sync.WaitGroup
}

// commitsEvery and flapsEvery are how often others commit to nftables, and take
// away or restore their routes.
const (
	commitsEvery = 5 * time.Millisecond
	flapsEvery   = 100 * time.Millisecond
)

// noise has others commit to nftables, and flap so many routes.
func (n *network) noise(node string, routes int) *noise {
	n.t.Helper()
	z := &noise{n: n, node: node, stop: make(chan struct{})}
	var conn *nftables.Conn
	err := n.lab.Node(node).Do(func() (err error) {
		conn, err = nftables.New(nftables.AsLasting())
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
	table := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: "noise"}
	chain := &nftables.Chain{Table: table, Name: "c"}
	z.every(n.t, commitsEvery, func() error {
		conn.AddTable(table)
		conn.AddChain(chain)
		conn.FlushTable(table)
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{&expr.Counter{}}})
		z.commits.Add(1)
		return conn.Flush()
	})
	file := filepath.Join(n.t.TempDir(), "routes")
	var lines strings.Builder
	for i := range routes {
		fmt.Fprintf(&lines, "route VERB 198.18.%d.%d/32 via 192.0.2.1 proto static\n", i/250, i%250)
	}
	for _, verb := range []string{"replace", "del"} {
		if err := os.WriteFile(file+verb, []byte(strings.ReplaceAll(lines.String(), "VERB", verb)), 0o600); err != nil {
			n.t.Fatal(err)
		}
	}
	z.every(n.t, flapsEvery, func() error {
		for _, verb := range []string{"replace", "del"} {
			// Others may have taken the underlay down.
			if err := n.lab.Node(node).Command(context.Background(), "ip", "-force", "-batch", file+verb).Run(); err != nil {
				continue
			}
			z.routes.Add(int64(routes))
		}
		return nil
	})
	n.t.Cleanup(func() {
		z.end()
		if err := conn.CloseLasting(); err != nil {
			n.t.Error(err)
		}
	})
	return z
}

// every does something again and again.
func (z *noise) every(t *testing.T, interval time.Duration, do func() error) {
	z.running.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-z.stop:
				return
			}
			z.making.RLock()
			err := do()
			z.making.RUnlock()
			if err != nil {
				t.Error(err)
				return
			}
		}
	})
}

// still does something while there is no noise, nor a trace of it.
func (z *noise) still(do func()) {
	z.n.t.Helper()
	z.making.Lock()
	defer z.making.Unlock()
	z.n.sh(z.node, "nft 'add table ip noise; delete table ip noise'; ip route flush root 198.18.0.0/15")
	do()
}

// end stops the noise. It may be called again.
func (z *noise) end() {
	select {
	case <-z.stop:
	default:
		close(z.stop)
	}
	z.running.Wait()
}

// crowd makes and deletes so many links at once.
func (n *network) crowd(node string, links int) (arrive, leave func()) {
	n.t.Helper()
	file := filepath.Join(n.t.TempDir(), "links")
	var lines strings.Builder
	for i := range links / 2 {
		fmt.Fprintf(&lines, "link add crowd%d group 7 type veth peer name crowd%d-b\n", i, i)
	}
	if err := os.WriteFile(file, []byte(lines.String()), 0o600); err != nil {
		n.t.Fatal(err)
	}
	return func() { n.sh(node, "ip -batch "+file) }, func() { n.sh(node, "ip link del group 7") }
}

// TestDaemonNoise: a foreign process that commits to nftables without end, a
// thousand foreign routes that flap, and a thousand links that come at once and
// go, make the daemon read nothing and do nothing; and what is broken meanwhile
// is repaired as ever.
func TestDaemonNoise(t *testing.T) {
	n, whole := wholeNode(t)
	text, _ := damagedCluster.text()
	d := n.build(damagedCluster).process("n1", text)
	d.Start()
	d.Ready()
	lasts := 3 * time.Second
	if soaking(t) > 0 {
		lasts = time.Minute
	}
	measure := func(what string) {
		before, began := d.Content(what), time.Now()
		arrive, leave := n.crowd("n1", 1000)
		for time.Since(began) < lasts {
			arrive()
			leave()
		}
		after := d.Content(what)
		took := time.Since(began)
		grown := func(name string, labels ...string) float64 {
			return after.Sum(name, labels...) - before.Sum(name, labels...)
		}
		cpu := grown("process_cpu_seconds_total")
		t.Logf("%s, %v: %.0f notifications of rtnetlink, %.0f commits; CPU %.2f s, %.1f %% of one", what, took.Round(time.Millisecond),
			grown("polder_notifications_total", "rtnetlink"), grown("polder_notifications_total", "nftables"), cpu, 100*cpu/took.Seconds())
		if relevant := grown("polder_notifications_relevant_total"); relevant > 0 {
			t.Errorf("%s: %.0f of them led to a reading%s", what, relevant, d.Logbook.Tail())
		}
		if lost := grown("polder_notifications_lost_total"); lost > 0 {
			t.Errorf("%s: notifications were lost %.0f times", what, lost)
		}
		if rounds := grown("polder_rounds_total") - grown("polder_rounds_total", `"check"`); rounds > 0 {
			t.Errorf("%s: %.0f rounds", what, rounds)
		}
	}
	noise := n.noise("n1", 1000)
	measure("commits, flapping routes and links")

	arrive, leave := n.crowd("n1", 1000)
	mark := d.Logbook.Mark()
	arrive()
	n.sh("n1", "ip route del 10.244.3.0/24; nft delete element inet polder vxlan_peers4 '{ 192.0.2.12 }'")
	leave()
	_, l := d.Await(mark, "the route", func(l process.Line) bool { return l.Event == "changed" && l.Kind == "route" })
	t.Logf("a route is repaired in the midst of it after %.1f ms", 1000*l.Took)
	n.matches(d, n.spec, "damage amid noise")
	noise.still(func() {
		if after := n.settled("n1"); after != whole {
			t.Errorf("the node is\n%s", difference(whole, after))
		}
	})
	if noise.end(); noise.commits.Load() == 0 || noise.routes.Load() == 0 {
		t.Errorf("there was no noise: %d commits, %d routes", noise.commits.Load(), noise.routes.Load())
	}
}
