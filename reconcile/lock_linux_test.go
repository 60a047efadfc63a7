package reconcile

import (
	"errors"
	"testing"

	"github.com/poldernet/polder/internal/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

func namespace(t *testing.T, name string) *lab.Namespace {
	t.Helper()
	lab.Require(t)
	ns, err := lab.NewNamespace(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	})
	return ns
}

func openIn(ns *lab.Namespace, dir string) (a *Applier, err error) {
	err = ns.Do(func() (err error) {
		a, err = OpenApplier(Options{StateDir: dir})
		return err
	})
	return a, err
}

// TestOneApplier: a second applier of one namespace is refused until the first
// is closed; one of another namespace is not. Planners are not refused.
func TestOneApplier(t *testing.T) {
	n1, n2 := namespace(t, "n1"), namespace(t, "n2")
	dir := t.TempDir()
	first, err := openIn(n1, dir)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := openIn(n1, t.TempDir()); !errors.Is(err, ErrBusy) || second != nil {
		t.Errorf("a second applier: %v", err)
	}
	other, err := openIn(n2, dir)
	if err != nil {
		t.Fatalf("an applier of another namespace: %v", err)
	}
	err = n1.Do(func() error {
		p, err := Open(Options{StateDir: dir})
		if err != nil {
			return err
		}
		return p.Close()
	})
	if err != nil {
		t.Errorf("a planner beside the applier: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if first, err = openIn(n1, dir); err != nil {
		t.Fatalf("after the first is closed: %v", err)
	}
	if err := errors.Join(first.Close(), other.Close()); err != nil {
		t.Error(err)
	}
}
