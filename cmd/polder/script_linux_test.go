package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/spec"
)

var update = flag.Bool("update", false, "write what commands print into the scripts anew")

// testMain lets testscript be what the sandbox runs.
type testMain func()

func (f testMain) Run() int { f(); return 0 }

// TestMain makes the test binary be polder where it is called so, in scripts
// and in the namespaces of a lab.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "polder" {
		main()
	}
	lab.Main(testMain(func() { testscript.Main(m, map[string]func(){"polder": main}) }))
}

// TestScripts runs the scripts that need no kernel, and TestLabScripts those
// that do. They have commands of their own:
//
//	exits N CMD...         runs a command and wants the exit status N
//	lab EXAMPLE            brings the example's lab up, with its spec
//	[!] on MACHINE CMD...  runs a command on a node, pod or host of the lab
func TestScripts(t *testing.T) { runScripts(t, "testdata/script") }

func TestLabScripts(t *testing.T) {
	lab.Require(t)
	runScripts(t, "testdata/lab")
}

func runScripts(t *testing.T, dir string) {
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("NO_COLOR", "1")
			env.Setenv("GORACE", os.Getenv("GORACE"))
			env.Values[scriptLabKey{}] = &scriptLab{}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": cmdExits,
			"lab":   cmdLab,
			"on":    cmdOn,
		},
	})
}

// scriptLab is the lab of one script, in its values.
type scriptLab struct{ *lab.Lab }

type scriptLabKey struct{}

func labOf(ts *testscript.TestScript) *scriptLab {
	l, ok := ts.Value(scriptLabKey{}).(*scriptLab)
	if !ok {
		ts.Fatalf("the script was not set up")
	}
	return l
}

func cmdLab(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: lab EXAMPLE")
	}
	l, err := upExample(args[0])
	ts.Check(err)
	labOf(ts).Lab = l
	ts.Defer(func() { ts.Check(l.Close()) })
}

// upExample brings up the lab of an example, with its folder at /etc/polder.
func upExample(example string) (_ *lab.Lab, err error) {
	dir, err := filepath.Abs(filepath.Join("..", "..", "examples", example))
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.lab.hcl"))
	if err != nil || len(files) != 1 {
		return nil, errors.Join(err, fmt.Errorf("%s has %d lab files", dir, len(files)))
	}
	topology, diags := lab.LoadTopology(files[0])
	if diags.HasErrors() {
		return nil, diags
	}
	config, diags := spec.Load(dir, spec.Inputs{})
	if diags.HasErrors() {
		return nil, diags
	}
	l, err := lab.Up(context.Background(), topology, config.Spec)
	if err != nil {
		return nil, err
	}
	if err := l.MountSpec(dir); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func cmdOn(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: on MACHINE CMD...")
	}
	status := runOn(ts, args[0], args[1:])
	if neg == (status == 0) {
		ts.Fatalf("exit status %d", status)
	}
}

func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits N CMD...")
	}
	var status int
	if args[1] == "on" && len(args) > 3 {
		status = runOn(ts, args[2], args[3:])
	} else {
		status = exitStatus(ts, ts.Exec(args[1], args[2:]...))
	}
	if fmt.Sprint(status) != args[0] {
		ts.Fatalf("exit status %d, want %s", status, args[0])
	}
}

// runOn runs a command on a machine of the script's lab, with the script's
// working directory and environment, and returns its exit status.
func runOn(ts *testscript.TestScript, machine string, argv []string) int {
	l := labOf(ts)
	if l.Lab == nil {
		ts.Fatalf("there is no lab: begin with lab EXAMPLE")
	}
	n := l.Machine(machine)
	if n == nil {
		ts.Fatalf("the lab has no %s, only %s", machine, strings.Join(l.Names(), ", "))
	}
	cmd := n.Command(context.Background(), argv...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = append(os.Environ(), "NO_COLOR=1", "WORK="+ts.Getenv("WORK"))
	cmd.Stdout, cmd.Stderr = ts.Stdout(), ts.Stderr()
	return exitStatus(ts, cmd.Run())
}

func exitStatus(ts *testscript.TestScript, err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	ts.Check(err)
	return 0
}
