package reconcile

import (
	"context"
	"time"

	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

// Cluster is a source of workloads and policies beside the spec's files.
type Cluster interface {
	// Watch tells of all that there is, and then of what becomes of it, until ctx
	// ends. tell does not wait.
	Watch(ctx context.Context, tell func(Update))
}

// Update is something that a cluster tells.
type Update struct {
	Events []policy.Event // in the order in which they happened
	// Complete says that with this everything has been told of that there was to
	// begin with. Until then nothing in the kernel is changed: what is missing
	// would be taken for gone.
	Complete bool
}

// add adds what was told later.
func (u *Update) add(o Update) {
	u.Events = append(u.Events, o.Events...)
	u.Complete = u.Complete || o.Complete
}

func (u Update) empty() bool { return len(u.Events) == 0 && !u.Complete }

// openUpdate takes note of what the cluster told.
func (d *Daemon) openUpdate(u Update, since time.Time) {
	if u.empty() {
		return
	}
	d.now.Counters.Events += uint64(len(u.Events))
	for _, e := range u.Events {
		d.applier.apply(e)
	}
	what := dirt{policies: true}
	if u.Complete && d.waiting {
		d.waiting = false
		what.spec = true
		d.journal.add(Event{Type: EventClusterKnown, Took: time.Since(d.now.Started)})
	}
	d.because(CauseCluster, what, since)
}

// apply changes what an event says.
func (p *Planner) apply(e policy.Event) {
	p.inventory.Apply(e)
	p.merged = nil
	if p.index == nil {
		return
	}
	if ns := e.Namespace; ns != nil && e.Gone && p.options.Spec != nil {
		for _, own := range p.options.Spec.Namespaces {
			if own.Name == ns.Name {
				e = policy.Event{Namespace: own} // it is the spec's again
			}
		}
	}
	p.index.Apply(e)
}

// setSpec makes another spec the one that is planned for.
func (p *Planner) setSpec(sp *spec.Spec) { p.options.Spec, p.merged = sp, nil }

// enforce puts into force what the cluster told, without looking at anything else.
// The kernel is not read afterwards: it has taken what was sent in the generation
// for which it was meant, and would tell of what somebody did to it since. It
// reports false if that cannot be done: all is to be looked at.
func (r *round) enforce(ctx context.Context) bool {
	if r.dirty != (dirt{policies: true}) || r.view == nil || r.view.wanted == nil || !r.view.inForce() || len(r.applier.refused) > 0 {
		return false
	}
	sp, node, err := r.applier.own()
	if err != nil {
		return false
	}
	v := *r.view
	r.applier.want(&v, sp, node)
	if plan := v.wanted.plan(v.rules); !plan.Empty() {
		gen, err := r.applier.ruleset.Commit(ctx, plan, v.gen)
		if err != nil {
			r.dirty = r.dirty.with(dirt{rules: true, spec: true})
			return false
		}
		v.gen = gen
	}
	v.rules = v.wanted.ruleset
	r.view = &v
	return true
}
