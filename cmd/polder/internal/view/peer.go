package view

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
)

// Peer is how the node reaches one subnet of another node.
type Peer struct {
	Node    string         `json:"node"`
	Subnet  string         `json:"subnet"`
	Path    reconcile.Path `json:"path"`
	Gateway string         `json:"gateway"`
	Present bool           `json:"present"`
}

func newPeers(list []reconcile.Peer) []Peer {
	models := make([]Peer, 0, len(list))
	for _, p := range list {
		peer := Peer{Node: p.Node, Subnet: p.Subnet.String(), Path: p.Path, Present: p.Present}
		if p.Gateway.IsValid() {
			peer.Gateway = p.Gateway.String()
		}
		models = append(models, peer)
	}
	return models
}

// LeftOut is a node of the cluster without a part in the pod network, or without one of
// a family.
type LeftOut struct {
	Node   string      `json:"node"`
	Family string      `json:"family,omitempty"` // absent: of both
	Reason spec.Reason `json:"reason"`
	Text   string      `json:"text"`
}

// PeerList is what a daemon knows of the other nodes of its cluster.
type PeerList struct {
	Peers   []Peer    `json:"peers"`
	LeftOut []LeftOut `json:"left_out"`
}

// NewPeerList is the model of that.
func NewPeerList(peers []reconcile.Peer, out []spec.LeftOut) PeerList {
	model := PeerList{newPeers(peers), make([]LeftOut, 0, len(out))}
	for _, l := range out {
		o := LeftOut{Node: l.Node, Reason: l.Reason, Text: l.Text}
		if l.Family != 0 {
			o.Family = l.Family.String()
		}
		model.LeftOut = append(model.LeftOut, o)
	}
	return model
}

// ClusterStatus is the status of a node of a cluster, of which the daemon alone knows
// what there should be: its condition, with the peers.
type ClusterStatus struct {
	Condition
	*PeerList
	// PeersError is why that could not be asked for.
	PeersError string `json:"peers_error,omitempty"`
}

// WriteText renders the condition, and the peers beside it.
func (s ClusterStatus) WriteText(w io.Writer, t Text) error {
	var b bytes.Buffer
	s.Condition.writeText(&b, t)
	writeConflicts(&b, t, s.Conflicts)
	warnings := s.Warnings
	if s.PeerList != nil {
		writePeers(&b, t, s.Peers)
		if t.Verbose { // all of them instead of some
			warnings = slices.DeleteFunc(slices.Clone(warnings), func(w string) bool { return strings.HasPrefix(w, reconcile.LeftOutWarning) })
			s.writeLeftOut(&b, t)
		}
	}
	if s.PeersError != "" {
		fmt.Fprintf(&b, "\n%s %s\n", t.bold("Peers:"), t.warn(s.PeersError))
	}
	writeWarnings(&b, t, warnings)
	return flush(w, &b)
}

func (s ClusterStatus) writeLeftOut(b *bytes.Buffer, t Text) {
	if len(s.LeftOut) == 0 {
		return
	}
	fmt.Fprintf(b, "\n%s %d\n", t.bold("Left out of the pod network, as of a node or one of its families:"), len(s.LeftOut))
	rows := [][]string{{"NODE", "FAMILY", "WHY"}}
	for _, l := range s.LeftOut {
		rows = append(rows, []string{l.Node, cmp.Or(l.Family, "-"), l.Text})
	}
	writeTable(b, rows)
}

// shownPeers keeps the status on one screen.
const shownPeers = 20

// writePeers renders a table of peers, if there are any.
func writePeers(b *bytes.Buffer, t Text, all []Peer) {
	if len(all) == 0 {
		return
	}
	var missing int
	paths := map[reconcile.Path]int{}
	for _, p := range all {
		paths[p.Path]++
		if !p.Present {
			missing++
		}
	}
	fmt.Fprintf(b, "\n%s %s, %d by VXLAN, %d direct", t.bold("Peers:"),
		count(len(all), "subnet"), paths[reconcile.PathVXLAN], paths[reconcile.PathDirect])
	if missing > 0 {
		fmt.Fprintf(b, ", %s", t.bad(fmt.Sprintf("%d without a route", missing)))
	}
	b.WriteString("\n")

	// What is wrong comes first, so that cutting the list does not hide it.
	peers := slices.Clone(all)
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
	if hidden := len(all) - len(peers); hidden > 0 {
		fmt.Fprintf(b, "  %s\n", t.faint(fmt.Sprintf("... and %d more (--all shows them)", hidden)))
	}
}
