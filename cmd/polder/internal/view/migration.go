package view

import (
	"bytes"
	"fmt"
	"io"
	"slices"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/internal/remains"
	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
)

// Verdict is what a switch to polder comes to.
type Verdict string

// The verdicts.
const (
	VerdictClean    Verdict = "clean"     // marks and additions, nothing else
	VerdictDisturbs Verdict = "disturbs"  // something that carries traffic is changed or lost
	VerdictConflict Verdict = "conflicts" // something is in the way
	VerdictNothing  Verdict = "nothing"   // nothing of flannel's is taken over
)

// Migration is what a switch from flannel would do on a node, as `migrate check
// --json` prints it: a plan by what its changes mean to traffic, and what of
// flannel's and Felix's no plan is about.
type Migration struct {
	FormatVersion string `json:"format_version"`
	Type          string `json:"type"` // "migration"
	// PlanID is that of the plan behind it.
	PlanID  string  `json:"plan_id,omitempty"`
	Node    string  `json:"node"`
	Verdict Verdict `json:"verdict"`

	Adopted  []change.Change   `json:"adopted"`  // get polder's mark
	Added    []change.Change   `json:"added"`    // beside what is there
	Enforced []change.Change   `json:"enforced"` // policies that come into force
	Switches []change.Change   `json:"switches"` // sysctls that get another value
	Disturbs []change.Change   `json:"disturbs"` // what carries traffic, changed or lost
	Conflict []change.Conflict `json:"conflicts"`
	Warnings []string          `json:"warnings"`
	Remains  remains.Remains   `json:"remains"`

	nodesBeside bool // nodes may be a cluster's
}

// NewMigration is the model of a plan that takes a node over from flannel, by a spec.
func NewMigration(p *reconcile.Plan, left remains.Remains, sp *spec.Spec) Migration {
	m := Migration{
		FormatVersion: FormatVersion, Type: "migration", PlanID: p.ID(), Node: p.Node,
		Conflict: orEmpty(p.Conflicts), Warnings: orEmpty(p.Warnings), Remains: left,
		nodesBeside: sp.NodesBeside(),
	}
	m.Remains.Processes, m.Remains.Rules = orEmpty(left.Processes), orEmpty(left.Rules)
	m.Remains.Routes, m.Remains.Links, m.Remains.Notes = orEmpty(left.Routes), orEmpty(left.Links), orEmpty(left.Notes)
	for _, c := range p.Changes {
		list := m.of(c)
		*list = append(*list, c)
	}
	m.Adopted, m.Added, m.Enforced = orEmpty(m.Adopted), orEmpty(m.Added), orEmpty(m.Enforced)
	m.Switches, m.Disturbs = orEmpty(m.Switches), orEmpty(m.Disturbs)
	switch {
	case len(m.Conflict) > 0:
		m.Verdict = VerdictConflict
	case len(m.Disturbs)+len(m.Remains.Routes) > 0:
		m.Verdict = VerdictDisturbs
	case len(m.Adopted) == 0:
		m.Verdict = VerdictNothing
	default:
		m.Verdict = VerdictClean
	}
	return m
}

// of is the list that a change belongs to. What is not known to be harmless
// disturbs.
func (m *Migration) of(c change.Change) *[]change.Change {
	switch c.Kind {
	case "policy", "networkpolicy", "isolation", "members":
		return &m.Enforced
	case "table", "chain", "set", "map", "counter":
		return &m.Added // of polder's own tables
	case "sysctl":
		return &m.Switches
	}
	switch c.Action {
	case change.Adopt:
		return &m.Adopted
	case change.Create:
		return &m.Added
	case change.Update:
		if joins(c) {
			return &m.Added
		}
	case change.Replace, change.Delete, change.Release:
	}
	return &m.Disturbs
}

// joins says that a change makes a link that is on no bridge a port of one.
func joins(c change.Change) bool {
	return c.Kind == "port" && slices.ContainsFunc(c.Attrs, func(a change.Attr) bool { return a.Name == "master" && a.Before == "" })
}

// WriteText renders the check: the verdict, why, what is done otherwise, and
// what stays of flannel's.
func (m Migration) WriteText(w io.Writer, t Text) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\n", m.verdict(t))
	m.writeDisturbs(&b, t)
	writeConflicts(&b, t, m.Conflict)
	m.list(&b, t, "Would be adopted, by a mark and nothing else:", m.Adopted)
	m.list(&b, t, "Would be added beside what is there:", m.Added)
	m.list(&b, t, "Would be set on the host:", m.Switches)
	m.list(&b, t, "Would be enforced, as the spec says:", m.Enforced)
	m.writeRemains(&b, t)
	writeWarnings(&b, t, m.Warnings)
	return flush(w, &b)
}

func (m Migration) verdict(t Text) string {
	added := 0
	for _, c := range m.Added {
		if !c.Detail {
			added++
		}
	}
	done := fmt.Sprintf("%s adopted, %d added", count(len(m.Adopted), "object"), added)
	switch m.Verdict {
	case VerdictClean:
		return t.good("Clean.") + fmt.Sprintf(" Node %s can be switched without losing a packet: %s, nothing changed, nothing lost.", m.Node, done)
	case VerdictConflict:
		return t.bad("Not yet.") + fmt.Sprintf(" On node %s %s in the way, and polder would leave out what needs its place.", m.Node, isAre(len(m.Conflict), "object"))
	case VerdictDisturbs:
		return t.bad("Not clean.") + fmt.Sprintf(" Switching node %s would change or cut off %s that may carry traffic.", m.Node, count(len(m.Disturbs)+len(m.Remains.Routes), "object"))
	case VerdictNothing:
	}
	if len(m.Added)+len(m.Switches)+len(m.Enforced) == 0 {
		return t.good("Nothing to switch.") + fmt.Sprintf(" Node %s matches the spec.", m.Node)
	}
	return t.good("Nothing to switch.") + fmt.Sprintf(" On node %s nothing is there that polder would take over: it makes its network anew.", m.Node)
}

func isAre(n int, noun string) string {
	if n == 1 {
		return "1 " + noun + " is"
	}
	return count(n, noun) + " are"
}

// writeDisturbs says what is lost, and whose it may be.
func (m Migration) writeDisturbs(b *bytes.Buffer, t Text) {
	m.list(b, t, "Would be changed or lost, with the packets that need it:", m.Disturbs)
	if len(m.Remains.Routes) > 0 {
		fmt.Fprintf(b, "\n%s\n", t.bold("Would stay, while polder drops what comes from there:"))
		for _, r := range m.Remains.Routes {
			fmt.Fprintf(b, "  route %s\n", r)
		}
	}
	goes := func(c change.Change) bool { return c.Kind == "route" && c.Action == change.Delete }
	switch {
	case len(m.Remains.Routes) == 0 && !slices.ContainsFunc(m.Disturbs, goes):
	case m.nodesBeside:
		b.WriteString("\n  These routes lead to nodes that have no part in the network. Warnings name those of the\n  cluster, and what they lack: their Nodes need it. Where the nodes are gone, remove what\n  flannel left of them with `polder migrate clean`.\n")
	default:
		b.WriteString("\n  These routes lead to nodes that the spec has not. Add the nodes, or, where they are\n  gone, remove what flannel left of them with `polder migrate clean`.\n")
	}
}

// list shows changes in one line each, the first few of a kind.
func (m Migration) list(b *bytes.Buffer, t Text, title string, changes []change.Change) {
	shown, hidden := map[group]int{}, 0
	for _, c := range changes {
		if c.Detail && !t.Verbose {
			continue
		}
		if len(shown) == 0 {
			fmt.Fprintf(b, "\n%s\n", t.bold(title))
		}
		g := group{c.Action, c.Kind}
		if shown[g]++; shown[g] > shownOfKind && !t.Verbose {
			hidden++
			continue
		}
		fmt.Fprintf(b, "  %s\n", brief(t, c))
	}
	if hidden > 0 {
		fmt.Fprintf(b, "  %s\n", t.faint(fmt.Sprintf("... and %d more; --verbose shows all", hidden)))
	}
}

// writeRemains says what stays, and what to do about it.
func (m Migration) writeRemains(b *bytes.Buffer, t Text) {
	r := m.Remains
	if len(r.Processes)+len(r.Rules)+len(r.Links)+len(r.Notes) == 0 {
		return
	}
	fmt.Fprintf(b, "\n%s\n", t.bold("Stays of flannel's and Felix's:"))
	for _, p := range r.Processes {
		fmt.Fprintf(b, "  %s is running, pid %d. End it %s.\n", p.Program, p.PID, p.Remedy)
	}
	for _, r := range r.Rules {
		fmt.Fprintf(b, "  %s, which %s\n", r.Name, r.Does)
	}
	for _, name := range r.Links {
		fmt.Fprintf(b, "  link %s, with its routes\n", name)
	}
	if len(r.Rules)+len(r.Links)+len(r.Routes) > 0 {
		b.WriteString("\n  After the switch `polder migrate clean` shows how to remove it, and does.\n")
	}
	for _, note := range r.Notes {
		fmt.Fprintf(b, "\n  Note: %s.\n", note)
	}
}
