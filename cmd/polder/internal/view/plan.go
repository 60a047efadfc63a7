package view

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/reconcile"
)

// Plan is a plan as `plan --json` prints it.
type Plan struct {
	FormatVersion string `json:"format_version"`
	Type          string `json:"type"` // "plan"
	// ID is the same for two plans that do the same.
	ID        string            `json:"id,omitempty"`
	Mode      reconcile.Mode    `json:"mode"`
	Node      string            `json:"node"`
	Summary   change.Summary    `json:"summary"`
	Changes   []change.Change   `json:"changes"`
	Conflicts []change.Conflict `json:"conflicts"`
	Warnings  []string          `json:"warnings"`
}

// ModeClean is that of a plan which removes what others have left. It is not the
// reconciler's: what it is about is not polder's.
const ModeClean reconcile.Mode = "clean"

// NewPlan is the model of a plan.
func NewPlan(p *reconcile.Plan) Plan {
	return Plan{
		FormatVersion: FormatVersion,
		Type:          "plan",
		ID:            p.ID(),
		Mode:          p.Mode,
		Node:          p.Node,
		Summary:       change.Summarize(p.Changes),
		Changes:       orEmpty(p.Changes),
		Conflicts:     orEmpty(p.Conflicts),
		Warnings:      orEmpty(p.Warnings),
	}
}

// orEmpty keeps `null` out of the JSON: readers get a list every time.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// Plans up to fullPlan changes are printed in full. In longer ones, which are
// thousands of peers more often than not, each kind of change shows its first
// few; --verbose and --json give all.
const (
	fullPlan    = 200
	shownOfKind = 5
)

// WriteText renders the plan: the verdict, what will be done, and the verdict
// again, for the first has scrolled away by then.
func (p Plan) WriteText(w io.Writer, t Text) error {
	var b bytes.Buffer
	verdict := p.verdict(t)
	fmt.Fprintf(&b, "%s\n", verdict)
	if len(p.Changes)+len(p.Conflicts)+len(p.Warnings) == 0 {
		return flush(w, &b)
	}
	if len(p.Changes) > 0 {
		p.writeLegend(&b, t)
		p.writeChanges(&b, t)
	}
	if p.Mode == ModeClean {
		writeConflictsUnder(&b, t, "In the way. What they keep stays.", p.Conflicts)
	} else {
		writeConflicts(&b, t, p.Conflicts)
	}
	writeWarnings(&b, t, p.Warnings)
	fmt.Fprintf(&b, "\n%s\n", verdict)
	return flush(w, &b)
}

// verdict is the plan in one line.
func (p Plan) verdict(t Text) string {
	s := p.Summary
	var line string
	switch {
	case len(p.Changes) > 0:
		line = t.bold("Plan:") + fmt.Sprintf(" %d to add, %d to change, %d to remove", s.Add, s.Change, s.Remove)
		if s.Adopt > 0 {
			line += fmt.Sprintf(", %d to adopt", s.Adopt)
		}
		if s.Release > 0 {
			line += fmt.Sprintf(", %d to release", s.Release)
		}
		line += "."
	case len(p.Conflicts) > 0:
		line = t.bold("No changes can be made.")
	default:
		line = t.good("No changes.") + " " + reached(p.Mode, p.Node)
	}
	if n := len(p.Conflicts); n > 0 {
		line += " " + t.bad(count(n, "conflict")+" in the way.")
	}
	return line
}

func (p Plan) writeLegend(b *bytes.Buffer, t Text) {
	present := map[change.Action]bool{}
	for _, c := range p.Changes {
		if !c.Detail || t.Verbose {
			present[c.Action] = true
		}
	}
	b.WriteString("\n")
	for _, s := range signs {
		if present[s.action] {
			fmt.Fprintf(b, "%s %s\n", t.paint(fmt.Sprintf("%5s", s.symbol), s.colour), strings.TrimSpace(s.verb+" "+legendTail(s)))
		}
	}
}

// legendTail explains a verb in brackets where there is one.
func legendTail(s sign) string {
	if s.verb == "" {
		return s.legend
	}
	return "(" + s.legend + ")"
}

// group is what is cut together in a long plan.
type group struct {
	action change.Action
	kind   string
}

func (p Plan) writeChanges(b *bytes.Buffer, t Text) {
	limit := shownOfKind
	if t.Verbose || len(p.Changes) <= fullPlan {
		limit = len(p.Changes)
	}
	fmt.Fprintf(b, "\n%s\n\n", t.bold(p.intent()))
	seen := map[group]int{}
	var order []group
	for _, c := range p.Changes {
		if c.Detail && !t.Verbose {
			continue
		}
		g := group{c.Action, c.Kind}
		if seen[g] == 0 {
			order = append(order, g)
		}
		seen[g]++
		if seen[g] <= limit {
			writeChange(b, t, c)
		}
	}
	first := true
	for _, g := range order {
		if hidden := seen[g] - limit; hidden > 0 {
			if first {
				fmt.Fprintf(b, "\n  %s\n", t.faint("Of long lists the first few are shown; --verbose shows all."))
				first = false
			}
			s := signOf(g.action)
			fmt.Fprintf(b, "%s %s not shown\n", t.paint(fmt.Sprintf("%5s", s.symbol), s.colour),
				strings.TrimSpace(s.verb+" "+count(hidden, g.kind)))
		}
	}
}

func (p Plan) intent() string {
	switch p.Mode {
	case reconcile.ModeDestroy:
		return fmt.Sprintf("What polder will remove from node %s:", p.Node)
	case reconcile.ModeRelease:
		return fmt.Sprintf("What polder will let go of on node %s:", p.Node)
	case ModeClean:
		return fmt.Sprintf("What polder will remove from node %s of what others have left:", p.Node)
	case reconcile.ModeApply:
	}
	return fmt.Sprintf("What polder will do on node %s:", p.Node)
}

func writeConflicts(b *bytes.Buffer, t Text, conflicts []change.Conflict) {
	writeConflictsUnder(b, t, "Conflicts: not polder's, and in the way. They are left alone, with all that needs their place.", conflicts)
}

func writeConflictsUnder(b *bytes.Buffer, t Text, title string, conflicts []change.Conflict) {
	if len(conflicts) == 0 {
		return
	}
	fmt.Fprintf(b, "\n%s\n", t.bad(title))
	for _, c := range conflicts {
		fmt.Fprintf(b, "\n  %s %s %q: %s\n", t.bad("!"), c.Kind, c.Name, c.Reason)
		writeIndented(b, "      ", c.Remedy)
	}
}

func writeWarnings(b *bytes.Buffer, t Text, warnings []string) {
	for _, warning := range warnings {
		fmt.Fprintf(b, "\n%s ", t.warn("Warning:"))
		writeIndented(b, "", warning)
	}
}

// writeIndented indents every line of a text.
func writeIndented(b *bytes.Buffer, indent, text string) {
	for line := range strings.Lines(strings.TrimRight(text, "\n") + "\n") {
		if line != "\n" {
			b.WriteString(indent)
		}
		b.WriteString(line)
	}
}

func flush(w io.Writer, b *bytes.Buffer) error {
	_, err := w.Write(b.Bytes())
	return err
}
