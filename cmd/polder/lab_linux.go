package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

func newLabCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "Try a spec in network namespaces",
		Long: `lab makes the network that a spec and a lab file describe out of network
namespaces, on this machine and without root. Nothing of it is left when it is
taken down, also when its processes are killed.`,
		Example: `  polder lab demo
  polder lab up examples/dual-stack
  polder lab exec n1 -- polder plan
  polder lab down`,
		Args: subcommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var name string
	cmd.PersistentFlags().StringVar(&name, "name", "default", "`NAME` of the lab, to have several")
	cmd.AddCommand(newLabUpCommand(a, &name), newLabExecCommand(&name), newLabDownCommand(a, &name), newLabDemoCommand(a))
	return cmd
}

func newLabUpCommand(a *app, name *string) *cobra.Command {
	return &cobra.Command{
		Use:   "up FILE",
		Short: "Bring up a lab in the background",
		Long: `up makes the links, nodes, pods and hosts of a lab, and leaves it to polder to
make the pod network; where the spec has no network block, up makes a plain one
of bridges and routes. FILE is a lab file, *.lab.hcl, or the folder that holds
it; the spec is in the same folder. In the lab, that folder is /etc/polder, so
that polder needs no --spec.`,
		Example: `  polder lab up examples/dual-stack
  polder lab up --name second my.lab.hcl`,
		Args: operands("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			path, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			f, err := findLabFile(lab.HostPath(path))
			if err != nil {
				return err
			}
			topology, s, _, err := a.loadLab(f)
			if err != nil {
				return err
			}
			err = lab.Background(*name, func(ctx context.Context) (*lab.Lab, error) {
				return upLab(ctx, f, topology, s)
			})
			if err != nil {
				return err
			}
			fmt.Fprintf(a.out, "Lab %s is up.\n\n", *name)
			if err := describeLab(a.out, topology, s); err != nil {
				return err
			}
			more := ""
			if *name != "default" {
				more = " --name " + *name
			}
			_, err = fmt.Fprintf(a.out, "\nRun something on a machine:  polder lab exec%[1]s %[2]s -- polder plan\n"+
				"Take the lab down:           polder lab down%[1]s\n", more, s.Nodes[0].Name)
			return err
		},
	}
}

func newLabExecCommand(name *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "exec MACHINE -- CMD...",
		Short: "Run a program on a node, pod or host of a lab",
		Long: `exec runs a program in the network namespace of a node, pod, router or host,
with its hostname and its own /run. Standard streams, signals and the exit
status are passed on; a shell gets a terminal. This polder is the first in the
program's PATH.`,
		Example: `  polder lab exec n1 -- polder apply
  polder lab exec web-1 -- ping -c 1 10.244.3.5
  polder lab exec n3 -- bash`,
		Args: func(cmd *cobra.Command, args []string) error {
			if machine, argv := splitExec(args); machine == "" || len(argv) == 0 {
				return fmt.Errorf("%s needs a machine and a program", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			machine, argv := splitExec(args)
			code, err := lab.Exec(*name, machine, argv)
			if err == nil && code != 0 {
				err = exitCode(code)
			}
			return err
		},
	}
	// What follows the machine belongs to the program, flags included.
	cmd.Flags().SetInterspersed(false)
	return cmd
}

// splitExec takes the arguments of exec apart. The dashes may be left out.
func splitExec(args []string) (machine string, argv []string) {
	if len(args) == 0 {
		return "", nil
	}
	argv = args[1:]
	if len(argv) > 0 && argv[0] == "--" {
		argv = argv[1:]
	}
	return args[0], argv
}

func newLabDownCommand(a *app, name *string) *cobra.Command {
	return &cobra.Command{
		Use:     "down",
		Short:   "Take a lab down",
		Long:    `down ends a lab and every program in it.`,
		Example: `  polder lab down`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := lab.Down(*name); err != nil {
				return err
			}
			_, err := fmt.Fprintf(a.out, "Lab %s is down.\n", *name)
			return err
		},
	}
}

// labFile is where a lab is described: a lab file, and the folder with its
// spec.
type labFile struct{ path, dir string }

const labSuffix = ".lab.hcl"

// findLabFile finds the lab file that the user names, or the only one in the
// folder that the user names.
func findLabFile(path string) (labFile, error) {
	info, err := os.Stat(path)
	if err != nil {
		return labFile{}, fmt.Errorf("finding the lab file: %w", err)
	}
	file := path
	if info.IsDir() {
		found, err := filepath.Glob(filepath.Join(path, "*"+labSuffix))
		if err != nil {
			return labFile{}, fmt.Errorf("finding the lab file: %w", err)
		}
		if len(found) != 1 {
			return labFile{}, fmt.Errorf("folder %s holds %d lab files (*%s): name one", path, len(found), labSuffix)
		}
		file = found[0]
	} else if !strings.HasSuffix(path, labSuffix) {
		return labFile{}, fmt.Errorf("%s is no lab file: the name of one ends in %s", path, labSuffix)
	}
	dir, err := filepath.Abs(filepath.Dir(file))
	return labFile{path: file, dir: dir}, err
}

// loadLab reads a lab file and its spec, and prints what is wrong with them. The
// spec's checks may fail: a lab is for finding out why, too.
func (a *app) loadLab(f labFile) (*lab.Topology, *spec.Spec, *policy.Model, error) {
	config, model, diags := policy.Read(f.dir, a.inputs())
	if err := a.printDiagnostics(config, diags); err != nil {
		return nil, nil, nil, err
	}
	topology, more := lab.LoadTopology(f.path)
	if !diags.HasErrors() && !more.HasErrors() {
		more = append(more, topology.Check(config.Spec)...)
	}
	if err := spec.WriteDiagnostics(a.err, topology.Files, more, a.color(a.err), a.wrapWidth()); err != nil {
		return nil, nil, nil, err
	}
	if diags.HasErrors() || more.HasErrors() {
		return nil, nil, nil, exitError
	}
	return topology, config.Spec, model, nil
}

// upLab brings a lab up, with its spec where polder looks for it.
func upLab(ctx context.Context, f labFile, t *lab.Topology, s *spec.Spec) (*lab.Lab, error) {
	l, err := lab.Up(ctx, t, s)
	if err != nil {
		return nil, err
	}
	if err := l.MountSpec(f.dir); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// describeLab lists what is on each link and the pods of each node.
func describeLab(w io.Writer, t *lab.Topology, s *spec.Spec) error {
	var b strings.Builder
	for _, l := range t.Links {
		fmt.Fprintf(&b, "  link %-6s", l.Name)
		for _, m := range t.Machines {
			for n, i := range m.Interfaces {
				if i.Link != l.Name {
					continue
				}
				fmt.Fprintf(&b, "  %s", m.Name)
				if node := s.Node(m.Name); node != nil && n == 0 && len(i.Addresses) == 0 {
					fmt.Fprintf(&b, " %v", node.Addresses[0].Addr)
				} else {
					fmt.Fprintf(&b, " %v", i.Addresses[0].Addr())
				}
			}
		}
		b.WriteByte('\n')
	}
	for _, n := range s.Nodes {
		fmt.Fprintf(&b, "  node %-6s", n.Name)
		for _, e := range s.Endpoints {
			if e.Node == n.Name && len(e.Addresses) > 0 {
				fmt.Fprintf(&b, "  %s %v", e.Name, e.Addresses[0])
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}
