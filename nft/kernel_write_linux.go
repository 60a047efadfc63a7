package nft

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Writer commits plans. One goroutine at a time may use it.
//
// It keeps one socket: the kernel makes the closing of a socket that deleted
// something wait for an RCU grace period, 15 ms.
type Writer struct {
	socket socket
	room   int // bytes that are known to fit into what is sent at once
	reader *Reader
	wait   func() // for packets that are on their way
}

// OpenWriter opens netlink sockets in the network namespace of the calling
// thread.
func OpenWriter() (*Writer, error) {
	reader, err := OpenReader()
	if err != nil {
		return nil, err
	}
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening a netfilter netlink socket: %w", err), reader.Close())
	}
	if err := conn.SetOption(netlink.CapAcknowledge, true); err != nil { // errors without what they are about
		return nil, errors.Join(fmt.Errorf("opening a netfilter netlink socket: %w", err), conn.Close(), reader.Close())
	}
	return &Writer{socket: socket{conn: conn}, reader: reader, wait: waitForPackets}, nil
}

// Close closes the sockets.
func (w *Writer) Close() error { return errors.Join(w.socket.conn.Close(), w.reader.Close()) }

// Commit carries a plan out. The kernel refuses every transaction if somebody
// else's commit came after gen, the generation in which the plan's observed
// ruleset was read. Then it is found out whether that commit touched our
// tables: if it did, the error is ErrStale; if not, the transaction is sent
// again. All errors are *StageError. Without one, the ruleset is what the plan is
// for in the generation that is returned.
func (w *Writer) Commit(ctx context.Context, p *Plan, gen Generation) (Generation, error) {
	c := commit{Writer: w, plan: p, ids: p.tables(), gen: gen}
	for _, s := range p.stages() {
		if c.done > 0 && s.waits() {
			c.wait()
		}
		for _, tx := range s.transactions {
			if err := c.transaction(ctx, tx); err != nil {
				return 0, &StageError{s.name, errors.Join(err, w.reader.watch.stop())}
			}
			c.done++
		}
	}
	if err := w.reader.watch.stop(); err != nil {
		return 0, &StageError{"retire", err}
	}
	return c.gen, nil
}

// Try says whether the kernel takes a table's counters, sets and regular chains
// with their rules. Nothing of it is ever in force, or seen by anybody. The error
// is what the kernel says, or that of ctx.
func (w *Writer) Try(ctx context.Context, t Table) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m, err := encode(trial(t))
	if err != nil {
		return err
	}
	return w.send(m)
}

// membarrierGlobal is MEMBARRIER_CMD_GLOBAL, <linux/membarrier.h>.
const membarrierGlobal = 1

// waitForPackets waits until every packet has left that was on its way through
// the rules. Rules are read under RCU, and MEMBARRIER_CMD_GLOBAL waits for a
// grace period (kernel/sched/membarrier.c). Where it is refused, as on nohz_full
// CPUs, a packet would have to be on its way for as long as the next commit takes
// to be made.
func waitForPackets() {
	_, _, _ = unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0)
}

// commit is a plan under way.
type commit struct {
	*Writer
	plan *Plan
	ids  []TableID
	// gen is the generation in which our tables stand where the plan expects
	// them. The reader's watch, once it runs, knows of every commit after it.
	gen  Generation
	done int // transactions
}

// maxTries bounds how often the guard of one transaction is renewed.
const maxTries = 200

func (c *commit) transaction(ctx context.Context, tx transaction) error {
	// The batch is ready before the guard is renewed: the shorter the time from the
	// one to the other, the rarer somebody comes between.
	m, err := encode(tx)
	if err != nil {
		return err
	}
	stale := false
	for range maxTries {
		if err := ctx.Err(); err != nil {
			return err
		}
		if stale {
			if err := c.renew(ctx); err != nil {
				return err
			}
		}
		m.guard(c.gen)
		err := c.send(m)
		if err == nil {
			c.gen = c.gen.next()
			return nil
		}
		if stale = errors.Is(err, unix.ERESTART); !stale {
			return c.settle(ctx, err)
		}
	}
	return fmt.Errorf("others committed before us %d times in a row", maxTries)
}

// renew makes the present generation the guard, if nobody has touched our
// tables since the last one. The notifications say so if they have been
// listened to; else our tables are read and compared.
func (c *commit) renew(ctx context.Context) error {
	if watch := &c.reader.watch; watch.running {
		to, err := c.reader.Generation()
		if err != nil {
			return err
		}
		touched, err := watch.touched(c.gen, to, c.ids)
		switch {
		case err == nil && touched:
			return ErrStale
		case err == nil:
			c.gen = to
			return nil
		}
	}
	if err := c.reader.watch.start(); err != nil { // also if notifications were lost
		return err
	}
	observed, gen, err := c.reader.read(ctx, c.ids)
	if err != nil {
		return err
	}
	expected, err := c.plan.expected(c.done)
	if err != nil {
		return err
	}
	if !equalRulesets(observed, expected) {
		return ErrStale
	}
	c.gen = gen
	return nil
}

// settle finds out what became of a transaction that ended with an error. It
// does not say that nothing was done: with ENOBUFS the answer was lost, not the
// commit.
func (c *commit) settle(ctx context.Context, failure error) error {
	observed, gen, err := c.reader.read(ctx, c.ids)
	if err != nil {
		return errors.Join(failure, err)
	}
	if expected, err := c.plan.expected(c.done + 1); err != nil || !equalRulesets(observed, expected) {
		return failure
	}
	c.gen = gen
	return nil
}

// send has the kernel carry out a transaction. When sendto returns it has, or has not,
// and its errors are there to be received: it answers nothing else.
func (w *Writer) send(m batch) error {
	if len(m.b) > w.room {
		if err := w.socket.conn.SetWriteBuffer(2 * len(m.b)); err != nil {
			return fmt.Errorf("room for a transaction of %d bytes: %w", len(m.b), err)
		}
		w.room = len(m.b)
	}
	failure := w.socket.send(m.b)
	for {
		b, err := w.socket.receive(false)
		switch {
		case errors.Is(err, unix.ENOBUFS): // there may be others
		case err != nil || b == nil:
			return cmp.Or(failure, err)
		default:
			err = messages(b, func(h messageHeader, data []byte) error {
				err := status(data)
				if n := int(h.sequence); err != nil && n > 0 && n <= len(m.steps) {
					return fmt.Errorf("%s: %w", m.about(m.steps[n-1]), err)
				}
				return err
			})
		}
		failure = cmp.Or(failure, err)
	}
}
