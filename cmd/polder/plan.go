package main

import (
	"errors"
	"io"

	"github.com/spf13/cobra"

	"github.com/poldernet/polder/cmd/polder/internal/control"
	"github.com/poldernet/polder/cmd/polder/internal/view"
	"github.com/poldernet/polder/reconcile"
)

func newPlanCommand(a *app) *cobra.Command {
	var detailed, asJSON, verbose bool
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Show what an apply would change on this node",
		Long: `plan compares the spec with the kernel and prints what an apply would do. It
writes nothing. Where the spec has a block kubernetes, it is the daemon that makes
the plan: nobody else knows what there is in the cluster.

The exit status is 0 when the plan was made, 1 on errors and when something
that is not polder's is in the way. With --detailed-exitcode a plan without
changes exits 0 and one with changes 2.`,
		Example: `  polder plan
  polder plan --spec edge.hcl --node n1
  polder plan --json | jq .summary`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			options, err := a.options()
			if err != nil {
				return err
			}
			planner, _, err := a.planner(cmd, options)
			if err != nil {
				return err
			}
			defer closing(planner, &err)
			plan, err := planner.Plan(cmd.Context(), reconcile.ModeApply)
			if err != nil {
				return a.printSpecError(err)
			}
			model := view.NewPlan(plan)
			if asJSON {
				err = view.WriteJSON(a.out, model)
			} else {
				text := a.text(a.out)
				text.Verbose = verbose
				err = model.WriteText(a.out, text)
			}
			switch {
			case err != nil:
				return err
			// An error also where nobody asked for details: whatever is applied,
			// the node will not match the spec.
			case len(plan.Conflicts) > 0:
				return exitError
			case detailed && !plan.Empty():
				return exitChanges
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&detailed, "detailed-exitcode", false, "exit 0 without changes, 2 with changes, 1 on errors")
	flags.BoolVar(&asJSON, "json", false, "print the plan as one line of JSON")
	flags.BoolVarP(&verbose, "verbose", "v", false, "show every change of long plans")
	return cmd
}

// closingPlanner is one that is to be closed.
type closingPlanner interface {
	planner
	io.Closer
}

// planner makes the plan itself, unless only a daemon can, and says for which node: a
// daemon's may have another name than the host.
func (a *app) planner(cmd *cobra.Command, o reconcile.Options) (p closingPlanner, node string, err error) {
	if o.Spec.Kubernetes == nil {
		p, err = reconcile.Open(o)
		return p, o.Node, err
	}
	client, condition, err := control.Dial(cmd.Context(), a.stateDir)
	if errors.Is(err, control.ErrNone) {
		return nil, "", a.notAsked()
	}
	if err != nil {
		return nil, "", err
	}
	if err := a.agree(cmd, condition); err != nil {
		return nil, "", errors.Join(err, client.Close())
	}
	return client, condition.Node, nil
}
