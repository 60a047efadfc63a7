package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/poldernet/polder/cmd/polder/internal/control"
	"github.com/poldernet/polder/cmd/polder/internal/view"
	"github.com/poldernet/polder/reconcile"
)

// door is the way by which a command changes the kernel: an applier of its own,
// or the daemon that has the state directory and so this network namespace.
type door struct {
	applier
	io.Closer
	planner
	daemon *view.Condition // of the daemon; nil: there is none
}

// planner is what makes the plans of a door.
type planner interface {
	Plan(ctx context.Context, mode reconcile.Mode) (*reconcile.Plan, error)
}

// open finds the daemon, or else takes the lock. It is held while the user reads
// the plan, so that what is approved is what is done; a daemon compares instead.
func (a *app) open(cmd *cobra.Command, options func() (reconcile.Options, error)) (door, error) {
	client, condition, err := control.Dial(cmd.Context(), a.stateDir)
	if err == nil {
		if err := a.agree(cmd, condition); err != nil {
			return door{}, errors.Join(err, client.Close())
		}
		return door{client, client, client, &condition}, nil
	}
	if !errors.Is(err, control.ErrNone) {
		return door{}, err
	}
	o, err := options()
	if err != nil {
		return door{}, err
	}
	own, err := reconcile.OpenApplier(o)
	if err != nil {
		return door{}, a.busy(cmd.Context(), err)
	}
	return door{own, own, own, nil}, nil
}

// agree refuses flags that the daemon would not follow.
func (a *app) agree(cmd *cobra.Command, daemon view.Condition) error {
	if cmd.Flags().Changed("node") && a.node != daemon.Node {
		return otherwise("node", a.node, daemon.Node, daemon.PID)
	}
	return a.agreeOnFiles(cmd, daemon)
}

// otherwise says that a flag is not as the daemon has it.
func otherwise(flag, given, has string, pid int) error {
	return fmt.Errorf("--%s is %s, but that of the daemon (pid %d) is %s: leave it out, or stop the daemon", flag, given, pid, cmp.Or(has, "none"))
}

// agreeOnFiles is agree where it is no matter for which node the daemon works.
func (a *app) agreeOnFiles(cmd *cobra.Command, daemon view.Condition) error {
	for _, flag := range []struct {
		name, given, has string
	}{
		{"spec", a.specPath, daemon.Spec.Path},
		{"boot-dir", a.bootDir, daemon.BootDir},
	} {
		if !cmd.Flags().Changed(flag.name) {
			continue
		}
		given, err := filepath.Abs(flag.given)
		if err != nil {
			return err
		}
		if given != flag.has {
			return otherwise(flag.name, given, flag.has, daemon.PID)
		}
	}
	for _, name := range []string{"var", "var-file"} {
		if cmd.Flags().Changed(name) {
			return fmt.Errorf("--%s has no effect on the daemon (pid %d), which has variables of its own: leave it out, or stop the daemon", name, daemon.PID)
		}
	}
	return nil
}

// busy says who has the network namespace, where that is why a command cannot.
func (a *app) busy(ctx context.Context, err error) error {
	if !errors.Is(err, reconcile.ErrBusy) {
		return err
	}
	client, daemon, asked := control.Dial(ctx, a.stateDir)
	if asked == nil {
		return errors.Join(fmt.Errorf("%w: a daemon, pid %d, running since %s for node %s and the spec %s", reconcile.ErrBusy,
			daemon.PID, daemon.Started.Format(time.DateTime), daemon.Node, daemon.Spec.Path), client.Close())
	}
	holder, asked := control.Holder(reconcile.LockName)
	if asked != nil {
		return err // it has just ended, or does not want to be asked
	}
	return fmt.Errorf("%w: pid %d of user %d, a command or a daemon with another --state-dir than %s",
		reconcile.ErrBusy, holder.PID, holder.UID, a.stateDir)
}

// notAsked says why a command without a daemon cannot know what there is in a cluster,
// and who may be that daemon.
func (a *app) notAsked() error {
	holder, err := control.Holder(reconcile.LockName)
	if err != nil {
		return reconcile.ErrNotAsked // nobody, or somebody who does not want to be asked
	}
	return fmt.Errorf("%w; pid %d of user %d is at work in this network namespace, a command or a daemon with another --state-dir than %s",
		reconcile.ErrNotAsked, holder.PID, holder.UID, a.stateDir)
}

// printSpecError prints the errors that the daemon finds in the spec as they are
// printed where a command reads it.
func (a *app) printSpecError(err error) error {
	var rejected control.SpecError
	if !errors.As(err, &rejected) {
		return err
	}
	if _, err := fmt.Fprintln(a.err, rejected.Diagnostics); err != nil {
		return err
	}
	return exitError
}
