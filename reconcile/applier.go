package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/overlay"
	"github.com/poldernet/polder/spec"
)

// Applier is a Planner that can also write. While it is open, no other polder
// changes this network namespace.
type Applier struct {
	*Planner
	lock    *net.UnixListener
	network networkWriter
	ruleset rulesetWriter
}

// OpenApplier opens an applier for the calling thread's network namespace. The
// error is ErrBusy while another has it.
func OpenApplier(o Options) (_ *Applier, err error) {
	a := &Applier{}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Close())
		}
	}()
	if a.lock, err = lock(); err != nil {
		return nil, err
	}
	if a.Planner, err = Open(o); err != nil {
		return nil, err
	}
	if a.network, err = overlay.OpenWriter(o.SysctlDir); err != nil {
		return nil, err
	}
	if a.ruleset, err = nft.OpenWriter(); err != nil {
		return nil, err
	}
	return a, nil
}

// Close closes the handles and lets go of the lock.
func (a *Applier) Close() error {
	var errs []error
	if a.ruleset != nil {
		errs = append(errs, a.ruleset.Close())
	}
	if a.network != nil {
		errs = append(errs, a.network.Close())
	}
	if a.Planner != nil {
		errs = append(errs, a.Planner.Close())
	}
	if a.lock != nil {
		errs = append(errs, unlock(a.lock))
	}
	return errors.Join(errs...)
}

var (
	errUnguarded  = errors.New("not attempted, because the rules that guard it could not be written")
	errUnrecorded = errors.New("not attempted, because the value from before could not be kept")
)

// Apply carries a plan out, reports each change as it is done or fails, and
// reads the kernel again. A change that fails does not stop the others. The
// error is for what concerns the whole: the end of ctx, or a second reading
// that failed; what was done until then is in the result.
//
// Rules come before the network that they guard, and go after it. Those in force
// then are kept for Boot.
func (a *Applier) Apply(ctx context.Context, plan *Plan, report func(Outcome)) (*Result, error) {
	result, after, err := a.carryOut(ctx, plan, report, everything)
	return result, errors.Join(err, a.keep(after))
}

// carryOut is Apply. What is read again afterwards is what its caller says; it
// returns what is known then, or nil where it could not be read.
func (a *Applier) carryOut(ctx context.Context, plan *Plan, report func(Outcome), again dirt) (*Result, *view, error) {
	run := applying{Applier: a, plan: plan, result: &Result{Outcomes: make([]Outcome, 0, len(plan.Changes))}, report: report}
	after := &plan.work.view
	if !plan.Empty() {
		if plan.Mode == ModeApply {
			run.rules(ctx)
			run.objects(ctx)
		} else {
			run.objects(ctx)
			run.rules(ctx)
		}
		if err := ctx.Err(); err != nil {
			return run.result, nil, err
		}
		var err error
		if after, err = run.verify(ctx, again); err != nil {
			return run.result, nil, err
		}
	}
	return run.result, after, run.forget(after)
}

// applying is one plan on its way into the kernel.
type applying struct {
	*Applier
	plan      *Plan
	result    *Result
	report    func(Outcome)
	unguarded bool // a first ruleset could not be written
	doubtful  bool // what rules the kernel holds
}

func (r *applying) outcome(o Outcome) {
	r.result.Outcomes = append(r.result.Outcomes, o)
	r.report(o)
}

// rules commits the nftables part.
func (r *applying) rules(ctx context.Context) {
	w := r.plan.work
	if w.rules.Empty() {
		return
	}
	err, before := ctx.Err(), r.refused
	if err == nil {
		var gen nft.Generation
		if gen, err = r.ruleset.Commit(ctx, w.rules, w.view.gen); err == nil {
			r.plan.work.view.rules, r.plan.work.view.gen = w.view.wanted.ruleset, gen
		}
	}
	r.doubtful = err != nil
	if r.plan.Mode == ModeApply && refusal(err) {
		err = r.around(ctx, err)
	}
	r.unguarded = err != nil && len(w.view.rules) == 0
	told := map[string]bool{}
	for _, c := range w.told {
		id := c.Kind + " " + c.Name
		told[id] = true
		why := r.refused[id]
		if why == nil {
			why = err
		}
		if why != nil {
			r.outcome(Outcome{c, fmt.Errorf("writing %s: %w", id, why)})
			continue
		}
		r.outcome(Outcome{c, nil})
	}
	for _, c := range r.refusals() {
		if id := c.Kind + " " + c.Name; !told[id] && before[id] == nil { // else it was not tried
			r.outcome(Outcome{c, fmt.Errorf("writing %s: %w", id, r.refused[id])})
		}
	}
}

// objects writes links, addresses, routes and the rest of the network.
func (r *applying) objects(ctx context.Context) {
	ops := r.plan.work.network.Ops
	if r.unguarded {
		for _, op := range ops {
			if !op.Hidden {
				r.outcome(Outcome{op.Change, errUnguarded})
			}
		}
		return
	}
	if err := r.remember(ops); err != nil {
		ops = r.withoutForeign(ops, err)
	}
	r.network.Apply(ctx, ops, func(i int, err error) {
		if !ops[i].Hidden || err != nil {
			r.outcome(Outcome{ops[i].Change, err})
		}
	})
}

// remember keeps the values from before, and those that the kernel is about to
// set along with a forwarding switch.
func (r *applying) remember(ops []overlay.Op) error {
	known := r.plan.work.view.memory
	next := known.remember(ops, r.plan.work.view.desired.Owns)
	for _, family := range spec.Families {
		path := overlay.ForwardingSwitch(family)
		_, before := known.Sysctls[path]
		if _, noted := next.Sysctls[path]; !noted || before {
			continue
		}
		resets, err := r.Planner.network.ForwardingResets(family)
		if err != nil {
			return err
		}
		maps.Copy(next.Resets, resets)
	}
	return r.save(known, next)
}

// withoutForeign leaves out the operations that change what is not ours: with
// no record of the value from before, it could not be put back.
func (r *applying) withoutForeign(ops []overlay.Op, cause error) []overlay.Op {
	var rest []overlay.Op
	for _, op := range ops {
		path, _, _, sysctl := op.Sysctl()
		link, _, _, enslaved := op.Enslaved()
		if enslaved && !r.plan.work.view.desired.Owns(link) || sysctl && !r.plan.work.view.desired.Owns(overlay.SysctlLink(path)) {
			r.outcome(Outcome{op.Change, fmt.Errorf("%w: %w", errUnrecorded, cause)})
			continue
		}
		rest = append(rest, op)
	}
	return rest
}

// verify reads the kernel again, and notes what is still different from what
// was wanted.
func (r *applying) verify(ctx context.Context, again dirt) (*view, error) {
	again.spec = false // what was planned for is what is compared with
	again.rules = again.rules || r.doubtful
	v, err := r.reread(ctx, &r.plan.work.view, again)
	if err != nil {
		return nil, fmt.Errorf("verifying: %w", err)
	}
	left := v.plan(r.plan.Mode, r.plan.Node)
	r.result.Remaining, r.result.conflicts = left.Changes, left.Conflicts
	return v, nil
}

// forget drops from memory what has been put back, or is somebody else's by
// now: also of a plan without changes, because an apply that was killed may
// have left what it only meant to do.
func (r *applying) forget(v *view) error {
	left := v.memory.forget(v.desired, v.state)
	if r.plan.Mode == ModeRelease && len(r.result.Remaining) == 0 {
		left = newMemory() // what we wrote stays, and is nobody's to put back
	}
	err := r.save(v.memory, left)
	if r.plan.Mode != ModeApply { // a daemon that starts is not to put it into force
		err = errors.Join(err, dropGood(r.options.StateDir), r.dropPart())
	}
	return err
}

// save makes next what is remembered. Where the file has been lost or damaged
// since this applier wrote it, it is written anew.
func (a *Applier) save(known, next memory) error {
	if a.memory != nil {
		var err error
		if known, err = loadMemory(a.options.StateDir); err != nil {
			if err := os.Remove(memoryFile(a.options.StateDir)); err != nil {
				return fmt.Errorf("remembering: %w", err)
			}
			known = newMemory()
		}
	}
	if err := next.saveOver(known, a.options.StateDir); err != nil {
		return err
	}
	a.memory = &next // also where nothing was written: it is what is there
	return nil
}
