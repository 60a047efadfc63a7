package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"

	"github.com/poldernet/polder/cmd/polder/internal/control"
	"github.com/poldernet/polder/cmd/polder/internal/view"
	"github.com/poldernet/polder/internal/cluster"
	"github.com/poldernet/polder/internal/remains"
	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
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
	var kubeconfig string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Say what switching this node from flannel to polder would do",
		Long: `check makes the plan that apply would carry out here, and says what it means to
traffic: what is adopted as it is, what is added beside it, what would be changed
or lost, and what stays of flannel's and of Felix's, which polder migrate clean
removes. They may run on meanwhile. Nothing is written.

Where the spec has a block kubernetes and no daemon runs yet, the check asks the
cluster for its nodes and is about the network alone. Without credentials, it is about
the nodes of the files.

The exit status is 0 when the switch changes and loses nothing, 2 when it would,
and 1 on errors and when something is in the way, as that of plan.`,
		Example: `  polder migrate check
  polder migrate check --spec edge.hcl --node n1
  polder migrate check --kubeconfig /etc/kubernetes/admin.conf
  polder migrate check --json | jq .verdict`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			options, err := a.optionsBy(loadFor(kubeconfig))
			if err != nil {
				return err
			}
			plan, seen, err := a.planSwitch(cmd, options, kubeconfig)
			if err != nil {
				return a.printSpecError(err)
			}
			left, err := remains.Look(cmd.Context(), seen)
			if err != nil {
				return err
			}
			model := view.NewMigration(plan, *left, options.Spec)
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
	flags.StringVar(&kubeconfig, "kubeconfig", "", "`FILE` of credentials for the cluster, instead of the one that the spec names")
	return cmd
}

// planSwitch plans for a check, and says by which spec. The check comes before the
// daemon, most often, which alone knows the pods and policies of a cluster: without it,
// the network is planned as the daemon will, for the nodes of the files and of the
// cluster.
func (a *app) planSwitch(cmd *cobra.Command, o reconcile.Options, kubeconfig string) (plan *reconcile.Plan, by *spec.Spec, err error) {
	nodes, alone, err := a.ask(cmd.Context(), o, kubeconfig)
	if err != nil {
		return nil, nil, err
	}
	if !alone {
		planner, _, err := a.planner(cmd, o)
		if err != nil {
			return nil, nil, err
		}
		defer closing(planner, &err)
		plan, err = planner.Plan(cmd.Context(), reconcile.ModeApply)
		return plan, o.Spec, err
	}
	planner, err := reconcile.Open(o)
	if err != nil {
		return nil, nil, err
	}
	defer closing(planner, &err)
	plan, err = planner.Among(cmd.Context(), nodes)
	joined := *o.Spec
	joined.Nodes, _ = o.Spec.Join(nodes, o.Node)
	return plan, &joined, err
}

// ask asks the cluster that a spec names for its nodes, where no daemon does, and says
// whether that is so. Without credentials there are those of the files alone.
func (a *app) ask(ctx context.Context, o reconcile.Options, kubeconfig string) (nodes []spec.Candidate, alone bool, err error) {
	if o.Spec.Kubernetes == nil {
		return nil, false, nil
	}
	client, _, err := control.Dial(ctx, a.stateDir)
	if err == nil {
		return nil, false, client.Close()
	}
	if !errors.Is(err, control.ErrNone) {
		return nil, false, err
	}
	named := *o.Spec.Kubernetes
	named.Kubeconfig = cmp.Or(kubeconfig, named.Kubeconfig)
	nodes, err = cluster.Nodes(ctx, &named)
	switch {
	case errors.Is(err, rest.ErrNotInCluster) && o.Spec.Node(o.Node) == nil:
		return nil, false, fmt.Errorf("node %q is not in the spec, and the cluster cannot be asked: --kubeconfig names credentials", o.Node)
	case errors.Is(err, rest.ErrNotInCluster):
		a.leavesOut(o.Spec)
	case err != nil:
		return nil, false, fmt.Errorf("asking the cluster for its nodes: %w", err)
	default:
		fmt.Fprintln(a.err, "Of the files and of the cluster's nodes only: its pods and policies are left out.")
	}
	return nodes, true, nil
}
