package kube

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/poldernet/polder/internal/lab/station"
	"github.com/poldernet/polder/spec"
)

var (
	churnActions = flag.Int("churn.actions", 200, "how much TestChurn does to each of its clusters")
	churnSeed    = flag.Uint64("churn.seed", 1, "which of all the things it could do; 0: any")
)

// churn is a cluster to which everything happens that does.
type churn struct {
	*cluster
	belief
	dice
	sequence
	machines map[string]*machine // of nodes and outside
	cut      string              // the node that does not hear the API server; "": none
	dead     string              // the node whose daemon does not run; "": none
	now      opinion             // of who has heard of all
	apart    map[string]opinion  // of the nodes whose Node is gone, where it is another
	log      []string
	done     map[string]int
	judged   map[string]int // packets, by what must become of them
}

// TestChurn does what happens in clusters, in an order that a seed draws, to nodes
// with daemons and pods that are attached by CNI plugins. Whenever all has been
// heard of, packets must become of what the evaluator says of the cluster as the
// test has made it.
func TestChurn(t *testing.T) {
	for name, direct := range map[string]bool{"direct": true, "vxlan": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // they mostly wait for clients that wait before they ask again
			newChurn(t, direct).run()
		})
	}
}

// newChurn makes a cluster with a few pods.
func newChurn(t *testing.T, direct bool) *churn {
	t.Helper()
	seed := *churnSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-churn.seed=%d -churn.actions=%d", seed, *churnActions)
	c := &churn{
		cluster: inCluster(t, direct), dice: dice{rand.New(rand.NewPCG(seed, 0))}, machines: map[string]*machine{},
		done: map[string]int{}, judged: map[string]int{},
	}
	c.forbidden = map[uint32]probe{}
	c.belief = belief{base: c.Spec, nodes: map[string]*claim{}, namespaces: map[string]map[string]string{}, pods: map[string]*pod{}, policies: map[string]*networkingv1.NetworkPolicy{}}
	t.Cleanup(c.report)
	for _, name := range []string{"n1", "n2", "n3", "outside"} {
		m, err := station.Open(c.Machine(name), spec.ProtocolTCP)
		c.must(err)
		t.Cleanup(m.Close)
		c.machines[name] = m
	}
	for _, name := range namespaceNames {
		labels := c.namespaceLabels()
		c.api.Namespace(t, name, labels)
		c.namespaces[name] = labels
	}
	for _, name := range nodeNames {
		n, err := c.api.Client.CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
		c.must(err)
		c.nodes[name] = claimOf(n)
	}
	c.setNode(foreignNode, addressesOf(3), subnetsOf(3))
	for _, node := range []string{"n1", "n1", "n2", "n2", "n3"} {
		c.create(node)
	}
	return c
}

func (c *churn) run() {
	c.settle("the beginning")
	c.check()
	began := time.Now()
	for count := 0; count < *churnActions; {
		count += c.step()
		then := time.Now()
		c.settle(c.log[len(c.log)-1])
		c.check()
		if time.Since(then) > tired {
			for _, node := range nodeNames {
				c.kill(node)()
			}
		}
	}
	c.Logf("%d actions in %v: %v", len(c.log), time.Since(began).Round(time.Second), c.done)
	c.Logf("packets: %v", c.judged)
}

// tired is how long a settle takes after which daemons are killed: their clients have
// failed so often that they wait for up to a minute before they ask again, for as long
// as that goes on.
const tired = 5 * time.Second

// note writes down what is done next.
func (c *churn) note(kind, format string, args ...any) {
	c.done[kind]++
	c.log = append(c.log, kind+" "+fmt.Sprintf(format, args...))
}

// report leaves of a failed test what it takes to understand it.
func (c *churn) report() {
	if !c.Failed() {
		return
	}
	dir, err := os.MkdirTemp("", "churn")
	if err == nil {
		err = c.write(dir)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "actions"), []byte(strings.Join(c.log, "\n")+"\n"), 0o600)
	}
	if err != nil {
		c.Error(err)
	}
	c.Logf("the cluster, and all actions: %s\nthe last actions:\n%s", dir, strings.Join(c.log[max(0, len(c.log)-40):], "\n"))
}

// step does a few things, some of them while something is not there, and says how
// many.
func (c *churn) step() (count int) {
	undo := func() {}
	switch n := c.IntN(100); {
	case n < 4:
		c.note("restart", "the API server")
		c.must(c.api.Stop())
		c.check() // what it told stays in force
		c.must(c.api.Start(c.Context()))
	case n < 7:
		c.note("compact", "etcd")
		c.must(c.api.Etcd.Compact(c.Context()))
	case n < 22:
		undo = c.deafen(of(c.dice, nodeNames...))
	case n < 32:
		undo = c.kill(of(c.dice, nodeNames...))
	case n < 42:
		undo = c.expel(of(c.dice, nodeNames...))
	}
	count = len(c.log)
	for range 1 + c.IntN(4) {
		c.act()
	}
	undo()
	if c.chance(8) {
		c.kill(of(c.dice, nodeNames...))() // while it hears of that
	}
	return max(1, len(c.log)-count)
}

// deafen cuts a node off the API server, of which it is told or not. That one may
// know less than before when it is back: from where the node was, etcd may not be
// watched, nor an API server that was started since.
func (c *churn) deafen(node string) (undo func()) {
	c.cut = node
	wire := c.wires[node]
	if c.chance(30) {
		c.note("stall", "the connection of %s to the API server", node)
		wire.Stall()
	} else {
		c.note("cut", "%s off the API server", node)
		c.must(wire.Refuse())
	}
	compact, restart := c.chance(50), c.chance(40)
	return func() {
		if compact {
			c.note("compact", "etcd, behind the back of %s", node)
			c.must(c.api.Etcd.Compact(c.Context()))
		}
		if restart {
			// What is gone nobody tells of any more.
			for range 2 {
				c.removePolicy()
			}
			c.onPod(c.remove)
			for _, name := range []string{foreignNode, ghost} {
				if c.nodes[name] != nil && c.chance(50) {
					c.unnode(name)
				}
			}
			c.note("restart", "the API server, behind the back of %s", node)
			c.must(c.api.Stop())
			c.must(c.api.Start(c.Context()))
		}
		c.note("open", "the connection of %s", node)
		c.must(wire.Open())
		c.cut = ""
	}
}

// kill has a node without its daemon.
func (c *churn) kill(node string) (undo func()) {
	c.dead = node
	c.note("kill", "the daemon of %s", node)
	c.engines[node].Kill()
	return func() {
		c.note("start", "the daemon of %s", node)
		c.engines[node].Start()
		c.dead = ""
	}
}
