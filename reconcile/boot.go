package reconcile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/poldernet/polder/nft"
)

// ErrNothingKept says that no ruleset was in force when polder last ran, or that
// it was told to keep none.
var ErrNothingKept = errors.New("no ruleset is kept")

// Booted is the ruleset that Boot put into force.
type Booted struct {
	Ruleset nft.Ruleset
	Kept    time.Time // when it was written to disk
}

// Boot puts the ruleset into force that was last kept in dir, so that what was
// denied before a reboot is denied from the first packet after it: before there
// is a spec, a link or an address. It names interfaces only by their names, and
// touches nothing but the ruleset.
//
// The error is ErrBusy while another polder has this network namespace, and
// ErrNothingKept where there is nothing to load.
func Boot(ctx context.Context, dir string) (_ *Booted, err error) {
	lock, err := lock()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	kept, err := keptRuleset(dir)
	if err != nil {
		return nil, err
	}
	reader, err := nft.OpenReader()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	writer, err := nft.OpenWriter()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, writer.Close()) }()
	if err := enforce(ctx, kept.Ruleset, reader, writer); err != nil {
		return nil, err
	}
	return kept, nil
}

// enforce makes a ruleset of what is in the kernel, and reads it again.
func enforce(ctx context.Context, wanted nft.Ruleset, reader rulesetReader, writer rulesetWriter) error {
	observed, gen, err := reader.Read(ctx, tables...)
	if err != nil {
		return err
	}
	if _, err := writer.Commit(ctx, nft.Diff(wanted, observed), gen); err != nil {
		return err
	}
	if observed, _, err = reader.Read(ctx, tables...); err != nil {
		return fmt.Errorf("verifying: %w", err)
	}
	if rest := nft.Diff(wanted, observed); !rest.Empty() {
		return fmt.Errorf("verifying: %w: %s", errStillDiffers, rest)
	}
	return nil
}

func rulesetFile(dir string) string { return filepath.Join(dir, "last-ruleset.json") }

// keptRuleset is the ruleset that keepRuleset wrote.
func keptRuleset(dir string) (*Booted, error) {
	file := rulesetFile(dir)
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w in %s", ErrNothingKept, dir)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the kept ruleset: %w", err)
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("reading the kept ruleset: %w", err)
	}
	kept := &Booted{Kept: info.ModTime()}
	if kept.Ruleset, err = nft.Unmarshal(b); err != nil {
		return nil, fmt.Errorf("%s: %w: nothing was loaded; the next apply writes it anew", file, err)
	}
	for _, t := range kept.Ruleset {
		if !slices.Contains(tables, t.ID()) {
			return nil, fmt.Errorf("%s: table %s is not polder's: nothing was loaded", file, t.ID())
		}
	}
	return kept, nil
}

// keepRuleset makes a ruleset the one that Boot finds in dir, across a loss of
// power too. One without tables leaves no file. Where the file holds it already,
// nothing is written.
func keepRuleset(dir string, rs nft.Ruleset) error {
	file := rulesetFile(dir)
	if len(rs) == 0 {
		for _, name := range []string{unfinished(file), file} {
			if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	} else {
		b, err := nft.Marshal(rs)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		// A file that cannot be read is another one.
		if old, err := os.ReadFile(file); err != nil || !bytes.Equal(old, b) {
			if err := writeAtomically(file, b); err != nil {
				return err
			}
		}
	}
	return syncDir(dir)
}

// syncDir makes sure that the names in a directory are on the disk. One that is
// not there has none.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// inForce says that the kernel's ruleset is the wanted one.
func (v *view) inForce() bool { return nft.Diff(v.wanted.ruleset, v.rules).Empty() }

// keep makes the ruleset in force the one that Boot loads: the wanted one, as it
// was verified.
func (a *Applier) keep(v *view) error {
	if a.options.BootDir == "" || v == nil || !v.inForce() {
		return nil
	}
	if err := keepRuleset(a.options.BootDir, v.wanted.ruleset); err != nil {
		return fmt.Errorf("keeping the ruleset for a boot: %w", err)
	}
	return nil
}
