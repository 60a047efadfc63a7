package nft

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// Writer commits plans. One goroutine at a time may use it.
//
// It keeps one socket: the kernel makes the closing of a socket that deleted
// something wait for an RCU grace period, 15 ms.
type Writer struct {
	conn   *nftables.Conn
	reader *Reader
	wait   func() // for packets that are on their way
}

// OpenWriter opens netlink sockets in the network namespace of the calling
// thread. It is to be called early: github.com/google/nftables cannot use a
// file descriptor beyond 1023 (it calls pselect).
func OpenWriter() (*Writer, error) {
	reader, err := OpenReader()
	if err != nil {
		return nil, err
	}
	conn, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening a netfilter netlink socket: %w", err), reader.Close())
	}
	return &Writer{conn, reader, waitForPackets}, nil
}

// Close closes the sockets.
func (w *Writer) Close() error { return errors.Join(w.conn.CloseLasting(), w.reader.Close()) }

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
	c := commit{Writer: w}
	if err := c.queue(trial(t)); err != nil {
		return errors.Join(err, c.discard())
	}
	return w.conn.Flush()
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
	stale := false
	for range maxTries {
		if err := ctx.Err(); err != nil {
			return err
		}
		// The batch is ready before the guard is renewed: the shorter the time
		// from the one to the other, the rarer somebody comes between.
		if err := c.queue(tx); err != nil {
			return errors.Join(err, c.discard())
		}
		if stale {
			if err := c.renew(ctx); err != nil {
				return errors.Join(err, c.discard())
			}
		}
		err := c.conn.FlushWithGenID(uint32(c.gen))
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

// discard empties the library's queue. It has no other way to do so than to
// send it; the kernel refuses a batch of a generation that is not the present.
func (c *commit) discard() error {
	never := c.gen ^ 1<<31
	if err := c.conn.FlushWithGenID(uint32(max(never, 1))); !errors.Is(err, unix.ERESTART) {
		return err
	}
	return nil
}

// queue turns a transaction to messages. Every call that can fail is checked:
// the library's Flush forgets errors of an empty queue.
func (c *commit) queue(tx transaction) error {
	for _, s := range tx {
		t := &nftables.Table{Family: nftables.TableFamily(protos[s.table.Family]), Name: s.table.Name}
		if err := c.send(t, s.op); err != nil {
			return fmt.Errorf("%s: %w", s.op.text(s.table), err)
		}
	}
	return nil
}

func (w *Writer) send(t *nftables.Table, o op) error {
	chain := func(name string) *nftables.Chain { return &nftables.Chain{Table: t, Name: name} }
	switch o := o.(type) {
	case addTable:
		w.conn.AddTable(t)
	case delTable:
		w.conn.DelTable(t)
	case addChain:
		return w.addChain(t, o.name, o.base)
	case setPolicy:
		return w.addChain(t, o.name, &o.base)
	case delChain:
		w.conn.DelChain(chain(o.name))
	case flushChain:
		w.conn.FlushChain(chain(o.name))
	case addRule:
		r, err := encodeRule(o.rule)
		if err != nil {
			return err
		}
		r.Table, r.Chain = t, chain(o.chain)
		w.conn.AddRule(r)
	case addSet:
		s, err := encodeSet(t, o.set)
		if err != nil {
			return err
		}
		return w.conn.AddSet(s, nil)
	case delSet:
		w.conn.DelSet(&nftables.Set{Table: t, Name: o.set.Name})
	case addElements:
		return w.conn.SetAddElements(&nftables.Set{Table: t, Name: o.set.Name}, encodeElements(o.set, o.elements))
	case delElements:
		return w.conn.SetDeleteElements(&nftables.Set{Table: t, Name: o.set.Name}, encodeElements(o.set, o.elements))
	case addCounter:
		w.conn.AddObj(encodeCounter(t, o.name))
	case delObject:
		w.conn.DeleteObject(&nftables.NamedObj{Table: t, Name: o.object.Name, Type: nftables.ObjType(o.object.Type)})
	default:
		return fmt.Errorf("operation %T has no message", o)
	}
	return nil
}

func (w *Writer) addChain(t *nftables.Table, name string, base *Base) error {
	c := &nftables.Chain{Table: t, Name: name}
	if base != nil {
		if err := encodeBase(c, base); err != nil {
			return err
		}
	}
	w.conn.AddChain(c)
	return nil
}
