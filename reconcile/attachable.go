package reconcile

import (
	"slices"

	"github.com/poldernet/polder/internal/attach"
	"github.com/poldernet/polder/internal/change"
)

// attachable says that a container with a port can be attached, as of the latest round:
// the ruleset is in force, the node has a part in the network and its own part stands,
// the switches and that port are as they should be, and nothing is in the way of these.
// The ways to peers are not asked for; nor are policies that the kernel refuses, because
// the ruleset that is in force closes what they select.
func (d *Daemon) attachable(p attach.Port) bool {
	return d.now.Attachable && !slices.Contains(d.crooked, p.Interface)
}

// assess notes what attachable says, by what a round has left. Whatever is not known to
// be nothing to containers is in their way.
func (r *round) assess(remaining []change.Change) {
	fit := r.view.inForce() && !r.applier.nodes().missing
	r.crooked = nil
	see := func(kind, name string) {
		switch {
		case r.view.desired.OnlyLeads(kind, name):
		case kind == "port" && !r.view.desired.Owns(name):
			r.crooked = append(r.crooked, name)
		default:
			fit = false
		}
	}
	for _, c := range remaining {
		see(c.Kind, c.Name)
	}
	for _, c := range r.now.Conflicts {
		see(c.Kind, c.Name)
	}
	// Who waits for this looks when something has happened.
	if in := len(remaining)+len(r.now.Conflicts)+len(r.applier.refused) == 0; fit && !r.now.Attachable && !in {
		r.journal.add(Event{Type: EventAttachable, Cause: r.cause})
	}
	r.now.Attachable = fit
}
