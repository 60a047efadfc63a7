package reconcile

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/poldernet/polder/internal/filewatch"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

// Source is where a daemon's spec comes from.
type Source struct {
	Path   string
	Inputs spec.Inputs
	// Suits says why a spec without errors is not what is wanted here; nil: any is.
	Suits func(*spec.Spec) hcl.Diagnostics
}

// loaded is a spec as it was read, or what is wrong with it.
type loaded struct {
	config  *spec.Config // nil where err is not
	files   []string     // that were read, or sought
	err     error        // the diagnostics, as text
	at      time.Time
	noticed time.Time // when the files were seen to have changed
}

// load reads the spec and finds the node in it.
func (s Source) load(node string) *loaded {
	began := time.Now()
	config, _, diags := policy.Load(s.Path, s.Inputs)
	if !diags.HasErrors() && s.Suits != nil {
		diags = append(diags, s.Suits(config.Spec)...)
	}
	if !diags.HasErrors() {
		diags = append(diags, config.CheckNode(node)...)
	}
	l := &loaded{files: append([]string{s.Path}, config.Files()...), at: time.Now(), noticed: began}
	if diags.HasErrors() {
		l.err = diagnosed(config, diags)
		return l
	}
	l.config = config
	return l
}

// diagnosed makes an error of diagnostics, with the source lines.
func diagnosed(config *spec.Config, diags hcl.Diagnostics) error {
	var text bytes.Buffer
	if err := config.WriteDiagnostics(&text, diags, false, 0); err != nil {
		return diags
	}
	return errors.New(strings.TrimSpace(text.String()))
}

// How long a file must be left alone before it is read, at most how long that
// is waited for, and how often files are looked at without having been
// reported: a network file system reports nothing.
const (
	fileQuiet = 10 * time.Millisecond
	fileMost  = 250 * time.Millisecond
	fileEvery = 10 * time.Second
)

// watch delivers the spec each time that its files change, until ctx ends. It
// begins with files that somebody has read before: they may have changed since.
// Files that cannot be watched are looked at from time to time.
func (s Source) watch(ctx context.Context, node string, files []string, box *mailbox) {
	w, err := filewatch.New(files, spec.IsInput)
	var changes <-chan struct{}
	if err == nil {
		changes = w.Changes()
		err = w.Err()
		defer func() { _ = w.Close() }() // nothing is left to be told of
	}
	tell(box, err)
	belt := time.NewTicker(fileEvery)
	defer belt.Stop()
	var known fingerprint
	for {
		noticed := time.Now()
		for ctx.Err() == nil && s.fingerprint(files) != known {
			settle(ctx, changes)
			known = s.fingerprint(files)
			next := s.load(node)
			if !slices.Equal(next.files, files) {
				// Of the new ones nobody knows what they were before.
				files, known = next.files, fingerprint{}
				if w != nil {
					w.Set(files)
					tell(box, w.Err())
				}
				continue
			}
			// What was changed while it was read is read again.
			if s.fingerprint(files) == known {
				next.noticed = noticed
				box.put(func(m *mail) { m.spec = next })
			}
		}
		select {
		case <-changes:
		case <-belt.C:
		case <-ctx.Done():
			return
		}
	}
}

// tell puts into a mailbox why changes of files are noticed late.
func tell(box *mailbox, err error) {
	if err != nil {
		err = fmt.Errorf("%w; what cannot be watched is looked at every %v", err, fileEvery)
		box.put(func(m *mail) { m.troubles = append(m.troubles, err) })
	}
}

type fingerprint = [sha256.Size]byte

func (s Source) fingerprint(files []string) fingerprint {
	return filewatch.Fingerprint(files, spec.IsInput)
}

// settle waits until no change has been reported for a while. A file that is
// written in place is not to be taken for whole when it is half written.
func settle(ctx context.Context, changes <-chan struct{}) {
	most := time.NewTimer(fileMost)
	defer most.Stop()
	for {
		quiet := time.NewTimer(fileQuiet)
		select {
		case <-changes:
			quiet.Stop()
		case <-quiet.C:
			return
		case <-most.C:
			quiet.Stop()
			return
		case <-ctx.Done():
			quiet.Stop()
			return
		}
	}
}

func snapshotFile(dir string) string { return filepath.Join(dir, "last-good.json") }

// keepGood writes the spec where a daemon finds it that starts when the file
// has errors.
func keepGood(dir string, config *spec.Config) error {
	b, err := config.Snapshot()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return writeAtomically(snapshotFile(dir), b)
}

// dropGood removes what keepGood wrote.
func dropGood(dir string) error {
	if err := os.Remove(snapshotFile(dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forgetting the spec: %w", err)
	}
	return nil
}

// lastGood is the spec that keepGood wrote, if it was read from the same path.
func lastGood(dir, path, node string) (*spec.Config, error) {
	b, err := os.ReadFile(snapshotFile(dir))
	if err != nil {
		return nil, err
	}
	config, diags := spec.Restore(b)
	if config.Path() != path && !diags.HasErrors() {
		return nil, fmt.Errorf("it was read from %s, and not from %s", config.Path(), path)
	}
	if !diags.HasErrors() {
		diags = append(diags, config.CheckNode(node)...)
	}
	if diags.HasErrors() {
		return nil, diagnosed(config, diags)
	}
	return config, nil
}
