package reconcile

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/poldernet/polder/spec"
)

// ErrStopped says that the daemon has ended.
var ErrStopped = errors.New("the daemon has stopped")

// ErrPlanChanged says that a plan is no longer the one that was approved.
var ErrPlanChanged = errors.New("the plan has changed since it was shown: look at it again")

// request is work that somebody else asks the daemon's goroutine to do.
type request struct {
	do   func(ctx context.Context)
	done chan struct{}
}

// ask has the daemon's goroutine do something, and waits for that.
func (d *Daemon) ask(ctx context.Context, do func(ctx context.Context)) error {
	r := request{do, make(chan struct{})}
	select {
	case d.requests <- r:
	case <-ctx.Done():
		return ctx.Err()
	case <-d.stopped:
		return ErrStopped
	}
	<-r.done
	return nil
}

// Ping returns when the daemon's goroutine had time for it. The error is that of
// ctx, or ErrStopped.
func (d *Daemon) Ping(ctx context.Context) error {
	return d.ask(ctx, func(context.Context) {})
}

// ID identifies what a plan does: two plans with one ID do the same.
func (p *Plan) ID() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%#v %#v %#v", p.Mode, p.Node, p.Changes))
	return hex.EncodeToString(sum[:])
}

// Known is the spec in force with all that a cluster told, which nobody changes any
// more, and where its files are.
func (d *Daemon) Known(ctx context.Context) (sp *spec.Spec, config *spec.Config, err error) {
	asked := d.ask(ctx, func(context.Context) {
		if d.waiting {
			err = fmt.Errorf("%w, and what is missing would be missing in the answer", errUnknown)
			return
		}
		config = d.config
		sp, _, err = d.applier.target(ModeApply)
	})
	return sp, config, errors.Join(asked, err)
}

// Plan reads the spec's files and the whole kernel, and computes what an apply
// by command would do.
func (d *Daemon) Plan(ctx context.Context, mode Mode) (plan *Plan, err error) {
	asked := d.ask(ctx, func(own context.Context) {
		ctx, cancel := both(ctx, own)
		defer cancel()
		plan, err = d.plan(ctx, mode)
	})
	return plan, errors.Join(asked, err)
}

// Apply makes the plan again, and does it if its ID is still the same: else the
// error is ErrPlanChanged. After ModeDestroy and ModeRelease the daemon repairs
// nothing, until ModeApply.
func (d *Daemon) Apply(ctx context.Context, mode Mode, id string, report func(Outcome)) (result *Result, err error) {
	asked := d.ask(ctx, func(own context.Context) {
		ctx, cancel := both(ctx, own)
		defer cancel()
		var plan *Plan
		if plan, err = d.plan(ctx, mode); err != nil {
			return
		}
		if plan.ID() != id {
			err = ErrPlanChanged
			return
		}
		result, err = d.command(ctx, plan, report)
	})
	return result, errors.Join(asked, err)
}

// both ends when either of two contexts does.
func both(a, b context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(a)
	stop := context.AfterFunc(b, func() { cancel(b.Err()) })
	return ctx, func() { stop(); cancel(nil) }
}

func (d *Daemon) plan(ctx context.Context, mode Mode) (*Plan, error) {
	if mode == ModeApply {
		l := d.source.load(d.options.Node)
		d.adopt(l)
		if l.err != nil {
			return nil, l.err
		}
		if d.waiting {
			return nil, fmt.Errorf("%w: nothing is changed until it has", errUnknown)
		}
	}
	return d.applier.Plan(ctx, mode)
}

// command carries a plan out that somebody approved.
func (d *Daemon) command(ctx context.Context, plan *Plan, report func(Outcome)) (*Result, error) {
	r := round{Daemon: d, cause: CauseCommand, since: time.Now(), dirty: everything, began: time.Now()}
	d.cause, d.dirty, d.relist = "", dirt{}, true
	held := Mode("")
	if plan.Mode != ModeApply {
		held = plan.Mode
	}
	if held != d.now.Held {
		t := EventHeld
		if held == "" {
			t = EventResumed
		}
		d.journal.add(Event{Type: t, Cause: CauseCommand, Message: fmt.Sprintf("by %s", plan.Mode)})
	}
	d.now.Held = held
	clear(d.retries)
	d.settleKeeper()
	result, after, err := r.carryOut(ctx, plan, report, everything)
	if held != "" {
		err = errors.Join(err, d.applier.keep(after)) // which there is no more
		d.now.InSync, d.now.Attachable, d.now.Since = false, false, time.Now()
		d.now.Conflicts, d.now.Warnings = nil, nil
		clear(d.retries)
		clear(d.keeper.failed)
		d.view = nil
		if held == ModeDestroy {
			d.speak()
		}
		return result, err
	}
	if after != nil {
		d.view = after // a daemon that is stopped now keeps it for a boot
	}
	// What remains, the next round finds.
	d.because(CauseCommand, everything, time.Now())
	return result, err
}
