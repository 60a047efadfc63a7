package nflog

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/poldernet/polder/internal/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// node is a namespace that logs the datagrams that it sends to itself, twice:
// to group 7 and to 8.
type node struct {
	*lab.Namespace
	t *testing.T
}

func newNode(t *testing.T) node {
	t.Helper()
	lab.Require(t)
	n, err := lab.NewNamespace("node")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	cmd := n.Command(t.Context(), "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(`
		add table inet t
		add chain inet t in { type filter hook input priority 0; }
		add rule inet t in meta l4proto udp log prefix "seven" group 7 snaplen 40
		add rule inet t in meta l4proto udp log prefix "eight" group 8`)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return node{n, t}
}

func (n node) listen(group uint16) *Listener {
	n.t.Helper()
	var l *Listener
	if err := n.Do(func() (err error) { l, err = Listen(group); return err }); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		if err := l.Close(); err != nil {
			n.t.Error(err)
		}
	})
	return l
}

// send sends so many datagrams of a length.
func (n node) send(to string, count, length int) {
	n.t.Helper()
	err := n.Do(func() error {
		// The port is closed. On a connected socket, what comes back for one
		// datagram would be the error of the next.
		c, err := net.ListenPacket("udp", ":0")
		if err != nil {
			return err
		}
		defer c.Close()
		for range count {
			if _, err := c.WriteTo(bytes.Repeat([]byte("x"), length), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to))); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n node) next(l *Listener) Message {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), 10*time.Second)
	defer cancel()
	m, err := l.Next(ctx)
	if err != nil {
		n.t.Fatal(err)
	}
	return m
}

func TestListen(t *testing.T) {
	n := newNode(t)
	seven, eight := n.listen(7), n.listen(8)
	for i, to := range []string{"127.0.0.1:99", "[::1]:99"} {
		began := time.Now()
		n.send(to, 1, 100)
		for _, l := range []struct {
			*Listener
			prefix string
			length int
		}{{seven, "seven", 40}, {eight, "eight", len(netip.MustParseAddrPort(to).Addr().AsSlice())/16*20 + 20 + 8 + 100}} {
			m := n.next(l.Listener)
			p, err := Dissect(m.Payload)
			want := netip.MustParseAddrPort(to)
			if err != nil || m.Prefix != l.prefix || m.Sequence != uint32(i) || netip.AddrPortFrom(p.To, p.ToPort) != want && p.Whole || p.To != want.Addr() {
				t.Errorf("%s: %+v %+v %v", to, m, p, err)
			}
			if len(m.Payload) != l.length {
				t.Errorf("%s: %d bytes, want %d", to, len(m.Payload), l.length)
			}
			if !m.Time.IsZero() && (m.Time.Before(began.Add(-time.Second)) || m.Time.After(time.Now().Add(time.Second))) {
				t.Errorf("%s: sent at %v, logged at %v", to, began, m.Time)
			}
		}
	}
}

// A group has one listener, and the error says so.
func TestListenTwice(t *testing.T) {
	n := newNode(t)
	n.listen(7)
	err := n.Do(func() error { _, err := Listen(7); return err })
	if err == nil || !strings.Contains(err.Error(), "group 7 needs root (CAP_NET_ADMIN), and that nobody else listens to it") {
		t.Error(err)
	}
}

// Who does not read loses messages, is told so, and learns how many they were
// from the numbers of what comes after.
func TestLoss(t *testing.T) {
	n := newNode(t)
	l := n.listen(8)
	if err := l.conn.SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	const sent = 200
	n.send("127.0.0.1:99", sent, 1000)
	read, lost := 0, 0
	for last := uint32(0); last < sent; {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		m, err := l.Next(ctx)
		cancel()
		switch {
		case errors.Is(err, ErrLost):
			lost++
		case errors.Is(err, context.DeadlineExceeded):
			// The socket has been emptied: until then the kernel drops what comes.
			n.send("127.0.0.1:99", 1, 1)
		case err != nil:
			t.Fatal(err)
		default:
			read++
			last = m.Sequence
		}
	}
	if lost != 1 || read >= sent {
		t.Errorf("%d of %d are read, and %d losses told", read, sent, lost)
	}
	t.Logf("%d of %d read, %d losses told", read, sent, lost)
}

// A wait ends with its context, and the next one does not.
func TestCancel(t *testing.T) {
	n := newNode(t)
	l := n.listen(7)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(time.Millisecond, cancel)
	if _, err := l.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := l.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	n.send("127.0.0.1:99", 1, 1)
	if m := n.next(l); m.Prefix != "seven" {
		t.Errorf("%+v", m)
	}
}
