package kubetest_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/poldernet/polder/internal/kubetest"
	"github.com/poldernet/polder/internal/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

func namespace(t *testing.T, name string) *lab.Namespace {
	t.Helper()
	n, err := lab.NewNamespace(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// within is a dialer of a namespace.
func within(n *lab.Namespace) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (c net.Conn, err error) {
		err = n.Do(func() error {
			c, err = new(net.Dialer).DialContext(ctx, network, address)
			return err
		})
		return c, err
	}
}

// echo answers each line with itself.
func echo(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// TestForwarder talks from a namespace to a server outside, which is up, down
// and silent by turns.
func TestForwarder(t *testing.T) {
	lab.Require(t)
	n, at := namespace(t, "n1"), netip.MustParseAddrPort("127.0.0.1:6443")
	f, err := kubetest.Forward(n, at, echo(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	dial := func() net.Conn {
		t.Helper()
		c, err := within(n)(t.Context(), "tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	say := func(c net.Conn, line string) {
		t.Helper()
		if _, err := io.WriteString(c, line); err != nil {
			t.Fatal(err)
		}
	}
	hear := func(c net.Conn, want string) {
		t.Helper()
		if got, err := bufio.NewReader(c).ReadString('\n'); err != nil || got != want {
			t.Fatalf("%q, %v; want %q", got, err, want)
		}
	}
	c := dial()
	say(c, "up\n")
	hear(c, "up\n")

	f.Stall()
	old, late := c, dial()
	for _, c := range []net.Conn{old, late} {
		say(c, "silent\n")
		// What would come, comes at once.
		if err := c.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if b := make([]byte, 1); !timeout(c.Read(b)) {
			t.Fatal("an answer passed")
		}
		if err := c.SetReadDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Open(); err != nil {
		t.Fatal(err)
	}
	hear(old, "silent\n")
	hear(late, "silent\n")

	if err := f.Refuse(); err != nil {
		t.Fatal(err)
	}
	if _, err := old.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("reading what was closed: %v", err)
	}
	if _, err := within(n)(t.Context(), "tcp", at.String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("connecting to what is down: %v", err)
	}
	if err := f.Open(); err != nil {
		t.Fatal(err)
	}
	c = dial()
	say(c, "again\n")
	hear(c, "again\n")
}

func timeout(_ int, err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
