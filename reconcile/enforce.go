package reconcile

import (
	"context"

	"github.com/poldernet/polder/overlay"
	"github.com/poldernet/polder/spec"
)

// enforce puts into force what the cluster told, without looking at anything else.
// The kernel is not read afterwards: it has taken what was sent, of the rules in the
// generation for which it was meant, and would tell of what somebody did to it since.
// It reports false if that cannot be done, or was not: all is to be looked at.
func (r *round) enforce(ctx context.Context) bool {
	told := dirt{policies: true, nodes: true}
	if r.dirty == (dirt{}) || r.dirty.with(told) != told || !r.upToDate() {
		return false
	}
	sp, node, err := r.applier.own()
	if err != nil {
		return false
	}
	v, with := *r.view, *sp
	with.Nodes = r.applier.nodes().all // the guard of VXLAN knows peers by them
	var network overlay.Plan
	if r.dirty.nodes {
		// What has failed, or is in somebody's way, may have to do with them.
		settled := r.now.InSync && len(r.now.Conflicts) == 0 && len(r.retries) == 0
		if network, settled = r.applier.exchange(&v, &with, node, settled); !settled {
			return false
		}
	}
	defer r.tellMore()
	r.applier.want(&v, &with, node)
	rules := v.wanted.plan(v.rules)
	if !rules.Empty() {
		if v.gen, err = r.applier.ruleset.Commit(ctx, rules, v.gen); err != nil {
			r.dirty = r.dirty.with(dirt{rules: true, spec: true})
			return false
		}
	}
	if r.dirty.nodes {
		for _, c := range v.tell(rules) {
			r.outcome(Outcome{c, nil})
		}
	}
	v.rules = v.wanted.ruleset
	r.view = &v
	if r.dirty.nodes {
		r.warn()
	}
	return r.write(ctx, network.Ops)
}

// upToDate says that what is known of the kernel is compiled, in force, and by the index
// that events have changed since; and that the kernel takes all policies.
func (r *round) upToDate() bool {
	v, a := r.view, r.applier
	return v != nil && v.compiled != nil && v.wanted != nil &&
		a.current && v.indexed == a.version && v.enforcing == a.enforcing() && len(a.refused) == 0 && v.inForce()
}

// exchange brings a view up to date of which only the cluster's nodes have changed, and
// plans what follows of that. What the view holds of them is changed in place. It
// reports false where all is to be looked at.
func (p *Planner) exchange(v *view, sp *spec.Spec, node *spec.Node, settled bool) (overlay.Plan, bool) {
	if !settled {
		return overlay.Plan{}, false
	}
	gone, come := shifted(v.nodes, sp.Nodes)
	near := p.index.Beside(sp)
	if ok, err := p.network.Ask(v.observed, near, node, gone, come); !ok || err != nil {
		return overlay.Plan{}, false // to be read again says what is wrong
	}
	v.scope, v.facts = v.observed.Scope(), v.memory.advertised(v.observed.Facts)
	x, ok := v.compiled.Exchange(near, node, v.facts, gone, come)
	if !ok {
		return overlay.Plan{}, false
	}
	desired := *v.compiled
	desired.Sysctls, desired.Ports = v.desired.Sysctls, v.desired.Ports
	v.desired, v.nodes = &desired, sp.Nodes
	return x.Plan(v.desired, v.state)
}

// write carries out what an exchange comes to. It reports false where something failed.
func (r *round) write(ctx context.Context, ops []overlay.Op) bool {
	if len(ops) == 0 {
		return true
	}
	written := true
	r.applier.network.Apply(ctx, ops, func(i int, err error) {
		if r.outcome(Outcome{ops[i].Change, err}); err != nil {
			written = false
			return
		}
		r.view.observed.Wrote(ops[i])
	})
	if !written {
		r.dirty = r.dirty.with(dirt{network: overlay.Touched(ops)})
	}
	return written
}

// shifted is what is different in a list of nodes, by name and in order: those that are
// gone or have changed, as they were, and those that have come or changed, as they are.
// What has not changed is the same value in both.
func shifted(before, after []*spec.Node) (gone, come []*spec.Node) {
	for len(before) > 0 && len(after) > 0 {
		switch b, a := before[0], after[0]; {
		case b == a:
			before, after = before[1:], after[1:]
		case b.Name < a.Name:
			gone, before = append(gone, b), before[1:]
		case b.Name > a.Name:
			come, after = append(come, a), after[1:]
		default:
			gone, come, before, after = append(gone, b), append(come, a), before[1:], after[1:]
		}
	}
	return append(gone, before...), append(come, after...)
}
