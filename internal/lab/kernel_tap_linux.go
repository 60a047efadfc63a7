package lab

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Tap is a packet socket (packet(7)) that sees what crosses an interface, in
// both directions.
type Tap struct {
	// Machine and Link say where it is.
	Machine, Link string

	file *os.File
	conn syscall.RawConn
}

// Frame is an Ethernet frame that crossed an interface. A VLAN tag is not in
// it: the kernel has moved it aside.
type Frame struct {
	Outgoing bool
	Data     []byte
}

// tapBuffer is asked for in bytes. The kernel grants net.core.rmem_max at
// most, which holds a few hundred small frames.
const tapBuffer = 4 << 20

// snapshot is the longest frame that is read: GSO's limit of 64 KiB and a
// header.
const snapshot = 1<<16 + 64

// Tap opens a tap on a link of the namespace.
func (n *Namespace) Tap(link string) (*Tap, error) {
	fd, err := n.packetSocket(link, unix.ETH_P_ALL)
	if err != nil {
		return nil, fmt.Errorf("tapping %s of %s: %w", link, n.name, err)
	}
	t := &Tap{Machine: n.name, Link: link, file: os.NewFile(uintptr(fd), "tap")}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, tapBuffer)
	if err == nil {
		t.conn, err = t.file.SyscallConn()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("tapping %s of %s: %w", link, n.name, err), t.Close())
	}
	return t, nil
}

// packetSocket is a packet socket bound to a link. With protocol 0 it receives
// nothing.
func (n *Namespace) packetSocket(link string, protocol uint16) (fd int, err error) {
	l, err := n.handle.LinkByName(link)
	if err != nil {
		return -1, err
	}
	err = n.Do(func() error {
		// Protocol 0 until it is bound: it would see every interface.
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		address := &unix.SockaddrLinklayer{Protocol: protocol<<8 | protocol>>8, Ifindex: l.Attrs().Index}
		if err := unix.Bind(fd, address); err != nil {
			return errors.Join(err, unix.Close(fd))
		}
		return nil
	})
	return fd, err
}

// Close closes the tap.
func (t *Tap) Close() error { return t.file.Close() }

// Drain returns what crossed the interface since the last call, without
// waiting. A packet that was received further on has crossed it before.
func (t *Tap) Drain() ([]Frame, error) {
	var frames []Frame
	var failure error
	err := t.conn.Control(func(fd uintptr) {
		for {
			f, err := receiveFrame(int(fd))
			if err != nil {
				failure = err
				return
			}
			frames = append(frames, f)
		}
	})
	if err == nil && !errors.Is(failure, unix.EAGAIN) {
		err = failure
	}
	if err != nil {
		return frames, fmt.Errorf("reading the tap on %s of %s: %w", t.Link, t.Machine, err)
	}
	return frames, nil
}

// Wait returns the first frame that matches. It drops the others and gives up
// at the deadline, with an error for which errors.Is finds
// os.ErrDeadlineExceeded.
func (t *Tap) Wait(deadline time.Time, match func(Frame) bool) (Frame, error) {
	if err := t.file.SetReadDeadline(deadline); err != nil {
		return Frame{}, err
	}
	var f Frame
	var failure error
	err := t.conn.Read(func(fd uintptr) bool {
		for {
			f, failure = receiveFrame(int(fd))
			if errors.Is(failure, unix.EAGAIN) {
				return false // wait
			}
			if failure != nil || match(f) {
				return true
			}
		}
	})
	if err == nil {
		err = failure
	}
	if err != nil {
		return Frame{}, fmt.Errorf("waiting at the tap on %s of %s: %w", t.Link, t.Machine, err)
	}
	return f, nil
}

func receiveFrame(fd int) (Frame, error) {
	buf := make([]byte, snapshot)
	for {
		n, from, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return Frame{}, err
		}
		f := Frame{Data: append([]byte(nil), buf[:n]...)}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok {
			f.Outgoing = ll.Pkttype == unix.PACKET_OUTGOING
		}
		return f, nil
	}
}

// Inject sends raw Ethernet frames out of a link, whatever they hold.
func (n *Namespace) Inject(link string, frames ...[]byte) error {
	fd, err := n.packetSocket(link, 0)
	if err != nil {
		return fmt.Errorf("injecting frames into %s of %s: %w", link, n.name, err)
	}
	for _, f := range frames {
		if err = unix.Send(fd, f, 0); err != nil {
			err = fmt.Errorf("injecting a frame into %s of %s: %w", link, n.name, err)
			break
		}
	}
	return errors.Join(err, unix.Close(fd))
}
