package view

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/reconcile"
)

// Outcome is what became of one change, as `apply --json` prints it while it
// goes on.
type Outcome struct {
	FormatVersion string        `json:"format_version"`
	Type          string        `json:"type"` // "outcome"
	Change        change.Change `json:"change"`
	Done          bool          `json:"done"`
	Error         string        `json:"error,omitempty"`
}

// NewOutcome is the model of an outcome.
func NewOutcome(o reconcile.Outcome) Outcome {
	model := Outcome{FormatVersion: FormatVersion, Type: "outcome", Change: o.Change, Done: o.Err == nil}
	if o.Err != nil {
		model.Error = o.Err.Error()
	}
	return model
}

// WriteText renders the outcome as one line of an apply's progress.
func (o Outcome) WriteText(w io.Writer, t Text) error {
	s := signOf(o.Change.Action)
	if o.Done {
		_, err := fmt.Fprintf(w, "  %s %s %q\n", t.paint(s.past, s.colour), o.Change.Kind, o.Change.Name)
		return err
	}
	_, err := fmt.Fprintf(w, "  %s %s %q: %s\n", t.bad("not "+s.past), o.Change.Kind, o.Change.Name, o.Error)
	return err
}

// Result is what became of a plan: the last line of `apply --json`.
type Result struct {
	FormatVersion string         `json:"format_version"`
	Type          string         `json:"type"` // "result"
	Mode          reconcile.Mode `json:"mode"`
	Node          string         `json:"node"`
	Complete      bool           `json:"complete"` // all done, and found so on a second reading
	Planned       int            `json:"planned"`
	Done          int            `json:"done"`
	Summary       change.Summary `json:"summary"` // of what was done
	Failed        []Outcome      `json:"failed"`
	// Remaining is what the second reading still finds different. It is empty
	// also where there was no second reading: see Error.
	Remaining []change.Change `json:"remaining"`
	Conflicts int             `json:"conflicts"`
	Error     string          `json:"error,omitempty"` // what ended the apply early
}

// NewResult is the model of what became of plan. outcomes are all that were
// reported; ended is what made the apply stop early, or nil.
func NewResult(plan *reconcile.Plan, outcomes []reconcile.Outcome, remaining []change.Change, ended error) Result {
	r := Result{
		FormatVersion: FormatVersion,
		Type:          "result",
		Mode:          plan.Mode,
		Node:          plan.Node,
		Planned:       len(plan.Changes),
		Failed:        []Outcome{},
		Remaining:     orEmpty(remaining),
		Conflicts:     len(plan.Conflicts),
	}
	// A success that the second reading does not confirm is none.
	var done []change.Change
	for _, o := range outcomes {
		if o.Err == nil {
			done = append(done, o.Change)
		} else {
			r.Failed = append(r.Failed, NewOutcome(o))
		}
	}
	r.Done, r.Summary = len(done), change.Summarize(done)
	if ended != nil {
		r.Error = ended.Error()
	}
	r.Complete = ended == nil && len(r.Failed)+len(r.Remaining)+r.Conflicts == 0
	return r
}

// WriteText renders the result.
func (r Result) WriteText(w io.Writer, t Text) error {
	var b bytes.Buffer
	name := strings.ToUpper(string(r.Mode[:1])) + string(r.Mode[1:])
	if r.Complete {
		fmt.Fprintf(&b, "\n%s %s. %s\n", t.good(name+" complete."), r.counts(), reached(r.Mode, r.Node))
		return flush(w, &b)
	}
	fmt.Fprintf(&b, "\n%s %d of %s done: %s.\n", t.bad(name+" incomplete."),
		r.Done, count(r.Planned, "change"), r.counts())
	if r.Error != "" {
		fmt.Fprintf(&b, "Stopped early: %s\n", r.Error)
	}
	if len(r.Failed) > 0 {
		fmt.Fprintf(&b, "\n%s failed:\n", count(len(r.Failed), "change"))
		for _, o := range r.Failed {
			fmt.Fprintf(&b, "  %s %q: %s\n", o.Change.Kind, o.Change.Name, o.Error)
		}
	}
	if len(r.Remaining) > 0 {
		fmt.Fprintf(&b, "\nRead again, the kernel still differs:\n")
		writeBrief(&b, t, r.Remaining)
	}
	if r.Conflicts > 0 {
		fmt.Fprintf(&b, "\n%s left, listed in the plan.\n", count(r.Conflicts, "conflict"))
	}
	return flush(w, &b)
}

func (r Result) counts() string {
	s := r.Summary
	parts := []string{fmt.Sprintf("%d added, %d changed, %d removed", s.Add, s.Change, s.Remove)}
	if s.Adopt > 0 {
		parts = append(parts, fmt.Sprintf("%d adopted", s.Adopt))
	}
	if s.Release > 0 {
		parts = append(parts, fmt.Sprintf("%d released", s.Release))
	}
	return strings.Join(parts, ", ")
}

// reached is the state in which there is nothing to do. It was read from the
// kernel, not concluded from the absence of errors.
func reached(mode reconcile.Mode, node string) string {
	switch mode {
	case reconcile.ModeApply:
		return fmt.Sprintf("Node %s matches the spec.", node)
	case ModeClean:
		return fmt.Sprintf("Nothing on node %s is left of flannel or Felix that polder removes.", node)
	case reconcile.ModeDestroy, reconcile.ModeRelease:
	}
	return fmt.Sprintf("Nothing on node %s carries polder's mark.", node)
}

// shownBrief is how many changes a list of brief lines shows before it is cut.
const shownBrief = 10

func writeBrief(b *bytes.Buffer, t Text, changes []change.Change) {
	shown := changes
	if len(shown) > shownBrief && !t.Verbose {
		shown = shown[:shownBrief]
	}
	for _, c := range shown {
		fmt.Fprintf(b, "  %s\n", brief(t, c))
	}
	if hidden := len(changes) - len(shown); hidden > 0 {
		fmt.Fprintf(b, "  %s\n", t.faint(fmt.Sprintf("... and %d more; `polder plan` shows them", hidden)))
	}
}
