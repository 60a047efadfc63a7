package main

import (
	"context"
	"errors"
	"iter"

	"github.com/spf13/cobra"

	"github.com/poldernet/polder/cmd/polder/internal/control"
	"github.com/poldernet/polder/cmd/polder/internal/view"
	"github.com/poldernet/polder/reconcile"
)

func newEventsCommand(a *app) *cobra.Command {
	var e follower
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Follow what the daemon does",
		Long: `events prints what the daemon of the state directory did and saw lately, and
then what it does, as it happens, until it or the daemon is stopped. The daemon
keeps the latest 1024 events; if some were dropped before they could be read, a
line says so.`,
		Example: `  polder events
  polder events -n 50 --no-follow
  polder events --all --json | jq -r 'select(.event == "changed") | .change.name'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			e.resume = cmd.Flags().Changed("since")
			return e.run(cmd.Context(), a)
		},
	}
	flags := cmd.Flags()
	flags.Uint64VarP(&e.lines, "lines", "n", 10, "begin with the latest `N` events")
	flags.BoolVar(&e.all, "all", false, "begin with all events that are kept")
	flags.Uint64Var(&e.since, "since", 0, "begin after the event of the sequence number `SEQ`")
	flags.BoolVar(&e.still, "no-follow", false, "end after the events that there are")
	flags.BoolVar(&e.asJSON, "json", false, "print each event as a line of JSON")
	cmd.MarkFlagsMutuallyExclusive("lines", "all", "since")
	return cmd
}

// follower prints events.
type follower struct {
	lines, since       uint64
	resume             bool // after since
	all, still, asJSON bool
}

func (f *follower) run(ctx context.Context, a *app) (err error) {
	client, daemon, err := control.Dial(ctx, a.stateDir)
	if err != nil {
		return err
	}
	defer closing(client, &err)
	seen := f.since
	if !f.resume && !f.all {
		seen = daemon.LastEvent - min(f.lines, daemon.LastEvent)
	}
	return f.follow(ctx, a, seen, client.Events(ctx, seen, !f.still))
}

// follow prints the events after one of that sequence number.
func (f *follower) follow(ctx context.Context, a *app, seen uint64, events iter.Seq2[view.Event, error]) error {
	var last reconcile.EventType
	for e, err := range events {
		switch {
		case ctx.Err() != nil:
			return nil // it is how one stops following
		case err != nil:
			return err
		}
		if e.Seq > seen+1 {
			if err := f.print(a, view.NewSkipped(e.Seq-seen-1)); err != nil {
				return err
			}
		}
		if err := f.print(a, e); err != nil {
			return err
		}
		seen, last = e.Seq, e.Event
	}
	if !f.still && last != reconcile.EventStopping && ctx.Err() == nil {
		return errors.New("the daemon has gone without a word")
	}
	return nil
}

func (f *follower) print(a *app, model view.Printable) error {
	if f.asJSON {
		return view.WriteJSON(a.out, model)
	}
	return model.WriteText(a.out, a.text(a.out))
}
