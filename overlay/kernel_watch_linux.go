package overlay

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Watcher listens to what the kernel says of changes to the network of the
// namespace in which it was opened. One goroutine at a time calls Next; Close
// may come from any.
type Watcher struct {
	file   *os.File
	conn   syscall.RawConn
	buf    []byte
	closed atomic.Bool
}

// watchBuffer is how much the kernel keeps for a watcher that does not read,
// in bytes, as it counts them: about 10,000 messages. Without CAP_NET_ADMIN in
// the initial user namespace, net.core.rmem_max limits it.
const watchBuffer = 8 << 20

// batchEvents bounds what one call of Next returns.
const batchEvents = 1024

var watchGroups = []int{
	unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH,
	unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV4_NETCONF,
	unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_RULE, unix.RTNLGRP_IPV6_NETCONF,
	unix.RTNLGRP_NEXTHOP,
}

// OpenWatcher opens a watcher for the calling thread's network namespace. What
// happens from now on is not missed: read the state after that.
func OpenWatcher() (*Watcher, error) { return openWatcher(watchBuffer) }

func openWatcher(buffer int) (_ *Watcher, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket: %w", err)
	}
	w := &Watcher{file: os.NewFile(uintptr(fd), "rtnetlink notifications"), buf: make([]byte, receiveBuffer)}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("preparing a netlink socket: %w", err), w.file.Close())
		}
	}()
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer); err != nil {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer); err != nil {
			return nil, err
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	for _, group := range watchGroups {
		// By number: the bits of the address end at 32.
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group); err != nil {
			return nil, err
		}
	}
	w.conn, err = w.file.SyscallConn()
	return w, err
}

// Close ends a Next that waits, with os.ErrClosed, and closes the socket.
func (w *Watcher) Close() error {
	w.closed.Store(true)
	return w.file.Close()
}

// Next waits for events and returns those that have come, in their order. The
// error is that of ctx when it ends, ErrLost when the kernel had to drop some,
// and os.ErrClosed after Close. After ErrLost, first read everything, then go
// on.
func (w *Watcher) Next(ctx context.Context) ([]Event, error) {
	stop := context.AfterFunc(ctx, func() {
		// The error says that the watcher is closed, which ends the wait, too.
		_ = w.file.SetReadDeadline(time.Unix(1, 0))
	})
	defer stop()
	for {
		// Of an earlier call whose ctx ended late. If it is of this one, ctx
		// says so.
		if err := w.file.SetReadDeadline(time.Time{}); err != nil {
			return nil, w.failed(err)
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var events []Event
		var failed error
		err := w.conn.Read(func(fd uintptr) bool {
			events, failed = w.drain(int(fd))
			return len(events) > 0 || failed != nil
		})
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			continue
		case err != nil:
			return nil, w.failed(err)
		default:
			return events, failed
		}
	}
}

// failed says why there is nothing to wait for: the runtime's own errors for a
// closed file are not os.ErrClosed.
func (w *Watcher) failed(err error) error {
	if w.closed.Load() {
		err = os.ErrClosed
	}
	return fmt.Errorf("waiting for network notifications: %w", err)
}

// drain receives what is there.
func (w *Watcher) drain(fd int) (events []Event, err error) {
	defer func() {
		now := time.Now()
		for i := range events {
			events[i].at = now
		}
	}()
	for len(events) < batchEvents {
		n, _, flags, from, err := unix.Recvmsg(fd, w.buf, nil, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return events, nil
		case errors.Is(err, unix.ENOBUFS):
			return nil, w.lost(fd)
		case err != nil:
			return nil, fmt.Errorf("receiving network notifications: %w", err)
		case flags&unix.MSG_TRUNC != 0:
			return nil, w.lost(fd)
		}
		if kernel, ok := from.(*unix.SockaddrNetlink); !ok || kernel.Pid != 0 {
			continue
		}
		err = eachMessage(w.buf[:n], func(kind, flags uint16, _ uint32, body []byte) error {
			e, ok, err := decodeEvent(kind, flags, body)
			if ok {
				events = append(events, e)
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("network notification: %w", err)
		}
	}
	return events, nil
}

// lost empties the queue and returns ErrLost. The kernel goes on dropping
// messages until all that it had kept is received (af_netlink.c,
// NETLINK_S_CONGESTED), and says so once: what happened between a reading and
// that moment would never be heard of.
func (w *Watcher) lost(fd int) error {
	for {
		_, _, err := unix.Recvfrom(fd, w.buf, unix.MSG_DONTWAIT)
		switch {
		case err == nil, errors.Is(err, unix.EINTR), errors.Is(err, unix.ENOBUFS):
		case errors.Is(err, unix.EAGAIN):
			return ErrLost
		default:
			return fmt.Errorf("receiving network notifications: %w", err)
		}
	}
}
