package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/net/netutil"
	"golang.org/x/sys/unix"
)

// maxConnections is how many clients are served at a time. More wait in the
// socket's backlog. A client has one connection, and few stay to follow events.
const maxConnections = 64

// Listen makes the socket of a state directory, for its owner alone. The caller
// has the lock of its network namespace: what another daemon of that left behind is
// replaced, while the socket of one that lives, in another namespace, is not.
func Listen(ctx context.Context, stateDir string) (net.Listener, error) {
	socket, err := socketPath(stateDir)
	if err != nil {
		return nil, err
	}
	l, err := listen(ctx, socket)
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", socket, err)
	}
	return netutil.LimitListener(guard{l, admit}, maxConnections), nil
}

func listen(ctx context.Context, socket string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		return nil, err
	}
	if err := makeRoom(socket); err != nil {
		return nil, err
	}
	// bind(2) gives the file the mode of the socket (net/unix/af_unix.c,
	// unix_bind_bsd): there is no instant at which others can connect.
	owners := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var changed error
		err := raw.Control(func(fd uintptr) { changed = unix.Fchmod(int(fd), 0o600) })
		return errors.Join(err, changed)
	}}
	l, err := owners.Listen(ctx, "unix", socket)
	if errors.Is(err, syscall.EINVAL) {
		return nil, fmt.Errorf("the path has %d bytes, and that of a socket may have 107 (unix(7))", len(socket))
	}
	return l, err
}

// makeRoom removes the socket of a daemon that was killed.
func makeRoom(socket string) error {
	info, err := os.Lstat(socket)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENAMETOOLONG):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("the file is in the way, and is not a socket")
	}
	other, err := Holder(socket)
	switch {
	case err == nil:
		return fmt.Errorf("process %d has it, in another network namespace: give each namespace a --state-dir of its own", other.PID)
	case !errors.Is(err, ErrNone):
		return err
	}
	return os.Remove(socket)
}

// guard is a listener for those only who may command. The mode of the socket keeps
// most others out; it does not keep out CAP_DAC_OVERRIDE, nor anybody once somebody
// has changed it.
type guard struct {
	net.Listener
	admit func(net.Conn) error
}

// Accept hangs up on those who are not admitted.
func (g guard) Accept() (net.Conn, error) {
	for {
		conn, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if g.admit(conn) == nil {
			return conn, nil
		}
		_ = conn.Close() // nothing was written that could be lost
	}
}

// admit keeps out everybody but root and our own user.
func admit(conn net.Conn) error {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return errors.New("not a unix socket")
	}
	p, err := peerOf(u)
	if err == nil && !p.trusted() {
		err = fmt.Errorf("user %d is neither root nor the user that the daemon runs as", p.UID)
	}
	return err
}
