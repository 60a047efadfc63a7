package nft

import (
	"fmt"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// watch listens to the notifications of commits.
type watch struct{ conn *netlink.Conn }

func openWatch() (*watch, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("opening a netfilter netlink socket: %w", err)
	}
	if err := conn.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		return nil, fmt.Errorf("listening to nftables notifications: %w", closing(conn, err))
	}
	return &watch{conn}, nil
}

// closing closes a socket that could not be used. The error that made it
// useless is the one to tell.
func closing(conn *netlink.Conn, err error) error {
	if closeErr := conn.Close(); closeErr != nil {
		return fmt.Errorf("%w (and closing it: %w)", err, closeErr)
	}
	return err
}

// close gives up the socket; nothing is left to do if that fails.
func (w *watch) close() { _ = w.conn.Close() }

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
