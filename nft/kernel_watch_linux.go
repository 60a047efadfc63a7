package nft

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Watcher tells of every commit to nftables in a network namespace. One
// goroutine at a time may use it, but for Close.
type Watcher struct{ watch watch }

// watchBuffer is the receive buffer of a Watcher in bytes, of which the kernel
// counts about a hundred for each element that somebody adds. Outside the
// initial user namespace net.core.rmem_max bounds it.
const watchBuffer = 8 << 20

// OpenWatcher begins to listen, in the network namespace of the calling
// thread. It is not told of commits before; a reading that begins after
// OpenWatcher has returned has seen those.
func OpenWatcher() (*Watcher, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("opening a netfilter netlink socket: %w", err)
	}
	w := &Watcher{watch{socket: socket{conn: conn}}}
	if err = conn.SetReadBuffer(watchBuffer); err == nil {
		err = w.watch.start()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listening to nftables: %w", err), conn.Close())
	}
	return w, nil
}

// Close closes the socket. A call of Next that waits returns an error.
func (w *Watcher) Close() error { return w.watch.conn.Close() }

// Next waits for the next commit. ErrLost says that some were lost, that all
// that happened before Next returned will not be told of any more, and that
// Next may be called again: who then reads the tables misses nothing. After any
// other error, but that of ctx, the Watcher is of no use.
func (w *Watcher) Next(ctx context.Context) (Commit, error) {
	if err := ctx.Err(); err != nil {
		return Commit{}, err
	}
	if err := w.watch.conn.SetReadDeadline(time.Time{}); err != nil {
		return Commit{}, fmt.Errorf("waiting for nftables: %w", err)
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		// It fails only on a closed socket, on which nobody waits.
		_ = w.watch.conn.SetReadDeadline(time.Unix(1, 0))
	})
	defer func() {
		if !stop() {
			<-ended // or it would interrupt a later call
		}
	}()
	c, err := w.watch.next()
	switch {
	case err == nil:
		return c, nil
	case ctx.Err() != nil:
		return Commit{}, ctx.Err()
	case errors.Is(err, ErrLost):
		// Since it lost something, the kernel has dropped what came, and goes
		// on to do so without a word until the socket has been emptied
		// (netlink_overrun and netlink_rcv_wake in net/netlink/af_netlink.c).
		if err := w.watch.start(); err != nil {
			return Commit{}, err
		}
	}
	return Commit{}, fmt.Errorf("waiting for nftables: %w", err)
}

// watch listens to the notifications of commits, while it runs. Its socket is
// open all the time: a socket belongs to the network namespace of the thread
// that opens it, and later calls may come from any thread.
type watch struct {
	socket
	notifications
	running bool
}

// start begins to listen, or begins anew after notifications were lost.
func (w *watch) start() error {
	if err := w.stop(); err != nil {
		return err
	}
	if err := w.conn.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		return fmt.Errorf("listening to nftables notifications: %w", err)
	}
	w.running = true
	return nil
}

// stop ends listening and drops what was not read.
func (w *watch) stop() error {
	if !w.running {
		return nil
	}
	w.running, w.notifications = false, notifications{}
	if err := w.conn.LeaveGroup(unix.NFNLGRP_NFTABLES); err != nil {
		return fmt.Errorf("leaving the nftables notifications: %w", err)
	}
	raw, err := w.conn.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			var b [1]byte
			for e := error(nil); e == nil || errors.Is(e, unix.ENOBUFS) || errors.Is(e, unix.EINTR); {
				_, _, e = unix.Recvfrom(int(fd), b[:], unix.MSG_DONTWAIT) // a message a call, cut short
			}
		})
	}
	if err != nil {
		return fmt.Errorf("dropping nftables notifications: %w", err)
	}
	return nil
}

// next waits for the next commit, until the connection's deadline.
func (w *watch) next() (Commit, error) {
	for {
		if c, ok := w.take(); ok {
			return c, nil
		}
		b, err := w.receive(true)
		if errors.Is(err, unix.ENOBUFS) {
			err = ErrLost
		}
		if err == nil {
			err = w.add(b)
		}
		if err != nil {
			return Commit{}, err
		}
	}
}

// notificationTimeout bounds the wait for the notification of a commit that
// has happened: it is sent a moment after the generation moved.
const notificationTimeout = time.Second

// touched says whether one of the commits that begin the generations from+1 to
// to touched one of the tables. The error says that notifications were lost;
// the watch is of no use then.
func (w *watch) touched(from, to Generation, ids []TableID) (bool, error) {
	if err := w.conn.SetReadDeadline(time.Now().Add(notificationTimeout)); err != nil {
		return false, err
	}
	ours := false
	for {
		c, err := w.next()
		if err != nil {
			return false, err
		}
		if int32(c.Generation-from) <= 0 {
			continue // before the read began
		}
		ours = ours || c.Touches(ids)
		if c.Generation == to {
			return ours, nil
		}
	}
}
