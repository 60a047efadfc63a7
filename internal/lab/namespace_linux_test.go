package lab_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/poldernet/polder/internal/lab"
)

func newNamespace(t *testing.T, name string) *lab.Namespace {
	t.Helper()
	lab.Require(t)
	n, err := lab.NewNamespace(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func readlink(t *testing.T, path string) string {
	t.Helper()
	s, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Do must be inside for every kind of namespace, and nothing of it may stick
// to the threads that other goroutines run on.
func TestDoEntersAndLeavesNoTrace(t *testing.T) {
	n := newNamespace(t, "n1")
	kinds := []string{"net", "uts", "mnt"}
	outside := map[string]string{}
	for _, k := range kinds {
		outside[k] = readlink(t, "/proc/thread-self/ns/"+k)
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		err := n.Do(func() error {
			for _, k := range kinds {
				if readlink(t, "/proc/thread-self/ns/"+k) == outside[k] {
					t.Errorf("Do did not enter the %s namespace", k)
				}
			}
			if host, err := os.Hostname(); err != nil || host != "n1" {
				t.Errorf("hostname %q, %v", host, err)
			}
			if now, err := filepath.EvalSymlinks("/proc/thread-self/cwd"); err != nil || now != dir {
				t.Errorf("working directory %s, want %s (%v)", now, dir, err)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	tasks, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil || len(tasks) == 0 {
		t.Fatal("no threads seen", err)
	}
	for _, task := range tasks {
		// A thread may end between the listing and the look.
		if s, err := os.Readlink(task); err == nil && s != outside["net"] {
			t.Errorf("thread %s is still in %s", task, s)
		}
	}
}

func TestDoReturnsTheError(t *testing.T) {
	n := newNamespace(t, "n1")
	want := errors.New("boom")
	if err := n.Do(func() error { return want }); !errors.Is(err, want) {
		t.Errorf("Do returned %v", err)
	}
}

func TestCommandRunsAsTheNode(t *testing.T) {
	n, other := newNamespace(t, "n1"), newNamespace(t, "n2")
	run := func(n *lab.Namespace, script string) string {
		t.Helper()
		out, err := n.Command(context.Background(), "sh", "-c", script).Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	if got := run(n, "uname -n"); got != "n1" {
		t.Errorf("hostname %q", got)
	}
	// /run lasts from one command to the next, and is the node's own.
	run(n, "echo hello >/run/greeting")
	if got := run(n, "cat /run/greeting"); got != "hello" {
		t.Errorf("/run/greeting holds %q", got)
	}
	if got := run(other, "ls /run"); got != "" {
		t.Errorf("another node's /run holds %q", got)
	}
	if got := run(n, "ls /sys/class/net"); got != "lo" {
		t.Errorf("interfaces in /sys: %q", got)
	}
	if got := run(n, "cat /sys/class/net/lo/carrier"); got != "1" {
		t.Errorf("lo's carrier is %q, want it up", got)
	}
	if dir, err := os.Getwd(); err != nil || run(n, "pwd -P") != dir {
		t.Errorf("working directory %q, want %q", run(n, "pwd -P"), dir)
	}
}

func TestCommandPassesStatusAndInput(t *testing.T) {
	n := newNamespace(t, "n1")
	cmd := n.Command(context.Background(), "sh", "-c", "cat; exit 7")
	cmd.Stdin = strings.NewReader("in")
	var out bytes.Buffer
	cmd.Stdout = &out
	err := cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 7 || out.String() != "in" {
		t.Errorf("Run: %v, output %q", err, out.String())
	}
}

// Sockets made in Do belong to the namespace for good.
func TestSocketStaysInNamespace(t *testing.T) {
	n := newNamespace(t, "n1")
	var l net.Listener
	if err := n.Do(func() (err error) {
		l, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
		c.Close()
		t.Error("reached a namespace's listener from outside")
	}
	if err := n.Do(func() error {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return err
		}
		return c.Close()
	}); err != nil {
		t.Error(err)
	}
}
