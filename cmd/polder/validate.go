package main

import (
	"github.com/spf13/cobra"

	"github.com/poldernet/polder/cmd/polder/internal/view"
	"github.com/poldernet/polder/policy"
)

func newValidateCommand(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "validate",
		Short: "Check the spec, without looking at this host",
		Long: `validate reads the spec and prints all mistakes at once, each with its source
line, and holds the policies to the spec's checks. It looks at no host, so that
it runs anywhere: beside the editor, or in the pull request. With --node it checks that the spec has that node, too.`,
		Example: `  polder validate
  polder validate --spec edge.hcl --node n1
  polder validate --spec edge.hcl --json`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			config, _, diags := policy.Load(a.specPath, a.inputs())
			// Only where it is named: the machine that validates is mostly no node.
			if a.node != "" && !diags.HasErrors() {
				diags = append(diags, config.CheckNode(a.node)...)
			}
			if asJSON {
				if err := view.WriteJSON(a.out, view.NewValidation(diags)); err != nil {
					return err
				}
			} else if err := a.printDiagnostics(config, diags); err != nil {
				return err
			}
			if diags.HasErrors() {
				return exitError
			}
			if asJSON {
				return nil
			}
			return view.WriteValid(a.out, a.text(a.out), a.specPath, config.Spec)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the findings as one line of JSON")
	return cmd
}
