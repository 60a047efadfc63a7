package kube

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/poldernet/polder/internal/e2e/process"
	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/spec"
)

func TestMain(m *testing.M) { lab.Main(m) }

// network is a lab with polder as its users have it.
type network struct {
	*testing.T
	*lab.Lab
	Spec   *spec.Spec // that the lab was made from
	polder string     // the program
	dir    string     // of the nodes' state
}

// up makes the lab of a spec, and waits until its links carry packets.
func up(t *testing.T, labText, specText string) *network {
	t.Helper()
	lab.Require(t)
	topology, diags := lab.ParseTopology("test.lab.hcl", []byte(labText))
	if diags.HasErrors() {
		t.Fatalf("%v\nin\n%s", diags, labText)
	}
	file := filepath.Join(t.TempDir(), "polder.hcl")
	if err := os.WriteFile(file, []byte(specText), 0o600); err != nil {
		t.Fatal(err)
	}
	config, diags := spec.Load(file, spec.Inputs{})
	if diags.HasErrors() {
		t.Fatalf("%v\nin\n%s", diags, specText)
	}
	l, err := lab.Up(context.Background(), topology, config.Spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	n := &network{t, l, config.Spec, process.Build(t), t.TempDir()}
	for _, name := range l.Names() {
		n.sh(name, `until [ -z "$(ip -o link show up | grep -v ' state UP \| state UNKNOWN '; ip -6 addr show tentative)" ]; do :; done`)
	}
	return n
}

// stateDir is the state directory of a node.
func (n *network) stateDir(node string) string { return filepath.Join(n.dir, node) }

// daemon is one on a node, with a spec's text in a file of its own.
func (n *network) daemon(node, text string, flags ...string) *process.Process {
	n.Helper()
	d := process.New(n.T, n.polder, n.Node(node), n.stateDir(node), text)
	d.Argv = append(d.Argv, flags...)
	return d
}

// sh runs a shell command on a machine and returns what it prints.
func (n *network) sh(machine, command string) string {
	n.Helper()
	return in(n.T, n.Machine(machine), command)
}

// in runs a shell command in a namespace and returns what it prints.
func in(t *testing.T, ns *lab.Namespace, command string) string {
	t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), process.Endurance)
	defer stop()
	out, err := ns.Command(ctx, "sh", "-ec", command).CombinedOutput()
	if err != nil {
		t.Fatalf("on %s: %s: %v\n%s", ns.Name(), command, err, out)
	}
	return string(out)
}
