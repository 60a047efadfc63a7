package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/poldernet/polder/cmd/polder/internal/view"
	"github.com/poldernet/polder/internal/filewatch"
	"github.com/poldernet/polder/nft/nflog"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

func newWatchCommand(a *app) *cobra.Command {
	w := watcher{app: a}
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Follow the packets that policies log",
		Long: `watch prints each packet that a rule with the action log matches, and with
log_drops in the spec's enforcement block each that a rule or a tier's default
action denies: when, the action, the policy, the rule and its line, who asks whom,
and what. The arrow points where the packet goes, to the left in a reply. A rule that
logs does not decide: what becomes of the packet, a later rule says.

The kernel reports no more of each rule than log_rate of the enforcement block
says, in packets a second, and as many at once; the counters of "policy show
--counters" count all. What is lost beyond that, because it cannot be read fast
enough, is told.

What a line says is what the spec's files say at that time: names change with
them. What no rule of theirs logs is shown with the prefix that the kernel gives,
also what other programs' rules log to the same group. watch needs no daemon, and
a daemon does not need watch. A group has one listener at a time.`,
		Example: `  polder watch
  polder watch --json | jq -r 'select(.action == "deny") | .from.endpoint'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w.groupGiven = cmd.Flags().Changed("group")
			return w.run(cmd.Context())
		},
	}
	cmd.Flags().BoolVar(&w.asJSON, "json", false, "print each packet as a line of JSON")
	cmd.Flags().Uint16Var(&w.group, "group", 0, "listen to the NFLOG group `N` (default that of the spec's enforcement block)")
	return cmd
}

// watcher prints what is logged.
type watcher struct {
	*app
	group      uint16
	groupGiven bool
	asJSON     bool

	model    *policy.Model
	counters map[string]policy.Counter
	files    []string
	known    [32]byte  // the fingerprint of the files
	looked   time.Time // at the files
}

func (w *watcher) run(ctx context.Context) (err error) {
	config, model, err := w.load(policy.Read)
	if err != nil {
		return err
	}
	w.take(config, model)
	if !w.groupGiven {
		w.group = config.Spec.Enforcement.LogGroup
	}
	l, err := nflog.Listen(w.group)
	if err != nil {
		return err
	}
	defer closing(l, &err)
	if err := w.greet(config.Spec); err != nil {
		return err
	}
	return w.follow(ctx, l)
}

// greet says that it listens, and why nothing might come.
func (w *watcher) greet(s *spec.Spec) error {
	text := fmt.Sprintf("Listening to NFLOG group %d.\n", w.group)
	if !s.Enforcement.LogDrops && !w.logs() {
		text += "The spec logs nothing: no rule has the action log, and log_drops is off.\n"
	}
	_, err := fmt.Fprint(w.err, text)
	return err
}

// logs says that some rule logs.
func (w *watcher) logs() bool {
	for _, c := range w.counters {
		if c.Action == spec.Log {
			return true
		}
	}
	return false
}

// source is where messages come from.
type source interface {
	Next(ctx context.Context) (nflog.Message, error)
}

// follow prints until ctx ends.
func (w *watcher) follow(ctx context.Context, from source) error {
	var next uint32 // sequence number; the first of a listener is 0
	for ctx.Err() == nil {
		m, err := from.Next(ctx)
		now := time.Now()
		switch {
		case ctx.Err() != nil:
			err = nil // it is how one stops following
		case errors.Is(err, nflog.ErrLost):
			err = w.print(view.NewMissed(0, now))
		case err == nil:
			if missed := m.Sequence - next; missed > 0 {
				err = w.print(view.NewMissed(missed, now))
			}
			next = m.Sequence + 1
			w.refresh(m.Prefix, now)
			if err == nil {
				err = w.print(view.NewLogged(m, w.counters, w.model, now))
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *watcher) print(model view.Printable) error { return w.show(model, w.asJSON, false) }

// filesEvery is how often the files are looked at while packets come of which is
// known what logs them.
const filesEvery = time.Second

// refresh takes the spec as the files have it now. While they have errors, the
// spec from before stays.
func (w *watcher) refresh(prefix string, now time.Time) {
	name, _ := policy.Logged(prefix)
	if _, known := w.counters[name]; known && now.Sub(w.looked) < filesEvery {
		return
	}
	w.looked = now
	found := filewatch.Fingerprint(w.files, spec.IsInput)
	if found == w.known {
		return
	}
	w.known = found
	if config, model, diags := policy.Read(w.specPath, w.inputs()); !diags.HasErrors() {
		w.take(config, model)
	}
}

func (w *watcher) take(config *spec.Config, model *policy.Model) {
	w.model, w.counters = model, model.Counters()
	w.files = append([]string{w.specPath}, config.Files()...)
	w.known = filewatch.Fingerprint(w.files, spec.IsInput)
}
