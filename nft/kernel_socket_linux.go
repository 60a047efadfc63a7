package nft

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// socket sends requests to nftables and hands on the answers.
//
// It receives by itself. The kernel makes the messages of a dump as long as
// the longest buffer that it has seen on the socket, up to 32 KiB
// (netlink_dump in net/netlink/af_netlink.c), and for each message walks a hash
// table from its beginning: with the page that the library begins with, a dump
// of a large set is eight times as many messages and quadratic in them.
type socket struct {
	conn *netlink.Conn
	buf  []byte
}

// receiveBuffer is the length of the receive buffer, in bytes.
const receiveBuffer = 64 << 10

// name is an attribute with a name.
func name(kind uint16, s string) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: append([]byte(s), 0)}
}

// dump asks for all objects of a kind. The bytes that each is called with are
// valid during the call. The kernel says that a dump was interrupted if
// somebody committed in between.
func (s *socket) dump(kind int, family Family, each func([]byte) error, attrs ...netlink.Attribute) (interrupted bool, err error) {
	return s.request(kind, family, netlink.Dump, each, attrs...)
}

// request sends a request and receives all of the answer, whatever each makes
// of it: the next request must not find the rest. A family of "" is
// NFPROTO_UNSPEC.
func (s *socket) request(kind int, family Family, flags netlink.HeaderFlags, each func([]byte) error, attrs ...netlink.Attribute) (interrupted bool, err error) {
	data, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		return false, err
	}
	sent, err := s.conn.Send(netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind),
			Flags: netlink.Request | flags,
		},
		Data: append([]byte{protos[family], unix.NFNETLINK_V0, 0, 0}, data...),
	})
	if err != nil {
		return false, err
	}
	var failure error
	for done := false; !done; {
		b, err := s.receive(true)
		if err != nil {
			return false, err
		}
		err = messages(b, func(h messageHeader, data []byte) error {
			if h.sequence != sent.Header.Sequence {
				return nil // of a request that was given up
			}
			interrupted = interrupted || h.flags&unix.NLM_F_DUMP_INTR != 0
			switch {
			case h.kind == unix.NLMSG_ERROR || h.kind == unix.NLMSG_DONE:
				done = true
				return errors.Join(failure, status(data))
			case h.flags&unix.NLM_F_MULTI == 0:
				done = true
			}
			if failure == nil {
				failure = each(data)
			}
			return nil
		})
		if err != nil {
			return interrupted, err
		}
	}
	return interrupted, failure
}

// status is the error that NLMSG_ERROR or NLMSG_DONE carries, as a negative
// number, 0 for none.
func status(data []byte) error {
	if len(data) < 4 {
		return errShort
	}
	if code := int32(binary.NativeEndian.Uint32(data)); code < 0 {
		return unix.Errno(-code)
	}
	return nil
}

// send sends a datagram.
func (s *socket) send(b []byte) error {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return err
	}
	var failure error
	err = raw.Write(func(fd uintptr) bool {
		for {
			failure = unix.Sendto(int(fd), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
			if !errors.Is(failure, unix.EINTR) {
				return !errors.Is(failure, unix.EAGAIN)
			}
		}
	})
	return errors.Join(err, failure)
}

// receive receives one datagram. It waits for it, or gives nil where there is none.
func (s *socket) receive(wait bool) ([]byte, error) {
	if s.buf == nil {
		s.buf = make([]byte, receiveBuffer)
	}
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var n int
	var failure error
	err = raw.Read(func(fd uintptr) bool {
		for {
			// MSG_TRUNC as an input asks for the datagram's true length.
			n, _, failure = unix.Recvfrom(int(fd), s.buf, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
			if !errors.Is(failure, unix.EINTR) {
				return !wait || !errors.Is(failure, unix.EAGAIN)
			}
		}
	})
	switch {
	case err != nil:
		return nil, err
	case !wait && errors.Is(failure, unix.EAGAIN):
		return nil, nil
	case failure != nil:
		return nil, failure
	case n > len(s.buf):
		return nil, fmt.Errorf("an answer of %d bytes is longer than the buffer", n)
	}
	return s.buf[:n], nil
}
