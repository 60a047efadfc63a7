package main

import (
	"github.com/spf13/cobra"

	"github.com/poldernet/polder/reconcile"
)

func newDestroyCommand(a *app) *cobra.Command {
	var c changer
	cmd := &cobra.Command{
		Use:   "destroy",
		Short: "Remove everything of polder's from this node",
		Long: `destroy removes all objects that carry polder's mark and puts sysctls back to
what they were before the first apply. It needs no spec: the marks are in the
kernel. Objects of others stay. To keep the network and only take polder's mark
off, use release.

A daemon that runs does it, and then repairs nothing until apply. Where none runs,
--boot-dir says where it kept the ruleset that polder boot would load.`,
		Example: `  polder destroy
  polder destroy --auto-approve`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			options := func() (reconcile.Options, error) { return a.optionsWithoutSpec(cmd) }
			return c.run(cmd, a, options, reconcile.ModeDestroy)
		},
	}
	c.addFlags(cmd)
	return cmd
}
