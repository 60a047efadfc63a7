package peers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/poldernet/polder/internal/lab"
)

// patience is how long a peer may take for what it does in milliseconds on a
// machine that has nothing else to do.
const patience = time.Minute

// process is a daemon of a namespace that tells systemd when it is ready.
type process struct {
	cmd  *lab.Cmd
	log  string        // the file that it writes to
	done chan struct{} // closed when it has ended
}

// start runs a daemon and returns when it has said READY=1 (sd_notify(3)).
// What it writes goes to a file of the folder dir.
func start(n *lab.Namespace, dir string, argv ...string) (_ *process, err error) {
	p := &process{log: filepath.Join(dir, n.Name()+".log"), done: make(chan struct{})}
	// Of a path of its own: a socket's may have 108 bytes, a test's folder
	// can have more.
	runtime, err := os.MkdirTemp("", "peer")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(runtime)) }()
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(runtime, "notify")})
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, errors.Join(err, notify.Close())
	}
	p.cmd = n.Command(context.Background(), argv...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+notify.LocalAddr().String())
	err = p.cmd.Start()
	if err := errors.Join(err, log.Close()); err != nil {
		return nil, errors.Join(err, notify.Close())
	}
	var once sync.Once
	hangUp := func() { once.Do(func() { _ = notify.Close() }) }
	defer hangUp()
	go func() {
		_ = p.cmd.Wait() // how it ends says nothing: we end it
		close(p.done)
		hangUp() // nothing more will come
	}()
	if err := awaitReady(notify); err != nil {
		return nil, errors.Join(fmt.Errorf("%s on %s did not become ready: %w\n%s", filepath.Base(argv[0]), n.Name(), err, p.tail()), p.stop())
	}
	return p, nil
}

func awaitReady(notify *net.UnixConn) error {
	if err := notify.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	b := make([]byte, 4096)
	for {
		n, err := notify.Read(b)
		if err != nil {
			return err
		}
		if string(b[:n]) == "READY=1" {
			return nil
		}
	}
}

// stop ends the daemon as systemd does: by SIGTERM, and by SIGKILL if it takes
// too long. flanneld never ends when it is told while it fetches the list of
// leases: WatchLeases in pkg/subnet/subnet.go then reads from a channel that
// nobody closes.
func (p *process) stop() error {
	const grace = 5 * time.Second
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(grace):
	}
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.done
	return nil
}

// cpu is the CPU time up to now of all threads, as the scheduler counts it
// (sched-stats.rst of the kernel: the first field of schedstat, in ns), and of
// the programs that it has run (proc_pid_stat(5): fields 16 and 17).
func (p *process) cpu() (used time.Duration, err error) {
	proc := fmt.Sprintf("/proc/%d/", p.cmd.Process.Pid)
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

// tail is the end of what the daemon wrote.
func (p *process) tail() string {
	const most = 4 << 10
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-most):])
}
