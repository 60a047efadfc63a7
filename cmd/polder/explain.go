package main

import (
	"github.com/spf13/cobra"

	"github.com/poldernet/polder/cmd/polder/internal/control"
	"github.com/poldernet/polder/spec"
)

func newExplainCommand(a *app) *cobra.Command {
	var asJSON, verbose bool
	var fromInterface, toInterface string
	cmd := &cobra.Command{
		Use:   "explain FROM TO PORT",
		Short: "Say whether a connection is allowed, and which rule decides",
		Long: `explain judges a connection by the policies of the spec, at both of its ends, and
shows each rule that was looked at and the line that decided. It looks at no
host: what it says holds on every node, once the spec is applied. Where the spec has
a block kubernetes, the daemon of this node answers, by the pods and policies of the
cluster, too; without one, they are left out.

FROM and TO are endpoints and nodes, by name (endpoint.NAME or node.NAME where
both have it), addresses, or "outside": an address that nothing in the spec has,
and no rule names. A pod of a cluster is NAMESPACE/NAME. TO is who answers in the
end, behind any NAT. PORT is "5432/tcp", the name of a port of TO, "icmp" for an
echo request, another ICMP type as "timestamp-request/icmp", or another protocol by
its name.

The exit status is 0 when the connection is allowed between all addresses of
both, 2 when it is denied between some, and 1 on errors.`,
		Example: `  polder explain web-1 db-1 5432/tcp
  polder explain outside endpoint.web-1 http
  polder explain 10.244.1.5 node.n2 icmp --json | jq .verdict`,
		Args: operands("FROM", "TO", "PORT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			model, err := answerTo(cmd, a, control.Explain{
				From: args[0], To: args[1], Service: args[2], FromInterface: fromInterface, ToInterface: toInterface,
			})
			if err != nil {
				return err
			}
			if err = a.show(model, asJSON, verbose); err == nil && model.Verdict != string(spec.Allow) {
				return exitDenied
			}
			return err
		},
		ValidArgsFunction: a.completeEnds,
	}
	flags := cmd.Flags()
	flags.StringVar(&fromInterface, "from-interface", "", "`NAME` of the interface by which it leaves a node with several host endpoints")
	flags.StringVar(&toInterface, "to-interface", "", "`NAME` of the interface by which it enters a node with several host endpoints")
	flags.BoolVar(&asJSON, "json", false, "print the explanation as one line of JSON")
	flags.BoolVarP(&verbose, "verbose", "v", false, "show every rule of long policies")
	return cmd
}

// completeEnds offers the spec's endpoints and nodes to the shell.
func (a *app) completeEnds(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	config, diags := spec.Load(a.specPath, a.inputs())
	if diags.HasErrors() || len(args) > 1 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names := []string{spec.End{Kind: spec.EndOutside}.String()}
	for _, e := range config.Spec.Endpoints {
		names = append(names, spec.End{Kind: spec.EndEndpoint, Name: e.Name}.String())
	}
	for _, n := range config.Spec.Nodes {
		names = append(names, spec.End{Kind: spec.EndNode, Name: n.Name}.String())
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
