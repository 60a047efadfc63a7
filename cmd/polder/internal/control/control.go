// Package control is how commands talk to a daemon: HTTP and JSON over an
// abstract unix socket. Such a socket belongs to a network namespace, as the
// daemon does, and goes with its process. The models are those of package view;
// streams are lines of JSON (https://jsonlines.org).
//
//	GET  /v1/condition             view.Condition
//	GET  /v1/plan?mode=M           view.Plan
//	POST /v1/apply?mode=M&id=ID    view.Outcome for each change, then view.Result
//	GET  /v1/events?after=SEQ      view.Event for each, without end; with
//	                               follow=false up to the latest
//
// An error is a status above 399 with an Error.
package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
)

// SocketName is the abstract socket on which a daemon listens.
const SocketName = "@polder.control"

// Error is an error as it travels.
type Error struct {
	FormatVersion string    `json:"format_version"`
	Type          string    `json:"type"` // "error"
	Code          ErrorCode `json:"code,omitempty"`
	Message       string    `json:"error"`
}

// ErrorCode is an error that the other end acts on.
type ErrorCode string

// The codes.
const (
	CodePlanChanged ErrorCode = "plan_changed"
	CodeStopped     ErrorCode = "stopped"
	CodeSpec        ErrorCode = "spec" // the message is the diagnostics, with source lines
	CodeForbidden   ErrorCode = "forbidden"
)

// Errors of a client that are answers.
var (
	// ErrNone says that no daemon runs in this network namespace.
	ErrNone = errors.New("no daemon is running in this network namespace")
	// ErrForbidden says that a daemon runs and does not talk to this user.
	ErrForbidden = errors.New("the daemon talks only to root and to the user that it runs as")
)

// SpecError says that the daemon finds errors in the spec's files. Its text is
// that of the diagnostics, with source lines.
type SpecError struct{ Diagnostics string }

func (e SpecError) Error() string { return "the spec has errors:\n\n" + e.Diagnostics }

// Holder is the process that listens on an abstract socket of this network
// namespace. The error is ErrNone if there is none.
func Holder(name string) (pid int, err error) {
	conn, err := dial(context.Background(), name)
	if err != nil {
		return 0, err
	}
	peer, err := peerOf(conn)
	return peer.pid, errors.Join(err, conn.Close())
}

// dial connects to an abstract socket.
func dial(ctx context.Context, name string) (*net.UnixConn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", name)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOENT):
		return nil, ErrNone
	case err != nil:
		return nil, fmt.Errorf("connecting to %s: %w", name, err)
	}
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("connecting to %s: not a unix socket", name), conn.Close())
	}
	return u, nil
}

// peer is who is at the other end of a unix socket, as the kernel saw it when
// the connection was made or the socket began to listen (SO_PEERCRED,
// unix(7)).
type peer struct {
	pid int
	uid uint32
}

// trusted says that a peer may command this process, or be believed by it: root
// and our own user. The kernel translates IDs into our own user namespace: root
// of another one is not 0 here.
func (p peer) trusted() bool { return p.uid == 0 || int(p.uid) == os.Geteuid() }
