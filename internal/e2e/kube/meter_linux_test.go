package kube

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/spec"
)

// meter counts what is lost of what machines send each other all the time:
// numbered datagrams, and connections that say numbers.
type meter struct {
	t     *testing.T
	stop  context.CancelFunc
	done  sync.WaitGroup // senders
	ctx   context.Context
	flows []*flow
	talks []*talk
	steps []step
}

// step is what the test does from a time on, to say when something was lost.
type step struct {
	what string
	at   time.Time
}

// Each flow has a port of its own, so that nobody's socket overflows for another.
const (
	firstMeterPort = 10000
	beat           = 10 * time.Millisecond
	// patience is how long to wait for what must come, on a machine that is busy.
	patience = 10 * time.Second
)

func newMeter(t *testing.T) *meter {
	m := &meter{t: t}
	m.ctx, m.stop = context.WithCancel(context.Background())
	t.Cleanup(func() {
		m.stop()
		m.done.Wait()
		for _, f := range m.flows {
			_, _ = f.from.Close(), f.to.Close()
		}
		for _, c := range m.talks {
			_, _ = c.from.Close(), c.to.Close()
		}
	})
	return m
}

// during says what the test does from now on. What was sent before it did anything is
// no loss of its doing: a machine that is busy drops of the bursts with which many ways
// begin.
func (m *meter) during(format string, args ...any) {
	if len(m.steps) == 0 {
		for _, f := range m.flows {
			f.mu.Lock()
			f.first = max(f.first, len(f.sent))
			f.mu.Unlock()
		}
	}
	m.steps = append(m.steps, step{fmt.Sprintf(format, args...), time.Now()})
}

// party is a pod, a node or a host: what can be one end.
type party struct {
	name      string
	namespace *lab.Namespace
	addresses []netip.Addr
}

func (m party) address(f spec.Family) netip.Addr {
	for _, a := range m.addresses {
		if spec.FamilyOf(a) == f {
			return a
		}
	}
	return netip.Addr{}
}

// flow is datagrams from one machine to another.
type flow struct {
	name     string
	from, to *net.UDPConn

	mu    sync.Mutex
	sent  []time.Time // by number
	heard []bool
	first int // that counts
}

// between has two machines send each other datagrams, one each beat and family,
// and begins to count when the first has come.
func (m *meter) between(a, b party, families ...spec.Family) {
	m.t.Helper()
	for _, f := range families {
		m.flow(a, b, f)
		m.flow(b, a, f)
	}
}

// flow is one way of between.
func (m *meter) flow(from, to party, family spec.Family) {
	m.t.Helper()
	at := netip.AddrPortFrom(to.address(family), uint16(firstMeterPort+len(m.flows)+len(m.talks)))
	f := &flow{name: fmt.Sprintf("%s to %s over %s", from.name, to.name, family)}
	err := to.namespace.Do(func() (err error) {
		f.to, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		return err
	})
	if err == nil {
		err = from.namespace.Do(func() (err error) {
			f.from, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(at))
			return err
		})
	}
	if err != nil {
		m.t.Fatalf("%s: %v", f.name, err)
	}
	m.flows = append(m.flows, f)
	go f.hear()
	for begin := time.Now(); !f.begin(); {
		if time.Since(begin) > patience {
			m.t.Fatalf("%s: nothing arrives", f.name)
		}
		f.say()
		<-time.After(beat)
	}
	m.each(f.say)
}

// each does something each beat.
func (m *meter) each(do func()) {
	m.done.Go(func() {
		tick := time.NewTicker(beat)
		defer tick.Stop()
		for {
			select {
			case <-m.ctx.Done():
				return
			case <-tick.C:
				do()
			}
		}
	})
}

// begin says whether something has come, from which on all has to.
func (f *flow) begin() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.first = max(0, len(f.heard)-1)
	return len(f.heard) > 0
}

// say sends the next number. What the sender's own machine refuses is missing
// at the other end as what is lost on the way.
func (f *flow) say() {
	f.mu.Lock()
	number := uint64(len(f.sent))
	f.sent = append(f.sent, time.Now())
	f.mu.Unlock()
	_, _ = f.from.Write(binary.BigEndian.AppendUint64(nil, number))
}

func (f *flow) hear() {
	b := make([]byte, 9)
	for {
		n, err := f.to.Read(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n != 8 {
			continue
		}
		number := int(binary.BigEndian.Uint64(b))
		f.mu.Lock()
		for len(f.heard) <= number {
			f.heard = append(f.heard, false)
		}
		f.heard[number] = true
		f.mu.Unlock()
	}
}

// lost are the times at which was sent what has not come.
func (f *flow) lost() (at []time.Time, of int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for number := f.first; number < len(f.sent); number++ {
		if number >= len(f.heard) || !f.heard[number] {
			at = append(at, f.sent[number])
		}
	}
	return at, len(f.sent) - f.first
}

// talk is a connection, by which one machine says numbers to the other.
type talk struct {
	name     string
	from, to net.Conn

	mu          sync.Mutex
	said, heard uint64
	err         error // of whoever had one first
}

// connect opens a connection.
func (m *meter) connect(from, to party, family spec.Family) {
	m.t.Helper()
	at := netip.AddrPortFrom(to.address(family), uint16(firstMeterPort+len(m.flows)+len(m.talks)))
	c := &talk{name: fmt.Sprintf("the connection of %s to %s over %s", from.name, to.name, family)}
	var l net.Listener
	err := to.namespace.Do(func() (err error) {
		l, err = net.Listen("tcp", at.String())
		return err
	})
	if err != nil {
		m.t.Fatalf("%s: %v", c.name, err)
	}
	defer func() { _ = l.Close() }()
	if c.from, err = connectTo(from.namespace, at, patience); err != nil {
		m.t.Fatalf("%s: %v", c.name, err)
	}
	if c.to, err = l.Accept(); err != nil {
		m.t.Fatalf("%s: %v", c.name, err)
	}
	m.talks = append(m.talks, c)
	go c.hear()
	m.each(c.say)
}

func connectTo(from *lab.Namespace, to netip.AddrPort, timeout time.Duration) (c net.Conn, err error) {
	err = from.Do(func() error {
		c, err = (&net.Dialer{Timeout: timeout}).Dial("tcp", to.String())
		return err
	})
	return c, err
}

func (c *talk) say() {
	c.mu.Lock()
	number := c.said
	c.said++
	c.mu.Unlock()
	_ = c.from.SetWriteDeadline(time.Now().Add(patience))
	_, err := c.from.Write(binary.BigEndian.AppendUint64(nil, number))
	c.fail(err)
}

func (c *talk) hear() {
	b := make([]byte, 8)
	for {
		if _, err := io.ReadFull(c.to, b); err != nil {
			c.fail(err)
			return
		}
		c.mu.Lock()
		if number := binary.BigEndian.Uint64(b); number == c.heard {
			c.heard++
		}
		c.mu.Unlock()
	}
}

func (c *talk) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil && !errors.Is(err, net.ErrClosed) {
		c.err = err
	}
}

// missing says what was said and has not come.
func (c *talk) missing() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.heard == c.said {
		return ""
	}
	return fmt.Sprintf("%s: %d said, %d heard: %v", c.name, c.said, c.heard, c.err)
}

// expectNothingLost ends all and fails the test for each packet that was lost.
func (m *meter) expectNothingLost() {
	m.t.Helper()
	for _, l := range m.losses() {
		m.t.Error(l)
	}
	sent := 0
	for _, f := range m.flows {
		_, of := f.lost()
		sent += of
	}
	m.t.Logf("%d packets on %d ways, and %d connections", sent, len(m.flows), len(m.talks))
}

// losses ends all, waits for what is on its way, and says what was lost of what.
func (m *meter) losses() (said []string) {
	m.stop()
	m.done.Wait()
	for begin := time.Now(); ; {
		said = nil
		for _, f := range m.flows {
			if at, of := f.lost(); len(at) > 0 {
				said = append(said, fmt.Sprintf("%s: of %d packets %d were lost:%s", f.name, of, len(at), m.when(at)))
			}
		}
		for _, c := range m.talks {
			if text := c.missing(); text != "" {
				said = append(said, text)
			}
		}
		if len(said) == 0 || time.Since(begin) > patience {
			return said
		}
		<-time.After(beat)
	}
}

// when says during which steps so many packets were sent.
func (m *meter) when(sent []time.Time) string {
	var b strings.Builder
	for i, s := range m.steps {
		n := 0
		for _, at := range sent {
			if at.After(s.at) && (i+1 == len(m.steps) || !at.After(m.steps[i+1].at)) {
				n++
			}
		}
		if n > 0 {
			fmt.Fprintf(&b, "\n  %d while %s", n, s.what)
		}
	}
	return b.String()
}

// opens opens a connection and closes it again.
func opens(from, to party, family spec.Family, timeout time.Duration) error {
	at := netip.AddrPortFrom(to.address(family), firstMeterPort-1)
	var l net.Listener
	err := to.namespace.Do(func() (err error) {
		l, err = net.Listen("tcp", at.String())
		return err
	})
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	c, err := connectTo(from.namespace, at, timeout)
	if err != nil {
		return err
	}
	return c.Close()
}

// TestMeter breaks a link for a moment: what was sent meanwhile is missed, no more,
// and it is said when that was. Without a break, nothing is.
func TestMeter(t *testing.T) {
	n := up(t, twoHosts, "cluster = \"e2e\"\n")
	a := party{"a", n.Machine("a"), []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}}
	b := party{"b", n.Machine("b"), []netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::2")}}
	t.Run("whole", func(t *testing.T) {
		m := newMeter(t)
		m.between(a, b, dual...)
		m.connect(a, b, spec.IPv4)
		m.flows[0].more(t, 10)
		if said := m.losses(); len(said) > 0 {
			t.Errorf("there was lost: %v", said)
		}
	})
	t.Run("broken", func(t *testing.T) {
		m := newMeter(t)
		m.during("the way is whole")
		m.between(a, b, dual...)
		m.connect(a, b, spec.IPv4)
		m.flows[0].more(t, 10)
		m.during("the way is broken")
		n.sh("b", "nft add table inet broken; nft 'add chain inet broken input { type filter hook input priority 0; policy drop; }'")
		m.flows[0].more(t, 10)
		n.sh("b", "nft delete table inet broken")
		m.during("the way is whole again")
		m.flows[0].more(t, 10)
		// What the connection said meanwhile it says again.
		said := m.losses()
		if len(said) != 2 || !strings.HasPrefix(said[0], "a to b over ipv4") || !strings.HasPrefix(said[1], "a to b over ipv6") {
			t.Errorf("broken was the way from a to b, and there was lost: %v", said)
		}
		for _, s := range said {
			if !strings.Contains(s, "while the way is broken") || strings.Contains(s, "whole") {
				t.Errorf("it was lost while the way was broken, and not: %s", s)
			}
		}
	})
}

const twoHosts = `link "lan" {}
host "a" {
  link "lan" { addresses = ["192.0.2.1/24", "2001:db8::1/64"] }
}
host "b" {
  link "lan" { addresses = ["192.0.2.2/24", "2001:db8::2/64"] }
}
`

// more waits until so many more packets were sent.
func (f *flow) more(t *testing.T, n int) {
	t.Helper()
	count := func() int {
		_, of := f.lost()
		return of
	}
	until := count() + n
	for begin := time.Now(); count() < until; <-time.After(beat) {
		if time.Since(begin) > patience {
			t.Fatalf("%s: nothing is sent", f.name)
		}
	}
}
