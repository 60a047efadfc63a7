//go:build !linux

package control

import (
	"errors"
	"net"
)

func peerOf(*net.UnixConn) (Peer, error) {
	return Peer{}, errLinux
}

// Namespace fails: there are no network namespaces.
func Namespace() (uint64, error) { return 0, errLinux }

var errLinux = errors.New("a daemon's socket is Linux's")
