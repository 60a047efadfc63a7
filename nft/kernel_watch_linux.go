package nft

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// watch listens to the notifications of commits, while it runs. Its socket is
// open all the time: a socket belongs to the network namespace of the thread
// that opens it, and later calls may come from any thread.
type watch struct {
	conn    *netlink.Conn
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
	w.running = false
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

// notificationTimeout bounds the wait for the notification of a commit that
// has happened: it is sent a moment after the generation moved.
const notificationTimeout = time.Second

// touched says whether one of the commits that begin the generations from+1 to
// to touched one of the tables. Each commit's notifications end with
// NFT_MSG_NEWGEN and its number. The error says that notifications were lost;
// the watch is of no use then.
func (w *watch) touched(from, to Generation, ids []TableID) (bool, error) {
	if err := w.conn.SetReadDeadline(time.Now().Add(notificationTimeout)); err != nil {
		return false, err
	}
	ours := false
	for {
		messages, err := w.conn.Receive()
		if err != nil {
			return false, err
		}
		for _, m := range messages {
			if m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES {
				continue
			}
			if m.Header.Type&0xff != unix.NFT_MSG_NEWGEN {
				var f fields
				id, err := f.object(m.Data)
				ours = ours || err != nil || slices.Contains(ids, id)
				continue
			}
			gen, err := decodeGeneration(m.Data)
			switch {
			case err != nil:
				return false, err
			case int32(gen-from) <= 0: // before the read began
				ours = false
			case gen == to:
				return ours, nil
			}
		}
	}
}
