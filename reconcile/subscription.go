package reconcile

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/overlay"
)

// subscription is one stream of the kernel's notifications on its way into the
// mailbox. One that fails is opened again, by the daemon's own goroutine: a
// netlink socket belongs to the network namespace of the thread that opens it.
type subscription struct {
	name string
	dirt dirt // what has to be read when notifications were lost
	open func() (stream, error)

	stop    context.CancelFunc
	stopped chan struct{}
	opened  time.Time // for the last time
	tries   int       // to open it, since it last worked for a while
	next    time.Time // when to open it again; zero: it is open
}

// stream delivers into a mailbox until ctx ends, or it fails. After an error
// that is errLost it may be asked again.
type stream interface {
	deliver(ctx context.Context, box *mailbox) error
	Close() error
}

// lost says that a stream goes on, but has skipped something.
func lost(err error) bool { return errors.Is(err, overlay.ErrLost) || errors.Is(err, nft.ErrLost) }

// start opens the stream and lets it deliver.
func (s *subscription) start(ctx context.Context, box *mailbox) error {
	stream, err := s.open()
	s.tries++
	if err != nil {
		s.next = time.Now().Add(s.backoff())
		return fmt.Errorf("subscribing to %s: %w", s.name, err)
	}
	s.next, s.opened = time.Time{}, time.Now()
	ctx, s.stop = context.WithCancel(ctx)
	s.stopped = make(chan struct{})
	go func() {
		defer close(s.stopped)
		for {
			err := stream.deliver(ctx, box)
			if ctx.Err() == nil {
				box.put(func(m *mail) { m.lost = append(m.lost, loss{s, err}) })
				if lost(err) {
					continue
				}
			}
			// What closing says is of no use any more.
			_ = stream.Close()
			return
		}
	}()
	return nil
}

// ended has the stream opened again: at once, but with backoff if it ends each
// time that it is opened.
func (s *subscription) ended(now time.Time) {
	if now.Sub(s.opened) >= retryMost {
		s.tries = 0
	}
	s.next = now
	if s.tries > 1 {
		s.next = now.Add(s.backoff())
	}
}

// backoff is how long to wait after a try. The second one comes at once where
// the stream had been open.
func (s *subscription) backoff() time.Duration {
	return min(retryFirst<<min(max(s.tries-2, 0), 9), retryMost)
}

// end stops the stream and waits for that.
func (s *subscription) end() {
	if s.stop != nil {
		s.stop()
		<-s.stopped
		s.stop = nil
	}
}

// swarm is how long a stream lets notifications gather after it has delivered
// some. They come in swarms, when a routing daemon flaps a table's routes, and
// to wake two goroutines for each costs more than to look at it. The first of a
// swarm does not wait; and a round waits longer for more, see roundQuiet.
const swarm = 500 * time.Microsecond

// networkStream delivers the notifications of rtnetlink.
type networkStream struct{ networkEvents }

func (s networkStream) deliver(ctx context.Context, box *mailbox) error {
	for {
		events, err := s.Next(ctx)
		if err != nil {
			return err
		}
		full := false
		box.put(func(m *mail) {
			if full = len(m.network)+len(events) > mailLimit; full {
				m.network = nil
				return
			}
			m.network = append(m.network, events...)
		})
		if full {
			return overlay.ErrLost
		}
		select {
		case <-time.After(swarm):
		case <-ctx.Done():
		}
	}
}

// rulesetStream delivers the notifications of nftables.
type rulesetStream struct{ rulesetEvents }

func (s rulesetStream) deliver(ctx context.Context, box *mailbox) error {
	for {
		commit, err := s.Next(ctx)
		if err != nil {
			return err
		}
		box.put(func(m *mail) {
			m.seen++
			// Of commits by others only the latest matters.
			if n := len(m.commits); n > 0 && !m.commits[n-1].Touches(tables) && !commit.Touches(tables) {
				commit.Chains = commit.Chains || m.commits[n-1].Chains
				m.commits[n-1] = commit
				return
			}
			m.commits = append(m.commits, commit)
		})
	}
}

// kernelStreams are the subscriptions of a daemon.
func kernelStreams() []*subscription {
	return []*subscription{
		{name: "rtnetlink", dirt: dirt{network: overlay.Everything, sysctls: true}, open: func() (stream, error) {
			w, err := overlay.OpenWatcher()
			return networkStream{w}, err
		}},
		{name: "nftables", dirt: dirt{rules: true}, open: func() (stream, error) {
			w, err := nft.OpenWatcher()
			return rulesetStream{w}, err
		}},
	}
}
