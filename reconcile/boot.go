package reconcile

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/policy/closed"
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
// Where that is not possible, the endpoints that it isolated are closed instead,
// and the error says what has become of it.
//
// The error is ErrBusy while another polder has this network namespace, and
// ErrNothingKept where there is nothing to load.
func Boot(ctx context.Context, dir string) (_ *Booted, err error) {
	lock, err := lock()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
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
	return boot(ctx, dir, reader, writer)
}

func boot(ctx context.Context, dir string, reader rulesetReader, writer rulesetWriter) (*Booted, error) {
	kept, err := keptRuleset(dir)
	if err == nil {
		err = enforce(ctx, kept.Ruleset, reader, writer)
	}
	if err == nil {
		return kept, nil
	}
	instead, said := closing(dir)
	switch {
	case len(instead) == 0 && errors.Is(err, ErrNothingKept):
		return nil, err
	case len(instead) == 0:
		return nil, fmt.Errorf("%w: %s", err, said)
	case errors.Is(err, ErrNothingKept):
		err = fmt.Errorf("%s is gone", rulesetFile(dir))
	}
	if failure := enforce(ctx, instead, reader, writer); failure != nil {
		return nil, fmt.Errorf("%w; nor can isolated endpoints be closed: %w", err, failure)
	}
	return nil, fmt.Errorf("%w: %s", err, said)
}

// closing is what Boot loads where it cannot load the ruleset, and what there is
// to say about that. It is empty where nobody was isolated.
func closing(dir string) (rs nft.Ruleset, said string) {
	b, err := os.ReadFile(closedFile(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "nothing was loaded; no endpoint was isolated"
	}
	w, wrong := closed.Unmarshal(b)
	if err = cmp.Or(err, wrong); err != nil {
		return closed.CompileAll(), fmt.Sprintf("who was isolated is not known either (%s: %v): until run or apply, nothing is forwarded from or to any bridge", closedFile(dir), err)
	}
	return w.Compile(), fmt.Sprintf("until run or apply, nothing is forwarded from or to the %d addresses of endpoints that were isolated", len(w.Addresses))
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

// closedFile names those whom the ruleset isolates. It is there where it isolates
// any.
func closedFile(dir string) string { return filepath.Join(dir, "last-isolated.json") }

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
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	for _, t := range kept.Ruleset {
		if !slices.Contains(tables, t.ID()) {
			return nil, fmt.Errorf("%s: table %s is not polder's", file, t.ID())
		}
	}
	return kept, nil
}

// keepRuleset makes a ruleset the one that Boot finds in dir, across a loss of
// power too. One without tables leaves no file. Where the file holds it already,
// nothing is written.
func keepRuleset(dir string, rs nft.Ruleset) error {
	var isolated, whole []byte
	var err error
	if w := closed.Of(rs); !w.Empty() {
		if isolated, err = w.Marshal(); err != nil {
			return err
		}
	}
	if len(rs) > 0 {
		if whole, err = nft.Marshal(rs); err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	// In this order: those whom a ruleset isolates are not left behind without it.
	if err := keepFile(closedFile(dir), isolated); err != nil {
		return err
	}
	return keepFile(rulesetFile(dir), whole)
}

// keepFile makes something what a file holds; nil: there is no file.
func keepFile(file string, b []byte) error {
	if b == nil {
		for _, name := range []string{unfinished(file), file} {
			if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	} else if old, err := os.ReadFile(file); err != nil || !bytes.Equal(old, b) {
		// A file that cannot be read is another one.
		if err := writeAtomically(file, b); err != nil {
			return err
		}
	}
	return syncDir(filepath.Dir(file))
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
