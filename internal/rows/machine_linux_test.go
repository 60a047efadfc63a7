package rows

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/poldernet/polder/internal/lab/packet"
	"github.com/poldernet/polder/internal/lab/station"
	"github.com/poldernet/polder/spec"
)

// machine is a namespace of the lab with sockets.
type machine = station.Station

const protocolGRE = 47

// connect begins to open a connection from an address, and does not wait: that
// of TCP, or of UDP with something that is said.
func connect(kind int, from netip.Addr, to netip.AddrPort) (int, error) {
	domain := unix.AF_INET
	if from.Is6() {
		domain = unix.AF_INET6
	}
	fd, err := unix.Socket(domain, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	err = unix.Bind(fd, station.SockAddr(netip.AddrPortFrom(from, 0)))
	if err == nil {
		err = unix.Connect(fd, station.SockAddr(to))
	}
	if err == nil && kind == unix.SOCK_DGRAM {
		_, err = unix.Write(fd, station.Mark(0))
	}
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return 0, errors.Join(fmt.Errorf("connecting from %s to %s: %w", from, to, err), unix.Close(fd))
	}
	return fd, nil
}

// packet is what a probe sends, with an identity in it.
func (p probe) packet(id uint32) []byte {
	src, dst := netip.AddrPortFrom(p.from.of(p.family), 1024+uint16(id%60000)), p.dialled()
	data := station.Mark(id)
	switch {
	case p.link():
		return packet.NewICMP(src.Addr(), dst.Addr(), p.typ, p.code, p.discovery(data))
	case p.icmp():
		body := binary.BigEndian.AppendUint32(nil, id) // identifier and sequence
		return packet.NewICMP(src.Addr(), dst.Addr(), p.typ, p.code, append(body, data...))
	case p.protocol == spec.ProtocolUDP:
		return packet.NewUDP(src, dst, data)
	case p.protocol == spec.ProtocolSCTP:
		return packet.IP(src.Addr(), dst.Addr(), spec.ProtocolSCTP, packet.NewSCTPInit(src.Port(), dst.Port(), data))
	}
	return packet.IP(src.Addr(), dst.Addr(), p.protocol, append(make([]byte, 4), data...))
}

// discovery is the body of a message that is about the link, in which the sender
// says nothing that is not so.
func (p probe) discovery(data []byte) []byte {
	var body []byte
	target := p.from.of(p.family).AsSlice()
	switch p.typ {
	case packet.RouterAdvert:
		body = make([]byte, 12)
	case packet.NeighborSolicit:
		body = append(make([]byte, 4), p.to.of(p.family).AsSlice()...)
	case packet.NeighborAdvert:
		body = append(make([]byte, 4), target...)
	case packet.Redirect:
		body = append(append(make([]byte, 4), target...), hosts[0].of(p.family).AsSlice()...)
	default:
		body = make([]byte, 4)
	}
	if p.family == spec.IPv4 {
		return append(body, data...)
	}
	// An option of a type that is for experiments (RFC 4727), in units of 8 bytes.
	option := append([]byte{253, 2}, data...)
	return append(body, append(option, make([]byte, 16-len(option))...)...)
}

// dialled is where the probe goes.
func (p probe) dialled() netip.AddrPort {
	at := p.to.pair
	if p.service {
		at = p.to.service()
	}
	return netip.AddrPortFrom(at.of(p.family), p.port)
}
