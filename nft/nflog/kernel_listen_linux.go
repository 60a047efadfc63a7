package nflog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// ErrLost says that messages were lost: more came than were read.
var ErrLost = errors.New("messages were lost")

// Messages of NFNL_SUBSYS_ULOG, and the attributes of NFULNL_MSG_CONFIG
// (<linux/netfilter/nfnetlink_log.h>).
const (
	msgPacket = 0
	msgConfig = 1

	cfgCmd       = 1
	cfgMode      = 2
	cfgThreshold = 5
	cfgFlags     = 6

	cmdBind = 1

	copyPacket = 2

	flagSequence = 1
)

// readBuffer is the receive buffer of a Listener in bytes, some thousands of
// messages. Outside the initial user namespace net.core.rmem_max bounds it.
const readBuffer = 4 << 20

// Listener receives the packets that are logged to one group. One goroutine at
// a time may use it, but for Close.
type Listener struct {
	conn    *netlink.Conn
	pending []netlink.Message
}

// Listen begins to listen, in the network namespace of the calling thread.
// Needs CAP_NET_ADMIN in the user namespace that owns it. A group has one
// listener at a time.
func Listen(group uint16) (_ *Listener, err error) {
	defer func() {
		if errors.Is(err, os.ErrPermission) {
			// The kernel says the same where somebody else has the group.
			err = fmt.Errorf("listening to NFLOG group %d needs root (CAP_NET_ADMIN), and that nobody else listens to it: %w", group, err)
		} else if err != nil {
			err = fmt.Errorf("listening to NFLOG group %d: %w", group, err)
		}
	}()
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, err
	}
	l := &Listener{conn: conn}
	if err := l.bind(group); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return l, nil
}

func (l *Listener) bind(group uint16) error {
	if err := l.conn.SetReadBuffer(readBuffer); err != nil {
		return err
	}
	data, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: cfgCmd, Data: []byte{cmdBind}},
		// What is copied of a packet the rule says.
		{Type: cfgMode, Data: append(binary.BigEndian.AppendUint32(nil, 0), copyPacket, 0)},
		// Each packet is sent at once. By default a hundred are collected, for a
		// second at most.
		{Type: cfgThreshold, Data: binary.BigEndian.AppendUint32(nil, 1)},
		{Type: cfgFlags, Data: binary.BigEndian.AppendUint16(nil, flagSequence)},
	})
	if err != nil {
		return err
	}
	sent, err := l.conn.Send(netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_ULOG<<8 | msgConfig),
			Flags: netlink.Request | netlink.Acknowledge,
		},
		Data: append(binary.BigEndian.AppendUint16([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0}, group), data...),
	})
	if err != nil {
		return err
	}
	// The first packets may be there before the answer.
	for {
		messages, err := l.conn.Receive()
		if err != nil {
			return err
		}
		for _, m := range messages {
			if m.Header.Type == netlink.Error && m.Header.Sequence == sent.Header.Sequence {
				return nil
			}
			l.pending = append(l.pending, m)
		}
	}
}

// Close ends listening. A call of Next that waits returns an error.
func (l *Listener) Close() error { return l.conn.Close() }

// Next waits for the next message. ErrLost says that some were lost before it,
// and that Next may be called again. Another error, but that of ctx, ends it.
func (l *Listener) Next(ctx context.Context) (Message, error) {
	for {
		for len(l.pending) > 0 {
			m := l.pending[0]
			l.pending = l.pending[1:]
			if m.Header.Type == netlink.HeaderType(unix.NFNL_SUBSYS_ULOG<<8|msgPacket) {
				return decode(m.Data)
			}
		}
		if err := l.receive(ctx); err != nil {
			return Message{}, err
		}
	}
}

func (l *Listener) receive(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := l.conn.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("waiting for NFLOG: %w", err)
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		// It fails only on a closed socket, on which nobody waits.
		_ = l.conn.SetReadDeadline(time.Unix(1, 0))
	})
	defer func() {
		if !stop() {
			<-ended // or it would interrupt a later call
		}
	}()
	var err error
	l.pending, err = l.conn.Receive()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, unix.ENOBUFS):
		return ErrLost
	}
	return fmt.Errorf("waiting for NFLOG: %w", err)
}
