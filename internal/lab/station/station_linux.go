package station

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/spec"
)

// Station is a namespace with sockets: raw ones, and those that accept TCP
// connections. What the raw ones get has passed the namespace's input hook.
type Station struct {
	*lab.Namespace
	raw       map[kind]int
	listeners map[uint16]net.Listener
}

// kind is a family and a protocol.
type kind struct {
	family   spec.Family
	protocol uint8
}

// ICMP is the ICMP of a family.
func ICMP(f spec.Family) uint8 {
	if f == spec.IPv4 {
		return spec.ProtocolICMP
	}
	return spec.ProtocolICMPv6
}

// Open opens raw sockets of both families for ICMP, UDP, SCTP, and other protocols.
func Open(n *lab.Namespace, others ...uint8) (*Station, error) {
	s := &Station{Namespace: n, raw: map[kind]int{}, listeners: map[uint16]net.Listener{}}
	err := n.Do(func() error {
		for _, f := range spec.Families {
			for _, protocol := range append([]uint8{ICMP(f), spec.ProtocolUDP, spec.ProtocolSCTP}, others...) {
				fd, err := rawSocket(f, protocol)
				if err != nil {
					return err
				}
				s.raw[kind{f, protocol}] = fd
			}
		}
		return nil
	})
	return s, err
}

// rawSocket sends packets with headers of our own.
func rawSocket(f spec.Family, protocol uint8) (int, error) {
	domain, level, option := unix.AF_INET, unix.IPPROTO_IP, unix.IP_HDRINCL
	if f == spec.IPv6 {
		domain, level, option = unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_HDRINCL
	}
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(protocol))
	if err != nil {
		return 0, fmt.Errorf("raw socket of protocol %d: %w", protocol, err)
	}
	return fd, unix.SetsockoptInt(fd, level, option, 1)
}

// Close closes all sockets.
func (s *Station) Close() {
	for _, fd := range s.raw {
		_ = unix.Close(fd) // nothing is written late
	}
	for _, l := range s.listeners {
		_ = l.Close()
	}
}

// Listen has somebody accept connections to a port, in both families.
func (s *Station) Listen(port uint16) error {
	if s.Listens(port) {
		return nil
	}
	return s.Do(func() error {
		l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		s.listeners[port] = l
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_ = c.Close() // it has nothing to say
			}
		}()
		return nil
	})
}

// Listens says that somebody accepts connections to the port.
func (s *Station) Listens(port uint16) bool { return s.listeners[port] != nil }

// SockAddr is an address as system calls have it.
func SockAddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

// Send sends a packet. What the namespace's own output hook drops is sent, too.
func (s *Station) Send(p []byte) error {
	src, dst, protocol := netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20])), p[9]
	if p[0]>>4 == 6 {
		src, dst, protocol = netip.AddrFrom16([16]byte(p[8:24])), netip.AddrFrom16([16]byte(p[24:40])), p[6]
	}
	err := unix.Sendto(s.raw[kind{spec.FamilyOf(src), protocol}], p, 0, SockAddr(netip.AddrPortFrom(dst, 0)))
	if errors.Is(err, unix.EPERM) {
		return nil
	}
	return err
}

// magic stands before a packet's identity.
var magic = []byte("polder:")

// Mark is what a packet's data have to begin with for it to be known.
func Mark(id uint32) []byte { return binary.BigEndian.AppendUint32(bytes.Clone(magic), id) }

// encapsulated is where an identity is at the earliest if the packet is still in
// another one, of VXLAN: a raw socket for UDP gets that, too. Before it are headers of
// IP, which sockets of IPv6 leave out, UDP (8 bytes), VXLAN (8), Ethernet (14), IP
// again, and at least 4 bytes more.
const encapsulated = 74

// Arrived are the identities of packets that have come, also in messages of ICMP
// that tell of them.
func (s *Station) Arrived() (list []uint32) {
	b := make([]byte, 2048)
	for _, fd := range s.raw {
		for {
			size, _, err := unix.Recvfrom(fd, b, unix.MSG_DONTWAIT)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				break
			}
			if i := bytes.Index(b[:size], magic); i >= 0 && i < encapsulated && size >= i+len(magic)+4 {
				list = append(list, binary.BigEndian.Uint32(b[i+len(magic):]))
			}
		}
	}
	return list
}

// Polls is what to wait for until more arrives.
func (s *Station) Polls() (fds []unix.PollFd) {
	for _, fd := range s.raw {
		fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	return fds
}
