package lab

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"syscall"
)

// SizeReport says what became of a packet that must not be fragmented. If it
// was neither delivered nor answered, it is a black hole.
type SizeReport struct {
	Delivered bool
	// MTU is what the answer said (RFC 1191, RFC 8201), in bytes; 0: there was
	// none.
	MTU int
	// Reporter is the router that answered. It is not valid where the packet
	// did not leave the sender, whose own interface is too small.
	Reporter netip.Addr
}

// struct sock_extended_err (linux/errqueue.h), followed by the sockaddr of who
// sent the ICMP message.
const (
	extendedErrLen = 16
	// Where the addresses are in struct sockaddr_in and sockaddr_in6.
	sockaddrIPv4, sockaddrIPv6 = extendedErrLen + 4, extendedErrLen + 8
)

// The origins of an extended error (linux/errqueue.h).
const (
	originLocal = 1
	originICMP  = 2
	originICMP6 = 3
)

// decodeSizeError reads what IP_RECVERR says about a packet too big.
func decodeSizeError(b []byte) (SizeReport, error) {
	if len(b) < extendedErrLen {
		return SizeReport{}, fmt.Errorf("extended error of %d bytes, want %d", len(b), extendedErrLen)
	}
	errno, origin := syscall.Errno(binary.NativeEndian.Uint32(b)), b[4]
	if errno != syscall.EMSGSIZE {
		return SizeReport{}, fmt.Errorf("packet refused: %w", errno)
	}
	r := SizeReport{MTU: int(binary.NativeEndian.Uint32(b[8:]))}
	switch {
	case origin == originICMP && len(b) >= sockaddrIPv4+4:
		r.Reporter = netip.AddrFrom4([4]byte(b[sockaddrIPv4:]))
	case origin == originICMP6 && len(b) >= sockaddrIPv6+16:
		r.Reporter = netip.AddrFrom16([16]byte(b[sockaddrIPv6:])).Unmap()
	case origin != originLocal:
		return SizeReport{}, fmt.Errorf("extended error of origin %d in %d bytes", origin, len(b))
	}
	return r, nil
}
