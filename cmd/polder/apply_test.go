package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/poldernet/polder/cmd/polder/internal/view"
	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/reconcile"
)

func TestOnlyYesIsConsent(t *testing.T) {
	for answer, want := range map[string]bool{
		"yes\n":    true,
		"yes":      true, // printf yes | polder apply
		" yes \n":  true,
		"y\n":      false,
		"YES\n":    false,
		"yes no\n": false,
		"\n":       false,
		"":         false,
		"no\nyes":  false,
	} {
		var out bytes.Buffer
		a := &app{streams: streams{in: strings.NewReader(answer), out: &out}}
		err := a.confirm(t.Context(), reconcile.ModeApply)
		if (err == nil) != want {
			t.Errorf("%q: %v", answer, err)
		}
		if said := strings.Contains(out.String(), "Apply cancelled. Nothing was changed."); said == want {
			t.Errorf("%q: printed %q", answer, out.String())
		}
	}
}

// A signal while the question stands is a no.
func TestInterruptedQuestion(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	in, keep := io.Pipe() // never answers
	defer keep.Close()
	var out bytes.Buffer
	a := &app{streams: streams{in: in, out: &out}}
	if err := a.confirm(ctx, reconcile.ModeDestroy); !errors.Is(err, exitError) {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(out.String(), "Destroy cancelled. Nothing was changed.") {
		t.Errorf("printed %q", out.String())
	}
}

// scripted applies by a list of errors, one a change; it ends where the list
// does.
type scripted struct {
	errs      []error
	remaining []change.Change
	ended     error
	during    func()
}

func (s scripted) Apply(_ context.Context, plan *reconcile.Plan, report func(reconcile.Outcome)) (*reconcile.Result, error) {
	result := &reconcile.Result{Remaining: s.remaining}
	for i, err := range s.errs {
		o := reconcile.Outcome{Change: plan.Changes[i], Err: err}
		result.Outcomes = append(result.Outcomes, o)
		report(o)
	}
	if s.during != nil {
		s.during()
	}
	return result, s.ended
}

func planOf(n int) *reconcile.Plan {
	plan := &reconcile.Plan{Mode: reconcile.ModeApply, Node: "n1"}
	for range n {
		plan.Changes = append(plan.Changes, change.Change{Action: change.Create, Kind: "route", Name: "10.244.2.0/24"})
	}
	return plan
}

func TestApplyTellsWhatBecameOfThePlan(t *testing.T) {
	unreachable := errors.New("network is unreachable")
	for _, test := range []struct {
		name  string
		plan  *reconcile.Plan
		apply scripted
		want  []string
		err   error
	}{
		{
			"done", planOf(2), scripted{errs: []error{nil, nil}},
			[]string{"created route \"10.244.2.0/24\"", "Apply complete. 2 added, 0 changed, 0 removed."}, nil,
		},
		{
			"failed", planOf(2), scripted{errs: []error{nil, unreachable}},
			[]string{"not created route", "Apply incomplete. 1 of 2 changes done", "1 change failed:", "network is unreachable"}, exitError,
		},
		{
			"stopped", planOf(3), scripted{errs: []error{nil}, ended: errors.New("reading nftables: no buffer space available")},
			[]string{"Apply incomplete. 1 of 3 changes done", "Stopped early: reading nftables"}, exitError,
		},
		{
			"not as planned", planOf(1), scripted{errs: []error{nil}, remaining: planOf(1).Changes},
			[]string{"Read again, the kernel still differs:", "+ route"}, exitError,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out bytes.Buffer
			a := &app{streams: streams{out: &out}}
			err := (&changer{}).apply(t.Context(), a, test.apply, test.plan, view.Text{})
			if !errors.Is(err, test.err) {
				t.Errorf("got %v, want %v", err, test.err)
			}
			for _, want := range test.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("%q is not in\n%s", want, out.String())
				}
			}
		})
	}
}

func TestInterruptedApplySaysWhatWasDone(t *testing.T) {
	for daemon, next := range map[bool]string{false: "another apply goes on from there", true: "the daemon goes on from there"} {
		ctx, cancel := context.WithCancel(t.Context())
		var out bytes.Buffer
		a := &app{streams: streams{out: &out}}
		apply := scripted{errs: []error{nil}, during: cancel, ended: context.Canceled}
		if err := (&changer{daemon: daemon}).apply(ctx, a, apply, planOf(2), view.Text{}); !errors.Is(err, exitError) {
			t.Errorf("got %v", err)
		}
		for _, want := range []string{"1 of 2 changes done", "Stopped early: interrupted; what is done stays done, and " + next} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%q is not in\n%s", want, out.String())
			}
		}
	}
}

// The disk is full, or the terminal gone: the node is not left half done, and
// the loss is not kept quiet.
func TestApplyGoesOnWithoutOutput(t *testing.T) {
	applied := false
	a := &app{streams: streams{out: failingWriter{}}}
	apply := scripted{errs: []error{nil, nil}, during: func() { applied = true }}
	err := (&changer{}).apply(t.Context(), a, apply, planOf(2), view.Text{})
	if err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("got %v", err)
	}
	if !applied {
		t.Error("the apply stopped")
	}
}

func TestApplyJSONIsLines(t *testing.T) {
	for _, n := range []int{0, 3} {
		var out bytes.Buffer
		a := &app{streams: streams{out: &out}}
		if err := (&changer{asJSON: true}).apply(t.Context(), a, scripted{errs: make([]error, n)}, planOf(n), view.Text{}); err != nil {
			t.Fatal(err)
		}
		var types []string
		for line := range strings.Lines(out.String()) {
			var head struct {
				FormatVersion string `json:"format_version"`
				Type          string `json:"type"`
			}
			if err := json.Unmarshal([]byte(line), &head); err != nil || head.FormatVersion != "1.1" {
				t.Errorf("%v: %s", err, line)
			}
			types = append(types, head.Type)
		}
		want := strings.Repeat("outcome ", n) + "result"
		if got := strings.Join(types, " "); got != want {
			t.Errorf("lines are %s, want %s", got, want)
		}
	}
}

// Long applies report progress, and no line for each of thousands of routes.
func TestLongApplyIsBrief(t *testing.T) {
	const n = 2*progressStep + 1
	errs := make([]error, n)
	errs[3] = errors.New("file exists")
	var out bytes.Buffer
	a := &app{streams: streams{out: &out}}
	if err := (&changer{}).apply(t.Context(), a, scripted{errs: errs}, planOf(n), view.Text{}); !errors.Is(err, exitError) {
		t.Fatalf("got %v", err)
	}
	if lines := strings.Count(out.String(), "\n"); lines > 12 {
		t.Errorf("%d lines", lines)
	}
	for _, want := range []string{"not created route", "500 of 1001 done", "1000 of 1001 done", "1000 of 1001 changes done"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
}
