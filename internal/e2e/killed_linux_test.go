package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/poldernet/polder/internal/e2e/process"
	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
)

// soaking says for how long a soak is to go on, from POLDER_SOAK; 0: this is no
// soak.
func soaking(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("POLDER_SOAK")
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("POLDER_SOAK: %v", err)
	}
	return d
}

// often is how often a test does something: less in CI than in a soak.
func often(t *testing.T, ci, soak int) int {
	if soaking(t) > 0 {
		return soak
	}
	return ci
}

// edition is one of two specs between which pods keep their paths.
type edition struct {
	text string
	spec *spec.Spec
}

// editions differ by a peer that nobody speaks to, in the masquerade's
// exceptions, and in the name of nothing else.
func editions(t *testing.T, c cluster) [2]edition {
	a, _ := c.text()
	c.network = `masquerade { except = ["203.0.113.0/24", "2001:db8:77::/48"] }`
	b, _ := c.text()
	b += fmt.Sprintf("node \"n4\" {\n  addresses = %s\n  subnets = %s\n}\n",
		c.pods.list("192.0.2.14/24", "2001:db8:2::14/64"), c.pods.list("10.244.4.0/24", "fd00:10:244:4::/64"))
	return [2]edition{{a, load(t, a)}, {b, load(t, b)}}
}

// crew are daemons on all nodes, and what each node is when it is right.
type crew struct {
	*network
	editions [2]edition
	whole    [2]map[string]string // by edition and node
	daemons  map[string]*process.Process
	at       map[string]int // the edition of each node
}

// crew makes a cluster with foreign objects on its first node, finds out what a
// node comes to from nothing, and starts the daemons.
func newCrew(t *testing.T, c cluster) *crew {
	t.Helper()
	n := up(t, c)
	polder := n.build(c)
	crew := &crew{network: n, editions: editions(t, c), daemons: map[string]*process.Process{}, at: map[string]int{}}
	for _, node := range nodeNames {
		n.sh(node, "echo 1 >/proc/sys/net/ipv6/conf/eth0/keep_addr_on_down; echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad")
	}
	n.sh("n1", foreign)
	n.applyAll() // and the pods have their MTU
	for _, node := range nodeNames {
		n.apply(node, nil, reconcile.ModeDestroy)
	}
	for i, e := range crew.editions {
		crew.whole[i] = map[string]string{}
		for _, node := range nodeNames {
			n.apply(node, e.spec, reconcile.ModeApply)
			crew.whole[i][node] = n.settled(node)
			n.apply(node, nil, reconcile.ModeDestroy)
		}
	}
	for _, node := range nodeNames {
		d := polder.process(node, crew.editions[0].text)
		d.Start()
		d.Ready()
		crew.daemons[node] = d
	}
	for _, node := range nodeNames {
		crew.expectWhole(node, "the start")
		n.settle(node)
	}
	return crew
}

// expectWhole expects a node to be as its spec makes it from nothing, once its
// daemon has done what there was to do.
func (c *crew) expectWhole(node, after string) {
	c.t.Helper()
	at, d := c.at[node], c.daemons[node]
	var now string
	for begin := time.Now(); time.Since(begin) < process.Endurance; {
		// A plan may find nothing because the daemon has yet to read a spec that
		// was in the file a moment ago.
		c.matches(d, c.editions[at].spec, after)
		if now = c.settled(node); now == c.whole[at][node] {
			return
		}
		d.Pause()
	}
	c.t.Fatalf("after %s %s is\n%s%s", after, node, difference(c.whole[at][node], now), d.Logbook.Tail())
}

// change saves the other edition.
func (c *crew) change(node string) {
	c.at[node] ^= 1
	c.daemons[node].Write(c.editions[c.at[node]].text)
}

// streams are between the pods of all nodes, within one, and to the outside: a
// packet every ten milliseconds, which leaves a processor to the daemons.
func (c *crew) streams() []traffic {
	c.t.Helper()
	var streams []traffic
	ping := func(from string, to netip.Addr) {
		streams = append(streams, c.pingEvery("0.01", c.lab.Pod(from), from, to.String()))
	}
	for _, f := range spec.Families {
		for _, from := range []string{"p11", "p21", "p31"} {
			for _, to := range []string{"p11", "p21", "p31"} {
				if from != to {
					ping(from, address(c.endpoint(to), f))
				}
			}
			ping(from, outside(f))
		}
		ping("p11", address(c.endpoint("p12"), f))
	}
	return streams
}

// expectAll stops streams of which none may have lost a packet, and says what
// became of them.
func expectAll(t *testing.T, streams []traffic) string {
	t.Helper()
	var total, lost int
	for _, s := range streams {
		sent, received := s.stop()
		total += sent
		if received < sent-1 { // the last may be on its way
			lost += sent - 1 - received
			t.Errorf("%s: %d sent, %d came back", s.name, sent, received)
		}
	}
	return fmt.Sprintf("%d packets, %d lost", total, lost)
}

// TestDaemonKilled kills daemons with SIGKILL at random instants of a start, of
// a change of the spec and of a repair, and starts them again: the node is then
// what it should be, and what is not polder's is as it was. Where nothing was
// broken, no packet was lost over all of it.
func TestDaemonKilled(t *testing.T) {
	c := newCrew(t, cluster{backend: backendDirect, pods: dual})
	random := rand.New(rand.NewPCG(3, 4))
	instants := often(t, 20, 300)

	// How long it takes when nobody interferes.
	d := c.daemons["n1"]
	d.Kill()
	begin := time.Now()
	d.Start()
	d.Ready()
	starts := time.Since(begin)
	mark := d.Logbook.Mark()
	begin = time.Now()
	c.change("n1")
	d.Await(mark, "a change", func(l process.Line) bool { return l.Event == "changed" })
	changes := 2 * time.Since(begin)
	c.expectWhole("n1", "a change of the spec")

	killed := map[string]int{}
	kill := func(d *process.Process, what string, within time.Duration) {
		timer := time.AfterFunc(time.Duration(random.Float64()*float64(within)), func() { _ = d.Cmd.Process.Kill() })
		<-d.Gone
		timer.Stop()
		if state := d.Cmd.ProcessState; state.Exited() {
			t.Fatalf("it was not killed, it ended: %v%s", state, d.Logbook.Tail())
		}
		killed[what]++
	}
	streams := c.streams()
	for i := range instants {
		broken := i >= instants*2/3
		if i == instants*2/3 {
			t.Logf("%d kills with paths that stay: %s", i, expectAll(t, streams))
			streams = c.streams()
		}
		node := nodeNames[random.IntN(len(nodeNames))]
		if broken {
			node = "n1" // of which the damages are
		}
		d, what := c.daemons[node], "change"
		switch {
		case broken && random.IntN(2) == 0:
			what = "repair at a start"
			d.Kill()
			c.breakSomething(random)
			d.Start()
			kill(d, what, starts)
		case broken:
			what = "repair"
			c.breakSomething(random)
			kill(d, what, changes)
		case random.IntN(3) == 0:
			what = "start"
			d.Kill()
			if random.IntN(2) == 0 {
				what = "start with another spec"
				c.change(node)
			}
			d.Start()
			kill(d, what, starts)
		default:
			c.change(node)
			kill(d, what, changes)
		}
		d.Start()
		d.Ready()
		c.expectWhole(node, fmt.Sprintf("kill %d, in a %s,", i+1, what))
		if broken {
			continue
		}
		flowAll(t, streams, 1)
	}
	flowAll(t, streams, 10)
	for _, s := range streams {
		sent, received := s.stop()
		switch lost := sent - 1 - received; {
		case lost <= 0:
		case s.concerns1():
			t.Logf("with damage, %s: %d sent, %d lost", s.name, sent, lost)
		default:
			t.Errorf("%s: %d sent, %d lost, and n1, which was damaged, has no part in it", s.name, sent, lost)
		}
	}
	t.Logf("a start takes %v, a change %v; killed in %v", starts, changes/2, killed)
}

// concerns1 says that a stream begins or ends on n1.
func (f traffic) concerns1() bool {
	return strings.Contains(f.name, "p1") || strings.Contains(f.name, "244.1.") || strings.Contains(f.name, "244:1::")
}

// breakSomething does one or two damages that spare what belongs to others.
func (c *crew) breakSomething(random *rand.Rand) {
	c.t.Helper()
	for range 1 + random.IntN(2) {
		for {
			d := damages[random.IntN(len(damages))]
			if spares(d.command) {
				c.sh("n1", "("+d.command+") 2>/dev/null || true")
				break
			}
		}
	}
}

// spares says that a damage leaves others' objects alone.
func spares(command string) bool {
	for _, sweeping := range []string{"nft flush ruleset", "ip nexthop", "eth0 down"} {
		if strings.Contains(command, sweeping) {
			return false
		}
	}
	return true
}
