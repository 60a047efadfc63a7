package main

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/poldernet/polder/cmd/polder/internal/control"
	"github.com/poldernet/polder/cmd/polder/internal/view"
	"github.com/poldernet/polder/reconcile"
)

func newStatusCommand(a *app) *cobra.Command {
	var asJSON, all bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say whether this node matches the spec, and how the daemon stands",
		Long: `status says on one screen whether the node matches the spec and what differs, by
which path it reaches each peer, and which firewalls of others would drop pod
traffic. It reads the kernel itself and writes nothing. Where a daemon runs, it
says how that stands: since when it is in sync, whether it has taken the spec,
what it repaired, and what it fails to do. Where the spec has a block kubernetes,
it says only that, and what the daemon knows of the peers: what there should be in the
kernel, nobody else knows.

The exit status is 0 when the node matches the spec, 2 when it does not, and 1
on errors.`,
		Example: `  polder status
  polder status --all
  polder status --json | jq .daemon.failures`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text := a.text(a.out)
			text.Verbose = all
			show := func(model view.Printable) error {
				if asJSON {
					return view.WriteJSON(a.out, model)
				}
				return model.WriteText(a.out, text)
			}
			daemon, unasked := askDaemon(cmd.Context(), a.stateDir)
			options, err := a.options()
			var status *reconcile.Status
			if err == nil && options.Spec.Kubernetes != nil {
				// Nobody else knows what there should be.
				switch {
				case unasked != nil:
					return unasked
				case daemon == nil:
					return a.notAsked()
				}
				if err := show(a.clusterStatus(cmd.Context(), *daemon)); err != nil || daemon.InSync {
					return err
				}
				return exitChanges
			}
			if err == nil {
				status, err = readStatus(cmd.Context(), options)
			}
			if err != nil && daemon != nil {
				// It goes on with the last good spec, or tells what it fails to do.
				return errors.Join(show(*daemon), err)
			}
			if err != nil {
				return err
			}
			model := view.NewStatus(status)
			model.Daemon = daemon
			if unasked != nil {
				model.DaemonError = unasked.Error()
			}
			// Like kubectl diff: a difference is an answer. Firewalls of others do
			// not count, for no apply changes them.
			if err := show(model); err != nil || status.InSync() {
				return err
			}
			return exitChanges
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the status as one line of JSON")
	cmd.Flags().BoolVar(&all, "all", false, "show every difference, every peer, and every node that is left out of the pod network")
	return cmd
}

func readStatus(ctx context.Context, o reconcile.Options) (_ *reconcile.Status, err error) {
	planner, err := reconcile.Open(o)
	if err != nil {
		return nil, err
	}
	defer closing(planner, &err)
	return planner.Status(ctx)
}

// peersWithin is how long a daemon that is at work is waited for. It may take seconds to
// write thousands of peers, and the rest of the status need not wait for that.
const peersWithin = 5 * time.Second

// clusterStatus asks the daemon for the peers, too.
func (a *app) clusterStatus(ctx context.Context, daemon view.Condition) view.ClusterStatus {
	status := view.ClusterStatus{Condition: daemon}
	ctx, cancel := context.WithTimeoutCause(ctx, peersWithin, errors.New("the daemon is at work and has had no time to say"))
	defer cancel()
	peers, err := askPeers(ctx, a.stateDir)
	if err != nil {
		status.PeersError = cmp.Or(context.Cause(ctx), err).Error()
		return status
	}
	status.PeerList = &peers
	return status
}

func askPeers(ctx context.Context, stateDir string) (peers view.PeerList, err error) {
	client, _, err := control.Dial(ctx, stateDir)
	if err != nil {
		return peers, err
	}
	defer closing(client, &err)
	return client.Peers(ctx)
}

// askDaemon is what the daemon says of itself, or nil where none runs. One that
// does not answer is no reason to keep quiet about the kernel.
func askDaemon(ctx context.Context, stateDir string) (*view.Condition, error) {
	client, daemon, err := control.Dial(ctx, stateDir)
	switch {
	case errors.Is(err, control.ErrNone):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return &daemon, client.Close()
}
