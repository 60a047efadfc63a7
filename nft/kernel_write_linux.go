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
	return &Writer{conn, reader}, nil
}

// Close closes the sockets.
func (w *Writer) Close() error { return errors.Join(w.conn.CloseLasting(), w.reader.Close()) }

// Commit carries a plan out. The kernel refuses every transaction if somebody
// else's commit came after gen, the generation in which the plan's observed
// ruleset was read. Our tables are then read again: if they stand where the
// plan expects them, the transaction is sent again; if not, the error is
// ErrStale. All errors are *StageError.
func (w *Writer) Commit(ctx context.Context, p *Plan, gen Generation) error {
	c := commit{Writer: w, ids: tableIDs(p.before), gen: gen}
	for _, s := range p.stages() {
		for _, tx := range s.transactions {
			for _, st := range tx {
				c.ids = append(c.ids, st.table)
			}
		}
	}
	for _, s := range p.stages() {
		for _, tx := range s.transactions {
			if err := c.transaction(ctx, p, tx); err != nil {
				return &StageError{s.name, err}
			}
			c.done++
		}
	}
	return nil
}

// commit is a plan under way.
type commit struct {
	*Writer
	ids  []TableID
	gen  Generation
	done int // transactions
}

// maxTries bounds how often the guard of one transaction is renewed.
const maxTries = 100

func (c *commit) transaction(ctx context.Context, p *Plan, tx transaction) error {
	for range maxTries {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.queue(tx); err != nil {
			return err
		}
		err := c.conn.FlushWithGenID(uint32(c.gen))
		if err == nil {
			c.gen = c.gen.next()
			return nil
		}
		observed, gen, readErr := c.reader.Read(ctx, c.ids...)
		if readErr != nil {
			return errors.Join(err, readErr)
		}
		c.gen = gen
		// An error does not say that nothing was done: with ENOBUFS the answer
		// was lost, not the commit.
		if expected, err := p.expected(c.done + 1); err == nil && equalRulesets(observed, expected) {
			return nil
		}
		if !errors.Is(err, unix.ERESTART) {
			return err
		}
		expected, err := p.expected(c.done)
		if err != nil {
			return err
		}
		if !equalRulesets(observed, expected) {
			return ErrStale
		}
	}
	return fmt.Errorf("others committed before us %d times in a row", maxTries)
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
