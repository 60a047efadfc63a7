package view

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/poldernet/polder/reconcile"
)

// Status is a node's condition as `status --json` prints it.
type Status struct {
	Plan
	InSync    bool       `json:"in_sync"`
	Peers     []Peer     `json:"peers"`
	Firewalls []Firewall `json:"firewalls"`
	// Daemon is absent where none runs, or where it cannot be asked: see
	// DaemonError.
	Daemon      *Condition `json:"daemon,omitempty"`
	DaemonError string     `json:"daemon_error,omitempty"`
}

// Firewall is a base chain of somebody else's that drops what polder lets
// through.
type Firewall struct {
	Chain  string `json:"chain"`
	Reason string `json:"reason"`
	Remedy string `json:"remedy"`
}

// NewStatus is the model of a status.
func NewStatus(s *reconcile.Status) Status {
	model := Status{
		Plan:      NewPlan(s.Plan),
		InSync:    s.InSync(),
		Peers:     newPeers(s.Peers),
		Firewalls: []Firewall{},
	}
	model.Type, model.ID = "status", "" // what is shown here is not to be approved
	for _, f := range s.Firewalls {
		model.Firewalls = append(model.Firewalls, Firewall(f))
	}
	return model
}

// WriteText renders the status on one screen, or in full where t.Verbose is set.
func (s Status) WriteText(w io.Writer, t Text) error {
	var b bytes.Buffer
	s.writeSync(&b, t)
	s.writeDaemon(&b, t)
	if len(s.Peers) == 0 {
		b.WriteString("\nPeers: none\n")
	}
	writePeers(&b, t, s.Peers)
	for _, f := range s.Firewalls {
		fmt.Fprintf(&b, "\n%s foreign chain %q drops pod traffic: %s.\n", t.warn("Firewall:"), f.Chain, f.Reason)
		writeIndented(&b, "  ", f.Remedy)
	}
	writeWarnings(&b, t, s.Warnings)
	return flush(w, &b)
}

func (s Status) writeDaemon(b *bytes.Buffer, t Text) {
	b.WriteString("\n")
	switch {
	case s.Daemon != nil:
		s.Daemon.writeText(b, t)
	case s.DaemonError != "":
		fmt.Fprintf(b, "%s %s\n", t.bold("Daemon:"), t.warn(s.DaemonError))
	default:
		fmt.Fprintf(b, "%s none is running; what somebody changes stays so until the next apply\n", t.bold("Daemon:"))
	}
}

func (s Status) writeSync(b *bytes.Buffer, t Text) {
	if s.InSync {
		fmt.Fprintf(b, "%s %s\n", t.bold(s.Node+":"), t.good("in sync with the spec"))
		return
	}
	var why []string
	if n := len(s.Changes); n > 0 {
		why = append(why, count(n, "difference"))
	}
	if n := len(s.Conflicts); n > 0 {
		why = append(why, count(n, "conflict"))
	}
	fmt.Fprintf(b, "%s %s: %s\n", t.bold(s.Node+":"), t.bad("not in sync"), strings.Join(why, ", "))
	if len(s.Changes) > 0 {
		b.WriteString("What an apply would do:\n")
		writeBrief(b, t, s.Changes)
	}
	writeConflicts(b, t, s.Conflicts)
}

func asInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// writeTable aligns columns. Cells carry no colour: escapes have no width.
func writeTable(b *bytes.Buffer, rows [][]string) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], len(cell))
		}
	}
	for _, row := range rows {
		line := " "
		for i, cell := range row {
			line += fmt.Sprintf(" %-*s ", widths[i], cell)
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
}
