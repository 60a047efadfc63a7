//go:build !linux

package control

import (
	"errors"
	"net"
)

func peerOf(*net.UnixConn) (peer, error) {
	return peer{}, errors.New("a daemon's socket is Linux's")
}
