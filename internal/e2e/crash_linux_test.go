package e2e

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/poldernet/polder/internal/e2e/process"
	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
)

// program is polder as users have it, for one cluster's nodes.
type program struct {
	*network
	file, spec string
}

// build builds it and writes the spec.
func (n *network) build(c cluster) program {
	n.t.Helper()
	p := program{n, process.Build(n.t), filepath.Join(n.t.TempDir(), "polder.hcl")}
	text, _ := c.text()
	if err := os.WriteFile(p.spec, []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
	return p
}

// command is a run of it on a node.
func (p program) command(node string, args ...string) *lab.Cmd {
	argv := append([]string{p.file}, args...)
	argv = append(argv, "--spec", p.spec, "--node", node, "--state-dir", filepath.Join(p.dir, node))
	return p.lab.Node(node).Command(context.Background(), argv...)
}

// process is a daemon on a node, with a spec's text in a file of its own.
func (p program) process(node, text string) *process.Process {
	p.t.Helper()
	return process.New(p.t, p.file, p.lab.Node(node), filepath.Join(p.dir, node), text)
}

// matches waits until a reading from outside finds nothing to do for a daemon.
func (n *network) matches(d *process.Process, sp *spec.Spec, after string) {
	n.t.Helper()
	var plan *reconcile.Plan
	for begin := time.Now(); time.Since(begin) < process.Endurance; {
		if plan = n.plan(d.Node.Name(), sp, reconcile.ModeApply); plan.Empty() && len(plan.Conflicts) == 0 {
			return
		}
		d.Pause()
	}
	n.t.Fatalf("after %s %s is still different: %+v %+v\n%s", after, d.Node.Name(), plan.Changes, plan.Conflicts, d.Logbook.Tail())
}

// TestKilledApply kills the program at many points of an apply, over what the
// one before has left. The next whole apply gives what an undisturbed one
// gives; and destroy then knows what was there before the first.
func TestKilledApply(t *testing.T) {
	t.Parallel()
	c := cluster{backend: backendDirect, pods: dual}
	n := up(t, c)
	polder := n.build(c)
	n.sh("n1", clearSwitches)
	before := n.settled("n1")
	n.apply("n1", n.spec, reconcile.ModeApply)
	whole := n.settled("n1")
	n.apply("n1", nil, reconcile.ModeDestroy)

	start := time.Now()
	if out, err := polder.command("n1", "apply", "--auto-approve").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	takes := time.Since(start)
	random := rand.New(rand.NewPCG(1, 2))
	damages := []string{
		"true", "nft flush ruleset", "ip link del cni0", "ip link del polder.1; ip link del polder-v6.1",
		"ip nexthop flush", "nft delete table inet polder; ip link del cni0; ip link del polder.1",
	}
	killed := 0
	const wanted, most = 10, 60
	for i := 0; killed < wanted && i < most; i++ {
		args := []string{"apply", "--auto-approve"}
		if i%4 == 3 {
			args[0] = "destroy"
		}
		cmd := polder.command("n1", args...)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		begin := time.Now()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(time.Duration(random.Float64()*float64(takes)), func() { _ = cmd.Process.Kill() })
		err := cmd.Wait()
		if timer.Stop(); err != nil && cmd.ProcessState.ExitCode() >= 0 {
			t.Fatalf("it was not killed, it failed: %v\n%s", err, out.String())
		} else if err != nil {
			killed++
		} else {
			takes = min(takes, time.Since(begin)) // the first one was slow
		}
		if i%2 == 0 {
			n.sh("n1", "("+damages[random.IntN(len(damages))]+") 2>/dev/null || true")
		}
		if i%3 == 2 {
			n.apply("n1", n.spec, reconcile.ModeApply)
			n.expectNothing(n.spec)
			if after := n.settled("n1"); after != whole {
				t.Fatalf("after %d killed runs:\n%s", i+1, difference(whole, after))
			}
			n.apply("n1", nil, reconcile.ModeDestroy)
			if after := n.settled("n1"); after != before {
				t.Fatalf("after %d killed runs, destroy leaves\n%s", i+1, difference(before, after))
			}
		}
	}
	if killed < wanted {
		t.Errorf("of %d runs only %d were killed", most, killed)
	}
	n.apply("n1", n.spec, reconcile.ModeApply)
	n.apply("n1", nil, reconcile.ModeDestroy)
	n.expectForgotten("n1")
}

// TestOneApplyAtATime: while one polder changes a namespace another is refused,
// says why, and changes nothing. Plans are free.
func TestOneApplyAtATime(t *testing.T) {
	c := cluster{backend: backendVXLAN, pods: dual}
	n := up(t, c)
	polder := n.build(c)
	var holder *reconcile.Applier
	err := n.lab.Node("n1").Do(func() (err error) {
		holder, err = reconcile.OpenApplier(n.options("n1", n.spec))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	before := n.settled("n1")
	for _, command := range []string{"apply", "destroy", "release"} {
		cmd := polder.command("n1", command, "--auto-approve")
		out, err := cmd.CombinedOutput()
		if err == nil || cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "another polder is at work") {
			t.Errorf("%s: %v\n%s", command, err, out)
		}
	}
	if out, err := polder.command("n1", "plan").CombinedOutput(); err != nil || !strings.Contains(string(out), "to add") {
		t.Errorf("plan: %v\n%s", err, out)
	}
	if after := n.settled("n1"); after != before {
		t.Errorf("refused, they changed\n%s", difference(before, after))
	}
	// Another namespace is another matter.
	if out, err := polder.command("n2", "apply", "--auto-approve").CombinedOutput(); err != nil {
		t.Errorf("on another node: %v\n%s", err, out)
	}
	if err := holder.Close(); err != nil {
		t.Fatal(err)
	}
	if out, err := polder.command("n1", "apply", "--auto-approve").CombinedOutput(); err != nil {
		t.Errorf("once it is free: %v\n%s", err, out)
	}
	n.expectNothing(n.spec)
}
