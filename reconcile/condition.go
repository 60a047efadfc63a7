package reconcile

import (
	"fmt"
	"strings"
	"time"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/policy"
)

// Condition is how a daemon stands at one instant, as it knows itself. It is a
// value; whoever has it may keep it.
type Condition struct {
	Node    string
	Started time.Time
	Spec    SpecCondition
	Cluster *ClusterCondition // that the spec names; nil: it names none
	InSync  bool              // the kernel holds what the spec says, and nothing is in the way
	Since   time.Time         // since when that is so, or is not
	// Attachable says that containers can be attached: what concerns them is in the
	// kernel, whatever else is not.
	Attachable bool
	Ready      bool // has been in sync since the daemon started
	Held       Mode // ModeDestroy, ModeRelease: nothing is repaired until an apply; "": it is
	// What is wrong now.
	Failures  []Failure
	Conflicts []change.Conflict
	Warnings  []string
	Counters  Counters
	// Policies says what the counters of the policies count, by their names in the
	// kernel. Whoever asks pays for it. It is nil before anything was compiled.
	Policies func() map[string]policy.Counter
	// Pods is the network that containers may be attached to; nil: there is none, or
	// none can be.
	Pods *PodNetwork
}

// SpecCondition says which spec is in force.
type SpecCondition struct {
	Path   string
	Loaded time.Time // when the one in force was read
	Err    error     // what is wrong with the files now; the last good spec is in force
	// Restored says that the one in force was kept from an earlier run, because
	// the files have had errors since the daemon started.
	Restored bool
}

// ClusterCondition says what is known of the cluster that the spec names. It is
// not changed.
type ClusterCondition struct {
	Known bool      // it has told of everything; until then nothing in the kernel is changed
	Since time.Time // since when it is known, or is waited for
	Err   error     // why nothing is heard of it now; what it told stays in force
	// Unsaid is why it does not take what the node says of itself; nil: it does.
	Unsaid error
}

// stays says what is in force while nothing is heard of the cluster.
func (c *ClusterCondition) stays() string {
	if c.Known {
		return "what it told last stays in force"
	}
	return "the kernel stays as it is"
}

// Counters count since the daemon started.
type Counters struct {
	Changes map[ChangeCount]uint64
	Rounds  map[Cause]uint64
	// Notifications of the kernel, and those of them that led to a reading.
	Seen, Relevant Notifications
	Lost           uint64 // times that notifications were lost
	Specs          uint64 // that came into force
	Rejected       uint64 // that had errors
	Events         uint64 // of the cluster
	RoundTime      time.Duration
}

// ChangeCount is what changes are counted by.
type ChangeCount struct {
	Kind   string
	Action change.Action
	Repair bool // the object had been right before
	Failed bool
}

// Notifications counts them by where they come from.
type Notifications struct{ RTNetlink, NFTables uint64 }

// String is one line for the service manager.
func (c Condition) String() string {
	var parts []string
	switch {
	case c.Held != "":
		parts = append(parts, fmt.Sprintf("held since %s: nothing is repaired until an apply", c.Held))
	case c.Spec.Loaded.IsZero():
		parts = append(parts, "no spec is in force")
	case c.Cluster != nil && !c.Cluster.Known:
		parts = append(parts, "not in sync: waiting for the cluster")
	case c.InSync:
		parts = append(parts, "in sync with the spec")
	default:
		parts = append(parts, "not in sync with the spec")
	}
	if c.Spec.Err != nil {
		parts = append(parts, "the spec's files have errors")
	}
	if c.Cluster != nil && c.Cluster.Err != nil {
		parts = append(parts, "nothing is heard of the cluster")
	}
	for _, n := range []struct {
		count int
		what  string
	}{{len(c.Failures), "failing"}, {len(c.Conflicts), "in conflict"}} {
		if n.count > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n.count, n.what))
		}
	}
	return strings.Join(parts, "; ")
}
