package e2e

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/poldernet/polder/reconcile"
)

// daemon is `polder run` on a node, within the test's process.
type daemon struct {
	*reconcile.Daemon
	n    *network
	node string
	file string // its spec
	stop context.CancelFunc
	done chan error
}

// run starts a daemon on a node, with a spec's text in a file of its own. It is
// stopped when the test ends.
func (n *network) run(node, text string) *daemon {
	n.t.Helper()
	d := &daemon{n: n, node: node, file: filepath.Join(n.t.TempDir(), "polder.hcl"), done: make(chan error, 1)}
	d.write(text)
	ctx, stop := context.WithCancel(context.Background())
	d.stop = stop
	opened := make(chan error)
	go func() {
		d.done <- n.lab.Node(node).Do(func() (err error) {
			d.Daemon, err = reconcile.OpenDaemon(reconcile.DaemonOptions{
				Source: reconcile.Source{Path: d.file}, Node: node, StateDir: filepath.Join(n.dir, node),
			})
			opened <- err
			if err != nil {
				return err
			}
			d.Run(ctx)
			return d.Close()
		})
	}()
	if err := <-opened; err != nil {
		n.t.Fatalf("opening a daemon on %s: %v", node, err)
	}
	n.t.Cleanup(d.end)
	return d
}

// end stops the daemon. What it has made stays.
func (d *daemon) end() {
	d.stop()
	err, first := <-d.done
	if !first {
		return
	}
	close(d.done)
	if err != nil {
		d.n.t.Errorf("the daemon on %s: %v", d.node, err)
	}
}

// write changes the spec, as an editor that replaces the file does.
func (d *daemon) write(text string) {
	d.n.t.Helper()
	if err := os.WriteFile(d.file+".new", []byte(text), 0o600); err != nil {
		d.n.t.Fatal(err)
	}
	if err := os.Rename(d.file+".new", d.file); err != nil {
		d.n.t.Fatal(err)
	}
}

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// await waits for the first event after seq of which is says that it is the
// one, and returns it.
func (d *daemon) await(seq uint64, what string, is func(reconcile.Event) bool) reconcile.Event {
	d.n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var seen []reconcile.Event
	for e := range d.Journal().After(ctx, seq) {
		if is(e) {
			return e
		}
		seen = append(seen, e)
	}
	d.n.t.Fatalf("the daemon on %s did not tell of %s, but of %+v", d.node, what, seen)
	return reconcile.Event{}
}

// settle waits until a reading from outside finds nothing to do.
func (d *daemon) settle(after string) {
	d.n.t.Helper()
	sp := d.n.spec
	var plan *reconcile.Plan
	for begin := time.Now(); time.Since(begin) < patience; {
		if plan = d.n.plan(d.node, sp, reconcile.ModeApply); plan.Empty() && len(plan.Conflicts) == 0 {
			return
		}
	}
	d.n.t.Fatalf("after %s the node is still different: %+v %+v\nfailures: %+v", after, plan.Changes, plan.Conflicts, d.Condition().Failures)
}
