package conflist

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"

	"github.com/poldernet/polder/reconcile"
)

// Folder is where container runtimes look for lists of plugins, and for the plugins.
type Folder struct {
	Conf     string // of the lists
	Bin      string // of the plugins; "": polder is there already
	Name     string // of the network
	StateDir string // of the daemon, an absolute path
}

// Daemon is what Keep needs of reconcile.Daemon.
type Daemon interface {
	Condition() reconcile.Condition
	Ping(ctx context.Context) error
}

// Journal is what Keep needs of reconcile.Journal.
type Journal interface {
	After(ctx context.Context, seq uint64) iter.Seq[reconcile.Event]
	Last() uint64
}

// Keep writes the files when containers can be attached and whenever they change, and
// removes them when everything of polder's is removed, until ctx ends. A node on which
// none can be keeps them: its containers are to be detached by them. What fails is
// tried again at the next event.
func (f Folder) Keep(ctx context.Context, d Daemon, j Journal, log *slog.Logger) {
	var seen uint64
	var written *reconcile.PodNetwork
	var failed string
	for e := range j.After(ctx, 0) {
		if e.Seq <= seen {
			continue // of what has been looked at since
		}
		seen = j.Last()
		// What an event leads to can be seen when the daemon has time again.
		if d.Ping(ctx) != nil {
			return // the files stay
		}
		c := d.Condition()
		var err error
		switch {
		case c.Held == reconcile.ModeDestroy:
			written, err = nil, f.Remove()
		case c.Pods != nil && !reflect.DeepEqual(c.Pods, written):
			if err = f.Write(c.Pods); err == nil {
				written = c.Pods
			}
		}
		if err == nil {
			failed = ""
		} else if err.Error() != failed {
			failed = err.Error()
			log.Error("cannot tell container runtimes of the network", "err", err)
		}
	}
}

// Write writes the files that are not there as they should be, the list last: from
// then on containers are attached by it.
func (f Folder) Write(n *reconcile.PodNetwork) error {
	list, err := Conflist(n, f.Name, f.StateDir)
	if err != nil {
		return err
	}
	if f.Bin != "" {
		err := os.MkdirAll(f.Bin, 0o755)
		if err == nil {
			_, err = Install(f.Bin)
		}
		if err != nil {
			return fmt.Errorf("installing the plugin: %w", err)
		}
	}
	return errors.Join(
		put(filepath.Join(f.Conf, EnvName), Env(n), 0o644),
		put(filepath.Join(f.Conf, FileName), list, 0o644))
}

// Remove removes the files, the list first. The plugin stays: it is asked to detach
// what there still is.
func (f Folder) Remove() error {
	var errs []error
	for _, name := range []string{FileName, EnvName} {
		if err := os.Remove(filepath.Join(f.Conf, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// put makes a file's content and mode what they should be, at once: runtimes watch
// the folder. What is written does not have the end of a name that they read.
func put(file string, content []byte, mode fs.FileMode) error {
	if there, err := os.ReadFile(file); err == nil && bytes.Equal(there, content) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".polder-*.new")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
