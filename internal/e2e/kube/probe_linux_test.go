package kube

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/poldernet/polder/internal/lab/packet"
	"github.com/poldernet/polder/internal/lab/station"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

// machine is a namespace with sockets.
type machine = station.Station

// forget has the machine look for the neighbours that have addresses. One that it
// has spoken with is believed to be there for the better part of a minute, and the
// bridge plugin has nobody announce an IPv6 address that is somebody else's now.
func forget(m *machine, addresses []netip.Addr) error {
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

// probe is a packet: whether it is from another one than it says, whether it must
// arrive, and whether an answer finds its way.
type probe struct {
	policy.Flow
	from, to           end
	forged, want, back bool
}

func (p probe) String() string {
	return fmt.Sprintf("%s (as %s) to %s (%s) by %v", p.from.name, p.From, p.to.name, p.To, p.Service())
}

// send sends the packet with an identity in it. What the machine's own output hook
// drops is sent, too, and what it has no route for.
func (p probe) send(id uint32) error {
	data := station.Mark(id)
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
	err := p.from.Send(b)
	if errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	return nil
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

// sequence gives packets their identities, and knows which must not arrive.
type sequence struct {
	last      uint32
	forbidden map[uint32]probe
}

// try sends probes and tells of those that become of what they must not.
func (s *sequence) try(list []probe) (wrong []string, err error) {
	sent, missing := map[uint32]int{}, map[int]bool{}
	send := func(i int) error {
		s.last++
		if sent[s.last] = i; !list[i].want {
			s.forbidden[s.last] = list[i]
		}
		return list[i].send(s.last)
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
				if asked[p.to.machine] {
					continue
				}
				asked[p.to.machine] = true
				for _, id := range p.to.Arrived() {
					// It may be one of before. Whom a router tells that it was dropped is another.
					if bad, is := s.forbidden[id]; is && bad.to.machine == p.to.machine {
						wrong = append(wrong, fmt.Sprintf("%s: arrives", bad))
						delete(s.forbidden, id)
					}
					if i, mine := sent[id]; mine && list[i].to.machine == p.to.machine {
						delete(missing, i)
					}
				}
				fds = append(fds, p.to.Polls()...)
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
		if p.want && p.back && p.Protocol == spec.ProtocolTCP && p.to.Listens(p.Port) && dialled < most {
			dialled++
			if err := p.dial(); err != nil {
				wrong = append(wrong, err.Error())
			}
		}
	}
	wait(0) // for who is late
	return wrong, nil
}
