package remains

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/overlay"
	"github.com/poldernet/polder/spec"
)

// Plan is what a cleaner would remove.
type Plan struct {
	Changes   []change.Change   // in their order
	Conflicts []change.Conflict // what keeps things where they are
	Warnings  []string

	rules   []nft.Removal
	gen     nft.Generation
	network []overlay.Op
	inRules int // how many of the changes are those of rules
}

// Cleaner removes what flannel and Felix have left.
type Cleaner struct {
	sp      *spec.Spec
	node    string
	pending func(context.Context) (int, error)
	rules   *nft.Reader
	links   *overlay.Reader
	remover *nft.Writer
	writer  *overlay.Writer
}

// Open opens a cleaner for the calling thread's network namespace. pending counts
// what there is to do until polder's own network, masquerade and policies are in
// force as the spec says.
func Open(sp *spec.Spec, node string, pending func(context.Context) (int, error)) (_ *Cleaner, err error) {
	c := &Cleaner{sp: sp, node: node, pending: pending}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if c.rules, err = nft.OpenReader(); err != nil {
		return nil, err
	}
	if c.links, err = overlay.OpenReader(); err != nil {
		return nil, err
	}
	if c.remover, err = nft.OpenWriter(); err != nil {
		return nil, err
	}
	c.writer, err = overlay.OpenWriter("")
	return c, err
}

// Close closes the handles.
func (c *Cleaner) Close() error {
	var errs []error
	if c.rules != nil {
		errs = append(errs, c.rules.Close())
	}
	if c.links != nil {
		errs = append(errs, c.links.Close())
	}
	if c.remover != nil {
		errs = append(errs, c.remover.Close())
	}
	if c.writer != nil {
		errs = append(errs, c.writer.Close())
	}
	return errors.Join(errs...)
}

// Plan looks at the node, and says what goes. Nothing does while its program runs,
// which would write it again, nor while polder's own is not in force: what masks
// addresses and enforces must not go before.
func (c *Cleaner) Plan(ctx context.Context) (*Plan, error) {
	pending, err := c.pending(ctx)
	if err != nil {
		return nil, err
	}
	r, err := look(ctx, c.sp, c.rules, c.links)
	if err != nil {
		return nil, err
	}
	return r.plan(c.sp, c.node, pending), nil
}

func (r *Remains) plan(sp *spec.Spec, node string, pending int) *Plan {
	p := &Plan{gen: r.gen, Warnings: r.warnings(sp)}
	keeps := map[Program]bool{}
	for _, process := range r.Processes {
		if !r.has(process.Of) || process.Of == Flannel && sp.Network == nil {
			continue
		}
		keeps[process.Of] = true
		p.Conflicts = append(p.Conflicts, change.Conflict{
			Kind: "process", Name: process.Program,
			Reason: fmt.Sprintf("it is running, pid %d, and would write again what is removed of %s's", process.PID, process.Of),
			Remedy: "end it " + process.Remedy,
		})
	}
	if pending > 0 && (r.has(Flannel) && sp.Network != nil || r.has(Felix)) {
		p.Conflicts = append(p.Conflicts, change.Conflict{
			Kind: "node", Name: node,
			Reason: fmt.Sprintf("it does not match the spec, polder plan shows what differs: %d. What polder has in the place of what would be removed is not in force", pending),
			Remedy: "`polder apply` first, or see why the daemon cannot",
		})
		keeps[Flannel], keeps[Felix] = true, true
	}
	// Without a network of polder's, flannel's is the node's.
	keeps[Flannel] = keeps[Flannel] || sp.Network == nil
	for _, rules := range r.Rules {
		if keeps[rules.Of] {
			continue
		}
		p.rules = append(p.rules, rules.removals...)
		p.Changes = append(p.Changes, rules.changes...)
		p.Conflicts = append(p.Conflicts, rules.conflicts...)
		p.Warnings = append(p.Warnings, rules.warnings...)
	}
	p.inRules = len(p.Changes)
	if keeps[Flannel] {
		return p
	}
	for _, e := range r.routes {
		if flannelsRoute(sp, e) {
			p.network = append(p.network, overlay.RemoveRoute(e))
		} else {
			p.Warnings = append(p.Warnings, fmt.Sprintf("route %s leads to pods of no node of the spec, and is not as flannel makes its own: it stays.", routeText(e)))
		}
	}
	for _, l := range r.links {
		p.network = append(p.network, overlay.RemoveLink(l))
	}
	for _, op := range p.network {
		c := op.Change
		// What else a device has been given tells nobody which it is.
		c.Attrs = slices.DeleteFunc(c.Attrs, func(a change.Attr) bool { return !slices.Contains([]string{"type", "id", "via", "dev"}, a.Name) })
		p.Changes = append(p.Changes, c)
	}
	return p
}

// warnings are what people should know before.
func (r *Remains) warnings(sp *spec.Spec) []string {
	var list []string
	for _, note := range r.Notes {
		list = append(list, note+".")
	}
	if r.has(Felix) && sp.Kubernetes == nil && len(sp.Policies)+len(sp.Manifests) == 0 {
		list = append(list, "the spec has no policies: what Felix's enforced is enforced by nobody then.")
	}
	if r.has(Flannel) && sp.Network == nil {
		list = append(list, "the spec has no network block: flannel's rules, devices and routes are the node's pod network, and stay.")
	}
	return list
}

// maxTries bounds how often rules are read again that somebody was faster than.
const maxTries = 50

// Apply removes what the plan says, and reports what became of each change by its
// index. Rules go all or none. Where somebody has changed them since they were
// shown, the error of each is nft.ErrStale.
func (c *Cleaner) Apply(ctx context.Context, p *Plan, report func(i int, err error)) {
	if len(p.rules) > 0 {
		err := c.remove(ctx, p)
		for i := range p.inRules {
			report(i, err)
		}
	}
	c.writer.Apply(ctx, p.network, func(i int, err error) { report(p.inRules+i, err) })
}

// remove removes rules. kube-proxy and others commit whenever they like: that is no
// matter as long as what was shown is what there is.
func (c *Cleaner) remove(ctx context.Context, p *Plan) error {
	rules, gen := p.rules, p.gen
	for range maxTries {
		err := c.remover.Remove(ctx, rules, gen)
		if !errors.Is(err, nft.ErrStale) {
			return err
		}
		now, err := c.Plan(ctx)
		switch {
		case err != nil:
			return err
		case !reflect.DeepEqual(now.Changes[:now.inRules], p.Changes[:p.inRules]):
			return nft.ErrStale
		}
		rules, gen = now.rules, now.gen
	}
	return nft.ErrStale
}
