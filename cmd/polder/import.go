package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"

	"github.com/hashicorp/hcl/v2"
	"github.com/spf13/cobra"

	"github.com/poldernet/polder/internal/flannel"
	"github.com/poldernet/polder/internal/remains"
	"github.com/poldernet/polder/spec"
)

func newImportCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "import",
		Short:   "Write the spec of a network that something else made",
		Long:    `import reads what configures another network and writes the spec that says the same.`,
		Example: `  polder import flannel net-conf.json`,
		Args:    subcommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newImportFlannelCommand(a))
	return cmd
}

func newImportFlannelCommand(a *app) *cobra.Command {
	var output, cluster string
	var live, kubernetes bool
	cmd := &cobra.Command{
		Use:   "flannel [FILE]",
		Short: "Write the spec of a network of flannel's",
		Long: `flannel reads how flannel is configured and writes the spec that says the same. FILE
is a net-conf.json, which is also what flannel keeps in etcd, or a
kube-flannel.yml; "-" is standard input. Without it, or with --live, this node is
looked at: /run/flannel/subnet.env, and flannel's devices and routes. Then the
spec has blocks for this node and for those that it knows.

Where flannel has its nodes from Kubernetes, the spec has none, and polder shares
them with flannel. That is so of a kube-flannel.yml with --kube-subnet-mgr, and on a
node where flanneld runs with that option, or k3s, or as --kubernetes says.

What polder has not, or has otherwise, stands in the spec as a comment that begins
with "dropped". What flannel itself would refuse, or no spec can say, is an error.
Nothing on the node is changed.`,
		Example: `  polder import flannel kube-flannel.yml
  polder import flannel --live -o edge.hcl
  polder import flannel - < net-conf.json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if live && len(args) > 0 {
				return usageError{errors.New("--live is about this node, and not about a file"), cmd.CommandPath()}
			}
			if cmd.Flags().Changed("kubernetes") && len(args) > 0 {
				return usageError{errors.New("--kubernetes is about this node: a file says itself where nodes are"), cmd.CommandPath()}
			}
			if !clusterName.MatchString(cluster) {
				return usageError{fmt.Errorf("--cluster %q: at most 63 of a-z, 0-9 and - are wanted, with no - at either end", cluster), cmd.CommandPath()}
			}
			var text []byte
			var err error
			if len(args) > 0 {
				text, err = a.importFile(args[0], cluster)
			} else {
				if !cmd.Flags().Changed("kubernetes") {
					if kubernetes, err = remains.InKubernetes(); err != nil {
						return fmt.Errorf("looking for flanneld: %w", err)
					}
				}
				text, err = a.importNode(cmd.Context(), cluster, kubernetes)
			}
			if err != nil {
				return err
			}
			if output == "" {
				_, err := a.out.Write(text)
				return err
			}
			if err := writeNew(output, text); err != nil {
				return err
			}
			dropped := bytes.Count(text, []byte("# dropped: "))
			_, err = fmt.Fprintf(a.out, "Written to %s. Dropped: %d, as its comments tell.\n", output, dropped)
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&output, "output", "o", "", "write to a new `FILE`")
	flags.StringVar(&cluster, "cluster", "flannel", "`NAME` of the cluster")
	flags.BoolVar(&live, "live", false, "look at this node, as without FILE")
	flags.BoolVar(&kubernetes, "kubernetes", false, "nodes are those of Kubernetes (default as the flanneld that runs here says)")
	return cmd
}

// clusterName is what a spec takes (RFC 1123, a label).
var clusterName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// importFile writes the spec of a file.
func (a *app) importFile(path, cluster string) ([]byte, error) {
	name, source, err := a.readFile(path)
	if err != nil {
		return nil, fmt.Errorf("importing: %w", err)
	}
	text, diags := flannel.Import(name, source, cluster)
	return text, a.printImport(name, source, diags)
}

// importNode writes the spec of this node.
func (a *app) importNode(ctx context.Context, cluster string, kubernetes bool) ([]byte, error) {
	self, err := a.nodeName()
	if err != nil {
		return nil, err
	}
	node, err := flannel.ReadNode(ctx, self)
	if err != nil {
		return nil, fmt.Errorf("importing from this node: %w", err)
	}
	node.Kubernetes = kubernetes
	text, diags := node.Import(cluster)
	return text, a.printImport(flannel.EnvFile, node.Env, diags)
}

// printImport prints what is wrong with what was imported.
func (a *app) printImport(name string, source []byte, diags hcl.Diagnostics) error {
	files := map[string]*hcl.File{name: {Bytes: source}}
	if err := spec.WriteDiagnostics(a.err, files, diags, a.color(a.err), a.wrapWidth()); err != nil {
		return err
	}
	if diags.HasErrors() {
		return exitError
	}
	return nil
}

// readFile reads a file, or standard input where it is named "-".
func (a *app) readFile(path string) (name string, text []byte, err error) {
	if path == "-" {
		text, err = io.ReadAll(a.in)
		return "<stdin>", text, err
	}
	text, err = os.ReadFile(path)
	return path, text, err
}

// writeNew writes a file that must not exist: it may be a spec that somebody has
// gone on with.
func writeNew(name string, content []byte) (err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("writing the spec: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = f.Write(content)
	return err
}
