package reconcile

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/poldernet/polder/internal/attach"
)

// arrival is a container of which the kernel is to hold what it means.
type arrival struct {
	attachment attach.Attachment
	ctx        context.Context // of who waits
	answer     chan error
	expected   *atomic.Bool // the cluster has not told of its pod
}

// knows says that it is known whose labels a container has.
func (d *Daemon) knows(a attach.Attachment) bool {
	return !d.applier.follows || d.applier.inventory.Has(a.On(d.options.Node).Key(), a.Pod.UID)
}

// arrive attaches a container, which is answered after a round.
func (d *Daemon) arrive(w arrival) error {
	w.expected.Store(false)
	list, replaced := d.applier.attached.With(w.attachment)
	err := d.attached(list, replaced, w.attachment)
	if err == nil {
		d.awaiting = append(d.awaiting, w)
	}
	return err
}

// meet attaches those of whose pods the cluster has told by now.
func (d *Daemon) meet() {
	expected := d.expected
	d.expected = nil
	for _, w := range expected {
		switch {
		case w.ctx.Err() != nil: // nobody waits any more
		case !d.knows(w.attachment):
			d.expected = append(d.expected, w)
		default:
			if err := d.arrive(w); err != nil {
				w.answer <- err
			}
		}
	}
}

// How long a cluster may take to say whether there is a pod, and how long it is left
// alone before it is asked again.
const (
	findWithin = 5 * time.Second
	findEvery  = time.Second
)

// find asks the cluster for the pod of a container, until it has told of it, or has
// none. What it tells comes by the way of all that it tells.
func (d *Daemon) find(w arrival) {
	for {
		var cluster Cluster
		asked := d.ask(w.ctx, func(context.Context) {
			if w.expected.Load() {
				cluster = d.cluster
			}
		})
		if asked != nil || cluster == nil {
			return
		}
		ctx, cancel := context.WithTimeout(w.ctx, findWithin)
		err := cluster.Find(ctx, w.attachment.Pod)
		cancel()
		if errors.Is(err, ErrNoPod) {
			_ = d.ask(w.ctx, func(context.Context) { d.dismiss(w, err) }) // nobody waits, otherwise
			return
		}
		select {
		case <-time.After(findEvery):
		case <-w.ctx.Done():
			return
		}
	}
}

// dismiss has a container wait no longer for the cluster to tell of its pod.
func (d *Daemon) dismiss(w arrival, why error) {
	if i := slices.IndexFunc(d.expected, func(o arrival) bool { return o.answer == w.answer }); i >= 0 {
		d.expected = slices.Delete(d.expected, i, i+1)
		w.answer <- why
	}
}
