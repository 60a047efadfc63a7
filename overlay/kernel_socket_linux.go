package overlay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// socket is a NETLINK_ROUTE socket. It belongs to the network namespace of the
// thread that opened it. One goroutine at a time.
type socket struct {
	fd  int
	seq uint32
	buf []byte // of the datagram received last
	out []byte // of the batch sent last
}

const (
	receiveBuffer = 64 << 10 // what the kernel fills at most in one dump datagram is 32 KiB
	replyTimeout  = 30 * time.Second
	// batchSize is the number of requests that go in one system call. An error
	// or a reply takes about 800 bytes of the receive queue: a batch in which
	// all fail must fit.
	batchSize = 256
	// receiveQueue is what a stock kernel allows to ask for (rmem_max). It
	// gives twice that (sock.c, __sock_set_rcvbuf).
	receiveQueue = 208 << 10
	// dumpTries bounds how often a dump that the kernel reports as torn is
	// begun anew.
	dumpTries = 20
)

func openSocket() (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket: %w", err)
	}
	s := &socket{fd: fd, buf: make([]byte, receiveBuffer)}
	timeout := unix.NsecToTimeval(replyTimeout.Nanoseconds())
	for _, set := range []func() error{
		func() error { return unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1) },
		func() error { return unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1) },
		func() error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveQueue) },
		func() error { return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout) },
		func() error { return unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) },
	} {
		if err := set(); err != nil {
			return nil, errors.Join(fmt.Errorf("preparing a netlink socket: %w", err), s.close())
		}
	}
	return s, nil
}

func (s *socket) close() error { return unix.Close(s.fd) }

func (s *socket) send(b []byte) error {
	for {
		err := unix.Sendto(s.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// receive is the next datagram. It is valid until the next call.
func (s *socket) receive() ([]byte, error) {
	for {
		n, _, flags, from, err := unix.Recvmsg(s.fd, s.buf, nil, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, fmt.Errorf("receiving from netlink: %w", err)
		case flags&unix.MSG_TRUNC != 0:
			return nil, fmt.Errorf("receiving from netlink: datagram larger than %d bytes", len(s.buf))
		}
		if kernel, ok := from.(*unix.SockaddrNetlink); ok && kernel.Pid == 0 {
			return s.buf[:n], nil
		}
	}
}

var errTorn = errors.New("the dump was interrupted by changes")

// dump asks for all objects of a kind and passes each one's body to fn, valid
// only during the call. A dump that the kernel reports as torn
// (NLM_F_DUMP_INTR) is repeated from the start: begin is called before each
// try and has to forget what came before.
func (s *socket) dump(ctx context.Context, m message, begin func(), fn func(body []byte) error) error {
	for range dumpTries {
		if err := ctx.Err(); err != nil {
			return err
		}
		begin()
		err := s.dumpOnce(m, fn)
		if !errors.Is(err, errTorn) {
			return err
		}
	}
	return fmt.Errorf("%w, %d times in a row", errTorn, dumpTries)
}

func (s *socket) dumpOnce(m message, fn func(body []byte) error) error {
	s.seq++
	m.flags |= flagDump
	if err := s.send(appendMessage(nil, m, s.seq)); err != nil {
		return fmt.Errorf("sending to netlink: %w", err)
	}
	torn := false
	for done := false; !done; {
		b, err := s.receive()
		if err != nil {
			return err
		}
		var failed error
		err = eachMessage(b, func(kind, flags uint16, seq uint32, body []byte) error {
			if seq != s.seq {
				return nil // of a dump that was given up
			}
			torn = torn || flags&flagDumpIntr != 0
			switch kind {
			case msgDone, msgError:
				done = true
				failed = ackError(kind, flags, body)
				return nil
			}
			return fn(body)
		})
		if err == nil {
			err = failed
		}
		if err != nil {
			return err
		}
	}
	if torn {
		return errTorn
	}
	return nil
}

// request sends one request and passes the bodies of its replies to fn.
func (s *socket) request(msgs []message, fn func(i int, body []byte)) []error {
	errs := make([]error, len(msgs))
	for start := 0; start < len(msgs); start += batchSize {
		end := min(start+batchSize, len(msgs))
		if err := s.batch(msgs[start:end], errs[start:end], func(i int, body []byte) { fn(start+i, body) }); err != nil {
			for i := start; i < end; i++ {
				errs[i] = err
			}
		}
	}
	return errs
}

// batch sends requests in one system call. The kernel works through them in
// order and does not stop at one that fails. Only the last asks to be
// acknowledged; of the others only failures are heard, and their sequence
// numbers say whose they are.
func (s *socket) batch(msgs []message, errs []error, fn func(i int, body []byte)) error {
	first := s.seq + 1
	s.out = s.out[:0]
	for i, m := range msgs {
		if i == len(msgs)-1 {
			m.flags |= flagACK
		}
		s.seq++
		s.out = appendMessage(s.out, m, s.seq)
	}
	if err := s.send(s.out); err != nil {
		return fmt.Errorf("sending to netlink: %w", err)
	}
	for done := false; !done; {
		b, err := s.receive()
		if err != nil {
			return err
		}
		err = eachMessage(b, func(kind, flags uint16, seq uint32, body []byte) error {
			i := int(int32(seq - first))
			if i < 0 || i >= len(msgs) {
				return nil
			}
			if kind != msgError {
				fn(i, body)
				return nil
			}
			errs[i] = ackError(kind, flags, body)
			done = done || i == len(msgs)-1
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Layout of struct nlmsgerr and of what NETLINK_EXT_ACK puts behind it
// (netlink.h).
const (
	flagCapped   = 0x100 // NLM_F_CAPPED: the request is not repeated
	flagAckTLVs  = 0x200 // NLM_F_ACK_TLVS
	attrErrorMsg = 1     // NLMSGERR_ATTR_MSG
)

// ackError is the error of a NLMSG_ERROR or NLMSG_DONE message, with the
// kernel's own words where it gives any, or nil.
func ackError(kind, flags uint16, body []byte) error {
	if len(body) < 4 {
		return fmt.Errorf("netlink acknowledgement of %d bytes", len(body))
	}
	code := int32(uint32From(body[:4]))
	if code == 0 {
		return nil
	}
	errno := unix.Errno(-code)
	if flags&flagAckTLVs == 0 {
		return errno
	}
	skip := 4
	if kind == msgError {
		skip += headerLen
		if flags&flagCapped == 0 && len(body) >= 8 {
			skip = 4 + align4(int(min(uint32From(body[4:8]), uint32(len(body)))))
		}
	}
	var text string
	if skip <= len(body) {
		err := eachAttr(body[skip:], func(kind uint16, v []byte) {
			if kind == attrErrorMsg && len(v) > 0 {
				text = string(v[:len(v)-1])
			}
		})
		if err != nil {
			return errno
		}
	}
	if text == "" {
		return errno
	}
	return fmt.Errorf("%w: %s", errno, text)
}
