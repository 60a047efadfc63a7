package main

import (
	"github.com/spf13/cobra"

	"github.com/poldernet/polder/reconcile"
)

func newReleaseCommand(a *app) *cobra.Command {
	var c changer
	cmd := &cobra.Command{
		Use:   "release",
		Short: "Leave the network as it is and take polder's mark off",
		Long: `release takes polder's mark off all objects that carry it and leaves the
objects, so that something else can look after them. It needs no spec. What
polder adopted is then as it was before; a later apply adopts it again.

The nftables tables of polder are removed: their name is the mark. Policies end with
them, so that everybody reaches everybody until something else enforces them, and so
do masquerading and the rules that guard the VXLAN port.

A daemon that runs does it, and then repairs nothing until apply. Where none runs,
--boot-dir says where it kept the ruleset that polder boot would load.`,
		Example: `  polder release
  polder release --auto-approve`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			options := func() (reconcile.Options, error) { return a.optionsWithoutSpec(cmd) }
			return c.run(cmd, a, options, reconcile.ModeRelease)
		},
	}
	c.addFlags(cmd)
	return cmd
}
