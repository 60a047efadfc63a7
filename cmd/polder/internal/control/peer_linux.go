package control

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// peerOf asks the kernel who is at the other end.
func peerOf(conn *net.UnixConn) (Peer, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return Peer{}, fmt.Errorf("asking who the peer is: %w", err)
	}
	var credentials *unix.Ucred
	var asked error
	err = raw.Control(func(fd uintptr) {
		credentials, asked = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(err, asked); err != nil {
		return Peer{}, fmt.Errorf("asking who the peer is: %w", err)
	}
	return Peer{int(credentials.Pid), credentials.Uid}, nil
}

// Namespace is the inode of the calling thread's network namespace, by which the
// kernel tells namespaces apart (namespaces(7)).
func Namespace() (uint64, error) {
	var stat unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &stat); err != nil {
		return 0, fmt.Errorf("asking for the network namespace: %w", err)
	}
	return stat.Ino, nil
}
