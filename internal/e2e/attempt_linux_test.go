package e2e

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
)

// attempt is an apply that may fail in part, with what became of it.
type attempt struct {
	t      *testing.T
	plan   *reconcile.Plan
	result *reconcile.Result
	err    error // of Apply
}

// attempt plans on a node, lets something happen to it, and applies the plan.
func (n *network) attempt(node string, sp *spec.Spec, mode reconcile.Mode, between string) (a attempt) {
	n.t.Helper()
	a.t = n.t
	var applier *reconcile.Applier
	defer func() {
		if applier != nil {
			if err := applier.Close(); err != nil {
				n.t.Error(err)
			}
		}
	}()
	err := n.lab.Node(node).Do(func() (err error) {
		if applier, err = reconcile.OpenApplier(n.options(node, sp)); err != nil {
			return err
		}
		a.plan, err = applier.Plan(context.Background(), mode)
		return err
	})
	if err != nil {
		n.t.Fatalf("planning on %s: %v", node, err)
	}
	if between != "" {
		n.sh(node, between)
	}
	var reported []reconcile.Outcome
	_ = n.lab.Node(node).Do(func() error { // the error is kept in a
		a.result, a.err = applier.Apply(context.Background(), a.plan, func(o reconcile.Outcome) { reported = append(reported, o) })
		return nil
	})
	if a.result == nil {
		n.t.Fatalf("an apply without a result: %v", a.err)
	}
	if len(reported) != len(a.result.Outcomes) {
		n.t.Errorf("%d outcomes are reported, and the result has %d", len(reported), len(a.result.Outcomes))
	}
	if len(reported) != len(a.plan.Changes) {
		n.t.Errorf("%d changes are planned, and %d outcomes reported", len(a.plan.Changes), len(reported))
	}
	return a
}

// subject is a change's object as one word: "route 10.244.2.0/24".
func subject(c change.Change) string { return c.Kind + " " + c.Name }

// expectFailed fails unless exactly these objects failed, each of them once.
func (a attempt) expectFailed(subjects ...string) {
	a.t.Helper()
	left := map[string]int{}
	for _, s := range subjects {
		left[s]++
	}
	for _, o := range a.result.Failed() {
		s := subject(o.Change)
		if left[s]--; left[s] < 0 {
			a.t.Errorf("%s failed: %v", s, o.Err)
		}
	}
	for s, n := range left {
		if n > 0 {
			a.t.Errorf("%s did not fail", s)
		}
	}
}

// expectRemaining fails unless exactly these objects remain to be done.
func (a attempt) expectRemaining(subjects ...string) {
	a.t.Helper()
	left := map[string]bool{}
	for _, s := range subjects {
		left[s] = true
	}
	for _, c := range a.result.Remaining {
		if s := subject(c); !left[s] {
			a.t.Errorf("%s remains: %+v", s, c)
		} else {
			delete(left, s)
		}
	}
	for s := range left {
		a.t.Errorf("%s does not remain", s)
	}
}

// expectError fails unless planning on a node ends with an error that says so.
func (n *network) expectError(node string, sp *spec.Spec, words ...string) {
	n.t.Helper()
	err := n.lab.Node(node).Do(func() (err error) {
		p, err := reconcile.Open(n.options(node, sp))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, p.Close()) }()
		_, err = p.Plan(context.Background(), reconcile.ModeApply)
		return err
	})
	if err == nil {
		n.t.Errorf("no error, want one with %q", words)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			n.t.Errorf("the error %q does not say %q", err, w)
		}
	}
}

// expectForgotten fails while the state directory of a node holds anything.
func (n *network) expectForgotten(node string) {
	n.t.Helper()
	left, err := filepath.Glob(filepath.Join(n.dir, node, "*"))
	if err != nil {
		n.t.Fatal(err)
	}
	for _, file := range left {
		text, err := os.ReadFile(file)
		n.t.Errorf("the state directory holds %s: %s %v", file, text, err)
	}
}
