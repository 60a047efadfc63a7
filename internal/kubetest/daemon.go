package kubetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/poldernet/polder/internal/lab"
)

// Patience is how long a program may take for what it does in seconds on a
// machine that has nothing else to do.
const Patience = 2 * time.Minute

// Daemon is a program that tells systemd when it is ready.
type Daemon struct {
	name      string
	namespace *lab.Namespace // nil: the test's own
	argv      []string
	log       string // the file that it writes to
	cmd       *exec.Cmd
	done      chan struct{} // closed when it has ended
}

// NewDaemon is a daemon that does not run yet, of a namespace or, where that is
// nil, of the test's own. What it writes goes to a file of its name in dir.
func NewDaemon(n *lab.Namespace, name, dir string, argv ...string) *Daemon {
	return &Daemon{name: name, namespace: n, argv: argv, log: filepath.Join(dir, name+".log")}
}

// Start runs the daemon and returns when it has said READY=1 (sd_notify(3)).
func (d *Daemon) Start() (err error) {
	// Of a path of its own: a socket's may have 108 bytes, a test's folder
	// can have more.
	runtime, err := os.MkdirTemp("", "kubetest")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(runtime)) }()
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(runtime, "notify")})
	if err != nil {
		return err
	}
	var once sync.Once
	hangUp := func() { once.Do(func() { _ = notify.Close() }) }
	defer hangUp()
	if err := d.start(notify.LocalAddr().String()); err != nil {
		return err
	}
	done := make(chan struct{})
	d.done = done
	go func(cmd *exec.Cmd) {
		_ = cmd.Wait() // how it ends says nothing: we end it
		close(done)
		hangUp() // nothing more will come
	}(d.cmd)
	if err := awaitReady(notify); err != nil {
		return errors.Join(fmt.Errorf("%s did not become ready: %w\n%s", d.name, err, d.Tail()), d.Stop())
	}
	return nil
}

func (d *Daemon) start(notify string) (err error) {
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	d.cmd = exec.CommandContext(context.Background(), d.argv[0], d.argv[1:]...)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+notify)
	if d.namespace == nil {
		return d.cmd.Start()
	}
	return d.namespace.Do(d.cmd.Start)
}

func awaitReady(notify *net.UnixConn) error {
	if err := notify.SetReadDeadline(time.Now().Add(Patience)); err != nil {
		return err
	}
	b := make([]byte, 4096)
	for {
		n, err := notify.Read(b)
		if err != nil {
			return err
		}
		// kube-apiserver ends the line, others do not.
		if string(bytes.TrimSpace(b[:n])) == "READY=1" {
			return nil
		}
	}
}

// Stop ends the daemon as systemd does: by SIGTERM, and by SIGKILL if it takes
// too long. flanneld never ends when it is told while it fetches the list of
// leases: WatchLeases in pkg/subnet/subnet.go then reads from a channel that
// nobody closes. One that does not run stays so.
func (d *Daemon) Stop() error {
	const grace = 5 * time.Second
	if d.done == nil {
		return nil
	}
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-d.done:
		return nil
	case <-time.After(grace):
	}
	return d.Kill()
}

// Kill ends the daemon at once.
func (d *Daemon) Kill() error {
	if d.done == nil {
		return nil
	}
	if err := d.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-d.done
	return nil
}

// CPU is the CPU time up to now of all threads, as the scheduler counts it
// (sched-stats.rst of the kernel: the first field of schedstat, in ns), and of
// the programs that it has run (proc_pid_stat(5): fields 16 and 17).
func (d *Daemon) CPU() (used time.Duration, err error) {
	proc := fmt.Sprintf("/proc/%d/", d.cmd.Process.Pid)
	threads, err := filepath.Glob(proc + "task/*/schedstat")
	if err != nil {
		return 0, err
	}
	for _, t := range threads {
		b, err := os.ReadFile(t)
		if err != nil {
			return 0, err
		}
		var ns int64
		if _, err := fmt.Sscan(string(b), &ns); err != nil {
			return 0, fmt.Errorf("%s: %w", t, err)
		}
		used += time.Duration(ns)
	}
	stat, err := os.ReadFile(proc + "stat")
	if err != nil {
		return 0, err
	}
	// The second field is the name, which may hold anything.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	for _, field := range fields[16-3 : 17-3+1] {
		ticks, err := strconv.Atoi(string(field))
		if err != nil {
			return 0, fmt.Errorf("%sstat: %w", proc, err)
		}
		used += time.Duration(ticks) * time.Second / userHZ
	}
	return used, nil
}

// userHZ is in what /proc counts CPU time, on every architecture that Go knows.
const userHZ = 100

// Memory is what of the daemon's is resident now, and at most up to now, in bytes
// (proc_pid_status(5): VmRSS and VmHWM, which begin with the program).
func (d *Daemon) Memory() (now, peak int, err error) {
	name := fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid)
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, 0, err
	}
	for _, f := range []struct {
		key   string
		value *int
	}{{"VmRSS:", &now}, {"VmHWM:", &peak}} {
		_, rest, _ := bytes.Cut(b, []byte("\n"+f.key))
		if _, err := fmt.Sscan(string(rest), f.value); err != nil {
			return 0, 0, fmt.Errorf("%s of %s: %w", f.key, name, err)
		}
		*f.value <<= 10
	}
	return now, peak, nil
}

// Tail is the end of what the daemon wrote.
func (d *Daemon) Tail() string {
	const most = 4 << 10
	b, err := os.ReadFile(d.log)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-most):])
}
