// Package process runs polder as its users have it, for tests: the program that is
// built from this tree, as a daemon in a namespace, of which they know what it
// writes to its log and its metrics.
package process

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/poldernet/polder/internal/lab"
)

// Process is `polder run` on a node. It ends, at the latest, with the test.
type Process struct {
	*testing.T
	Node    *lab.Namespace
	Argv    []string
	File    string        // the spec
	Cmd     *lab.Cmd      // nil: it was not started, or is killed
	Gone    chan struct{} // closed when it has ended
	Logbook *Logbook      // since it was started
	http    *http.Client
}

// listenPort is where a daemon's metrics are, on the loopback of its node.
const listenPort = "9087"

// Endurance is how long a test waits for a process. All namespaces of a machine
// share the kernel's lock for network configuration (rtnl_mutex): where other
// tests take down thousands of links, everybody waits for many seconds.
const Endurance = time.Minute

// Build builds polder, and is its file.
func Build(t *testing.T) string {
	t.Helper()
	depend(t)
	file := filepath.Join(t.TempDir(), "polder")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", file, "github.com/poldernet/polder/cmd/polder").CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	return file
}

// depend looks at all folders of the source, so that go test, which notes what a test
// looks at, does not give the result of an earlier run where polder has changed since.
func depend(t *testing.T) {
	t.Helper()
	_, here, _, _ := runtime.Caller(0)
	root := filepath.Join(filepath.Dir(here), "../../..")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "bin" || d.Name() == "docs") {
			return filepath.SkipDir
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// New is the program with a spec on the node of the namespace's name, which Start
// starts.
func New(t *testing.T, program string, node *lab.Namespace, stateDir, text string) *Process {
	t.Helper()
	file := filepath.Join(t.TempDir(), "polder.hcl")
	d := &Process{T: t, Node: node, File: file, Argv: []string{
		program, "run", "--spec", file, "--node", node.Name(), "--state-dir", stateDir,
		"--log-format", "json", "--listen", listenPort,
	}}
	d.http = &http.Client{Timeout: Endurance, Transport: &http.Transport{
		DisableKeepAlives: true, // an idle connection is a descriptor of the daemon's
		DialContext: func(ctx context.Context, network, address string) (c net.Conn, err error) {
			err = node.Do(func() (err error) {
				c, err = new(net.Dialer).DialContext(ctx, network, address)
				return err
			})
			return c, err
		},
	}}
	d.Write(text)
	t.Cleanup(d.Kill)
	return d
}

// Write replaces the spec.
func (d *Process) Write(text string) {
	d.Helper()
	if err := ReplaceFile(d.File, text); err != nil {
		d.Fatal(err)
	}
}

// ReplaceFile writes a file as most editors do.
func ReplaceFile(name, text string) error {
	if err := os.WriteFile(name+".new", []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// Start runs it. What it makes of its spec it says later.
func (d *Process) Start() {
	d.Helper()
	d.Logbook = &Logbook{more: make(chan struct{})}
	r, w := io.Pipe()
	d.Cmd = d.Node.Command(context.Background(), d.Argv...)
	d.Cmd.Stdout, d.Cmd.Stderr = w, w
	if err := d.Cmd.Start(); err != nil {
		d.Fatal(err)
	}
	d.Gone = make(chan struct{})
	go func(log *Logbook) {
		defer log.close()
		for s := bufio.NewScanner(r); s.Scan(); {
			log.add(s.Bytes())
		}
	}(d.Logbook)
	go func(cmd *lab.Cmd, gone chan struct{}) {
		_ = cmd.Wait() // most are killed
		_ = w.Close()
		close(gone)
	}(d.Cmd, d.Gone)
}

// Kill ends it with SIGKILL, wherever it is.
func (d *Process) Kill() {
	if d.Cmd == nil {
		return
	}
	_ = d.Cmd.Process.Kill()
	<-d.Gone
	d.Cmd = nil
}

// Alive fails the test if it has ended by itself.
func (d *Process) Alive() {
	d.Helper()
	select {
	case <-d.Gone:
		d.Fatalf("the daemon on %s ended by itself: %s", d.Node.Name(), d.Logbook.Tail())
	default:
	}
}

// Pause waits until the daemon says something, for a moment at most, so that who
// asks again and again does not keep it from its work.
func (d *Process) Pause() {
	d.Helper()
	d.Alive()
	_, more, _ := d.Logbook.Since(d.Logbook.Mark())
	select {
	case <-more:
	case <-time.After(50 * time.Millisecond):
	}
}

// Await waits for the first line after a mark that is the one, and returns the
// mark after it.
func (d *Process) Await(after int, what string, is func(Line) bool) (int, Line) {
	d.Helper()
	timeout := time.After(Endurance)
	for {
		lines, more, ended := d.Logbook.Since(after)
		for i, l := range lines {
			if is(l) {
				return after + i + 1, l
			}
		}
		after += len(lines)
		if ended {
			d.Fatalf("the daemon on %s ended before it told of %s: %s", d.Node.Name(), what, d.Logbook.Tail())
		}
		select {
		case <-more:
		case <-timeout:
			d.Stuck("tell of " + what)
		}
	}
}

// Ready waits until it has been in sync.
func (d *Process) Ready() {
	d.Helper()
	d.Await(0, "being ready", func(l Line) bool { return l.Event == "ready" })
}

// Says waits until the daemon's metrics are so, and returns them.
func (d *Process) Says(what string, is func(Metrics) bool) Metrics {
	d.Helper()
	var now Metrics
	for begin := time.Now(); time.Since(begin) < Endurance; {
		if now = d.Metrics(); is(now) {
			return now
		}
		d.Pause()
	}
	d.Stuck(fmt.Sprintf("say that %s: in sync %v, failing %v", what, now["polder_in_sync"], now.Sum("polder_failing_objects")))
	return nil
}

// Content waits until it says that all is well, and returns its metrics.
func (d *Process) Content(after string) Metrics {
	d.Helper()
	return d.Says("all is well after "+after, func(m Metrics) bool {
		return m["polder_in_sync"] == 1 && m.Sum("polder_failing_objects") == 0
	})
}

// Stuck fails the test, with the end of the log and the stacks of all goroutines.
func (d *Process) Stuck(at string) {
	d.Helper()
	said := d.Logbook.Mark()
	_ = d.Cmd.Process.Signal(syscall.SIGQUIT)
	<-d.Gone
	lines, more, ended := d.Logbook.Since(0)
	for !ended {
		<-more
		lines, more, ended = d.Logbook.Since(0)
	}
	var stacks strings.Builder
	for _, l := range lines[max(0, said-25):] {
		stacks.WriteString("\n" + l.Text)
	}
	d.Fatalf("the daemon on %s did not %s%s", d.Node.Name(), at, &stacks)
}
