package main

import (
	"errors"
	"io"

	"github.com/spf13/cobra"

	"github.com/poldernet/polder/cmd/polder/internal/control"
	"github.com/poldernet/polder/cmd/polder/internal/view"
	"github.com/poldernet/polder/internal/remains"
	"github.com/poldernet/polder/reconcile"
)

func newMigrateCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "migrate",
		Short:   "Take a node over from flannel or canal: look before, clean up after",
		Long:    `migrate is about nodes whose network another program has made.`,
		Example: `  polder migrate check`,
		Args:    subcommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newMigrateCheckCommand(a), newMigrateCleanCommand(a))
	return cmd
}

func newMigrateCheckCommand(a *app) *cobra.Command {
	var asJSON, verbose bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Say what switching this node from flannel to polder would do",
		Long: `check makes the plan that apply would carry out here, and says what it means to
traffic: what is adopted as it is, what is added beside it, what would be changed
or lost, and what stays of flannel's and of Felix's, which polder migrate clean
removes. They may run on meanwhile. Nothing is written.

Where the spec has a block kubernetes and no daemon runs yet, the check is about the
network of the files alone.

The exit status is 0 when the switch changes and loses nothing, 2 when it would,
and 1 on errors and when something is in the way, as that of plan.`,
		Example: `  polder migrate check
  polder migrate check --spec edge.hcl --node n1
  polder migrate check --json | jq .verdict`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			options, err := a.options()
			if err != nil {
				return err
			}
			planner, err := a.checker(cmd, options)
			if err != nil {
				return err
			}
			defer closing(planner, &err)
			plan, err := planner.Plan(cmd.Context(), reconcile.ModeApply)
			if err != nil {
				return a.printSpecError(err)
			}
			left, err := remains.Look(cmd.Context(), options.Spec)
			if err != nil {
				return err
			}
			model := view.NewMigration(plan, *left)
			if err := a.show(model, asJSON, verbose); err != nil {
				return err
			}
			switch model.Verdict {
			case view.VerdictConflict:
				return exitError
			case view.VerdictDisturbs:
				return exitChanges
			case view.VerdictClean, view.VerdictNothing:
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&asJSON, "json", false, "print the check as one line of JSON")
	flags.BoolVarP(&verbose, "verbose", "v", false, "show every change of long lists")
	return cmd
}

// checker is the planner of a check. It comes before the daemon, most often, which
// alone knows what there is in a cluster: what the files say of the network is planned
// without it.
func (a *app) checker(cmd *cobra.Command, o reconcile.Options) (interface {
	planner
	io.Closer
}, error) {
	if o.Spec.Kubernetes != nil {
		client, _, err := control.Dial(cmd.Context(), a.stateDir)
		if err == nil {
			err = client.Close()
		} else if errors.Is(err, control.ErrNone) {
			a.leavesOut(o.Spec)
			files := *o.Spec
			files.Kubernetes = nil
			o.Spec, err = &files, nil
		}
		if err != nil {
			return nil, err
		}
	}
	return a.planner(cmd, o)
}
