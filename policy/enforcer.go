package policy

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/poldernet/polder/nft"
)

// Committer carries plans out, as an nft.Writer does.
type Committer interface {
	Commit(ctx context.Context, p *nft.Plan, gen nft.Generation) error
}

// Enforcer keeps a node's table at what an index says. It knows what is in the
// kernel and what has changed in the index, and compares nothing else.
type Enforcer struct {
	*Index
	to     Committer
	beside nft.Table
	gen    nft.Generation
	stale  bool
}

// NewEnforcer enforces an index. beside is the fragment that others have in the
// table.
func NewEnforcer(x *Index, to Committer, beside nft.Table) *Enforcer {
	return &Enforcer{Index: x, to: to, beside: beside, stale: true}
}

// Start makes the table what it should be, by way of others if it has to be so.
// live is the table as it was read in generation gen. Start is also the way on
// after a Commit that failed.
func (e *Enforcer) Start(ctx context.Context, live nft.Table, gen nft.Generation) error {
	e.stale = true
	compiled := e.compile(live)
	var observed nft.Ruleset
	if live.Name != "" {
		observed = nft.Ruleset{live}
	}
	for _, table := range append(slices.Clip(compiled.Via), compiled.Table) {
		wanted := nft.Ruleset{nft.Merge(table, e.beside)}
		plan := nft.Diff(wanted, observed)
		if err := e.to.Commit(ctx, plan, gen); err != nil {
			return err
		}
		observed, gen = wanted, plan.End(gen)
	}
	e.Changes()
	e.gen, e.stale = gen, false
	return nil
}

// Observe takes notice of a commit, and says whether somebody else has touched
// the table: it has to be read then, and Start called.
func (e *Enforcer) Observe(c nft.Commit) bool {
	switch {
	case e.stale || int32(c.Generation-e.gen) <= 0: // an echo
		return false
	case c.Touches([]nft.TableID{{Family: nft.INet, Name: nft.TableName}}):
		e.stale = true
		return true
	}
	e.gen = c.Generation
	return false
}

// Commit puts what has changed in the index into force, so that nothing passes
// on the way that neither the old nor the new policies allow. After an error
// the table has to be read, and Start called.
func (e *Enforcer) Commit(ctx context.Context) error {
	if e.stale {
		return nft.ErrStale
	}
	d := e.safely()
	if d.Empty() {
		return nil
	}
	before, after := d.parts()
	plan := nft.DiffPart(nft.Ruleset{after}, nft.Ruleset{before}, func() nft.Ruleset {
		return nft.Ruleset{nft.Merge(d.Reverse().Apply(e.Table()), e.beside)}
	})
	if err := e.to.Commit(ctx, plan, e.gen); err != nil {
		e.stale = true
		return err
	}
	e.gen = plan.End(e.gen)
	return nil
}

// safely is Changes, with the living sets that must not change in place made
// anew under other names. Tables on the way, by which Compile spares them where
// one endpoint comes and goes, would take the whole of the table to make.
func (x *Index) safely() Delta {
	d := x.difference()
	if len(d.Members) > 0 {
		inForce := len(d.After.Chains) == 0 && len(d.After.Sets) == 0
		changed := d.changed()
		if !inForce || !x.now.harmless(changed) {
			x.rename(changed)
			d = x.difference()
		}
	}
	x.tell()
	return d
}

// changed are the members that change, by the sets' names without suffix.
func (d Delta) changed() map[string]members {
	changed := make(map[string]members, len(d.Members))
	for name, m := range d.Members {
		changed[baseName(name)] = members{keysOf(m.Added), keysOf(m.Removed)}
	}
	return changed
}

func keysOf(list []nft.Element) []nft.Data {
	keys := make([]nft.Data, len(list))
	for i, e := range list {
		keys[i] = e.Key
	}
	return keys
}

// rename gives living sets other names.
func (x *Index) rename(sets map[string]members) {
	names := make(map[string]bool, len(sets))
	suffix := maps.Clone(x.suffix)
	for name := range sets {
		n, _ := strconv.Atoi(strings.TrimPrefix(suffix[name], "_")) // none is 0
		suffix[name] = "_" + strconv.Itoa(n+1)
		names[name] = true
	}
	x.suffix = suffix
	x.outdate(names)
	x.dirty = true
}

// parts are what differs of the table before and after. Of a living set that
// stays, it is the members that go and those that come.
func (d Delta) parts() (before, after nft.Table) {
	before, after = d.Before, d.After
	before.Sets, after.Sets = slices.Clip(before.Sets), slices.Clip(after.Sets)
	for name, m := range d.Members {
		before.Sets = append(before.Sets, nft.Set{Name: name, Key: m.Key, Elements: m.Removed})
		after.Sets = append(after.Sets, nft.Set{Name: name, Key: m.Key, Elements: m.Added})
	}
	return before, after
}
