package kubetest

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
)

// Ports for servers are from below those that the kernel gives to clients
// (ip_local_port_range in ip-sysctl.rst), so that nobody has taken one when its
// server is started again.
const (
	firstPort = 20000
	lastPort  = 32767
)

var given struct {
	sync.Mutex
	ports map[uint16]bool
}

// freeAddress is an address on loopback that no server has, and that none gets
// but who asked.
func freeAddress(ctx context.Context) (netip.AddrPort, error) {
	given.Lock()
	defer given.Unlock()
	if given.ports == nil {
		given.ports = map[uint16]bool{}
	}
	// Other processes look for ports, too: begin anywhere.
	for _, n := range rand.Perm(lastPort - firstPort + 1) {
		port := uint16(firstPort + n)
		if given.ports[port] {
			continue
		}
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", at.String())
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return netip.AddrPort{}, err
		}
		given.ports[port] = true
		return at, l.Close()
	}
	return netip.AddrPort{}, errors.New("no port is free")
}
