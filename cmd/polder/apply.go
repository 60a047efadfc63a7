package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/poldernet/polder/cmd/polder/internal/view"
	"github.com/poldernet/polder/reconcile"
)

func newApplyCommand(a *app) *cobra.Command {
	var c changer
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Make this node match the spec",
		Long: `apply prints the plan, asks for the word "yes", does what the plan says, and
reads the kernel again to see that it is so. Only "yes" is taken as consent;
where standard input is not a terminal, the word is read from it all the same.

One object that fails does not keep the others from being done. All failures
are listed at the end and the exit status is then 1, as it is when something
that is not polder's is in the way or the user declines.

Where a daemon runs, it is the daemon that makes the plan, from its own spec, and
that carries it out. One that was held by destroy or release looks after the
node again.`,
		Example: `  polder apply
  polder apply --auto-approve
  polder apply --auto-approve --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.run(cmd, a, a.options, reconcile.ModeApply)
		},
	}
	c.addFlags(cmd)
	return cmd
}

// changer is what apply, destroy and release have in common: show the plan,
// ask, do it, say what became of it.
type changer struct {
	autoApprove bool
	asJSON      bool
	verbose     bool
	daemon      bool // a daemon does it
}

func (c *changer) addFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVar(&c.autoApprove, "auto-approve", false, "do not ask")
	flags.BoolVar(&c.asJSON, "json", false, "print the plan, each outcome and the result as lines of JSON; needs --auto-approve")
	flags.BoolVarP(&c.verbose, "verbose", "v", false, "show every change of long plans")
}

func (c *changer) run(cmd *cobra.Command, a *app, options func() (reconcile.Options, error), mode reconcile.Mode) error {
	return c.through(cmd, a, mode, func() (door, error) { return a.open(cmd, options) })
}

// through is run by a door.
func (c *changer) through(cmd *cobra.Command, a *app, mode reconcile.Mode, open func() (door, error)) (err error) {
	if c.asJSON && !c.autoApprove {
		return usageError{errors.New("--json needs --auto-approve: the question would not be JSON"), cmd.CommandPath()}
	}
	d, err := open()
	if err != nil {
		return err
	}
	defer closing(d, &err)
	c.daemon = d.daemon != nil
	text := a.text(a.out)
	text.Verbose = c.verbose
	approved := c.autoApprove
	for range planTries {
		plan, err := d.Plan(cmd.Context(), mode)
		if err != nil {
			return a.printSpecError(err)
		}
		if err := c.show(a, plan, text); err != nil {
			return err
		}
		if !plan.Empty() && !approved {
			if err := a.confirm(cmd.Context(), mode); err != nil {
				return err
			}
		}
		// A reader that has gone away (| head) or a terminal that hangs up would
		// end the process between two objects.
		signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP)
		err = c.apply(cmd.Context(), a, d, plan, text)
		if !errors.Is(err, reconcile.ErrPlanChanged) {
			return errors.Join(err, c.tellHeld(a, d, mode))
		}
		// The daemon has acted by itself since it made the plan: on the spec, for
		// one, that it read to make it.
	}
	return reconcile.ErrPlanChanged
}

// planTries is how often a plan is made that a daemon overtakes.
const planTries = 5

func (c *changer) show(a *app, plan *reconcile.Plan, text view.Text) error {
	if c.asJSON {
		return view.WriteJSON(a.out, view.NewPlan(plan))
	}
	return view.NewPlan(plan).WriteText(a.out, text)
}

// tellHeld says that the daemon does not undo what was done through it.
func (c *changer) tellHeld(a *app, d door, mode reconcile.Mode) error {
	if d.daemon == nil || c.asJSON {
		return nil
	}
	var err error
	switch {
	case mode != reconcile.ModeApply:
		_, err = fmt.Fprintf(a.out, "The daemon (pid %d) is held: it repairs nothing until `polder apply` or its restart.\n", d.daemon.PID)
	case d.daemon.Held != "":
		_, err = fmt.Fprintf(a.out, "The daemon (pid %d) is no longer held by %s.\n", d.daemon.PID, d.daemon.Held)
	}
	return err
}

// applier is what apply needs of reconcile.Applier.
type applier interface {
	Apply(ctx context.Context, plan *reconcile.Plan, report func(reconcile.Outcome)) (*reconcile.Result, error)
}

// apply does what the plan says. One that is empty changes nothing, but what
// was remembered and is no longer needed is forgotten.
func (c *changer) apply(ctx context.Context, a *app, applier applier, plan *reconcile.Plan, text view.Text) error {
	var outcomes []reconcile.Outcome
	var writing error
	p := progress{c: c, out: a.out, text: text, total: len(plan.Changes)}
	result, ended := applier.Apply(ctx, plan, func(o reconcile.Outcome) {
		outcomes = append(outcomes, o)
		// Output that goes nowhere is no reason to leave the node half done: the
		// apply goes on and the first error is told at the end.
		writing = cmp.Or(writing, p.report(o))
	})
	if errors.Is(ended, reconcile.ErrPlanChanged) {
		return ended // nothing was done
	}
	if result == nil {
		result = &reconcile.Result{}
	}
	if ctx.Err() != nil {
		ended = fmt.Errorf("interrupted; what is done stays done, and %s goes on from there", c.successor(plan.Mode))
	}
	// The outcomes are those reported, not those of the result: an apply that
	// ends early may have none to return.
	model := view.NewResult(plan, outcomes, result.Remaining, ended)
	switch {
	case c.asJSON:
		writing = cmp.Or(writing, view.WriteJSON(a.out, model))
	case !plan.Empty() || ended != nil:
		writing = cmp.Or(writing, model.WriteText(a.out, text))
	}
	if writing != nil {
		return fmt.Errorf("writing the report: %w", writing)
	}
	if !model.Complete {
		return exitError
	}
	return nil
}

// successor is who takes up an apply that was interrupted.
func (c *changer) successor(mode reconcile.Mode) string {
	if c.daemon && mode == reconcile.ModeApply {
		return "the daemon"
	}
	return "another " + string(mode)
}

// confirm asks for the word "yes".
func (a *app) confirm(ctx context.Context, mode reconcile.Mode) error {
	question := map[reconcile.Mode]string{
		reconcile.ModeApply:   "Do you want to do this?",
		reconcile.ModeDestroy: "Do you want to remove all this? Pods lose their network.",
		reconcile.ModeRelease: "Do you want to let go of all this? Polder no longer looks after it then.",
		view.ModeClean:        "Do you want to remove all this? polder cannot make it again.",
	}[mode]
	if _, err := fmt.Fprintf(a.out, "\n%s\n  Only \"yes\" is accepted: ", question); err != nil {
		return fmt.Errorf("asking: %w", err)
	}
	answer := make(chan string, 1)
	go func() {
		// A read from a terminal cannot be cancelled; after a signal the
		// process ends and takes the reader with it.
		line, err := bufio.NewReader(a.in).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			line = ""
		}
		answer <- strings.TrimSpace(line)
	}()
	var got string
	select {
	case got = <-answer:
	case <-ctx.Done():
	}
	if !isTerminal(a.in) || ctx.Err() != nil {
		fmt.Fprintln(a.out) // nobody pressed Enter
	}
	if got != "yes" {
		fmt.Fprintf(a.out, "\n%s cancelled. Nothing was changed.\n", strings.ToUpper(string(mode[:1]))+string(mode[1:]))
		return exitError
	}
	return nil
}

// progress reports outcomes as they come. Long applies report every
// progressStep changes and every failure.
type progress struct {
	c     *changer
	out   io.Writer
	text  view.Text
	total int
	done  int
}

const progressStep = 500

func (p *progress) report(o reconcile.Outcome) error {
	p.done++
	model := view.NewOutcome(o)
	switch {
	case p.c.asJSON:
		return view.WriteJSON(p.out, model)
	case o.Change.Detail && model.Done && !p.c.verbose:
		return nil
	case p.total <= progressStep || p.c.verbose || !model.Done:
		return model.WriteText(p.out, p.text)
	case p.done%progressStep == 0:
		_, err := fmt.Fprintf(p.out, "  %d of %d done\n", p.done, p.total)
		return err
	}
	return nil
}
