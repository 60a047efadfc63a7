package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/poldernet/polder/cmd/polder/internal/control"
	"github.com/poldernet/polder/cmd/polder/internal/view"
	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/reconcile"
)

func newPolicyCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Show the spec's policies, and who reaches whom by them",
		Long: `policy shows the policies of the spec and what they come to. It looks at no host:
what it says holds on every node, once the spec is applied. Only show --counters
looks at this one. Where the spec has a block kubernetes, the daemon of this node
answers, by the pods and policies of the cluster, too; without one, they are left
out.`,
		Example: `  polder policy show
  polder policy matrix`,
		Args: subcommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newPolicyShowCommand(a), newPolicyMatrixCommand(a))
	return cmd
}

func newPolicyShowCommand(a *app) *cobra.Command {
	var asJSON, verbose, counters bool
	cmd := &cobra.Command{
		Use:   "show [NAME...]",
		Short: "Show policies in the order in which they are looked at",
		Long: `show lists the tiers and their policies in the order in which they are looked at,
with what each selects and with its rules. The name of a NetworkPolicy is
NAMESPACE/NAME. With --node it shows what they select on that node.

With --counters it also reads from the kernel of this host how many packets came
to each rule, and for how many no rule of a tier decided, so that its default
action did. A packet counts at every rule that it matches on its way, in both
directions of a connection. A counter stays as long as some rule of the policy
says the same; what selects nothing on this node is not in force here. What was
dropped before a policy could decide, such as packets in another's name, is listed
behind the policies by its reason.`,
		Example: `  polder policy show
  polder policy show --counters
  polder policy show db --json`,
		RunE: func(cmd *cobra.Command, names []string) (err error) {
			q := control.Policies{Names: names, Node: a.node}
			if counters {
				if q.Counted, err = readCounters(cmd.Context()); err != nil {
					return err
				}
			}
			shown, err := answerTo(cmd, a, q)
			if err != nil {
				return err
			}
			return a.show(shown, asJSON, verbose)
		},
	}
	cmd.Flags().BoolVar(&counters, "counters", false, "show what the kernel of this host has counted; needs root (CAP_NET_ADMIN)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the policies as one line of JSON")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "show all that a policy selects")
	return cmd
}

func readCounters(ctx context.Context) (_ map[string]nft.CounterValue, err error) {
	counts, err := reconcile.OpenCounts()
	if err != nil {
		return nil, err
	}
	defer closing(counts, &err)
	return counts.Read(ctx)
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
		RunE: func(cmd *cobra.Command, _ []string) error {
			model, err := answerTo(cmd, a, control.Matrix{})
			if err != nil {
				return err
			}
			return a.show(model, asJSON, verbose)
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
