package lab

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/poldernet/polder/internal/lab/packet"
	"github.com/poldernet/polder/spec"
)

const (
	defaultTimeout = time.Second
	// resend is how long a probe waits for an answer before it is sent again.
	resend = 200 * time.Millisecond
)

// Wire watches the underlay of every node, so that probes know how they
// travelled. It may be used from several goroutines.
type Wire struct {
	taps      []*Tap
	vxlanPort uint16

	mu   sync.Mutex
	seen map[tag][]Sighting
}

// Wire taps the interfaces of all nodes that are on links. The port is
// VXLAN's, of the spec; zero where there is none.
func (l *Lab) Wire(vxlanPort uint16) (*Wire, error) {
	w := &Wire{vxlanPort: vxlanPort, seen: map[tag][]Sighting{}}
	for _, m := range l.blueprint.machines {
		if m.Role != RoleNode {
			continue
		}
		for i := range m.Interfaces {
			t, err := l.machines[m.Name].Tap(fmt.Sprintf("eth%d", i))
			if err != nil {
				return nil, errors.Join(err, w.Close())
			}
			w.taps = append(w.taps, t)
		}
	}
	return w, nil
}

// Close closes the taps.
func (w *Wire) Close() error {
	var errs []error
	for _, t := range w.taps {
		errs = append(errs, t.Close())
	}
	return errors.Join(errs...)
}

// collect sorts what the taps have seen and takes out one tag's.
func (w *Wire) collect(wanted tag) ([]Sighting, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.taps {
		frames, err := t.Drain()
		if err != nil {
			return nil, err
		}
		for _, f := range frames {
			if s, id, ok := sight(f.Data, w.vxlanPort); ok {
				s.Machine, s.Link, s.Outgoing = t.Machine, t.Link, f.Outgoing
				w.seen[id] = append(w.seen[id], s)
			}
		}
	}
	s := w.seen[wanted]
	delete(w.seen, wanted)
	return s, nil
}

// Probe sends a tagged packet and reports what became of it. That it does not
// arrive is no error.
func (w *Wire) Probe(f Flow) (Report, error) {
	id := tag(rand.Uint64())
	report, err := probe(f, id)
	if err != nil {
		return report, fmt.Errorf("probing %v from %s by %s: %w", f.Addr, f.From.name, f.Protocol, err)
	}
	sightings, err := w.collect(id)
	for _, s := range sightings {
		if s.Src == f.Addr {
			report.Return = append(report.Return, s)
		} else {
			report.Sightings = append(report.Sightings, s)
		}
	}
	return report, err
}

func probe(f Flow, id tag) (Report, error) {
	if f.Timeout == 0 {
		f.Timeout = defaultTimeout
	}
	deadline := time.Now().Add(f.Timeout)
	sink, err := f.listen(id)
	if err != nil {
		return Report{}, fmt.Errorf("listening in %s: %w", f.To.name, err)
	}
	if err := sink.SetDeadline(deadline); err != nil {
		return Report{}, errors.Join(err, sink.Close())
	}
	source := make(chan netip.Addr, 1)
	go func() {
		defer close(source)
		if a, ok := sink.serve(); ok {
			source <- a
		}
	}()

	var r Report
	r.Own, r.Answered, r.Err = f.send(id, sink.port(), deadline)
	// What was answered has arrived, though the sink may not have read it yet.
	// An SCTP probe is never answered: its arrival is all there is to wait for.
	// Only a UDP sink goes on until it is closed.
	if !sink.answer && (r.Answered || f.Protocol == SCTP && r.Err == nil) {
		r.Source, r.Reached = <-source
		return r, sink.Close()
	}
	if err := sink.Close(); err != nil {
		return r, err
	}
	r.Source, r.Reached = <-source
	return r, nil
}

// A sink receives one probe.
type sink struct {
	id     tag
	conn   net.PacketConn // UDP, ICMP, SCTP
	listen *net.TCPListener
	answer bool
}

func (f Flow) listen(id tag) (sink, error) {
	s := sink{id: id, answer: f.Protocol == UDP}
	err := f.To.Do(func() (err error) {
		switch f.Protocol {
		case TCP:
			s.listen, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(f.Addr, f.Port)))
		case UDP:
			s.conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(f.Addr, f.Port)))
		default:
			s.conn, err = net.ListenIP(f.rawNetwork(), &net.IPAddr{IP: f.Addr.AsSlice()})
		}
		return err
	})
	return s, err
}

// rawNetwork is package net's name for the raw sockets of the protocol.
func (f Flow) rawNetwork() string {
	number := packet.SCTP
	if f.Protocol == ICMP {
		number = packet.ICMP
		if f.Addr.Is6() {
			number = packet.ICMPv6
		}
	}
	if f.Addr.Is6() {
		return fmt.Sprintf("ip6:%d", number)
	}
	return fmt.Sprintf("ip4:%d", number)
}

func (s sink) SetDeadline(t time.Time) error {
	if s.listen != nil {
		return s.listen.SetDeadline(t)
	}
	return s.conn.SetDeadline(t)
}

func (s sink) Close() error {
	if s.listen != nil {
		return s.listen.Close()
	}
	return s.conn.Close()
}

func (s sink) port() uint16 {
	var a net.Addr
	if s.listen != nil {
		a = s.listen.Addr()
	} else {
		a = s.conn.LocalAddr()
	}
	p, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return 0 // ICMP and raw SCTP have none
	}
	return p.Port()
}

// serve waits for the probe, answers it where the kernel does not, and returns
// the source that it saw. It ends when the sink is closed.
func (s sink) serve() (netip.Addr, bool) {
	if s.listen != nil {
		return s.accept()
	}
	buf := make([]byte, snapshot)
	var source netip.Addr
	for {
		n, from, err := s.conn.ReadFrom(buf)
		if err != nil {
			return source, source.IsValid()
		}
		if !s.id.in(buf[:n]) {
			continue
		}
		source = addrOf(from)
		if !s.answer {
			return source, true
		}
		// A lost answer shows at the sender, which asks again.
		_, _ = s.conn.WriteTo(s.id.bytes(), from)
	}
}

func (s sink) accept() (netip.Addr, bool) {
	for {
		c, err := s.listen.AcceptTCP()
		if err != nil {
			return netip.Addr{}, false
		}
		source, ok := addrOf(c.RemoteAddr()), s.exchange(c)
		_ = c.Close() // everything has been said
		if ok {
			return source, true
		}
	}
}

func (s sink) exchange(c *net.TCPConn) bool {
	buf := make([]byte, len(s.id.bytes()))
	if err := c.SetDeadline(time.Now().Add(defaultTimeout)); err != nil {
		return false
	}
	if _, err := io.ReadFull(c, buf); err != nil || !s.id.in(buf) {
		return false
	}
	_, err := c.Write(buf)
	return err == nil
}

func addrOf(a net.Addr) netip.Addr {
	switch a := a.(type) {
	case *net.UDPAddr:
		return a.AddrPort().Addr().Unmap()
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap()
	case *net.IPAddr:
		ip, _ := netip.AddrFromSlice(a.IP) // the kernel's own: 4 or 16 bytes
		return ip.Unmap()
	}
	return netip.Addr{}
}

// send sends the probe until it is answered or the deadline comes.
func (f Flow) send(id tag, port uint16, deadline time.Time) (own netip.Addr, answered bool, err error) {
	var c net.Conn
	err = f.From.Do(func() (err error) {
		d := net.Dialer{Deadline: deadline}
		switch f.Protocol {
		case TCP, UDP:
			c, err = d.Dial(string(f.Protocol), netip.AddrPortFrom(f.Addr, port).String())
		default:
			c, err = d.Dial(f.rawNetwork(), f.Addr.String())
		}
		return err
	})
	if err != nil {
		return own, false, err
	}
	defer c.Close()
	own = addrOf(c.LocalAddr())
	message := f.message(id)
	buf := make([]byte, snapshot)
	for time.Now().Before(deadline) {
		if _, err := c.Write(message); err != nil {
			return own, false, err
		}
		if f.Protocol == SCTP {
			return own, false, nil
		}
		wait := time.Now().Add(resend)
		if wait.After(deadline) || f.Protocol == TCP { // TCP sends again by itself
			wait = deadline
		}
		if err := c.SetReadDeadline(wait); err != nil {
			return own, false, err
		}
		for {
			n, err := c.Read(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return own, false, err
			}
			if id.in(buf[:n]) {
				return own, true, nil
			}
		}
	}
	return own, false, nil
}

func (f Flow) message(id tag) []byte {
	switch f.Protocol {
	case ICMP:
		return packet.Echo(spec.FamilyOf(f.Addr), uint16(id), 1, id.bytes())
	case SCTP:
		return packet.NewSCTPInit(uint16(id)|1, 9, id.bytes())
	default:
		return id.bytes()
	}
}
