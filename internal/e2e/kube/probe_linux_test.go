package kube

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/internal/lab/packet"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

// machine is a namespace with raw sockets: what these get has passed its input
// hook.
type machine struct {
	*lab.Namespace
	raw       map[rawKind]int
	listeners []net.Listener
}

// rawKind is a family and a protocol.
type rawKind struct {
	family   spec.Family
	protocol uint8
}

// icmpOf is the ICMP of a family.
func icmpOf(f spec.Family) uint8 {
	if f == spec.IPv4 {
		return spec.ProtocolICMP
	}
	return spec.ProtocolICMPv6
}

// open opens the sockets, and accepts connections to the ports.
func open(n *lab.Namespace, ports ...uint16) (*machine, error) {
	m := &machine{Namespace: n, raw: map[rawKind]int{}}
	err := n.Do(func() error {
		for _, f := range spec.Families {
			for _, protocol := range []uint8{icmpOf(f), spec.ProtocolTCP, spec.ProtocolUDP, spec.ProtocolSCTP} {
				fd, err := rawSocket(f, protocol)
				if err != nil {
					return err
				}
				m.raw[rawKind{f, protocol}] = fd
			}
		}
		for _, port := range ports {
			l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
			if err != nil {
				return err
			}
			m.listeners = append(m.listeners, l)
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					_ = c.Close() // it has nothing to say
				}
			}()
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

// close closes what open has opened.
func (m *machine) close() {
	for _, fd := range m.raw {
		_ = unix.Close(fd) // nothing is written late
	}
	for _, l := range m.listeners {
		_ = l.Close()
	}
}

// forget has the machine look for the neighbours that have addresses. One that it
// has spoken with is believed to be there for the better part of a minute, and the
// bridge plugin has nobody announce an IPv6 address that is somebody else's now.
func (m *machine) forget(addresses []netip.Addr) error {
	return m.Do(func() error {
		list, err := netlink.NeighList(0, netlink.FAMILY_ALL)
		for _, n := range list {
			if a, ok := netip.AddrFromSlice(n.IP); ok && slices.Contains(addresses, a.Unmap()) {
				if fail := netlink.NeighDel(&n); !errors.Is(fail, unix.ENOENT) {
					err = errors.Join(err, fail)
				}
			}
		}
		return err
	})
}

// magic stands before a packet's identity.
var magic = []byte("polder:")

// arrived are the identities of packets that have come.
func (m *machine) arrived() (list []uint32) {
	b := make([]byte, 2048)
	for _, fd := range m.raw {
		for {
			size, _, err := unix.Recvfrom(fd, b, unix.MSG_DONTWAIT)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				break
			}
			if i := bytes.Index(b[:size], magic); i >= 0 && size >= i+len(magic)+4 {
				list = append(list, binary.BigEndian.Uint32(b[i+len(magic):]))
			}
		}
	}
	return list
}

// probe is a packet between two machines, and whether it must arrive.
type probe struct {
	policy.Flow
	from, to *machine
	names    [2]string
	want     bool
}

func (p probe) String() string {
	return fmt.Sprintf("%s (%s) to %s (%s) by %v", p.names[0], p.From, p.names[1], p.To, p.Service())
}

// send sends the packet with an identity in it. What the machine's own output hook
// drops is sent, too.
func (p probe) send(id uint32) error {
	data := binary.BigEndian.AppendUint32(bytes.Clone(magic), id)
	src, dst := netip.AddrPortFrom(p.From, 1024+uint16(id%60000)), netip.AddrPortFrom(p.To, p.Port)
	var b []byte
	switch p.Protocol {
	case spec.ProtocolTCP:
		b = packet.NewSYN(src, dst, data)
	case spec.ProtocolUDP:
		b = packet.NewUDP(src, dst, data)
	case spec.ProtocolSCTP:
		b = packet.IP(src.Addr(), dst.Addr(), spec.ProtocolSCTP, packet.NewSCTPInit(src.Port(), dst.Port(), data))
	default:
		body := binary.BigEndian.AppendUint32(nil, id) // identifier and sequence
		b = packet.NewICMP(src.Addr(), dst.Addr(), p.Type, p.Code, append(body, data...))
	}
	err := unix.Sendto(p.from.raw[rawKind{spec.FamilyOf(p.From), p.Protocol}], b, 0, sockaddr(p.To))
	if errors.Is(err, unix.EPERM) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	return nil
}

func sockaddr(a netip.Addr) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4()}
	}
	return &unix.SockaddrInet6{Addr: a.As16()}
}

// dial makes a connection, both ways.
func (p probe) dial() error {
	return p.from.Do(func() error {
		d := net.Dialer{Timeout: patience, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(p.From, 0))}
		c, err := d.Dial("tcp", netip.AddrPortFrom(p.To, p.Port).String())
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		return c.Close()
	})
}

// again is how long to wait until what must come is sent again.
const again = time.Second

// sequence gives packets their identities.
type sequence uint32

// try sends probes and tells of those that become of what they must not.
func (s *sequence) try(list []probe) (wrong []string, err error) {
	sent, missing := map[uint32]int{}, map[int]bool{}
	send := func(i int) error {
		*s++
		sent[uint32(*s)] = i
		return list[i].send(uint32(*s))
	}
	for i, p := range list {
		if p.want {
			missing[i] = true
		}
		if err := send(i); err != nil {
			return nil, err
		}
	}
	wait := func(limit time.Duration) {
		for deadline := time.Now().Add(limit); ; {
			var fds []unix.PollFd
			asked := map[*machine]bool{}
			for _, p := range list {
				if asked[p.to] {
					continue
				}
				asked[p.to] = true
				for _, id := range p.to.arrived() {
					i, mine := sent[id]
					switch {
					case !mine || list[i].to != p.to:
					case list[i].want:
						delete(missing, i)
					default:
						wrong = append(wrong, fmt.Sprintf("%s: arrives", list[i]))
						delete(sent, id)
					}
				}
				for _, fd := range p.to.raw {
					fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
				}
			}
			left := time.Until(deadline)
			if len(missing) == 0 || left <= 0 {
				return
			}
			_, _ = unix.Poll(fds, max(1, int(left.Milliseconds()))) // EINTR: look again
		}
	}
	for began := time.Now(); ; {
		wait(again)
		if len(missing) == 0 || time.Since(began) > patience {
			break
		}
		for i := range missing {
			if err := send(i); err != nil {
				return wrong, err
			}
		}
	}
	for i := range missing {
		wrong = append(wrong, fmt.Sprintf("%s: does not arrive", list[i]))
	}
	const most = 4
	dialled := 0
	for _, p := range list {
		if p.want && p.Protocol == spec.ProtocolTCP && len(p.to.listeners) > 0 && p.listens() && dialled < most {
			dialled++
			if err := p.dial(); err != nil {
				wrong = append(wrong, err.Error())
			}
		}
	}
	wait(0) // for who is late
	return wrong, nil
}

// listens says that somebody accepts connections to the port.
func (p probe) listens() bool {
	for _, l := range p.to.listeners {
		if l.Addr().(*net.TCPAddr).Port == int(p.Port) {
			return true
		}
	}
	return false
}
