package reconcile

import (
	"time"

	"github.com/poldernet/polder/internal/change"
)

// Event is something that the daemon did or saw, in the words of `polder
// events`.
type Event struct {
	Seq    uint64 // 1 for the first since the daemon started
	Time   time.Time
	Type   EventType
	Cause  Cause          // of a round's events
	Change *change.Change // EventChanged, EventFailed; EventChangedMore: without a name
	Object string         // EventConflict, EventConflictGone: "route 10.244.2.0/24"; EventError, EventRecovered
	// Differences is the number of objects that are not as they should be:
	// EventDrift.
	Differences int
	Count       int           // of objects: EventChangedMore
	Err         string        // what went wrong
	Message     string        // for people
	Took        time.Duration // from the trigger to this event, where there was one
}

// EventType is what kind of event it is.
type EventType string

// The types of events.
const (
	EventStarted      EventType = "started"
	EventReady        EventType = "ready"         // in sync for the first time
	EventSpecLoaded   EventType = "spec_loaded"   // a spec without errors is in force
	EventClusterKnown EventType = "cluster_known" // the cluster has told of everything that there is
	EventSpecRejected EventType = "spec_rejected" // it has errors; the last good one stays in force
	EventDrift        EventType = "drift"         // the kernel no longer holds what it should, and why we looked
	EventChanged      EventType = "changed"       // an object was written
	EventChangedMore  EventType = "changed_more"  // so many others of a kind were, by the same round
	EventFailed       EventType = "failed"        // an object could not be written
	EventConflict     EventType = "conflict"      // something of others is in the way
	EventConflictGone EventType = "conflict_gone" // and no longer is
	EventWarning      EventType = "warning"       // worth knowing, nothing is done about it
	EventWarningGone  EventType = "warning_gone"  //
	EventInSync       EventType = "in_sync"       // the kernel holds what the spec says
	EventOutOfSync    EventType = "out_of_sync"   // it does not, and this round could not make it so
	EventAttachable   EventType = "attachable"    // containers can be attached, although it is not in sync
	EventError        EventType = "error"         // a round, a reading or a subscription failed as a whole
	EventRecovered    EventType = "recovered"     // that is over
	EventHeld         EventType = "held"          // by destroy or release: nothing is repaired until apply
	EventResumed      EventType = "resumed"       // by apply
	EventStopping     EventType = "stopping"      // everything stays in place
)

// Cause is why a round was made.
type Cause string

// The causes. Where several come together, the first of this list stands for
// all of them.
const (
	CauseStart    Cause = "start"
	CauseCommand  Cause = "command"
	CauseSpec     Cause = "spec"
	CauseCluster  Cause = "cluster"
	CauseAttached Cause = "attached" // a container came or went
	CauseDrift    Cause = "drift"    // the kernel reported a change
	CauseSysctl   Cause = "sysctl"
	CauseLost     Cause = "lost" // notifications were lost
	CauseRetry    Cause = "retry"
	CauseCheck    Cause = "check" // the slow full reading
)

// repairs says that what a round changes was right before.
func (c Cause) repairs() bool {
	return c == CauseDrift || c == CauseSysctl || c == CauseLost || c == CauseCheck
}
