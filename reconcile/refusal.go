package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/policy"
)

// refusal says that the kernel did not take a ruleset, for what is in it.
func refusal(err error) bool {
	var stage *nft.StageError
	return errors.As(err, &stage) && !errors.Is(err, nft.ErrStale) &&
		!errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}

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
			guilty[t.Policy.ID()] = fmt.Errorf("the kernel refuses it, so that what it selects is closed: %w", err)
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
