package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/poldernet/polder/cmd/polder/internal/view"
	"github.com/poldernet/polder/policy"
)

func newPolicyCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Show the spec's policies, and who reaches whom by them",
		Long: `policy shows the policies of the spec and what they come to. It looks at no host:
what it says holds on every node, once the spec is applied.`,
		Example: `  polder policy show
  polder policy matrix`,
		Args: subcommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newPolicyShowCommand(a), newPolicyMatrixCommand(a))
	return cmd
}

func newPolicyShowCommand(a *app) *cobra.Command {
	var asJSON, verbose bool
	cmd := &cobra.Command{
		Use:   "show [NAME...]",
		Short: "Show policies in the order in which they are looked at",
		Long: `show lists the tiers and their policies in the order in which they are looked at,
with what each selects and with its rules. The name of a NetworkPolicy is
NAMESPACE/NAME.`,
		Example: `  polder policy show
  polder policy show db --json`,
		RunE: func(_ *cobra.Command, names []string) error {
			_, m, err := a.load(policy.Read)
			if err != nil {
				return err
			}
			tiers := m.Tiers()
			for _, name := range names {
				if !slices.ContainsFunc(tiers, func(t policy.Tier) bool {
					return slices.ContainsFunc(t.Policies, func(p policy.Selected) bool { return p.Name == name })
				}) {
					return fmt.Errorf("the spec has no policy named %q", name)
				}
			}
			return a.show(view.NewPolicies(tiers, names...), asJSON, verbose)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the policies as one line of JSON")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "show all that a policy selects")
	return cmd
}

func newPolicyMatrixCommand(a *app) *cobra.Command {
	var asJSON, verbose bool
	cmd := &cobra.Command{
		Use:   "matrix",
		Short: "Show who reaches whom, and on what",
		Long: `matrix shows, for each pair of endpoints, nodes and strangers, the ports and
protocols that policies at both ends let through, exactly. What no policy tells
apart is one row: strangers are those in a network set or a block that rules
name, and those outside of all. "all" and "-" are everything and nothing.`,
		Example: `  polder policy matrix
  polder policy matrix --json | jq '.cells[] | select(.from == "outside" and .services != "-")'`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, m, err := a.load(policy.Read)
			if err != nil {
				return err
			}
			return a.show(view.NewMatrix(m.Matrix()), asJSON, verbose)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the matrix as one line of JSON")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "show all members of groups")
	return cmd
}

// show prints a model.
func (a *app) show(model view.Printable, asJSON, verbose bool) error {
	if asJSON {
		return view.WriteJSON(a.out, model)
	}
	text := a.text(a.out)
	text.Verbose = verbose
	return model.WriteText(a.out, text)
}
