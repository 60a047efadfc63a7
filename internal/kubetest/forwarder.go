package kubetest

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"

	"github.com/poldernet/polder/internal/lab"
)

// Forwarder makes a server of the test's own namespace reachable in another one,
// at an address there. Links, routes and rules of that namespace have no part in
// it. It can play a server that is down, one that is silent, and a proxy without one.
type Forwarder struct {
	namespace *lab.Namespace
	at, to    netip.AddrPort

	mu       sync.Mutex
	listener net.Listener // nil: connections are refused
	conns    map[net.Conn]bool
	hangsUp  bool
	flows    chan struct{} // closed while data passes
}

// Forward begins to forward from an address in a namespace.
func Forward(n *lab.Namespace, at, to netip.AddrPort) (*Forwarder, error) {
	f := &Forwarder{namespace: n, at: at, to: to, conns: map[net.Conn]bool{}, flows: make(chan struct{})}
	close(f.flows)
	return f, f.Open()
}

// Open ends what Refuse, HangUp or Stall began.
func (f *Forwarder) Open() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hangsUp = false
	f.flow()
	if f.listener != nil {
		return nil
	}
	var l net.Listener
	err := f.namespace.Do(func() (err error) {
		l, err = new(net.ListenConfig).Listen(context.Background(), "tcp", f.at.String())
		return err
	})
	if err != nil {
		return err
	}
	f.listener = l
	go f.accept(l)
	return nil
}

// flow lets data pass. The caller has the lock.
func (f *Forwarder) flow() {
	select {
	case <-f.flows:
	default:
		close(f.flows)
	}
}

// Refuse closes what is connected and refuses who connects, as on a host where
// the server does not run.
func (f *Forwarder) Refuse() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	if f.listener != nil {
		errs = append(errs, f.listener.Close())
		f.listener = nil
	}
	f.hangUp()
	return errors.Join(errs...)
}

// HangUp closes what is connected and whoever connects, as a proxy does that has no
// server.
func (f *Forwarder) HangUp() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hangsUp = true
	f.hangUp()
}

// hangUp closes what is connected. The caller has the lock.
func (f *Forwarder) hangUp() {
	for c := range f.conns {
		_ = c.Close() // the other end may have, already
	}
	clear(f.conns)
	f.flow() // to the closed connections: nothing waits for ever
}

// Stall keeps connections as they are and lets nothing pass, as when the network
// on the way is broken.
func (f *Forwarder) Stall() {
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-f.flows:
		f.flows = make(chan struct{})
	default:
	}
}

// Close is Refuse, for good.
func (f *Forwarder) Close() error { return f.Refuse() }

func (f *Forwarder) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return // closed
		}
		if f.take(l, c) {
			go f.connect(l, c)
		}
	}
}

// take puts a connection among those to close, if its listener is still the one and
// takes connections.
func (f *Forwarder) take(l net.Listener, c net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.listener != l || f.hangsUp {
		_ = c.Close()
		return false
	}
	f.conns[c] = true
	return true
}

func (f *Forwarder) give(c net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.conns, c)
	_ = c.Close()
}

// connect copies between a client and the server until one of them hangs up.
// Errors are theirs to see.
func (f *Forwarder) connect(l net.Listener, client net.Conn) {
	defer f.give(client)
	server, err := new(net.Dialer).DialContext(context.Background(), "tcp", f.to.String())
	if err != nil || !f.take(l, server) {
		return
	}
	defer f.give(server)
	var both sync.WaitGroup
	for _, pair := range [][2]net.Conn{{client, server}, {server, client}} {
		both.Go(func() { f.copy(pair[0], pair[1]) })
	}
	both.Wait()
}

func (f *Forwarder) copy(to, from net.Conn) {
	defer to.Close()
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		f.mu.Lock()
		flows := f.flows
		f.mu.Unlock()
		<-flows
		if n > 0 {
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
