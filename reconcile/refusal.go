package reconcile

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

// refusal says that the kernel did not take a ruleset, for what is in it.
func refusal(err error) bool {
	var stage *nft.StageError
	return errors.As(err, &stage) && !errors.Is(err, nft.ErrStale) &&
		!errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}

// refusedPolicy is why the kernel does not take a policy.
type refusedPolicy struct{ err error }

func (r *refusedPolicy) Error() string {
	return "the kernel refuses it, so that what it selects is closed: " + r.err.Error()
}

func (r *refusedPolicy) Unwrap() error { return r.err }

// around commits the ruleset without the policies that the kernel refuses, if
// that is what it refused the ruleset for: what these select is closed, and
// everything else is as it should be. The error is what is left of cause.
func (r *applying) around(ctx context.Context, cause error) error {
	v := r.plan.work.view
	if err := r.ruleset.Try(ctx, nft.Table{Family: nft.INet, Name: nft.TableName}); err != nil {
		return cause // it takes nothing at all
	}
	sp, node, err := r.target(ModeApply)
	if err != nil {
		return errors.Join(cause, err)
	}
	model, _ := policy.New(sp)
	guilty := maps.Clone(r.refused)
	if guilty == nil {
		guilty = map[string]error{}
	}
	for _, t := range policy.Trials(model, v.policyHost) {
		if err := r.ruleset.Try(ctx, t.Table); err != nil {
			guilty[t.Policy.ID()] = &refusedPolicy{err}
		}
	}
	if err := ctx.Err(); err != nil {
		return errors.Join(cause, err)
	}
	if len(guilty) == len(r.refused) {
		return cause
	}
	if v.rules, v.gen, err = r.Planner.ruleset.Read(ctx, tables...); err != nil {
		return errors.Join(cause, err)
	}
	r.refused = guilty
	r.want(&v, sp, node)
	r.plan.work.view = v
	_, err = r.ruleset.Commit(ctx, v.wanted.plan(v.rules), v.gen)
	return err
}

// refusals are the policies that the kernel does not take, as changes that are
// still to be made.
func (p *Planner) refusals() []change.Change {
	var list []change.Change
	for _, id := range slices.Sorted(maps.Keys(p.refused)) {
		kind, name, _ := strings.Cut(id, " ")
		list = append(list, change.Change{Action: change.Update, Kind: kind, Name: name})
	}
	return list
}

// refused is why the kernel does not take a policy that has failed; nil: it is none, or
// has failed with all others.
func (f *Failure) refused() (why *refusedPolicy) {
	errors.As(f.Err, &why)
	return why
}

// refused is why the kernel does not take NetworkPolicies, by their names. It is of what
// has failed, and not what the rules are compiled without: that is nothing whenever all
// are tried again.
func (r retries) refused() map[string]string {
	var all map[string]string
	for key, f := range r {
		if why := f.refused(); why != nil && key.kind == string(spec.KindNetworkPolicy) {
			if all == nil {
				all = map[string]string{}
			}
			all[key.name] = why.Error()
		}
	}
	return all
}

// refusing are the policies that the kernel does not take, by their IDs. Where all is
// compiled anew and one of them is due, there is none: they are tried again. As long as
// they wait, they stay closed, or the rest of the rules would wait with them.
func (r retries) refusing(now time.Time, anew bool) map[string]error {
	var all map[string]error
	for key, f := range r {
		if why := f.refused(); why != nil {
			if anew && !now.Before(f.Next) {
				return nil
			}
			if all == nil {
				all = map[string]error{}
			}
			all[key.kind+" "+key.name] = why
		}
	}
	return all
}

// reconsider says whether events are about policies that the kernel does not take. These
// are others now, of which nothing is known yet: it is forgotten that they failed, and
// the cluster is told so, which else would not see that they do so again.
func (d *Daemon) reconsider(events []policy.Event) bool {
	failed := len(d.retries)
	for _, e := range events {
		if e.Policy == nil {
			continue
		}
		key := objectKey{string(e.Policy.Kind), e.Policy.Name}
		if f := d.retries[key]; f != nil && f.refused() != nil {
			delete(d.retries, key)
		}
	}
	if len(d.retries) == failed {
		return false
	}
	d.speak()
	return true
}
