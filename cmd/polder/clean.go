package main

import (
	"context"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"github.com/poldernet/polder/cmd/polder/internal/view"
	"github.com/poldernet/polder/internal/remains"
	"github.com/poldernet/polder/reconcile"
)

func newMigrateCleanCommand(a *app) *cobra.Command {
	var c changer
	var check bool
	cmd := &cobra.Command{
		Use:   "clean",
		Short: "Remove what flannel and Felix have left on this node",
		Long: `clean shows what is left of flannel's on this node and of Felix's, which enforces
canal's policies, asks for the word "yes", removes it, and looks again. It is for
after the switch:

- the tables flannel-ipv4 and flannel-ipv6, or iptables' chains FLANNEL-POSTRTG
  and FLANNEL-FWD, with the rules that lead there
- flannel's devices that the spec does not want, and routes as flannel makes them
  to pods of nodes that the spec has not
- Felix's table calico, or iptables' chains cali-*, with the rules that lead there

Nothing is removed while the program runs that would write it again, nor while the
node does not match the spec: polder's masquerade and policies have to be in force
before others' go. All rules go in one transaction or none do. Rules of anybody
else stay; where one leads to a chain that should go, the chain stays, too.

With --check nothing is asked and nothing removed. The exit status is then 0 where
nothing is left, 2 where something is, and 1 on errors and where something keeps it,
as that of plan.`,
		Example: `  polder migrate clean
  polder migrate clean --check
  polder migrate clean --auto-approve --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			open := func() (door, error) { return a.openCleaner(cmd) }
			if check {
				return c.look(cmd, a, open)
			}
			return c.through(cmd, a, view.ModeClean, open)
		},
	}
	c.addFlags(cmd)
	cmd.Flags().BoolVar(&check, "check", false, "only show, and say by the exit status whether anything is left")
	cmd.MarkFlagsMutuallyExclusive("check", "auto-approve")
	return cmd
}

// look shows what would be removed.
func (c *changer) look(cmd *cobra.Command, a *app, open func() (door, error)) (err error) {
	d, err := open()
	if err != nil {
		return err
	}
	defer closing(d, &err)
	plan, err := d.Plan(cmd.Context(), view.ModeClean)
	if err != nil {
		return a.printSpecError(err)
	}
	text := a.text(a.out)
	text.Verbose = c.verbose
	switch err := c.show(a, plan, text); {
	case err != nil:
		return err
	case len(plan.Conflicts) > 0:
		return exitError
	case !plan.Empty():
		return exitChanges
	}
	return nil
}

// openCleaner is the door through which only others' things go.
func (a *app) openCleaner(cmd *cobra.Command) (door, error) {
	options, err := a.options()
	if err != nil {
		return door{}, err
	}
	own, node, err := a.planner(cmd, options)
	if err != nil {
		return door{}, err
	}
	pending := func(ctx context.Context) (int, error) {
		plan, err := own.Plan(ctx, reconcile.ModeApply)
		if err != nil {
			return 0, err
		}
		return len(plan.Changes) + len(plan.Conflicts), nil
	}
	rest, err := remains.Open(options.Spec, node, pending)
	if err != nil {
		return door{}, errors.Join(err, own.Close())
	}
	c := cleaner{Cleaner: rest, own: own, node: node}
	return door{applier: c, Closer: c, planner: c}, nil
}

// cleaner speaks of others' things as appliers do of polder's.
type cleaner struct {
	*remains.Cleaner
	own  io.Closer // says what is in force
	node string
}

func (c cleaner) Close() error { return errors.Join(c.Cleaner.Close(), c.own.Close()) }

func (c cleaner) Plan(ctx context.Context, _ reconcile.Mode) (*reconcile.Plan, error) {
	plan, err := c.Cleaner.Plan(ctx)
	if err != nil {
		return nil, err
	}
	return c.shown(plan), nil
}

func (c cleaner) shown(p *remains.Plan) *reconcile.Plan {
	return &reconcile.Plan{Mode: view.ModeClean, Node: c.node, Changes: p.Changes, Conflicts: p.Conflicts, Warnings: p.Warnings}
}

// Apply looks again before and after: what is done is what was shown, and what is
// left is what is found.
func (c cleaner) Apply(ctx context.Context, shown *reconcile.Plan, report func(reconcile.Outcome)) (*reconcile.Result, error) {
	plan, err := c.Cleaner.Plan(ctx)
	if err != nil {
		return nil, err
	}
	if c.shown(plan).ID() != shown.ID() {
		return nil, reconcile.ErrPlanChanged
	}
	result := &reconcile.Result{}
	c.Cleaner.Apply(ctx, plan, func(i int, err error) {
		o := reconcile.Outcome{Change: plan.Changes[i], Err: err}
		result.Outcomes = append(result.Outcomes, o)
		report(o)
	})
	after, err := c.Cleaner.Plan(ctx)
	if err != nil {
		return result, err
	}
	result.Remaining = after.Changes
	return result, nil
}
