package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/poldernet/polder/internal/lab"
)

// What a sample consists of. It takes a few milliseconds, about what the
// scheduler gives to a thread at once.
const (
	burst      = 32  // packets by one system call, before the other end reads them
	burstPairs = 16  // there and back, in a sample of an open flow
	newFlows   = 256 // of one packet each, in a sample of new ones
	payload    = 64  // bytes in a packet, behind the UDP header

	allowedPort = 7000 // of both ends
	deniedPort  = 7001 // that no policy allows
	firstPort   = 20000
)

// path is the sockets of two pods, with all that is between them.
//
// The thread that sends does the work of the whole path: veth, bridge, netfilter
// and the reception run in softirq, which runs on the spot when a send is
// through. So the clock of the thread's CPU time holds both stacks and
// everything between, and leaves out what others take of the CPU.
type path struct {
	a, b      int   // from and to allowedPort
	closed    int   // of b's, at deniedPort
	flows     []int // of a's, each from a port of its own
	conntrack int   // netlink, of the node's
	there     *batch
	back      *batch
	nowhere   *batch
	received  *batch
}

// batch is what sendmmsg(2) and recvmmsg(2) take.
type batch struct {
	messages [burst]message
	vectors  [burst]unix.Iovec
	buffers  [burst][payload]byte
	to       unix.RawSockaddrInet6 // of either family
}

// message is struct mmsghdr.
type message struct {
	unix.Msghdr
	_ uint32
}

func newBatch() *batch {
	b := &batch{}
	for i := range b.messages {
		b.vectors[i].Base = &b.buffers[i][0]
		b.vectors[i].SetLen(payload)
		b.messages[i].Iov = &b.vectors[i]
		b.messages[i].SetIovlen(1)
	}
	return b
}

func newBatchTo(to netip.AddrPort) *batch {
	b := newBatch()
	length := uint32(unix.SizeofSockaddrInet6)
	b.to = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: to.Addr().As16()}
	if to.Addr().Is4() {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(&b.to))
		*v4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: to.Addr().As4()}
		length = unix.SizeofSockaddrInet4
	}
	// The port is at the same place in both.
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&b.to.Port))[:], to.Port())
	for i := range b.messages {
		b.messages[i].Name = (*byte)(unsafe.Pointer(&b.to))
		b.messages[i].Namelen = length
	}
	return b
}

// send sends the first n messages. The raw system call keeps Go's scheduler out
// of the sample; it does not block.
func (b *batch) send(socket, n int) error {
	sent, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(socket), uintptr(unsafe.Pointer(&b.messages[0])), uintptr(n), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return fmt.Errorf("sending: %w", errno)
	}
	if int(sent) != n {
		return fmt.Errorf("sent %d of %d packets", sent, n)
	}
	return nil
}

// drain receives up to n messages that are there already.
func (b *batch) drain(socket, n int) int {
	got := 0
	for got < n {
		r, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(socket), uintptr(unsafe.Pointer(&b.messages[0])), uintptr(n-got), unix.MSG_DONTWAIT, 0, 0)
		if errno != 0 {
			break
		}
		got += int(r)
	}
	return got
}

// newPath opens the sockets.
func newPath(node, a, b *lab.Namespace, addrA, addrB netip.Addr) (*path, error) {
	p := &path{
		there:   newBatchTo(netip.AddrPortFrom(addrB, allowedPort)),
		back:    newBatchTo(netip.AddrPortFrom(addrA, allowedPort)),
		nowhere: newBatchTo(netip.AddrPortFrom(addrB, deniedPort)), received: newBatch(),
	}
	err := a.Do(func() (err error) {
		if p.a, err = udp(addrA, allowedPort); err != nil {
			return err
		}
		for i := range newFlows {
			s, err := udp(addrA, firstPort+i)
			if err != nil {
				return err
			}
			p.flows = append(p.flows, s)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = b.Do(func() (err error) {
		if p.b, err = udp(addrB, allowedPort); err != nil {
			return err
		}
		p.closed, err = udp(addrB, deniedPort)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = node.Do(func() (err error) {
		p.conntrack, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		return err
	})
	return p, err
}

func udp(a netip.Addr, port int) (int, error) {
	family := unix.AF_INET6
	var at unix.Sockaddr = &unix.SockaddrInet6{Addr: a.As16(), Port: port}
	if a.Is4() {
		family, at = unix.AF_INET, &unix.SockaddrInet4{Addr: a.As4(), Port: port}
	}
	s, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	return s, unix.Bind(s, at)
}

func (p *path) close() {
	for _, s := range append(p.flows, p.a, p.b, p.closed, p.conntrack) {
		_ = unix.Close(s) // nothing is buffered
	}
}

// open sends and receives packets of one flow and says what one takes, in
// nanoseconds.
func (p *path) open(pairs int) (float64, error) {
	before := threadTime()
	for range pairs {
		for _, way := range []struct {
			out      *batch
			from, to int
		}{{p.there, p.a, p.b}, {p.back, p.b, p.a}} {
			if err := way.out.send(way.from, burst); err != nil {
				return 0, err
			}
			if got := p.received.drain(way.to, burst); got != burst {
				return 0, lostError{burst - got}
			}
		}
	}
	return float64(threadTime()-before) / float64(2*burst*pairs), nil
}

// fresh does the same with the first packets of flows.
func (p *path) fresh() (float64, error) {
	if err := p.forget(); err != nil {
		return 0, err
	}
	before := threadTime()
	for i, s := range p.flows {
		if err := p.there.send(s, 1); err != nil {
			return 0, err
		}
		if (i+1)%burst == 0 {
			if got := p.received.drain(p.b, burst); got != burst {
				return 0, lostError{burst - got}
			}
		}
	}
	return float64(threadTime()-before) / float64(len(p.flows)), nil
}

// denies says that a packet to the port that no policy allows does not arrive.
func (p *path) denies() (bool, error) {
	if err := p.nowhere.send(p.a, 1); err != nil {
		return false, err
	}
	return p.received.drain(p.closed, 1) == 0, nil
}

// empty takes away what is left of a sample that failed.
func (p *path) empty() {
	for _, s := range []int{p.a, p.b} {
		for p.received.drain(s, burst) > 0 {
		}
	}
}

// forget deletes the node's connections.
func (p *path) forget() error {
	const deleteAll = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2 // IPCTNL_MSG_CT_DELETE, nfnetlink_conntrack.h
	m := make([]byte, unix.SizeofNlMsghdr+4)            // and struct nfgenmsg, of zeros
	binary.NativeEndian.PutUint32(m, uint32(len(m)))
	binary.NativeEndian.PutUint16(m[4:], deleteAll)
	binary.NativeEndian.PutUint16(m[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	if err := unix.Sendto(p.conntrack, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("flushing conntrack: %w", err)
	}
	answer := make([]byte, os.Getpagesize())
	n, _, err := unix.Recvfrom(p.conntrack, answer, 0)
	if err != nil {
		return fmt.Errorf("flushing conntrack: %w", err)
	}
	if code := int32(binary.NativeEndian.Uint32(answer[unix.SizeofNlMsghdr:max(n, unix.SizeofNlMsghdr+4)])); code != 0 {
		return fmt.Errorf("flushing conntrack: %w", unix.Errno(-code))
	}
	return nil
}

// lostError says that packets were not there when they were to be.
type lostError struct{ packets int }

func (e lostError) Error() string { return fmt.Sprintf("%d packets did not arrive", e.packets) }

// threadTime is the thread's CPU time.
func threadTime() time.Duration {
	var t unix.Timespec
	_, _, _ = unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_THREAD_CPUTIME_ID, uintptr(unsafe.Pointer(&t)), 0) // the clock exists
	return time.Duration(t.Nano())
}

// alone gives the thread one CPU, on which nobody without a real-time priority
// gets between, if it may ask for that. The thread must be locked and must end
// with the goroutine.
func alone() error {
	cpu := 0
	if _, _, errno := unix.RawSyscall(unix.SYS_GETCPU, uintptr(unsafe.Pointer(&cpu)), 0, 0); errno != 0 {
		return fmt.Errorf("asking for the CPU: %w", errno)
	}
	var only unix.CPUSet
	only.Set(cpu)
	if err := unix.SchedSetaffinity(0, &only); err != nil {
		return fmt.Errorf("staying on a CPU: %w", err)
	}
	err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 10}, 0)
	if err != nil && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("asking for a real-time priority: %w", err)
	}
	runtime.KeepAlive(&cpu)
	return nil
}
