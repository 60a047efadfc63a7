package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"github.com/poldernet/polder/cmd/polder/internal/view"
)

// streams are where a command reads and writes.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// app is what all commands share: streams, environment and persistent flags.
type app struct {
	streams
	environ []string

	specPath string
	node     string
	stateDir string
	bootDir  string
	vars     []string
	varFiles []string
	noColor  bool
}

// exitCode ends the command with a status, after it has said why.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// The statuses. exitChanges is that of `plan --detailed-exitcode`,
// `status` and `fmt --check`, where a difference is an answer and not a
// failure. So is what `explain` finds to be denied.
const (
	exitError   exitCode = 1
	exitChanges exitCode = 2
	exitDenied  exitCode = 2
)

// usageError is a mistake on the command line.
type usageError struct {
	err     error
	command string
}

func (e usageError) Error() string {
	return fmt.Sprintf("%v\nRun \"%s --help\" for usage.", e.err, e.command)
}

func (e usageError) Unwrap() error { return e.err }

// run executes one command line and returns its exit status.
func run(ctx context.Context, args []string, s streams, environ []string) int {
	root, err := newRootCommand(&app{streams: s, environ: environ})
	if err != nil {
		return fail(s.err, err)
	}
	root.SetArgs(args)
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	err = root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var code exitCode
	if errors.As(err, &code) {
		return int(code)
	}
	return fail(s.err, err)
}

// fail prints an error. Where that is not possible either, the exit status is
// all that can tell.
func fail(w io.Writer, err error) int {
	fmt.Fprintf(w, "polder: %v\n", err)
	return int(exitError)
}

func newRootCommand(a *app) (*cobra.Command, error) {
	root := &cobra.Command{
		Use:   "polder",
		Short: "Make a Linux node's network match a declarative spec",
		Long: `polder makes a Linux node's network match a declarative spec. It reads the spec
and the kernel, prints the difference, and writes it: once, or for as long as it
runs. Objects that are not polder's are never changed.`,
		Example: `  polder validate --spec edge.hcl
  polder plan
  polder apply
  polder run`,
		Args:              subcommand,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.specPath, "spec", "/etc/polder", "`PATH` of the spec, a file or a folder")
	flags.StringVar(&a.node, "node", "", "`NAME` of this node in the spec (default the hostname)")
	flags.StringVar(&a.stateDir, "state-dir", "/run/polder", "`DIR` that keeps what destroy puts back, and the daemon's socket")
	flags.StringVar(&a.bootDir, "boot-dir", "", "`DIR` that keeps the ruleset in force for boot (default systemd's $STATE_DIRECTORY, or none)")
	flags.StringArrayVar(&a.vars, "var", nil, "set a variable of the spec: `NAME=VALUE`; may be repeated")
	flags.StringArrayVar(&a.varFiles, "var-file", nil, "set variables from a `FILE`; may be repeated")
	flags.BoolVar(&a.noColor, "no-color", false, "no colours, as with NO_COLOR in the environment")

	root.AddCommand(
		newValidateCommand(a),
		newPlanCommand(a),
		newApplyCommand(a),
		newDestroyCommand(a),
		newReleaseCommand(a),
		newStatusCommand(a),
		newRunCommand(a),
		newBootCommand(a),
		newEventsCommand(a),
		newWatchCommand(a),
		newExplainCommand(a),
		newPolicyCommand(a),
		newFmtCommand(a),
		newNodeCommand(a),
		newImportCommand(a),
		newMigrateCommand(a),
		newLabCommand(a),
		newInstallCNICommand(a),
		newVersionCommand(a),
	)
	addCompletionCommand(root)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{err, cmd.CommandPath()}
	})
	// Cobra has a hook for errors of flags and none for those of arguments, and
	// a distance for suggestions that it sets only where it suggests itself.
	for _, cmd := range commands(root) {
		cmd.SuggestionsMinimumDistance = 2 // letters
		if check := cmd.Args; check != nil {
			cmd.Args = func(cmd *cobra.Command, args []string) error {
				if err := check(cmd, args); err != nil {
					return usageError{err, cmd.CommandPath()}
				}
				return nil
			}
		}
	}
	// The node's name is completed from the spec; a spec that does not load
	// completes to nothing.
	err := root.RegisterFlagCompletionFunc("node", a.completeNodes)
	return root, err
}

// operands is the check of the arguments of a command that takes one for each of
// these names.
func operands(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == len(names) {
			return nil
		}
		given := "no argument is given"
		switch {
		case len(args) == 1:
			given = "1 argument is given"
		case len(args) > 1:
			given = fmt.Sprintf("%d arguments are given", len(args))
		}
		return fmt.Errorf("%s takes %s, and %s", cmd.CommandPath(), strings.Join(names, " "), given)
	}
}

// subcommand is the check of the arguments of a command that only has others
// below it: what reaches it is no command.
func subcommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := fmt.Errorf("%s has no command %q", cmd.CommandPath(), args[0])
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		err = fmt.Errorf("%w; did you mean %s?", err, strings.Join(near, " or "))
	}
	return err
}

// commands lists a command and all below it.
func commands(cmd *cobra.Command) []*cobra.Command {
	list := []*cobra.Command{cmd}
	for _, sub := range cmd.Commands() {
		list = append(list, commands(sub)...)
	}
	return list
}

// nodeName is the node that --node names, or the hostname.
func (a *app) nodeName() (string, error) {
	if a.node != "" {
		return a.node, nil
	}
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("finding the hostname (--node gives a name instead): %w", err)
	}
	return name, nil
}

// text is how to render for people on a stream.
func (a *app) text(w io.Writer) view.Text {
	return view.Text{Color: a.color(w)}
}

// color says whether to colour a stream: a terminal, unless the user asks for
// none (https://no-color.org).
func (a *app) color(w io.Writer) bool {
	if a.noColor || a.getenv("NO_COLOR") != "" || a.getenv("TERM") == "dumb" {
		return false
	}
	return isTerminal(w)
}

func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && isatty.IsTerminal(file.Fd())
}

func (a *app) getenv(name string) string {
	for _, entry := range a.environ {
		if value, ok := strings.CutPrefix(entry, name+"="); ok {
			return value
		}
	}
	return ""
}
