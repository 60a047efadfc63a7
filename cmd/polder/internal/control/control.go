// Package control is how commands talk to a daemon: HTTP and JSON over a unix
// socket in its state directory, which the permissions of a file guard. The models
// are those of package view; streams are lines of JSON (https://jsonlines.org).
//
//	GET  /v1/condition             view.Condition
//	GET  /v1/peers                 view.PeerList
//	GET  /v1/plan?mode=M           view.Plan
//	POST /v1/apply?mode=M&id=ID    view.Outcome for each change, then view.Result
//	GET  /v1/events?after=SEQ      view.Event for each, without end; with
//	                               follow=false up to the latest
//	GET  /v1/explain?from=A&to=B&service=S    view.Explanation
//	POST /v1/attach                attach.Attachment: returns when it is in force
//	POST /v1/attached              attach.Attachment: is it as this says
//	POST /v1/detach                attach.ID
//	POST /v1/sweep                 Sweep
//
// An error is a status above 399 with an Error.
package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// SocketName is the socket on which a daemon listens, in its state directory.
const SocketName = "control.sock"

// socketPath is absolute, so that no directory's name makes it an abstract one.
func socketPath(stateDir string) (string, error) {
	dir, err := filepath.Abs(stateDir)
	return filepath.Join(dir, SocketName), err
}

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
	CodeNotInForce  ErrorCode = "not_in_force"
	CodeNotAttached ErrorCode = "not_attached"
)

// Errors of a client that are answers.
var (
	// ErrNone says that no daemon listens in the state directory.
	ErrNone = errors.New("no daemon is running with this state directory")
	// ErrForbidden says that a daemon runs and does not talk to this user.
	ErrForbidden = errors.New("the daemon talks only to root and to the user that it runs as")
)

// SpecError says that the daemon finds errors in the spec's files. Its text is
// that of the diagnostics, with source lines.
type SpecError struct{ Diagnostics string }

func (e SpecError) Error() string { return "the spec has errors:\n\n" + e.Diagnostics }

// Holder is the process that listens on a unix socket, by its path or, with a
// leading "@", by its name in this network namespace. The error is ErrNone if there
// is none.
func Holder(address string) (Peer, error) {
	conn, err := dial(context.Background(), address)
	if err != nil {
		return Peer{}, err
	}
	peer, err := peerOf(conn)
	return peer, errors.Join(err, conn.Close())
}

func dial(ctx context.Context, address string) (*net.UnixConn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", address)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENOTDIR),
		errors.Is(err, syscall.EINVAL): // longer than a socket's path may be: nobody listens there
		return nil, ErrNone
	case errors.Is(err, syscall.EACCES):
		return nil, ErrForbidden
	case err != nil:
		return nil, fmt.Errorf("connecting to %s: %w", address, err)
	}
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("connecting to %s: not a unix socket", address), conn.Close())
	}
	return u, nil
}

// Peer is who is at the other end of a unix socket, as the kernel saw it when
// the connection was made or the socket began to listen (SO_PEERCRED,
// unix(7)).
type Peer struct {
	PID int
	UID uint32
}

// trusted says that a peer may command this process, or be believed by it: root
// and our own user. The kernel translates IDs into our own user namespace: root
// of another one is not 0 here.
func (p Peer) trusted() bool { return p.UID == 0 || int(p.UID) == os.Geteuid() }
