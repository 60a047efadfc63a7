package reconcile

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/poldernet/polder/spec"
)

// Path is how packets reach a peer.
type Path string

// The paths.
const (
	PathVXLAN  Path = "vxlan"
	PathDirect Path = "direct"
)

// Peer is another node, as this one reaches it: one entry for each pod subnet.
type Peer struct {
	Node    string
	Subnet  netip.Prefix
	Path    Path
	Gateway netip.Addr // the underlay address that the packets are sent to
	Present bool       // the kernel has the route
}

func (v *view) reached() []Peer {
	list := make([]Peer, 0, len(v.compiled.Peers))
	for _, peer := range v.compiled.Peers {
		path := PathVXLAN
		if peer.Direct {
			path = PathDirect
		}
		list = append(list, Peer{
			Node: peer.Node, Subnet: peer.Subnet, Path: path, Gateway: peer.Address,
			Present: v.compiled.Leads(v.state, peer),
		})
	}
	return list
}

// Peers are the peers of the node, by what the daemon knows of the kernel, and the
// nodes of the cluster that have no part in the network, all of them.
func (d *Daemon) Peers(ctx context.Context) (peers []Peer, out []spec.LeftOut, err error) {
	err = d.ask(ctx, func(context.Context) {
		if d.view != nil && d.view.compiled != nil {
			peers = d.view.reached()
		}
		if !d.waiting { // for nodes, too
			out = slices.SortedStableFunc(slices.Values(d.applier.leftOut(d.view)), spec.LeftOut.Compare)
		}
	})
	return peers, out, err
}

// leftOut are nodes of the cluster that have no part in the network. What is known of
// the kernel may be nothing.
func (p *Planner) leftOut(v *view) []spec.LeftOut {
	if p.options.Spec == nil || !p.options.Spec.NodesBeside() {
		return nil
	}
	out := p.nodes().out
	if v != nil && v.compiled != nil {
		out = slices.Concat(out, v.compiled.LeftOut)
	}
	return out
}

// LeftOutWarning is how warnings about nodes begin that have no part in the network.
const LeftOutWarning = "left out of the pod network: "

// warnLeftOut are warnings about those, the first few of them: there may be thousands,
// and each event is asked about. all says where the others are to be had.
func warnLeftOut(out []spec.LeftOut, all string) (list []string) {
	const most = 10
	for _, l := range out[:min(len(out), most)] {
		list = append(list, LeftOutWarning+l.String())
	}
	if more := len(out) - most; more > 0 {
		list = append(list, fmt.Sprintf("%s%d more, as of a node or one of its families%s", LeftOutWarning, more, all))
	}
	return list
}
