package main

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/reconcile"
)

func newBootCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "boot",
		Short: "Load the ruleset that was in force before the reboot",
		Long: `boot puts the nftables ruleset into force that polder last had in force on this
node, so that what was denied before a reboot is denied from the first packet
after it. It is run once, before the network comes up, by polder-boot.service. It
reads no spec and touches no link, address or route; run or apply go on from
there, and change of the rules what the spec has otherwise by then.

Where the ruleset cannot be read or loaded, the endpoints that it isolated are
closed instead: nothing is forwarded from or to them until run or apply. If it is
not known either who they are, nothing is forwarded from or to any bridge. The
node itself reaches everybody, and everybody it.

run and apply keep the ruleset in the directory that --boot-dir names, which has
to survive a reboot. destroy and release remove it from there.

The exit status is 0 when the rules are in force, when none are kept, and when
another polder is at work already, and 1 when they cannot be read or loaded,
whatever was loaded instead.`,
		Example: `  polder boot --boot-dir /var/lib/polder`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := a.bootDirectory()
			if err != nil {
				return err
			}
			if dir == "" {
				return usageError{errors.New("boot needs --boot-dir"), cmd.CommandPath()}
			}
			booted, err := reconcile.Boot(cmd.Context(), dir)
			switch {
			case errors.Is(err, reconcile.ErrBusy):
				_, err = fmt.Fprintf(a.out, "Nothing to do: %v.\n", reconcile.ErrBusy)
				return err
			case errors.Is(err, reconcile.ErrNothingKept):
				_, err = fmt.Fprintf(a.out, "Nothing to do: %v.\n", err)
				return err
			case err != nil:
				return err
			}
			_, err = fmt.Fprintf(a.out, "The ruleset of %s is in force: %s.\n", booted.Kept.Format(time.DateTime), contents(booted.Ruleset))
			return err
		},
	}
}

// contents counts what tables hold.
func contents(rs nft.Ruleset) string {
	texts := make([]string, len(rs))
	for i, t := range rs {
		rules, elements := 0, 0
		for _, c := range t.Chains {
			rules += len(c.Rules)
		}
		for _, s := range t.Sets {
			elements += len(s.Elements)
		}
		texts[i] = fmt.Sprintf("table %s with %d chains, %d rules, %d sets and %d elements", t.ID(), len(t.Chains), rules, len(t.Sets), elements)
	}
	return strings.Join(texts, ", ")
}

// bootDirectory is where the ruleset in force is kept for boot: what --boot-dir
// says, or the directory that systemd made for it (StateDirectory= in
// systemd.exec(5)), or "", which is nowhere.
func (a *app) bootDirectory() (string, error) {
	first, _, _ := strings.Cut(a.getenv("STATE_DIRECTORY"), ":")
	dir := cmp.Or(a.bootDir, first)
	if dir == "" {
		return "", nil
	}
	return filepath.Abs(dir)
}
