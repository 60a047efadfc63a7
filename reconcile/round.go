package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/nft"
)

var errStillDiffers = errors.New("was written, but the kernel holds something else")

// round makes the kernel match the spec: it reads what may have changed,
// compares, writes what is not to wait, and reads that again.
func (d *Daemon) round(ctx context.Context) {
	r := round{Daemon: d, cause: d.cause, since: d.since, dirty: d.dirty, began: time.Now()}
	d.cause, d.dirty, d.relist = "", dirt{}, true
	if !r.enforce(ctx) {
		r.dirty.spec = r.dirty.spec || r.dirty.nodes
		r.run(ctx)
		d.speak()
	} else if r.dirty.nodes || len(d.said.Strays) > 0 {
		d.speak() // one may be gone
	}
	d.now.Counters.Rounds[r.cause]++
	d.ended = time.Now()
	took := d.ended.Sub(r.began)
	d.now.Counters.RoundTime += took
	d.limiter.ReserveN(d.ended, int(min(took, time.Second).Microseconds()))
}

// standing are what may fail without being a difference.
func (d *Daemon) standing() []change.Change {
	return append(d.applier.refusals(), d.node(), d.part(), d.stateDir())
}

type round struct {
	*Daemon
	cause Cause
	since time.Time // of the trigger
	dirty dirt
	began time.Time
	stale bool // somebody changed our tables meanwhile

	changed int      // how many objects were written without an error
	more    []*Event // how many of these are not told of one by one, by their kinds
}

// mostChanged is how many objects a round tells of one by one. A node that joins a large
// cluster writes tens of thousands, among which nobody would find what else has
// happened; and to write all that down took a fifth of what the start cost.
const mostChanged = 100

// node stands for what concerns no single object.
func (d *Daemon) node() change.Change { return change.Change{Kind: "node", Name: d.options.Node} }

// part stands for the part that the node has in the network.
func (d *Daemon) part() change.Change { return change.Change{Kind: "own node", Name: d.options.Node} }

func (d *Daemon) stateDir() change.Change {
	return change.Change{Kind: "state directory", Name: d.options.StateDir}
}

func (r *round) run(ctx context.Context) {
	r.applier.refused = r.retries.refusing(time.Now(), r.dirty.spec)
	v, err := r.applier.update(ctx, ModeApply, r.view, r.dirty)
	if v != nil {
		r.view = v
	}
	if err != nil {
		if v != nil {
			r.dirty = dirt{} // all has been read
		}
		r.failed(ctx, err)
		return
	}
	plan := v.plan(ModeApply, r.options.Node)
	r.view.warnings = plan.Warnings
	r.warn()
	r.conflicts(plan.Conflicts)
	r.retries.keep(append(plan.Changes, r.standing()...))

	now := time.Now()
	culprit := r.culprit
	r.culprit = ""
	if len(plan.Changes) > 0 && r.cause.repairs() {
		r.journal.add(Event{Type: EventDrift, Cause: r.cause, Differences: len(plan.Changes), Message: culprit, Took: now.Sub(r.since)})
	}
	waits := func(c change.Change) bool { return r.retries.waits(c, now) }
	if slices.ContainsFunc(plan.Changes, func(c change.Change) bool { return c.Kind == "link" && !waits(c) }) {
		// What could not be written while a link was on its way out can be with
		// the new one.
		r.retries.rush(now)
	}
	due := plan.without(waits)
	again := touched(due)
	if r.cause == CauseCluster && !r.dirty.rules {
		again.rules = false // as in enforce
	}
	result, after, err := r.carryOut(ctx, due, func(Outcome) {}, again)
	if after == nil {
		r.dirty = everything
		r.failed(ctx, err)
		return
	}
	r.view = after
	r.recovered(r.node())
	r.takesPart()
	r.keep(err)
	if due.Empty() {
		result.Remaining = plan.Changes
	} else {
		r.conflicts(result.conflicts) // what was read afterwards is no news
	}
	r.conclude(result)
}

// takesPart tells whether the node has the part in the network that is in force.
func (r *round) takesPart() {
	why := r.applier.missing()
	if why == nil {
		r.recovered(r.part())
		return
	}
	why = fmt.Errorf("%w; the part that it had last stays in force, and no containers are attached", why)
	if f := r.retries[keyOf(r.part())]; f == nil || f.Err.Error() != why.Error() || !r.retries.waits(r.part(), time.Now()) {
		r.report(r.part(), why)
	}
}

// keep writes to the state directory what a restart needs, if that is not there
// yet. forgetting is what went wrong there before.
func (r *round) keep(forgetting error) {
	if r.unkept == nil && !r.applier.unkeptPart() && forgetting == nil {
		r.recovered(r.stateDir())
		return
	}
	if r.retries.waits(r.stateDir(), time.Now()) {
		return
	}
	err := forgetting
	if r.unkept != nil {
		if kept := keepGood(r.options.StateDir, r.unkept); kept != nil {
			err = errors.Join(err, fmt.Errorf("keeping the spec for a restart: %w", kept))
		} else {
			r.unkept = nil
		}
	}
	if r.applier.unkeptPart() {
		if kept := r.applier.keepPart(); kept != nil {
			err = errors.Join(err, fmt.Errorf("keeping the part in the network for a restart: %w", kept))
		}
	}
	if err != nil {
		r.report(r.stateDir(), err)
		return
	}
	r.recovered(r.stateDir())
}

// carryOut carries a plan out, and tells of what became of it.
func (r *round) carryOut(ctx context.Context, plan *Plan, report func(Outcome), again dirt) (*Result, *view, error) {
	defer r.tellMore()
	return r.applier.carryOut(ctx, plan, func(o Outcome) {
		r.outcome(o)
		report(o)
	}, again)
}

// tellMore tells how many objects there were that were not told of one by one.
func (r *round) tellMore() {
	for _, e := range r.more {
		r.journal.add(*e)
	}
	r.more = nil
}

// outcome notes what became of one change.
func (r *round) outcome(o Outcome) {
	if errors.Is(o.Err, nft.ErrStale) {
		r.stale = true
		return
	}
	r.now.Counters.Changes[ChangeCount{o.Change.Kind, o.Change.Action, r.cause.repairs(), o.Err != nil}]++
	if o.Err != nil {
		r.report(o.Change, o.Err)
		return
	}
	if o.Change.Detail {
		return // what it is a detail of is told
	}
	e := Event{Type: EventChanged, Cause: r.cause, Change: &o.Change, Took: time.Since(r.since)}
	if r.changed++; r.changed <= mostChanged {
		r.journal.add(e)
		return
	}
	i := slices.IndexFunc(r.more, func(m *Event) bool { return m.Change.Kind == o.Change.Kind && m.Change.Action == o.Change.Action })
	if i < 0 {
		i = len(r.more)
		r.more = append(r.more, &Event{Type: EventChangedMore, Cause: r.cause, Change: &change.Change{Kind: o.Change.Kind, Action: o.Change.Action}})
	}
	r.more[i].Count, r.more[i].Took = r.more[i].Count+1, e.Took
}

// report notes a failure, and tells of it.
func (r *round) report(c change.Change, err error) {
	r.retries.failed(c, err, time.Now())
	e := Event{Type: EventFailed, Cause: r.cause, Change: &c, Err: err.Error(), Took: time.Since(r.since)}
	if c.Action == "" { // it is no object, see node
		e.Type, e.Change, e.Object = EventError, nil, c.Kind+" "+c.Name
	}
	r.journal.add(e)
}

// recovered forgets a failure that concerns no single object, and tells of it.
func (r *round) recovered(c change.Change) {
	if r.retries[keyOf(c)] == nil {
		return
	}
	r.retries.done(c)
	r.journal.add(Event{Type: EventRecovered, Cause: r.cause, Object: c.Kind + " " + c.Name, Took: time.Since(r.since)})
}

// differs notes that an object is not as it was written. The first time,
// somebody was just faster; if it is so again at once, writing does not help.
func (r *round) differs(c change.Change) {
	if r.retries[keyOf(c)] != nil {
		r.report(c, errStillDiffers)
		return
	}
	r.retries.suspect(c, errStillDiffers, time.Now())
	r.because(CauseDrift, dirt{}, time.Now())
}

// failed ends a round that could not even be planned, or not be verified.
func (r *round) failed(ctx context.Context, err error) {
	r.Daemon.dirty = r.Daemon.dirty.with(r.dirty)
	if ctx.Err() != nil {
		return
	}
	r.report(r.node(), err)
	if r.unkept != nil {
		r.keep(nil)
	}
	// What is due has not been tried, and would be due again at once.
	r.retries.hold(r.retries[keyOf(r.node())].Next)
	r.now.Attachable = false
	r.sync(false)
}

// conclude says what the round came to.
func (r *round) conclude(result *Result) {
	remaining := result.Remaining
	r.assess(remaining)
	if r.stale {
		r.because(r.cause, dirt{rules: true}, r.since)
		return
	}
	if r.view.outdated() { // by what has just been written
		r.because(r.cause, dirt{spec: true}, r.since)
	}
	r.retries.keep(append(slices.Clip(remaining), r.standing()...))
	written := map[objectKey]bool{}
	if len(remaining) > 0 { // of thousands of outcomes nobody asks otherwise
		for _, o := range result.Outcomes {
			written[keyOf(o.Change)] = o.Err == nil
		}
	}
	for _, c := range remaining {
		switch {
		case written[keyOf(c)]:
			r.differs(c)
		case r.retries[keyOf(c)] == nil: // it was right when the plan was made, and is known to be wrong by now
			r.because(CauseDrift, dirt{}, time.Now())
		}
	}
	in := len(remaining) == 0 && len(r.now.Conflicts) == 0 && len(r.applier.refused) == 0 && !r.applier.nodes().missing
	if r.unsettled = !in && r.Daemon.cause != "" && !r.unsettled; r.unsettled {
		return // the round that follows at once will know
	}
	r.sync(in)
}

// sync notes whether the kernel holds what the spec says.
func (r *round) sync(in bool) {
	d := r.Daemon
	if in && !d.now.Ready {
		d.now.Ready = true
		d.journal.add(Event{Type: EventReady, Cause: r.cause, Took: time.Since(d.now.Started)})
		d.notify("READY=1")
	}
	if in == d.now.InSync {
		return
	}
	d.now.InSync, d.now.Since = in, time.Now()
	t := EventOutOfSync
	if in {
		t = EventInSync
	}
	d.journal.add(Event{Type: t, Cause: r.cause, Took: time.Since(r.since)})
}
