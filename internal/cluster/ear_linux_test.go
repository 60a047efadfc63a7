package cluster

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/client-go/rest"

	"github.com/poldernet/polder/internal/kubetest"
	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/reconcile"
)

// TestDeaf: it is told that the API server is not heard, and that it is again, however
// it is away.
func TestDeaf(t *testing.T) {
	lab.Require(t)
	// Silence is noticed after 45 s, else.
	t.Setenv("HTTP2_READ_IDLE_TIMEOUT_SECONDS", "1")
	t.Setenv("HTTP2_PING_TIMEOUT_SECONDS", "1")
	api := kubetest.Start(t)
	ns, err := lab.NewNamespace("n1")
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort("127.0.0.1:6443")
	wire, err := kubetest.Forward(ns, at, api.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := wire.Close(); err != nil {
			t.Error(err)
		}
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	})
	config := api.ServiceAccount(t, "default", "polder", rbacv1.PolicyRule{
		APIGroups: []string{"", "networking.k8s.io"}, Resources: resources, Verbs: []string{"list", "watch"},
	})
	config.Dial = func(ctx context.Context, network, _ string) (c net.Conn, err error) {
		err = ns.Do(func() error {
			c, err = new(net.Dialer).DialContext(ctx, network, at.String())
			return err
		})
		return c, err
	}
	for name, away := range map[string]func(){
		"it refuses":         func() { _ = wire.Refuse() },
		"its proxy hangs up": wire.HangUp,
		"it is silent":       wire.Stall,
	} {
		t.Run(name, func(t *testing.T) {
			l := listen(t, New("n1", func() (*rest.Config, error) { return config, nil }))
			l.until(t, "everything", func(u reconcile.Update) bool { return u.Complete })
			away()
			deaf, _ := l.until(t, "that it is deaf", func(u reconcile.Update) bool { return u.Hearing != nil && u.Hearing.Err != nil })
			if text := deaf.Hearing.Err.Error(); !strings.Contains(text, "asking "+api.Addr.String()+": ") && !strings.Contains(text, "connection refused") {
				t.Errorf("why it is deaf: %s", text)
			}
			if err := wire.Open(); err != nil {
				t.Fatal(err)
			}
			l.until(t, "that it hears again", func(u reconcile.Update) bool { return u.Hearing != nil && u.Hearing.Err == nil })
		})
	}
}

// TestUnanswered: what is told of a connection that breaks is the same each time.
func TestUnanswered(t *testing.T) {
	from := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 40_001}
	to := &net.TCPAddr{IP: net.IPv4(10, 96, 0, 1), Port: 443}
	for want, err := range map[string]error{
		"asking api:443: EOF":                        io.EOF,
		"asking api:443: connection reset by peer":   fmt.Errorf("http2: %w", &net.OpError{Op: "read", Net: "tcp", Source: from, Addr: to, Err: unix.ECONNRESET}),
		"dial tcp 10.96.0.1:443: connection refused": &net.OpError{Op: "dial", Net: "tcp", Addr: to, Err: unix.ECONNREFUSED},
	} {
		if text := unanswered("api:443", err).Error(); text != want {
			t.Errorf("%q, want %q", text, want)
		}
	}
}
