package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/spf13/cobra"

	"github.com/poldernet/polder/spec"
)

func newNodeCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Add nodes to the spec and give them subnets",
		Long: `node edits the spec: it adds nodes and gives nodes their pod subnets. Comments and
layout stay, and no subnet that a node already has is ever changed.`,
		Example: `  polder node add n4 --address 192.0.2.14/24
  polder node assign`,
		Args: subcommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newNodeAddCommand(a), newNodeAssignCommand(a))
	return cmd
}

func newNodeAddCommand(a *app) *cobra.Command {
	var addresses []string
	cmd := &cobra.Command{
		Use:   "add NAME --address ADDRESS[/LEN]...",
		Short: "Add a node to the spec, with the next free subnets",
		Long: `add writes a node block beside those that the spec has, with the next free subnet
of each pod family. Give one address for each family of the underlay; with the
prefix length polder knows which nodes share a link.`,
		Example: `  polder node add n4 --address 192.0.2.14/24
  polder node add n4 --address 192.0.2.14/24 --address 2001:db8::14/64`,
		Args: operands("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(addresses) == 0 {
				return usageError{errors.New("a node needs --address, under which the other nodes reach it"), cmd.CommandPath()}
			}
			edit, diags := spec.AddNode(a.specPath, a.inputs(), args[0], addresses...)
			return a.write(edit, diags)
		},
	}
	cmd.Flags().StringArrayVar(&addresses, "address", nil, "`ADDRESS[/LEN]` under which other nodes reach it; may be repeated")
	return cmd
}

func newNodeAssignCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "assign [NAME...]",
		Short: "Give nodes without subnets the next free ones",
		Long: `assign writes the next free subnet of each pod family into the node blocks that
have none: those named, or all. The lowest free subnet between subnet_min and
subnet_max is taken.`,
		Example: `  polder node assign
  polder node assign n4 --spec edge.hcl`,
		ValidArgsFunction: a.completeNodes,
		RunE: func(_ *cobra.Command, names []string) error {
			edit, diags := spec.Assign(a.specPath, a.inputs(), names...)
			return a.write(edit, diags)
		},
	}
}

// write writes an edit and says what it was.
func (a *app) write(edit *spec.Edit, diags hcl.Diagnostics) error {
	if err := a.printDiagnostics(edit.Config, diags); err != nil {
		return err
	}
	if diags.HasErrors() {
		return exitError
	}
	if err := edit.Write(); err != nil {
		return err
	}
	if len(edit.Files()) == 0 {
		_, err := fmt.Fprintln(a.out, "Every node has its subnets. Nothing was changed.")
		return err
	}
	for _, assigned := range edit.Assignments {
		var subnets []string
		for _, s := range assigned.Subnets {
			subnets = append(subnets, s.String())
		}
		line := assigned.Node
		if len(subnets) > 0 {
			line += ": " + strings.Join(subnets, ", ")
		}
		if _, err := fmt.Fprintln(a.out, line); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(a.out, "Written to %s.\n", strings.Join(edit.Files(), ", "))
	return err
}
