package main

import (
	"github.com/spf13/cobra"

	"github.com/poldernet/polder/cmd/polder/internal/view"
	"github.com/poldernet/polder/reconcile"
)

func newStatusCommand(a *app) *cobra.Command {
	var asJSON, all bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say whether this node matches the spec, and how it reaches its peers",
		Long: `status says on one screen whether the node matches the spec and what differs, by
which path it reaches each peer, and which firewalls of others would drop pod
traffic. It writes nothing.

The exit status is 0 when the node matches the spec, 2 when it does not, and 1
on errors.`,
		Example: `  polder status
  polder status --all
  polder status --json | jq .in_sync`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			options, err := a.options()
			if err != nil {
				return err
			}
			planner, err := reconcile.Open(options)
			if err != nil {
				return err
			}
			defer closing(planner, &err)
			status, err := planner.Status(cmd.Context())
			if err != nil {
				return err
			}
			model := view.NewStatus(status)
			if asJSON {
				err = view.WriteJSON(a.out, model)
			} else {
				text := a.text(a.out)
				text.Verbose = all
				err = model.WriteText(a.out, text)
			}
			// Like kubectl diff: a difference is an answer. Firewalls of others do
			// not count, for no apply changes them.
			if err == nil && !status.InSync() {
				return exitChanges
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the status as one line of JSON")
	cmd.Flags().BoolVar(&all, "all", false, "show every difference and every peer")
	return cmd
}
