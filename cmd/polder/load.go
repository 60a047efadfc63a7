package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/hcl/v2"
	"github.com/spf13/cobra"

	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
)

// diagnosticWidth is where a terminal's lines of text are wrapped, in columns.
const diagnosticWidth = 80

// inputs are the values of the spec's variables, as the user gives them.
func (a *app) inputs() spec.Inputs {
	return spec.Inputs{Vars: a.vars, VarFiles: a.varFiles, Environ: a.environ}
}

// loader reads a spec: policy.Load, or policy.Read, which does not ask whether
// its checks fail.
type loader func(path string, in spec.Inputs) (*spec.Config, *policy.Model, hcl.Diagnostics)

// load reads the spec and prints what is wrong with it. After a printed error
// the command has nothing to add: it ends with exitError.
func (a *app) load(by loader) (*spec.Config, *policy.Model, error) {
	config, m, diags := by(a.specPath, a.inputs())
	if err := a.printDiagnostics(config, diags); err != nil {
		return nil, nil, err
	}
	if diags.HasErrors() {
		return nil, nil, exitError
	}
	return config, m, nil
}

// leavesOut says what an answer that comes from the files alone leaves out.
func (a *app) leavesOut(sp *spec.Spec) {
	if sp.Kubernetes != nil {
		fmt.Fprintln(a.err, "Of the files only: pods and policies of the cluster are left out.")
	}
}

// suits says that a spec does not ask the cluster for which a flag gives credentials:
// whoever gives them believes that policies of the cluster are enforced.
func suits(kubeconfig string) func(*spec.Spec) hcl.Diagnostics {
	return func(sp *spec.Spec) hcl.Diagnostics {
		if kubeconfig == "" || sp.Kubernetes != nil {
			return nil
		}
		return hcl.Diagnostics{{
			Severity: hcl.DiagError, Summary: "No cluster for --kubeconfig",
			Detail: "The flag names credentials for a cluster, and the spec has no block `kubernetes`, without which none is asked. Add it to the spec, or leave the flag out:\n\n  kubernetes {}",
		}}
	}
}

// loadFor is policy.Load of a spec that suits credentials.
func loadFor(kubeconfig string) loader {
	return func(path string, in spec.Inputs) (*spec.Config, *policy.Model, hcl.Diagnostics) {
		config, m, diags := policy.Load(path, in)
		if !diags.HasErrors() {
			diags = append(diags, suits(kubeconfig)(config.Spec)...)
		}
		return config, m, diags
	}
}

// options reads the spec and finds this node in it.
func (a *app) options() (reconcile.Options, error) { return a.optionsBy(policy.Load) }

func (a *app) optionsBy(by loader) (reconcile.Options, error) {
	node, err := a.nodeName()
	if err != nil {
		return reconcile.Options{}, err
	}
	config, _, err := a.load(by)
	if err != nil {
		return reconcile.Options{}, err
	}
	if diags := config.CheckNode(node); diags.HasErrors() {
		if a.node == "" {
			diags[0].Detail += "\n\nWhere that is only the hostname, --node gives another name."
		}
		return reconcile.Options{}, errors.Join(a.printDiagnostics(config, diags), exitError)
	}
	bootDir, err := a.bootDirectory()
	return reconcile.Options{Spec: config.Spec, Node: node, StateDir: a.stateDir, BootDir: bootDir}, err
}

// optionsWithoutSpec are for what works by the marks in the kernel. A spec is
// read only where the user names one, and then not for its checks: they are
// about what is put into force.
func (a *app) optionsWithoutSpec(cmd *cobra.Command) (reconcile.Options, error) {
	if cmd.Flags().Changed("spec") {
		return a.optionsBy(policy.Read)
	}
	node, err := a.nodeName()
	if err != nil {
		return reconcile.Options{}, err
	}
	bootDir, err := a.bootDirectory()
	return reconcile.Options{Node: node, StateDir: a.stateDir, BootDir: bootDir}, err
}

func (a *app) printDiagnostics(config *spec.Config, diags hcl.Diagnostics) error {
	return config.WriteDiagnostics(a.err, diags, a.color(a.err), a.wrapWidth())
}

// wrapWidth is where diagnostics are wrapped: only on a terminal, since logs
// and editors wrap by themselves, and grep wants whole lines.
func (a *app) wrapWidth() uint {
	if isTerminal(a.err) {
		return diagnosticWidth
	}
	return 0
}

// completeNodes offers the names of the spec's nodes to the shell.
func (a *app) completeNodes(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	config, diags := spec.Load(a.specPath, a.inputs())
	if diags.HasErrors() {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, n := range config.Spec.Nodes {
		names = append(names, n.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// closing closes what a command opened and keeps the error, if there is none
// before it.
func closing(c io.Closer, err *error) {
	if closed := c.Close(); *err == nil {
		*err = closed
	}
}
