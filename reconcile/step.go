package reconcile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/overlay"
)

// open takes note of what came.
func (d *Daemon) open(m mail) {
	for _, l := range m.lost {
		d.now.Counters.Lost++
		d.journal.add(Event{Type: EventError, Err: fmt.Sprintf("%s: %v", l.subscription.name, l.err), Message: "everything is read again"})
		if !lost(l.err) {
			l.subscription.ended(time.Now())
		}
		d.because(CauseLost, l.subscription.dirt, m.since)
	}
	for _, err := range m.troubles {
		d.journal.add(Event{Type: EventError, Err: err.Error()})
	}
	if m.spec != nil {
		d.adopt(m.spec)
	}
	if m.kept != nil {
		d.wasKept(*m.kept)
	}
	d.openUpdate(m.update, m.since)
	d.openEvents(m)
	d.openCommits(m)
}

// openEvents finds out which of rtnetlink's notifications say something else
// than what is known. The others are echoes of what we wrote, or not our
// business.
func (d *Daemon) openEvents(m mail) {
	d.now.Counters.Seen.RTNetlink += uint64(len(m.network))
	if d.view == nil {
		return // everything is about to be read
	}
	var classes overlay.Class
	for _, e := range m.network {
		if c := d.view.observed.Concerns(e); c != 0 {
			d.now.Counters.Relevant.RTNetlink++
			classes |= c
		}
	}
	if classes == 0 {
		return
	}
	d.because(CauseDrift, dirt{network: classes &^ overlay.Sysctls, sysctls: classes&overlay.Sysctls != 0}, m.since)
	if classes&overlay.Links != 0 {
		d.relist = true
		d.retries.rush(time.Now()) // what a link was in the way of may work now
	}
}

// openCommits finds out which of nftables' commits are not in what was read.
func (d *Daemon) openCommits(m mail) {
	d.now.Counters.Seen.NFTables += m.seen
	if d.view == nil {
		return
	}
	for _, c := range m.commits {
		if int32(c.Generation-d.view.gen) <= 0 {
			continue
		}
		if !c.Touches(tables) {
			d.foreign = d.foreign || c.Chains
			// Nothing of ours is other than it was: the guard of the next
			// commit is renewed without a reading.
			if !d.dirty.rules {
				d.view.gen = c.Generation
			}
			continue
		}
		d.now.Counters.Relevant.NFTables++
		d.culprit = fmt.Sprintf("%s (PID %d) changed nftables", c.Process, c.PID)
		d.because(CauseDrift, dirt{rules: true}, m.since)
	}
}

// resubscribe opens what has ended. As long as that fails, what it would have
// told of is read with every attempt.
func (d *Daemon) resubscribe(ctx context.Context, now time.Time) {
	for _, s := range d.subscriptions {
		if s.next.IsZero() || now.Before(s.next) {
			continue
		}
		s.end()
		if err := s.start(ctx, d.box); err != nil {
			d.journal.add(Event{Type: EventError, Err: err.Error()})
		}
		d.because(CauseLost, s.dirt, now)
	}
}

// look looks at what the kernel does not tell of, where it is time.
func (d *Daemon) look(ctx context.Context, now time.Time) {
	if d.options.Watchdog > 0 && !now.Before(d.pinged.Add(d.options.Watchdog/3)) {
		d.pinged = now
		d.notify("WATCHDOG=1")
	}
	if !d.working() {
		return
	}
	if !now.Before(d.sysctlsDue) {
		d.sysctlsDue = now.Add(sysctlsEvery)
		// A round that could not be made is made again when its time has come.
		if d.view != nil && d.view.compiled != nil && !d.retries.waits(d.node(), now) && d.applier.sysctlsMoved(d.view) {
			d.because(CauseSysctl, dirt{sysctls: true}, now)
		}
	}
	if !now.Before(d.checkDue) {
		d.checkDue = now.Add(checkEvery)
		d.because(CauseCheck, everything, now)
	}
	if next := d.retries.next(); !next.IsZero() && !now.Before(next) && d.cause == "" {
		// A policy that the kernel refused is no difference: it is compiled again.
		d.because(CauseRetry, dirt{spec: len(d.applier.refused) > 0}, now)
	}
	if !now.Before(d.firewallsDue) {
		d.firewallsDue = now.Add(firewallsEvery)
		if d.foreign {
			d.foreign = false
			d.lookForFirewalls(ctx)
		}
	}
}

// lookForFirewalls notes which chains of others are in the way of pod traffic.
func (d *Daemon) lookForFirewalls(ctx context.Context) {
	found, err := d.applier.firewalls(ctx)
	if err != nil {
		d.journal.add(Event{Type: EventError, Err: err.Error()})
		return
	}
	d.firewalls = nil
	for _, f := range found {
		d.firewalls = append(d.firewalls, f.String())
	}
	d.warn()
}

// adopt puts a spec into force, or says what is wrong with it.
func (d *Daemon) adopt(l *loaded) {
	in := &d.now.Spec
	if l.err != nil {
		if in.Err == nil || in.Err.Error() != l.err.Error() {
			d.now.Counters.Rejected++
			message := "the last good spec stays in force"
			if d.applier.options.Spec == nil {
				message = "no spec is in force"
			}
			d.journal.add(Event{Type: EventSpecRejected, Err: l.err.Error(), Message: message})
		}
		in.Err = l.err
		if d.applier.options.Spec == nil {
			d.restore()
		}
		return
	}
	mended := in.Err != nil
	in.Err, in.Restored = nil, false
	d.config = l.config
	old := d.applier.options.Spec
	if old != nil && reflect.DeepEqual(old, l.config.Spec) {
		if mended {
			d.journal.add(Event{Type: EventSpecLoaded, Message: "the same as before"})
		}
		return
	}
	in.Loaded = l.at
	d.now.Counters.Specs++
	d.applier.setSpec(l.config.Spec)
	d.follow(l.config.Spec.Kubernetes)
	d.journal.add(Event{Type: EventSpecLoaded, Message: d.options.Source.Path})
	clear(d.retries)
	d.relist = true
	d.unkept = l.config
	d.because(CauseSpec, dirt{spec: true}, l.noticed)
}

// restore puts the spec of an earlier run into force.
func (d *Daemon) restore() {
	config, err := lastGood(d.options.StateDir, d.options.Source.Path, d.options.Node)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return
	case err != nil:
		d.journal.add(Event{Type: EventError, Err: fmt.Sprintf("taking up the spec of the last run: %v", err)})
		return
	}
	d.config = config
	d.applier.setSpec(config.Spec)
	d.follow(config.Spec.Kubernetes)
	d.now.Spec.Restored, d.now.Spec.Loaded = true, time.Now()
	d.journal.add(Event{Type: EventSpecLoaded, Message: "the one that was in force when polder last ran"})
}

// warn tells of warnings that are new, or over.
func (d *Daemon) warn() {
	var now []string
	if d.view != nil {
		now = append(now, d.view.warnings...)
		now = append(now, warnLeftOut(d.applier.leftOut(d.view), "; `polder status --all` shows them")...)
	}
	now = append(now, d.firewalls...)
	for _, w := range now {
		if !slices.Contains(d.now.Warnings, w) {
			d.journal.add(Event{Type: EventWarning, Message: w})
		}
	}
	for _, w := range d.now.Warnings {
		if !slices.Contains(now, w) {
			d.journal.add(Event{Type: EventWarningGone, Message: w})
		}
	}
	d.now.Warnings = now
}

// conflicts tells of conflicts that are new, or over.
func (d *Daemon) conflicts(now []change.Conflict) {
	for _, c := range now {
		if !slices.Contains(d.now.Conflicts, c) {
			d.journal.add(Event{Type: EventConflict, Object: c.Kind + " " + c.Name, Message: c.Reason + "; " + c.Remedy})
		}
	}
	for _, c := range d.now.Conflicts {
		if !slices.Contains(now, c) {
			d.journal.add(Event{Type: EventConflictGone, Object: c.Kind + " " + c.Name})
		}
	}
	d.now.Conflicts = slices.Clone(now)
}

// publish makes the present condition visible, and tells the service manager
// of it.
func (d *Daemon) publish() {
	// There may be thousands, which are not to be sorted for each foreign event.
	if d.relist {
		d.relist, d.now.Failures = false, append(d.retries.list(), d.keeper.failed.list()...)
	}
	c := d.now
	if d.view != nil {
		c.Policies = d.view.counters
	}
	c.Pods = d.podNetwork()
	c.Counters.Changes = maps.Clone(c.Counters.Changes)
	c.Counters.Rounds = maps.Clone(c.Counters.Rounds)
	d.condition.Store(&c)
	if s := c.String(); s != d.told {
		d.told = s
		d.notify("STATUS=" + s)
	}
}

func (d *Daemon) notify(state string) {
	if err := d.options.Notify(state); err != nil {
		d.journal.add(Event{Type: EventError, Err: fmt.Sprintf("telling the service manager %q: %v", state, err)})
	}
}
