package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The sandbox is made in three stages of the same program: the one that the
// user started, the sandbox's PID 1, and below that the one that does the
// work. PID 1 is a process apart because it has to reap whatever is left to
// it with wait4(-1), which would steal the children that os/exec waits for.
const (
	stageEnv    = "POLDER_LAB_STAGE"
	stageInit   = "init"
	stageInside = "inside"
)

// The files that a stage finds open. PID 1 reports on statusFD; what follows
// is handed on to the last stage, where it begins at firstFD.
const (
	statusFD = 3
	firstFD  = 3
)

// hostEtc is what /etc was outside.
const hostEtc = "/etc/.host"

func init() {
	// The main goroutine keeps the main thread, and nobody else gets it. That
	// thread's namespaces are what /proc/self/ns shows, and PDEATHSIG fires
	// when the thread ends that made the child (prctl(2)).
	runtime.LockOSThread()
}

// Enter runs fn in a sandbox and returns its exit status. It must be called
// from main's goroutine, before anything else is done: the program starts anew
// in the sandbox, with the same arguments and standard streams, and fn is
// called when it comes here again. The sandbox ends with the process, also
// when that is killed. An error says that there is no sandbox and what to do.
func Enter(fn func() int) (int, error) {
	switch stage, _, _ := strings.Cut(os.Getenv(stageEnv), "/"); stage {
	case stageInit:
		os.Exit(initProcess())
	case stageInside:
		if err := os.Unsetenv(stageEnv); err != nil {
			return 0, err
		}
		unavailable = nil
		return fn(), nil
	}
	return runSandbox()
}

// runSandbox is the first stage.
func runSandbox() (int, error) {
	cmd, err := startSandbox(os.Args, nil, func(c *exec.Cmd) {
		c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
		c.SysProcAttr.Pdeathsig = syscall.SIGKILL
	})
	if err != nil {
		return 0, err
	}
	// A terminal's Ctrl-C reaches every stage, kill(1) only this one: hand
	// everything on, and leave the dying to the last stage. It may see one
	// signal twice.
	stop := forwardSignals(cmd.Process)
	defer stop()
	return exitStatus(cmd.Wait())
}

func forwardSignals(to *os.Process) (stop func()) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	go func() {
		for s := range signals {
			if err := to.Signal(s); err != nil {
				return // it has ended
			}
		}
	}()
	return func() { signal.Stop(signals); close(signals) }
}

// exitStatus is a shell's view of how a process ended: 128 and the signal's
// number where one killed it.
func exitStatus(err error) (int, error) {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return 0, err
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return exit.ExitCode(), nil
}

// startSandbox starts PID 1 of a new sandbox and returns when the last stage
// runs. Root does without a user namespace where it can.
func startSandbox(args []string, files []*os.File, adjust func(*exec.Cmd)) (*exec.Cmd, error) {
	root := os.Getuid() == 0
	var cmd *exec.Cmd
	err := errors.New("not root")
	if root {
		cmd, err = trySandbox(args, files, adjust, false)
	}
	if err != nil {
		cmd, err = trySandbox(args, files, adjust, true)
	}
	if err != nil {
		return nil, forbidden(err, root, readSysctl)
	}
	return cmd, nil
}

func trySandbox(args []string, files []*os.File, adjust func(*exec.Cmd), userNS bool) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	status, statusW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer status.Close()

	cmd := &exec.Cmd{
		Path:       self,
		Args:       args,
		Env:        append(os.Environ(), stageEnv+"="+stageInit+"/"+strconv.Itoa(len(files))),
		ExtraFiles: append([]*os.File{statusW}, files...),
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		},
	}
	if userNS {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		// One line is all that an ordinary user may map (user_namespaces(7)),
		// and only after giving up setgroups(2), which Go does.
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
		cmd.SysProcAttr.GidMappingsEnableSetgroups = false
	}
	adjust(cmd)
	err = cmd.Start()
	statusW.Close()
	if err != nil {
		return nil, err
	}
	failure, err := io.ReadAll(status)
	if err == nil && len(failure) > 0 {
		err = errors.New(string(failure))
	}
	if err != nil {
		_ = cmd.Wait() // its status adds nothing to what it said
		return nil, err
	}
	return cmd, nil
}

// initProcess is the second stage, PID 1: it makes the mounts, starts the last
// stage, reaps everybody, and ends when the last stage ends. The kernel then
// kills whoever is left in the PID namespace (pid_namespaces(7)).
func initProcess() int {
	unix.CloseOnExec(statusFD)
	status := os.NewFile(statusFD, "status")
	child, err := startInside()
	if err != nil {
		fmt.Fprint(status, err)
		status.Close()
		return 1
	}
	status.Close()
	stop := forwardSignals(child)
	defer stop()
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			fmt.Fprintf(os.Stderr, "lab: waiting for processes: %v\n", err)
			return 1
		case pid == child.Pid && ws.Signaled():
			return 128 + int(ws.Signal())
		case pid == child.Pid:
			return ws.ExitStatus()
		}
	}
}

func startInside() (*os.Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	if err := mountSandbox(self); err != nil {
		return nil, err
	}
	if err := raiseLoopback(); err != nil {
		return nil, err
	}
	_, count, _ := strings.Cut(os.Getenv(stageEnv), "/")
	n, err := strconv.Atoi(count)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", stageEnv, err)
	}
	files := []*os.File{os.Stdin, os.Stdout, os.Stderr}
	for fd := statusFD + 1; fd <= statusFD+n; fd++ {
		unix.CloseOnExec(fd)
		files = append(files, os.NewFile(uintptr(fd), "inherited"))
	}
	if err := os.Setenv(stageEnv, stageInside); err != nil {
		return nil, err
	}
	if err := os.Setenv("PATH", binDir+":"+os.Getenv("PATH")); err != nil {
		return nil, err
	}
	// The main thread lives as long as PID 1 itself, so that no death signal
	// is needed here: the PID namespace ends with it.
	child, err := os.StartProcess(programPath, os.Args, &os.ProcAttr{Files: files})
	// A listener must not live on here when the child has closed it.
	closeAll(files[firstFD:])
	return child, err
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// mountSandbox gives the sandbox its own /proc, /run and /etc. Nothing is
// written below the directories that were there.
func mountSandbox(self string) error {
	steps := []struct {
		source, target, fstype string
		flags                  uintptr
	}{
		{"", "/", "", unix.MS_REC | unix.MS_PRIVATE}, // or mounts would show outside
		{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV},
	}
	for _, s := range steps {
		if err := unix.Mount(s.source, s.target, s.fstype, s.flags, ""); err != nil {
			return fmt.Errorf("mounting %s: %w", s.target, err)
		}
	}
	return mountEtc(self)
}

// mountEtc covers /etc with a tmpfs of links to what is below. It has room for
// the spec's default folder, whether the host has that or not, and for the
// program.
func mountEtc(self string) error {
	const stage = "/run/etc"
	entries, err := os.ReadDir("/etc")
	if err != nil {
		return err
	}
	if err := os.Mkdir(stage, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", stage, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("mounting a tmpfs for /etc: %w", err)
	}
	ours := map[string]bool{}
	for _, dir := range []string{hostEtc, SpecDir, binDir} {
		top, _, _ := strings.Cut(strings.TrimPrefix(dir, "/etc/"), "/")
		ours[top] = true
		if err := os.MkdirAll(stage+strings.TrimPrefix(dir, "/etc"), 0o755); err != nil {
			return err
		}
	}
	if err := mountProgram(self, stage+strings.TrimPrefix(programPath, "/etc")); err != nil {
		return err
	}
	// Recursive, because in a user namespace mounts that were inherited
	// together cannot be taken apart (mount_namespaces(7)).
	if err := unix.Mount("/etc", filepath.Join(stage, filepath.Base(hostEtc)), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mounting /etc: %w", err)
	}
	for _, e := range entries {
		if ours[e.Name()] {
			continue // the host's own spec, or a sandbox around this one
		}
		target := filepath.Join(filepath.Base(hostEtc), e.Name())
		if e.Type()&os.ModeSymlink != 0 {
			// Copied, because a relative one counts from where it lies.
			if target, err = os.Readlink(filepath.Join("/etc", e.Name())); err != nil {
				return err
			}
		}
		if err := os.Symlink(target, filepath.Join(stage, e.Name())); err != nil {
			return err
		}
	}
	if err := unix.Mount(stage, "/etc", "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mounting /etc: %w", err)
	}
	if err := unix.Unmount(stage, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmounting %s: %w", stage, err)
	}
	return os.Remove(stage)
}

// HostPath is where an absolute path of the caller's is found in the sandbox
// that Background makes, which has an /etc of its own. Outside it is the path
// itself.
func HostPath(path string) string {
	rest, ok := strings.CutPrefix(path, "/etc/")
	if !ok || os.Getenv(stageEnv) != stageInside {
		return path
	}
	return filepath.Join(hostEtc, rest)
}

// mountProgram shows this program under another name. A bind mount holds its
// inode: `go run` removes the file when the command returns, and a lab in the
// background goes on.
func mountProgram(self, as string) error {
	if err := os.WriteFile(as, nil, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(self, as, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mounting %s on %s: %w", self, as, err)
	}
	return nil
}

// readSysctl reads a value by its dotted name.
func readSysctl(name string) (string, error) {
	b, err := os.ReadFile(filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/")))
	return string(b), err
}

// writeSysctl writes a value by its path, because names of links may have dots
// in them. The calling thread's network namespace is the one that counts: that
// is whose /proc/sys/net the kernel shows.
func writeSysctl(path, value string) error {
	return os.WriteFile(filepath.Join("/proc/sys", path), []byte(value), 0o644)
}
