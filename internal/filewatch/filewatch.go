// Package filewatch tells when files may have changed, in whichever way they
// are changed: written in place, replaced by a rename, by a symbolic link that
// is pointed elsewhere (as Kubernetes changes a mounted ConfigMap), or together
// with a folder above them.
package filewatch

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// Watcher watches paths. What it does not see are changes of a network file
// system by another host, and a file system that is mounted over a path; Set
// with the same paths finds a mount. Its methods may be called by any goroutine.
type Watcher struct {
	match   func(name string) bool
	fs      *fsnotify.Watcher
	changes chan struct{}
	moved   chan struct{} // the trail may lead elsewhere
	closing chan struct{}
	running sync.WaitGroup
	trail   atomic.Pointer[trail]

	mu      sync.Mutex // held while watches are added and removed
	paths   []string
	watched []string
	err     error
}

// New watches paths: files, and folders with the files directly in them. They
// may be symbolic links, lie behind some, and need not exist. Of a folder's
// files those count whose names match; nil is all of them.
//
// The error is for want of notifications altogether, inotify instances for
// one (fs.inotify.max_user_instances).
func New(paths []string, match func(name string) bool) (*Watcher, error) {
	w, err := newWatcher(paths, match)
	if err != nil {
		return nil, err
	}
	w.running.Go(w.listen)
	w.running.Go(w.maintain)
	return w, nil
}

// newWatcher is New, but nobody takes yet what the kernel tells.
func newWatcher(paths []string, match func(name string) bool) (*Watcher, error) {
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watching files: %w", err)
	}
	w := &Watcher{
		match: match, fs: notify, paths: slices.Clone(paths),
		changes: make(chan struct{}, 1), moved: make(chan struct{}, 1), closing: make(chan struct{}),
	}
	w.renew()
	return w, nil
}

// Changes delivers when something may have changed since it delivered before,
// or since New returned. Several changes come as one. What is read after a
// delivery is the latest, or there will be another delivery.
func (w *Watcher) Changes() <-chan struct{} { return w.changes }

// Set watches these paths in the place of those before. Changes delivers then,
// because something may have changed before they were watched, unless the same
// paths were watched already.
func (w *Watcher) Set(paths []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if slices.Equal(paths, w.paths) && follow(paths, w.match).equal(w.trail.Load()) {
		return
	}
	w.paths = slices.Clone(paths)
	w.renew()
	signal(w.changes)
}

// Err says why some of the paths cannot be watched at present: a folder that we
// may not read, or too many watches (fs.inotify.max_user_watches). The others
// are.
func (w *Watcher) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Close ends watching. Nothing is delivered after it.
func (w *Watcher) Close() error {
	close(w.closing)
	err := w.fs.Close()
	w.running.Wait()
	return err
}

// signal makes a channel deliver.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default: // it will, already
	}
}

// listen sorts what the kernel tells. It waits for nobody: fsnotify holds the
// lock that adding a watch needs while it hands over an error.
func (w *Watcher) listen() {
	for {
		select {
		case event, ok := <-w.fs.Events:
			if !ok {
				return
			}
			w.sort(event)
		case _, ok := <-w.fs.Errors:
			if !ok {
				return
			}
			signal(w.moved) // events were lost (fsnotify.ErrEventOverflow), or may have been
		}
	}
}

// sort says what an event means to the paths.
func (w *Watcher) sort(event fsnotify.Event) {
	switch {
	case !w.trail.Load().leadsOver(event.Name):
	case event.Op == fsnotify.Write:
		signal(w.changes)
	default:
		signal(w.moved)
	}
}

// maintain renews the watches when the trail may lead elsewhere.
func (w *Watcher) maintain() {
	for {
		select {
		case <-w.moved:
			w.retrace()
		case <-w.closing:
			return
		}
	}
}

// retrace renews the watches, and reports that: who reads then misses nothing
// of what happened meanwhile.
func (w *Watcher) retrace() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.renew()
	signal(w.changes)
}

// renew watches where the paths lead now. All watches are made anew: inotify
// watches an inode, and the one at a path may be another than it was.
//
// The trail is followed again when the watches are there. What changed between
// the first time and a watch shows in that; what changes later, in an event.
// The lock is held.
func (w *Watcher) renew() {
	for _, path := range w.watched {
		// It is gone where the inode is.
		_ = w.fs.Remove(path)
	}
	t := follow(w.paths, w.match)
	w.trail.Store(t)
	w.watched, w.err = t.watched(), nil
	for _, path := range w.watched {
		// What is gone by now has shown in its parent, which is watched already.
		if err := w.fs.Add(path); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
			w.err = errors.Join(w.err, fmt.Errorf("watching %s: %w", path, err))
		}
	}
	if !follow(w.paths, w.match).equal(t) {
		signal(w.moved)
	}
}
