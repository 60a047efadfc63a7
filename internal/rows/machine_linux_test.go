package rows

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/internal/lab/packet"
	"github.com/poldernet/polder/spec"
)

// machine is a namespace of the lab with sockets: listening ones for TCP, and raw
// ones for all else. What these get has passed the machine's input hook.
type machine struct {
	*lab.Namespace
	raw       map[rawKind]int
	listeners map[uint16]net.Listener
}

// rawKind is a family and a protocol.
type rawKind struct {
	family   spec.Family
	protocol uint8
}

const protocolGRE = 47

func open(n *lab.Namespace) (*machine, error) {
	m := &machine{Namespace: n, raw: map[rawKind]int{}, listeners: map[uint16]net.Listener{}}
	err := n.Do(func() error {
		for _, f := range spec.Families {
			icmp := uint8(spec.ProtocolICMP)
			if f == spec.IPv6 {
				icmp = spec.ProtocolICMPv6
			}
			for _, protocol := range []uint8{icmp, spec.ProtocolUDP, spec.ProtocolSCTP, protocolGRE} {
				fd, err := rawSocket(f, protocol)
				if err != nil {
					return err
				}
				m.raw[rawKind{f, protocol}] = fd
			}
		}
		return nil
	})
	return m, err
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

func (m *machine) close() {
	for _, fd := range m.raw {
		_ = unix.Close(fd) // nothing is written late
	}
	for _, l := range m.listeners {
		_ = l.Close()
	}
}

// listen has somebody accept connections to a port, in both families.
func (m *machine) listen(port uint16) error {
	if m.listeners[port] != nil {
		return nil
	}
	return m.Do(func() error {
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		m.listeners[port] = l
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

// connect begins to open a connection from an address, and does not wait: that
// of TCP, or of UDP with something that is said.
func connect(kind int, from netip.Addr, to netip.AddrPort) (int, error) {
	domain := unix.AF_INET
	if from.Is6() {
		domain = unix.AF_INET6
	}
	fd, err := unix.Socket(domain, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	err = unix.Bind(fd, sockaddr(netip.AddrPortFrom(from, 0)))
	if err == nil {
		err = unix.Connect(fd, sockaddr(to))
	}
	if err == nil && kind == unix.SOCK_DGRAM {
		_, err = unix.Write(fd, magic)
	}
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return 0, errors.Join(fmt.Errorf("connecting from %s to %s: %w", from, to, err), unix.Close(fd))
	}
	return fd, nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

// send sends a packet. What the machine's own output hook drops is sent, too.
func (m *machine) send(p []byte) error {
	src, dst, protocol := netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20])), p[9]
	if p[0]>>4 == 6 {
		src, dst, protocol = netip.AddrFrom16([16]byte(p[8:24])), netip.AddrFrom16([16]byte(p[24:40])), p[6]
	}
	err := unix.Sendto(m.raw[rawKind{spec.FamilyOf(src), protocol}], p, 0, sockaddr(netip.AddrPortFrom(dst, 0)))
	if errors.Is(err, unix.EPERM) {
		return nil
	}
	return err
}

// magic stands before a packet's identity.
var magic = []byte("polder:")

// identities are those of packets that have come to a raw socket.
func identities(fd int) (list []uint32) {
	b := make([]byte, 2048)
	for {
		size, _, err := unix.Recvfrom(fd, b, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return list
		}
		if i := bytes.Index(b[:size], magic); i >= 0 && size >= i+len(magic)+4 {
			list = append(list, binary.BigEndian.Uint32(b[i+len(magic):]))
		}
	}
}

// packet is what a probe sends, with an identity in it.
func (p probe) packet(id uint32) []byte {
	src, dst := netip.AddrPortFrom(p.from.of(p.family), 1024+uint16(id%60000)), p.dialled()
	data := binary.BigEndian.AppendUint32(bytes.Clone(magic), id)
	switch {
	case p.link():
		return packet.NewICMP(src.Addr(), dst.Addr(), p.typ, p.code, p.discovery(data))
	case p.icmp():
		body := binary.BigEndian.AppendUint32(nil, id) // identifier and sequence
		return packet.NewICMP(src.Addr(), dst.Addr(), p.typ, p.code, append(body, data...))
	case p.protocol == spec.ProtocolUDP:
		return packet.NewUDP(src, dst, data)
	case p.protocol == spec.ProtocolSCTP:
		return packet.IP(src.Addr(), dst.Addr(), spec.ProtocolSCTP, packet.NewSCTPInit(src.Port(), dst.Port(), data))
	}
	return packet.IP(src.Addr(), dst.Addr(), p.protocol, append(make([]byte, 4), data...))
}

// discovery is the body of a message that is about the link, in which the sender
// says nothing that is not so.
func (p probe) discovery(data []byte) []byte {
	var body []byte
	target := p.from.of(p.family).AsSlice()
	switch p.typ {
	case packet.RouterAdvert:
		body = make([]byte, 12)
	case packet.NeighborSolicit:
		body = append(make([]byte, 4), p.to.of(p.family).AsSlice()...)
	case packet.NeighborAdvert:
		body = append(make([]byte, 4), target...)
	case packet.Redirect:
		body = append(append(make([]byte, 4), target...), hosts[0].of(p.family).AsSlice()...)
	default:
		body = make([]byte, 4)
	}
	if p.family == spec.IPv4 {
		return append(body, data...)
	}
	// An option of a type that is for experiments (RFC 4727), in units of 8 bytes.
	option := append([]byte{253, 2}, data...)
	return append(body, append(option, make([]byte, 16-len(option))...)...)
}

// dialled is where the probe goes.
func (p probe) dialled() netip.AddrPort {
	at := p.to.pair
	if p.service {
		at = p.to.service()
	}
	return netip.AddrPortFrom(at.of(p.family), p.port)
}
