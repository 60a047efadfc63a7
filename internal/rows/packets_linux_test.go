package rows

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/spec"
)

// labs is how many labs share the cases: one alone mostly waits for the kernel to
// retire rules.
const labs = 4

// TestPackets tries every case with packets, in labs that go from one case's
// policies to the next. First everything must arrive where there are no policies:
// what does not arrive later is missing because of them.
func TestPackets(t *testing.T) {
	lab.Require(t)
	var mine [labs][]*example
	for i, c := range cases {
		if len(c.refused) == 0 {
			mine[i%labs] = append(mine[i%labs], c)
		}
	}
	for i, list := range mine {
		t.Run(fmt.Sprintf("lab %d", i+1), func(t *testing.T) {
			t.Parallel()
			n := up(t, i)
			n.baseline(t, n.serve(t, list))
			for _, c := range list {
				t.Run(c.String(), func(t *testing.T) {
					sp, _ := c.must(t)
					n.apply(t, sp)
					for _, wrong := range n.try(t, c.probes(t), patience) {
						t.Errorf("%s\nwith\n%s%s", wrong, c.hcl, c.yaml)
					}
				})
			}
		})
	}
}

// serve has machines listen on all ports that cases ask for, and returns the
// probes that must arrive without policies.
func (n *network) serve(t *testing.T, list []*example) (open []probe) {
	t.Helper()
	seen := map[string]bool{}
	for _, c := range list {
		for _, p := range c.probes(t) {
			if p.protocol == spec.ProtocolTCP {
				if err := n.machines[p.to.machine].Listen(p.served()); err != nil {
					t.Fatal(err)
				}
			}
			p.want = allow
			if key := fmt.Sprint(p.flow(), p.service); !p.filtered() && !seen[key] {
				seen[key] = true
				open = append(open, p)
			}
		}
	}
	return open
}

// filtered says that the port that a pod is attached to keeps the message off,
// with policies and without.
func (p probe) filtered() bool {
	for _, m := range linkMessages {
		if m.router && p.icmp() && m.family == p.family && m.typ == p.typ {
			return pods.find(p.from.name).name != ""
		}
	}
	return false
}

// baseline waits until all probes arrive, which they do some time after links and
// addresses are there.
func (n *network) baseline(t *testing.T, all []probe) {
	t.Helper()
	for began := time.Now(); ; {
		var wrong []string
		for part := range slices.Chunk(all, batch) {
			wrong = append(wrong, n.try(t, part, 100*time.Millisecond)...)
		}
		if len(wrong) == 0 {
			return
		}
		if time.Since(began) > patience {
			t.Fatalf("without policies, %d of %d: %q", len(wrong), len(all), wrong)
		}
	}
}

const (
	// patience is how long to wait for what must come.
	patience = 5 * time.Second
	// batch bounds what is on its way at once, so that it fits into a socket's
	// buffer.
	batch = 64
)

// attempt is a probe that is on its way.
type attempt struct {
	probe
	fd      int    // the client's socket; 0: it is a packet of its own
	id      uint32 // of the packet
	arrived bool
}

// try sends probes and tells of those that become of what they must not. It
// waits so long for those that must arrive.
//
// All is sent by one CPU, which takes packets from hop to hop in the order in
// which they come, and last a marker that passes as many hops as any other: when
// that one has arrived, all have that ever will.
func (n *network) try(t *testing.T, list []probe, limit time.Duration) (wrong []string) {
	t.Helper()
	var attempts []*attempt
	defer func() {
		for _, a := range attempts {
			if a.fd != 0 {
				_ = unix.SetsockoptLinger(a.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}) // no farewell
				_ = unix.Close(a.fd)
			}
		}
	}()
	for _, p := range list {
		n.sequence++
		a := &attempt{probe: p, id: n.sequence}
		attempts = append(attempts, a)
		from := n.machines[p.from.machine]
		err := n.onOneCPU(from, func() (err error) {
			switch {
			case p.want == refused:
				a.fd, err = connect(unix.SOCK_DGRAM, p.from.of(p.family), p.dialled())
			case p.protocol == spec.ProtocolTCP:
				a.fd, err = connect(unix.SOCK_STREAM, p.from.of(p.family), p.dialled())
			default:
				err = from.Send(p.packet(a.id))
			}
			return err
		})
		if err != nil {
			t.Fatalf("%s: %v", p, err)
		}
	}
	for range 2 {
		n.marker(t)
	}
	for deadline := time.Now().Add(limit); ; {
		if err := n.look(attempts); err != nil {
			t.Fatal(err)
		}
		missing := slices.ContainsFunc(attempts, func(a *attempt) bool { return a.want != deny && !a.arrived })
		left := time.Until(deadline)
		if !missing || left <= 0 {
			break
		}
		n.wait(attempts, left)
	}
	for _, a := range attempts {
		switch {
		case a.arrived && a.want == deny:
			wrong = append(wrong, fmt.Sprintf("%s: arrives", a))
		case !a.arrived && a.want != deny:
			wrong = append(wrong, fmt.Sprintf("%s: does not arrive", a))
		}
	}
	return wrong
}

// onOneCPU runs fn in a machine, on the CPU that all packets of the lab are sent
// by.
func (n *network) onOneCPU(m *machine, fn func() error) error {
	return m.Do(func() error {
		if err := unix.SchedSetaffinity(0, &n.cpu); err != nil {
			return err
		}
		return fn()
	})
}

// marker opens a connection from one node's marker to the other's, and waits
// until it is there.
func (n *network) marker(t *testing.T) {
	t.Helper()
	from, to := markers[0], markers[1]
	err := n.onOneCPU(n.machines[from.machine], func() error {
		fd, err := connect(unix.SOCK_STREAM, from.IPv4, netip.AddrPortFrom(to.IPv4, markerPort))
		if err != nil {
			return err
		}
		if !ready([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, patience) {
			err = errors.New("the marker does not arrive")
		} else if code, fail := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); fail != nil || code != 0 {
			err = fmt.Errorf("the marker: %w", errors.Join(fail, unix.Errno(code)))
		}
		return errors.Join(err, unix.Close(fd))
	})
	if err != nil {
		t.Fatal(err)
	}
}

const markerPort = 9000

// ready waits until something can be done with one of the sockets, and says
// whether it can.
func ready(fds []unix.PollFd, limit time.Duration) bool {
	for deadline := time.Now().Add(limit); ; {
		count, err := unix.Poll(fds, int(max(0, time.Until(deadline).Milliseconds())))
		if !errors.Is(err, unix.EINTR) {
			return err == nil && count > 0
		}
	}
}

// look notes what has arrived.
func (n *network) look(attempts []*attempt) error {
	packets := map[uint32]*attempt{}
	for _, a := range attempts {
		if a.fd == 0 {
			packets[a.id] = a
			continue
		}
		if a.arrived || !ready([]unix.PollFd{{Fd: int32(a.fd), Events: unix.POLLOUT}}, 0) {
			continue
		}
		code, err := unix.GetsockoptInt(a.fd, unix.SOL_SOCKET, unix.SO_ERROR)
		switch failure := unix.Errno(code); {
		case err != nil:
			return err
		case a.want == refused:
			a.arrived = failure == unix.ECONNREFUSED
		case code != 0:
			return fmt.Errorf("%s: %w", a, failure)
		default:
			a.arrived = true
		}
	}
	for name, m := range n.machines {
		for _, id := range m.Arrived() {
			if a := packets[id]; a != nil && a.to.machine == name {
				a.arrived = true
			}
		}
	}
	return nil
}

// wait waits until something more arrives.
func (n *network) wait(attempts []*attempt, limit time.Duration) {
	var fds []unix.PollFd
	for _, a := range attempts {
		switch {
		case a.arrived || a.want == deny:
		case a.want == refused:
			fds = append(fds, unix.PollFd{Fd: int32(a.fd)}) // of errors
		case a.fd != 0:
			fds = append(fds, unix.PollFd{Fd: int32(a.fd), Events: unix.POLLOUT})
		default:
			fds = append(fds, n.machines[a.to.machine].Polls()...)
		}
	}
	ready(fds, limit)
}
