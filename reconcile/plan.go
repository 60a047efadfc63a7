// Package reconcile turns a spec into a plan and a plan into kernel state. It
// is the one path behind `plan`, `apply`, `destroy`, `release` and `status`:
// read the kernel, compute what should be, compare, write the difference,
// read again.
package reconcile

import (
	"fmt"

	"github.com/poldernet/polder/internal/change"
)

// Mode is what a plan is for.
type Mode string

// The modes.
const (
	ModeApply   Mode = "apply"   // make the node match the spec
	ModeDestroy Mode = "destroy" // remove everything of ours
	ModeRelease Mode = "release" // take our marks off and leave the objects
)

// Plan is the difference between what should be and what is. It is computed
// without writing and says everything that Apply will do.
type Plan struct {
	Mode      Mode
	Node      string
	Changes   []change.Change   // in the order in which they are applied
	Conflicts []change.Conflict // foreign objects in the way: not overwritten
	Warnings  []string          // what the user should know; nothing is done about it

	work work // the typed operations behind Changes
}

// Empty says that there is nothing to do. Conflicts may stand all the same.
func (p *Plan) Empty() bool { return len(p.Changes) == 0 }

// Outcome is what became of one change.
type Outcome struct {
	Change change.Change
	Err    error // nil: done
}

// Result is what became of a plan.
type Result struct {
	Outcomes []Outcome
	// Remaining is what a second reading of the kernel still finds different,
	// conflicts aside. It is empty when the apply succeeded.
	Remaining []change.Change
	conflicts []change.Conflict // that it finds
}

// Failed lists the outcomes with an error.
func (r *Result) Failed() []Outcome {
	var failed []Outcome
	for _, o := range r.Outcomes {
		if o.Err != nil {
			failed = append(failed, o)
		}
	}
	return failed
}

// Status is the node's condition at one instant.
type Status struct {
	Plan      *Plan // what an apply would do now; empty: in sync
	Peers     []Peer
	Firewalls []Firewall
}

// InSync says that the kernel holds what the spec says.
func (s *Status) InSync() bool { return s.Plan.Empty() && len(s.Plan.Conflicts) == 0 }

// Firewall is a foreign base chain that would drop traffic of ours. An accept
// of ours does not overrule it: every base chain of a hook has its say.
type Firewall struct {
	Chain  string // "ip filter FORWARD"
	Reason string // "policy drop"
	Remedy string
}

// String is one sentence for people.
func (f Firewall) String() string {
	return fmt.Sprintf("firewall %s would drop pod traffic that it does not accept itself (%s): %s", f.Chain, f.Reason, f.Remedy)
}
