package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/poldernet/polder/internal/lab"
)

// conversation is a connection of which the test has both ends. They count
// aloud: what is said is a number, each higher than the one before.
type conversation struct {
	name           string
	client, server *end
	source         netip.Addr // of the client, as the server sees it
	// strangers has one for each that came to the server from others.
	strangers chan struct{}
	close     func()
}

// end is one end of a conversation.
type end struct {
	write func(message []byte) error
	id    uint64

	mu    sync.Mutex
	spoke []time.Time   // when it said 1, 2, …
	heard uint64        // the highest number
	more  chan struct{} // closed and made anew when one comes
}

func newEnd(id uint64) *end { return &end{id: id, more: make(chan struct{})} }

// A message is the conversation's number and one that is counted.
const messageLen = 16

// say says the next number, and returns it. Where the sender's own node refuses
// the packet that is no error: it did not arrive.
func (e *end) say() uint64 {
	e.mu.Lock()
	e.spoke = append(e.spoke, time.Now())
	number := uint64(len(e.spoke))
	e.mu.Unlock()
	message := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, e.id), number)
	_ = e.write(message) // EPERM, or the end of the test: either way it will be missed
	return number
}

// hear notes what came, and says whether it is of this conversation.
func (e *end) hear(message []byte) bool {
	if len(message) != messageLen || binary.BigEndian.Uint64(message) != e.id {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.heard = max(e.heard, binary.BigEndian.Uint64(message[8:]))
	close(e.more)
	e.more = make(chan struct{})
	return true
}

// latest is the highest number that has come.
func (e *end) latest() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.heard
}

// through is when the end said the last of what the other has heard, and the first
// of what it has not; that is the zero time if there is nothing.
func (e *end) through(other *end) (last, first time.Time) {
	heard := other.latest()
	e.mu.Lock()
	defer e.mu.Unlock()
	if heard < uint64(len(e.spoke)) {
		first = e.spoke[heard]
	}
	return e.spoke[heard-1], first
}

// await waits until a number has come, and says whether it did in time.
func (e *end) await(number uint64, timeout time.Duration) bool {
	deadline := time.After(timeout)
	for {
		e.mu.Lock()
		heard, more := e.heard, e.more
		e.mu.Unlock()
		if heard >= number {
			return true
		}
		select {
		case <-more:
		case <-deadline:
			return false
		}
	}
}

// exchange has each end hear the other, the client first. What either end of
// another conversation on the same way said before has arrived then, or never
// will.
func (c *conversation) exchange(t *testing.T) {
	t.Helper()
	for _, way := range []struct {
		name     string
		from, to *end
	}{{"client", c.client, c.server}, {"server", c.server, c.client}} {
		if !way.to.await(way.from.say(), patience) {
			t.Fatalf("%s: what the %s says does not arrive", c.name, way.name)
		}
	}
}

// converse opens a conversation: from a namespace to an address, which another
// namespace has or a translation leads to, where it listens on at.
func converse(t *testing.T, name string, protocol lab.Protocol, from, to *lab.Namespace, dialled, at netip.AddrPort) *conversation {
	t.Helper()
	id := rand.Uint64()
	c := &conversation{name: name, client: newEnd(id), server: newEnd(id), strangers: make(chan struct{}, 1000)}
	open := c.openTCP
	if protocol == lab.UDP {
		open = c.openUDP
	}
	if err := open(from, to, dialled, at); err != nil {
		t.Fatalf("opening %s: %v", name, err)
	}
	c.exchange(t)
	return c
}

func (c *conversation) openTCP(from, to *lab.Namespace, dialled, at netip.AddrPort) error {
	var listener *net.TCPListener
	err := to.Do(func() (err error) {
		listener, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
		return err
	})
	if err != nil {
		return err
	}
	var client net.Conn
	err = from.Do(func() (err error) {
		client, err = (&net.Dialer{Timeout: patience}).Dial("tcp", dialled.String())
		return err
	})
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	server, err := listener.AcceptTCP()
	if err != nil {
		return errors.Join(err, client.Close(), listener.Close())
	}
	c.source = addrPort(server.RemoteAddr()).Addr()
	go func() {
		for {
			other, err := listener.Accept()
			if err != nil {
				return
			}
			c.strangers <- struct{}{}
			_ = other.Close() // it has nothing to say
		}
	}()
	for _, side := range []struct {
		end  *end
		conn net.Conn
	}{{c.client, client}, {c.server, server}} {
		side.end.write = func(m []byte) error {
			_, err := side.conn.Write(m)
			return err
		}
		go func() {
			message := make([]byte, messageLen)
			for {
				if _, err := io.ReadFull(side.conn, message); err != nil {
					return
				}
				side.end.hear(message)
			}
		}()
	}
	c.close = func() {
		// Without a farewell: nobody may be there to hear it.
		_, _ = client.(*net.TCPConn).SetLinger(0), server.SetLinger(0)
		_, _, _ = client.Close(), server.Close(), listener.Close()
	}
	return nil
}

func (c *conversation) openUDP(from, to *lab.Namespace, dialled, at netip.AddrPort) error {
	var server *net.UDPConn
	err := to.Do(func() (err error) {
		server, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		return err
	})
	if err != nil {
		return err
	}
	var client net.Conn
	err = from.Do(func() (err error) {
		client, err = net.Dial("udp", dialled.String())
		return err
	})
	if err != nil {
		return errors.Join(err, server.Close())
	}
	known := make(chan struct{}) // closed when the server has heard the client
	var peer atomic.Pointer[netip.AddrPort]
	go func() {
		message := make([]byte, messageLen+1)
		for first := true; ; {
			n, source, err := server.ReadFromUDPAddrPort(message)
			switch {
			case errors.Is(err, net.ErrClosed):
				return
			case err != nil: // of something that was sent before
			case !c.server.hear(message[:n]):
				c.strangers <- struct{}{}
			default:
				// Masquerading may have chosen another port.
				peer.Store(&source)
				if first {
					close(known)
					first = false
				}
			}
		}
	}()
	go func() {
		message := make([]byte, messageLen+1)
		for {
			n, err := client.Read(message)
			switch {
			case errors.Is(err, net.ErrClosed):
				return
			case err == nil:
				c.client.hear(message[:n])
			}
		}
	}()
	c.client.write = func(m []byte) error {
		_, err := client.Write(m)
		return err
	}
	c.server.write = func(m []byte) error {
		_, err := server.WriteToUDPAddrPort(m, *peer.Load())
		return err
	}
	c.close = func() { _, _ = client.Close(), server.Close() }
	c.client.say()
	select {
	case <-known:
	case <-time.After(patience):
		c.close()
		return fmt.Errorf("the server at %s hears nothing", at)
	}
	c.source = peer.Load().Addr().Unmap()
	return nil
}

// knocking is what a knock says, where it says something.
const knocking = "knock"

// knock opens another connection to a server and waits for nothing. The socket
// is the caller's to close.
func knock(t *testing.T, protocol lab.Protocol, from *lab.Namespace, dialled netip.AddrPort) *os.File {
	t.Helper()
	var f *os.File
	err := from.Do(func() error {
		domain, to := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(dialled.Port()), Addr: dialled.Addr().As16()})
		if dialled.Addr().Is4() {
			domain, to = unix.AF_INET, &unix.SockaddrInet4{Port: int(dialled.Port()), Addr: dialled.Addr().As4()}
		}
		kind := unix.SOCK_STREAM
		if protocol == lab.UDP {
			kind = unix.SOCK_DGRAM
		}
		fd, err := unix.Socket(domain, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f = os.NewFile(uintptr(fd), "knock")
		if err := unix.Connect(fd, to); err != nil && !errors.Is(err, unix.EINPROGRESS) {
			return err
		}
		if protocol == lab.UDP {
			_, err = unix.Write(fd, []byte(knocking))
		}
		return err
	})
	if err != nil {
		t.Fatalf("knocking at %s: %v", dialled, err)
	}
	return f
}

func addrPort(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.TCPAddr:
		return netip.AddrPortFrom(a.AddrPort().Addr().Unmap(), a.AddrPort().Port())
	case *net.UDPAddr:
		return netip.AddrPortFrom(a.AddrPort().Addr().Unmap(), a.AddrPort().Port())
	}
	return netip.AddrPort{}
}
