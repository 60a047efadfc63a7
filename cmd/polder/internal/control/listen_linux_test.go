package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/poldernet/polder/cmd/polder/internal/view"
)

func TestNobodyListens(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, where := range []string{dir, filepath.Join(dir, "missing"), file, filepath.Join(dir, strings.Repeat("long", 30))} {
		if _, _, err := Dial(t.Context(), where); !errors.Is(err, ErrNone) {
			t.Errorf("%s: %v", where, err)
		}
	}
	if _, err := Holder("@polder.test.nobody"); !errors.Is(err, ErrNone) {
		t.Errorf("got %v", err)
	}
}

// The socket is its owner's alone, whatever the umask, and goes with the daemon.
func TestSocketIsPrivate(t *testing.T) {
	defer unix.Umask(unix.Umask(0))
	dir := filepath.Join(t.TempDir(), "state")
	l, err := Listen(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, SocketName)
	for file, want := range map[string]fs.FileMode{dir: 0o755 | fs.ModeDir, socket: 0o600 | fs.ModeSocket} {
		if info, err := os.Lstat(file); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, want %v", file, info.Mode(), want)
		}
	}
	if holder, err := Holder(socket); err != nil || holder.PID != os.Getpid() || int(holder.UID) != os.Geteuid() {
		t.Errorf("held by %+v, %v", holder, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after the end: %v", err)
	}
}

// What a killed daemon left is replaced. One that lives is not, nor is a file.
func TestSocketInTheWay(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, SocketName)
	killed, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	killed.SetUnlinkOnClose(false)
	if err := killed.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := Listen(t.Context(), dir)
	if err != nil {
		t.Fatalf("over a stale socket: %v", err)
	}
	defer l.Close()
	want := fmt.Sprintf("listening on %s: process %d has it, in another network namespace", socket, os.Getpid())
	if _, err := Listen(t.Context(), dir); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("over a socket in use: %v", err)
	}
	if _, err := Holder(socket); err != nil {
		t.Errorf("the first one after that: %v", err)
	}

	dir = t.TempDir()
	file := filepath.Join(dir, SocketName)
	if err := os.WriteFile(file, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "is not a socket") {
		t.Errorf("over a file: %v", err)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "kept" {
		t.Errorf("the file: %q, %v", text, err)
	}
	if _, err := Listen(t.Context(), filepath.Join(dir, strings.Repeat("long", 30))); err == nil || !strings.Contains(err.Error(), "may have 107") {
		t.Errorf("a long path: %v", err)
	}
}

// A state directory that another namespace's daemon has is not this one's.
func TestDaemonOfAnotherNamespace(t *testing.T) {
	dir := t.TempDir()
	l, err := Listen(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() {
		ended <- NewServer(&fake{}, events{}, view.Process{PID: 4711, Namespace: namespace(t) + 1}).Serve(ctx, l)
	}()
	want := fmt.Sprintf("in another network namespace, pid 4711 in net:[%d]; this one, net:[%d],", namespace(t)+1, namespace(t))
	if _, _, err := Dial(t.Context(), dir); err == nil || errors.Is(err, ErrNone) || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v", err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// Only root and the daemon's own user may command.
func TestTrust(t *testing.T) {
	for uid, want := range map[int]bool{0: true, os.Geteuid(): true, os.Geteuid() + 1: false, 65534: false} {
		if got := (Peer{UID: uint32(uid)}).trusted(); got != want {
			t.Errorf("user %d: %t", uid, got)
		}
	}
	// What did not come over a unix socket has no credentials.
	here, there := net.Pipe()
	if err := admit(here); err == nil {
		t.Error("a pipe was let in")
	}
	if err := errors.Join(here.Close(), there.Close()); err != nil {
		t.Error(err)
	}
}

// Who is not let in is hung up on, and the next one is served.
func TestGuard(t *testing.T) {
	socket := filepath.Join(t.TempDir(), SocketName)
	l, err := listen(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	asked := 0
	g := guard{l, func(conn net.Conn) error {
		if asked++; asked == 1 {
			return errors.New("not you")
		}
		return admit(conn)
	}}
	first, err := dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	second, err := dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	served, err := g.Accept()
	if err != nil || asked != 2 {
		t.Fatalf("%d were asked, %v", asked, err)
	}
	defer served.Close()
	if _, err := first.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the first: %v", err)
	}
	if _, err := second.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if n, err := served.Read(make([]byte, 1)); n != 1 {
		t.Errorf("the second: %v", err)
	}
}
