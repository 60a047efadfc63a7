package reconcile

import (
	"time"

	"github.com/poldernet/polder/internal/change"
)

// keeper is what a daemon knows of the ruleset that is kept for a boot. It is
// written by a goroutine of its own: a disk may take its time, or hang, and
// repairs do not wait for that.
type keeper struct {
	kept    *wanted       // the ruleset that is kept; nil: none is
	writing chan struct{} // closed when what is being written is; nil: nothing is
	due     time.Time     // of the next attempt
	failed  retries       // of the boot directory
}

// keepEvery is how often the ruleset is written at most. What comes in between
// is not lost but by a crash of the host.
const keepEvery = 5 * time.Second

// keepResult is what became of keeping a ruleset.
type keepResult struct {
	wanted *wanted
	err    error
}

func (d *Daemon) bootDir() change.Change {
	return change.Change{Action: change.Update, Kind: "boot directory", Name: d.options.BootDir}
}

// outlived says that a boot would find another ruleset than the wanted one, as
// far as is known.
func (d *Daemon) outlived() bool {
	return d.options.BootDir != "" && d.working() && d.view != nil && d.view.wanted != nil && d.view.wanted != d.keeper.kept
}

// keepRuleset has the ruleset in force kept, if it is time.
func (d *Daemon) keepRuleset(now time.Time) {
	k := &d.keeper
	if !d.outlived() || k.writing != nil || now.Before(k.due) {
		return
	}
	k.due = now.Add(keepEvery)
	if !d.view.inForce() {
		return // what could not be written is not what was in force
	}
	wanted, ruleset, done := d.view.wanted, d.view.wanted.ruleset, make(chan struct{})
	k.writing = done
	go func() {
		defer close(done)
		r := keepResult{wanted, keepRuleset(d.options.BootDir, ruleset)}
		d.box.put(func(m *mail) { m.kept = &r })
	}()
}

// wasKept notes what became of keeping a ruleset.
func (d *Daemon) wasKept(r keepResult) {
	k := &d.keeper
	k.writing, d.relist = nil, true
	switch {
	case !d.working(): // it has been removed since
	case r.err != nil:
		c := d.bootDir()
		k.failed.failed(c, r.err, time.Now())
		k.due = k.failed.next()
		d.journal.add(Event{Type: EventFailed, Change: &c, Err: r.err.Error()})
	default:
		k.kept = r.wanted
		clear(k.failed)
	}
}

// settleKeeper waits for a ruleset that is being written.
func (d *Daemon) settleKeeper() {
	if d.keeper.writing == nil {
		return
	}
	<-d.keeper.writing
	d.box.mu.Lock()
	r := d.box.mail.kept
	d.box.mail.kept = nil
	d.box.mu.Unlock()
	if r != nil {
		d.wasKept(*r)
	}
}

// keepLast keeps what is still to be kept when the daemon ends.
func (d *Daemon) keepLast() {
	d.settleKeeper()
	d.keeper.due = time.Time{}
	d.keepRuleset(time.Now())
	d.settleKeeper()
}
