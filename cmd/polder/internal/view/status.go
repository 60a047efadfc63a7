package view

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
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

// Peer is how the node reaches one subnet of another node.
type Peer struct {
	Node    string         `json:"node"`
	Subnet  string         `json:"subnet"`
	Path    reconcile.Path `json:"path"`
	Gateway string         `json:"gateway"`
	Present bool           `json:"present"`
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
		Peers:     []Peer{},
		Firewalls: []Firewall{},
	}
	model.Type, model.ID = "status", "" // what is shown here is not to be approved
	for _, p := range s.Peers {
		peer := Peer{Node: p.Node, Subnet: p.Subnet.String(), Path: p.Path, Present: p.Present}
		if p.Gateway.IsValid() {
			peer.Gateway = p.Gateway.String()
		}
		model.Peers = append(model.Peers, peer)
	}
	for _, f := range s.Firewalls {
		model.Firewalls = append(model.Firewalls, Firewall(f))
	}
	return model
}

// shownPeers keeps the status on one screen.
const shownPeers = 20

// WriteText renders the status on one screen, or in full where t.Verbose is set.
func (s Status) WriteText(w io.Writer, t Text) error {
	var b bytes.Buffer
	s.writeSync(&b, t)
	s.writeDaemon(&b, t)
	s.writePeers(&b, t)
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

func (s Status) writePeers(b *bytes.Buffer, t Text) {
	if len(s.Peers) == 0 {
		b.WriteString("\nPeers: none\n")
		return
	}
	var missing int
	paths := map[reconcile.Path]int{}
	for _, p := range s.Peers {
		paths[p.Path]++
		if !p.Present {
			missing++
		}
	}
	fmt.Fprintf(b, "\n%s %s, %d by VXLAN, %d direct", t.bold("Peers:"),
		count(len(s.Peers), "subnet"), paths[reconcile.PathVXLAN], paths[reconcile.PathDirect])
	if missing > 0 {
		fmt.Fprintf(b, ", %s", t.bad(fmt.Sprintf("%d without a route", missing)))
	}
	b.WriteString("\n")

	// What is wrong comes first, so that cutting the list does not hide it.
	peers := slices.Clone(s.Peers)
	slices.SortStableFunc(peers, func(a, b Peer) int { return cmp.Compare(asInt(a.Present), asInt(b.Present)) })
	if len(peers) > shownPeers && !t.Verbose {
		peers = peers[:shownPeers]
	}
	rows := [][]string{{"NODE", "SUBNET", "PATH", "GATEWAY", "ROUTE"}}
	for _, p := range peers {
		route := "present"
		if !p.Present {
			route = "missing"
		}
		rows = append(rows, []string{p.Node, p.Subnet, string(p.Path), p.Gateway, route})
	}
	writeTable(b, rows)
	if hidden := len(s.Peers) - len(peers); hidden > 0 {
		fmt.Fprintf(b, "  %s\n", t.faint(fmt.Sprintf("... and %d more (--all shows them)", hidden)))
	}
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
