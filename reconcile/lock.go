package reconcile

import (
	"errors"
	"fmt"
	"net"
	"syscall"
)

// LockName is the lock, an abstract unix socket: it belongs to the network namespace, as
// does everything that polder changes, and goes with the process that bound it.
const LockName = "@polder"

// ErrBusy says that another polder changes this network namespace.
var ErrBusy = errors.New("another polder is at work in this network namespace")

// lock makes this process the only one to change the network namespace.
func lock() (*net.UnixListener, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: LockName, Net: "unix"})
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%w: wait for it to end", ErrBusy)
	}
	if err != nil {
		return nil, fmt.Errorf("binding %s: %w", LockName, err)
	}
	return l, nil
}

// unlock lets go of the lock. A child that is being forked by another thread has a
// copy of the socket until it runs its program, and the name with it: that is
// waited for.
func unlock(l *net.UnixListener) error {
	err := l.Close()
	syscall.ForkLock.RLock()
	syscall.ForkLock.RUnlock() //nolint:gocritic,staticcheck // what is waited for is the writer
	return err
}
