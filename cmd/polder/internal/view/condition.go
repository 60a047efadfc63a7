package view

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/reconcile"
)

// Condition is how a daemon stands, as it answers over its control socket and as
// `status --json` repeats it.
type Condition struct {
	FormatVersion string            `json:"format_version"`
	Type          string            `json:"type"` // "condition"
	Time          time.Time         `json:"time"` // of the answer
	PID           int               `json:"pid"`
	Namespace     uint64            `json:"network_namespace"` // its inode, as in the net:[4026531840] of /proc/PID/ns/net
	Started       time.Time         `json:"started"`
	Node          string            `json:"node"`
	StateDir      string            `json:"state_dir"`
	BootDir       string            `json:"boot_dir,omitempty"` // absent: no ruleset is kept for a boot
	Spec          SpecCondition     `json:"spec"`
	Cluster       *ClusterCondition `json:"cluster,omitempty"` // absent: the spec names none
	InSync        bool              `json:"in_sync"`
	Since         time.Time         `json:"since"`      // since when it is in sync, or is not
	Attachable    bool              `json:"attachable"` // what concerns containers is in the kernel
	Ready         bool              `json:"ready"`      // has been in sync since it started
	Held          reconcile.Mode    `json:"held,omitempty"`
	Failures      []Failure         `json:"failures"`
	Conflicts     []change.Conflict `json:"conflicts"`
	Warnings      []string          `json:"warnings"`
	Changes       []ChangeCount     `json:"changes"`
	LastEvent     uint64            `json:"last_event"`
}

// SpecCondition says which spec is in force.
type SpecCondition struct {
	Path     string    `json:"path"`
	Loaded   time.Time `json:"loaded,omitzero"` // when the one in force was read; absent: none is
	Restored bool      `json:"restored"`        // it is that of an earlier run
	Error    string    `json:"error,omitempty"` // what is wrong with the files now
}

// ClusterCondition says what is known of the cluster that the spec names.
type ClusterCondition struct {
	Known bool      `json:"known"`           // until then nothing in the kernel is changed
	Since time.Time `json:"since"`           // since when it is known, or is waited for
	Error string    `json:"error,omitempty"` // why nothing is heard of it now
	// Unsaid is why it does not take what the node publishes.
	Unsaid string `json:"publish_error,omitempty"`
}

// Failure is an object that could not be written, for as long as that lasts.
type Failure struct {
	Change   change.Change `json:"change"`
	Error    string        `json:"error"`
	Attempts int           `json:"attempts"`
	Since    time.Time     `json:"since"`
	Next     time.Time     `json:"next"` // when it is tried again
}

// ChangeCount counts the changes of one sort since the daemon started.
type ChangeCount struct {
	Kind   string        `json:"kind"`
	Action change.Action `json:"action"`
	Repair bool          `json:"repair"` // the object had been right before
	Failed bool          `json:"failed"`
	Count  uint64        `json:"count"`
}

// Process is what a daemon's condition does not say of itself.
type Process struct {
	PID       int
	Namespace uint64 // the network namespace's inode
	StateDir  string
	BootDir   string
}

// NewCondition is the model of a daemon's condition at an instant.
func NewCondition(c reconcile.Condition, p Process, lastEvent uint64, now time.Time) Condition {
	model := Condition{
		FormatVersion: FormatVersion, Type: "condition",
		Time: now, PID: p.PID, Namespace: p.Namespace, Started: c.Started, Node: c.Node, StateDir: p.StateDir, BootDir: p.BootDir,
		Spec:   SpecCondition{Path: c.Spec.Path, Loaded: c.Spec.Loaded, Restored: c.Spec.Restored},
		InSync: c.InSync, Since: c.Since, Attachable: c.Attachable, Ready: c.Ready, Held: c.Held,
		Failures: []Failure{}, Conflicts: orEmpty(c.Conflicts), Warnings: orEmpty(c.Warnings),
		Changes: []ChangeCount{}, LastEvent: lastEvent,
	}
	if c.Spec.Err != nil {
		model.Spec.Error = c.Spec.Err.Error()
	}
	if c.Cluster != nil {
		model.Cluster = &ClusterCondition{Known: c.Cluster.Known, Since: c.Cluster.Since}
		if c.Cluster.Err != nil {
			model.Cluster.Error = c.Cluster.Err.Error()
		}
		if c.Cluster.Unsaid != nil {
			model.Cluster.Unsaid = c.Cluster.Unsaid.Error()
		}
	}
	for _, f := range c.Failures {
		model.Failures = append(model.Failures, Failure{
			Change: f.Change, Error: f.Err.Error(), Attempts: f.Attempts, Since: f.Since, Next: f.Next,
		})
	}
	for k, n := range c.Counters.Changes {
		model.Changes = append(model.Changes, ChangeCount{k.Kind, k.Action, k.Repair, k.Failed, n})
	}
	slices.SortFunc(model.Changes, func(a, b ChangeCount) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Action, b.Action),
			cmp.Compare(asInt(a.Repair), asInt(b.Repair)), cmp.Compare(asInt(a.Failed), asInt(b.Failed)))
	})
	return model
}

// What of a daemon's troubles is shown, so that the status stays on one screen.
const (
	shownFailures  = 5
	shownSpecLines = 8
)

// WriteText renders the condition by itself, with what a status has found out
// otherwise.
func (c Condition) WriteText(w io.Writer, t Text) error {
	return ClusterStatus{Condition: c}.WriteText(w, t)
}

// writeText renders the part of a status that is the daemon's.
func (c Condition) writeText(b *bytes.Buffer, t Text) {
	row := func(label, format string, args ...any) {
		fmt.Fprintf(b, "  %-9s  %s\n", label, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(b, "%s running %s, pid %d\n", t.bold("Daemon:"), c.sinceText(c.Started), c.PID)
	switch {
	case c.Held != "":
		row("held", "%s nothing is repaired until `polder apply`", t.warn("by "+string(c.Held)+":"))
	case c.Spec.Loaded.IsZero():
		row("waiting", "%s", t.bad("for a spec without errors"))
	case c.InSync:
		row("in sync", "%s", t.good(c.sinceText(c.Since)))
	default:
		row("differs", "%s", t.bad(c.sinceText(c.Since)))
	}
	c.writeSpec(b, t, row)
	c.writeCluster(t, row)
	if repairs := c.repairs(); repairs != "" {
		row("repairs", "%s", repairs)
	}
	if n := len(c.Conflicts); n > 0 {
		row("conflicts", "%s", t.bad(fmt.Sprint(n)))
	}
	if n := len(c.Failures); n > 0 {
		row("failing", "%s", t.bad(count(n, "object")))
		c.writeFailures(b, t)
	}
}

func (c Condition) writeCluster(t Text, row func(label, format string, args ...any)) {
	switch {
	case c.Cluster == nil:
		return
	case c.Cluster.Known:
		row("cluster", "known %s", c.sinceText(c.Cluster.Since))
	default:
		row("cluster", "%s", t.bad("waited for "+c.sinceText(c.Cluster.Since)+"; the kernel stays as it is"))
	}
	if c.Cluster.Error != "" {
		row("", "%s", t.bad("nothing is heard of it: "+c.Cluster.Error))
	}
	if c.Cluster.Unsaid != "" {
		row("", "%s", t.bad("it does not take what this node publishes: "+c.Cluster.Unsaid))
	}
}

func (c Condition) writeSpec(b *bytes.Buffer, t Text, row func(label, format string, args ...any)) {
	switch {
	case c.Spec.Loaded.IsZero():
		row("spec", "%s", c.Spec.Path)
	case c.Spec.Restored:
		row("spec", "that of an earlier run, in force %s", c.sinceText(c.Spec.Loaded))
	default:
		row("spec", "%s, in force %s", c.Spec.Path, c.sinceText(c.Spec.Loaded))
	}
	if c.Spec.Error == "" {
		return
	}
	row("rejected", "%s", t.bad(c.Spec.Path+" has errors and is not in force:"))
	lines := strings.Split(strings.TrimSpace(c.Spec.Error), "\n")
	hidden := 0
	if len(lines) > shownSpecLines && !t.Verbose {
		hidden = len(lines) - shownSpecLines
		lines = lines[:shownSpecLines]
	}
	for _, line := range lines {
		b.WriteString(strings.TrimRight("             "+line, " ") + "\n")
	}
	if hidden > 0 {
		fmt.Fprintf(b, "             %s\n", t.faint(fmt.Sprintf("... and %s more; `polder validate` shows them", count(hidden, "line"))))
	}
}

// repairs counts the objects that were put back, by kind, the most first.
func (c Condition) repairs() string {
	byKind := map[string]uint64{}
	var total uint64
	for _, n := range c.Changes {
		if n.Repair && !n.Failed {
			byKind[n.Kind] += n.Count
			total += n.Count
		}
	}
	if total == 0 {
		return ""
	}
	kinds := make([]string, 0, len(byKind))
	for kind := range byKind {
		kinds = append(kinds, kind)
	}
	slices.SortFunc(kinds, func(a, b string) int {
		return cmp.Or(cmp.Compare(byKind[b], byKind[a]), cmp.Compare(a, b))
	})
	for i, kind := range kinds {
		kinds[i] = fmt.Sprintf("%s %d", kind, byKind[kind])
	}
	return fmt.Sprintf("%d: %s", total, strings.Join(kinds, ", "))
}

func (c Condition) writeFailures(b *bytes.Buffer, t Text) {
	shown := c.Failures
	if len(shown) > shownFailures && !t.Verbose {
		shown = shown[:shownFailures]
	}
	for _, f := range shown {
		fmt.Fprintf(b, "    %s %q: %s\n      %s\n", f.Change.Kind, f.Change.Name, f.Error,
			t.faint(fmt.Sprintf("%s in %s, the next in %s", count(f.Attempts, "attempt"), span(c.Time.Sub(f.Since)), span(f.Next.Sub(c.Time)))))
	}
	if hidden := len(c.Failures) - len(shown); hidden > 0 {
		fmt.Fprintf(b, "    %s\n", t.faint(fmt.Sprintf("... and %d more (--all shows them)", hidden)))
	}
}

// sinceText is an instant and how long ago it was.
func (c Condition) sinceText(at time.Time) string {
	return fmt.Sprintf("since %s (%s)", at.Format(time.DateTime), span(c.Time.Sub(at)))
}

// span is a duration with as many digits as people want.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch d = max(d, 0); {
	case d < time.Millisecond:
		return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 2*day:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d days", d/day)
}
