package reconcile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/poldernet/polder/internal/attach"
	"github.com/poldernet/polder/policy"
)

// Errors of attachments that are answers.
var (
	// ErrNotInForce says that the kernel does not hold what it should: try again.
	ErrNotInForce = errors.New("not in force")
	// ErrNotAttached says that an attachment is not known, or is another one.
	ErrNotAttached = errors.New("not attached")
)

func attachmentsFile(dir string) string { return filepath.Join(dir, "attachments.json") }

// bootID is the switch that tells one boot from another (proc_sys_kernel(5)).
const bootID = "kernel/random/boot_id"

// boot is which boot this is, "" where the kernel does not say.
func (p *Planner) boot() (string, error) {
	values, err := p.network.Sysctls([]string{bootID})
	return values[bootID], err
}

// loadAttachments reads which containers are attached to the node.
func (p *Planner) loadAttachments() error {
	p.inventory, p.attached = policy.NewInventory(), nil
	b, err := os.ReadFile(attachmentsFile(p.options.StateDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	boot, errBoot := p.boot()
	if err = errors.Join(err, errBoot); err == nil {
		p.attached, err = attach.Unmarshal(b, boot)
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w: which containers are attached is unknown; correct the file, or delete it and restart the containers", attachmentsFile(p.options.StateDir), err)
	}
	for _, a := range p.attached {
		p.inventory.Apply(policy.Event{Attachment: a.On(p.options.Node)})
	}
	return nil
}

// setAttachments makes a list the one that is known here and after a restart.
func (p *Planner) setAttachments(list attach.List) error {
	boot, err := p.boot()
	if err != nil {
		return err
	}
	b, err := list.Marshal(boot)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(p.options.StateDir, 0o755); err != nil {
		return err
	}
	if err := writeAtomically(attachmentsFile(p.options.StateDir), b); err != nil {
		return err
	}
	p.attached = list
	return nil
}

// Attach makes a container's attachment known, and returns when what it means is in
// the kernel. A cluster that has not told of the pod is asked for it: the runtime may
// have heard of it sooner. Where nothing comes of it, the error is ErrNotInForce, or
// that of ctx.
func (d *Daemon) Attach(ctx context.Context, a attach.Attachment) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := arrival{attachment: a, ctx: ctx, answer: make(chan error, 1), expected: new(atomic.Bool)}
	asked := d.ask(ctx, func(context.Context) {
		switch {
		case !d.working():
			err = fmt.Errorf("%w: %s", ErrNotInForce, d.now)
		case d.applier.nodes().missing:
			err = fmt.Errorf("%w: %w", ErrNotInForce, d.applier.missing())
		case !d.knows(a):
			w.expected.Store(true)
			d.expected = append(d.expected, w)
		default:
			err = d.arrive(w)
		}
	})
	if err = errors.Join(asked, err); err != nil {
		return err
	}
	if w.expected.Load() {
		go d.find(w)
	}
	select {
	case err := <-w.answer:
		if err != nil {
			return fmt.Errorf("%w: %w", ErrNotInForce, err)
		}
		return nil
	case <-ctx.Done():
		if w.expected.Load() {
			return fmt.Errorf("%w: the cluster has not told of pod %s (UID %s) yet", ErrNotInForce, a.On(d.options.Node).Key(), a.Pod.UID)
		}
		return fmt.Errorf("%w: %w: %s", ErrNotInForce, ctx.Err(), d.Condition())
	case <-d.stopped:
		return ErrStopped
	}
}

// errGone is for who waits for a container that is gone.
var errGone = errors.New("it was detached meanwhile")

// Detach forgets the attachments that are to go. What they meant is out of the
// kernel soon after.
func (d *Daemon) Detach(ctx context.Context, gone func(attach.Attachment) bool) (err error) {
	asked := d.ask(ctx, func(context.Context) {
		d.expected = slices.DeleteFunc(d.expected, func(w arrival) bool {
			if gone(w.attachment) {
				w.answer <- errGone
				return true
			}
			return false
		})
		if list, removed := d.applier.attached.Without(gone); len(removed) > 0 {
			err = d.attached(list, removed)
		}
	})
	return errors.Join(asked, err)
}

// Attached returns if a container is attached as it is said to be and the kernel
// holds what concerns it. The error is ErrNotAttached or ErrNotInForce.
func (d *Daemon) Attached(ctx context.Context, a attach.Attachment) (err error) {
	asked := d.ask(ctx, func(context.Context) {
		known, ok := d.applier.attached.Find(a.ID)
		switch {
		case !ok:
			err = ErrNotAttached
		case known.Interface != a.Interface || known.MAC != a.MAC || !slices.Equal(known.Addresses, a.Addresses):
			err = fmt.Errorf("%w like this, but by %s with %s and %v", ErrNotAttached, known.Interface, known.MAC, known.Addresses)
		case !d.working() || !d.attachable(a.Port):
			err = fmt.Errorf("%w: %s", ErrNotInForce, d.now)
		}
	})
	return errors.Join(asked, err)
}

// attached notes what has become of attachments.
func (d *Daemon) attached(list, gone attach.List, come ...attach.Attachment) error {
	if err := d.applier.setAttachments(list); err != nil {
		return fmt.Errorf("keeping what is attached: %w", err)
	}
	for _, a := range gone {
		d.applier.apply(policy.Event{Attachment: a.On(d.options.Node), Gone: true})
	}
	for _, a := range come {
		d.applier.apply(policy.Event{Attachment: a.On(d.options.Node)})
	}
	d.because(CauseAttached, dirt{policies: true}, time.Now())
	return nil
}

// answer tells those who wait for that after a round: what they have told of was
// part of it. Where the kernel does not hold what concerns them, they wait on.
func (d *Daemon) answer() {
	d.awaiting = slices.DeleteFunc(d.awaiting, func(w arrival) bool {
		if !d.attachable(w.attachment.Port) {
			return false
		}
		// What was sent to its addresses before was judged when nobody had them.
		w.answer <- d.applier.network.Forget(d.view.policyHost.Bridge, w.attachment.Addresses)
		return true
	})
}
