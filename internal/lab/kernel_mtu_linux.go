package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/poldernet/polder/internal/lab/packet"
)

// ProbeSize sends a UDP packet of exactly size bytes, IP header included, that
// must not be fragmented (DF), and reports what became of it. It heeds nothing
// that was learnt about the path before, so that an answer is a fresh one.
func ProbeSize(from, to *Namespace, addr netip.Addr, size int, timeout time.Duration) (SizeReport, error) {
	r, err := probeSize(from, to, addr, size, time.Now().Add(timeout))
	if err != nil {
		return r, fmt.Errorf("sending %d bytes from %s to %v: %w", size, from.name, addr, err)
	}
	return r, nil
}

func probeSize(from, to *Namespace, addr netip.Addr, size int, deadline time.Time) (r SizeReport, err error) {
	header := packet.IPv4HeaderLen + packet.UDPHeaderLen
	if addr.Is6() {
		header = packet.IPv6HeaderLen + packet.UDPHeaderLen
	}
	var server, client *net.UDPConn
	if err := to.Do(func() (err error) {
		server, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
		return err
	}); err != nil {
		return r, err
	}
	defer server.Close()
	if err := from.Do(func() error {
		at, err := netip.ParseAddrPort(server.LocalAddr().String())
		if err != nil {
			return err
		}
		client, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(at))
		return err
	}); err != nil {
		return r, err
	}
	defer client.Close()
	if err := errors.Join(server.SetDeadline(deadline), client.SetDeadline(deadline)); err != nil {
		return r, err
	}
	go acknowledge(server, size-header)

	if err := mustNotFragment(client, addr.Is6()); err != nil {
		return r, fmt.Errorf("setting DF: %w", err)
	}
	if _, err := client.Write(make([]byte, size-header)); err != nil && !errors.Is(err, unix.EMSGSIZE) {
		return r, err
	}
	return awaitSize(client)
}

// acknowledge answers one datagram of that many bytes.
func acknowledge(c *net.UDPConn, size int) {
	buf := make([]byte, snapshot)
	n, from, err := c.ReadFromUDPAddrPort(buf)
	if err == nil && n == size {
		_, _ = c.WriteToUDPAddrPort([]byte("ok"), from) // lost: the sender times out
	}
}

// mustNotFragment sets DF without obeying the path MTU that the kernel has
// cached (IP_PMTUDISC_PROBE, ip(7); in IPv6 it also forbids fragments of this
// host's own), and asks for errors with their details.
func mustNotFragment(c *net.UDPConn, ipv6 bool) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failure error
	err = raw.Control(func(fd uintptr) {
		set := func(level, option, value int) {
			failure = errors.Join(failure, unix.SetsockoptInt(int(fd), level, option, value))
		}
		if ipv6 {
			set(unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE)
			set(unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1)
		} else {
			set(unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
			set(unix.IPPROTO_IP, unix.IP_RECVERR, 1)
		}
	})
	return errors.Join(err, failure)
}

// awaitSize waits for the acknowledgement or for an ICMP error, whichever
// comes.
func awaitSize(c *net.UDPConn) (SizeReport, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return SizeReport{}, err
	}
	var r SizeReport
	var failure error
	err = raw.Read(func(fd uintptr) bool {
		data, control := make([]byte, 64), make([]byte, 512)
		_, n, _, _, err := unix.Recvmsg(int(fd), data, control, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if err == nil {
			r, failure = readSizeError(control[:n])
			return true
		}
		_, _, err = unix.Recvfrom(int(fd), data, unix.MSG_DONTWAIT)
		switch {
		case err == nil:
			r.Delivered = true
		case errors.Is(err, unix.EAGAIN):
			return false
		case errors.Is(err, unix.EMSGSIZE):
			return false // the pending error only; its details are in the queue
		default:
			failure = err
		}
		return true
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return r, nil // neither: lost without a word
	}
	return r, errors.Join(err, failure)
}

func readSizeError(control []byte) (SizeReport, error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return SizeReport{}, fmt.Errorf("reading the error queue: %w", err)
	}
	for _, m := range messages {
		v4 := m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_RECVERR
		v6 := m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_RECVERR
		if v4 || v6 {
			return decodeSizeError(m.Data)
		}
	}
	return SizeReport{}, errors.New("reading the error queue: no error in it")
}
