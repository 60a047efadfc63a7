package lab_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/poldernet/polder/internal/lab"
)

// roleEnv makes the test binary one of the programs below, which is what the
// tests here start, signal and kill.
const roleEnv = "LAB_TEST_ROLE"

func TestMain(m *testing.M) {
	if role, ok := roles[os.Getenv(roleEnv)]; ok {
		code, err := role()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		os.Exit(code)
	}
	lab.Main(m)
}

const backgroundName = "lifecycle"

var roles = map[string]func() (int, error){
	// A lab that lasts until standard input ends. A process in it holds
	// standard output open.
	"foreground": func() (int, error) {
		return lab.Enter(func() int {
			n, err := lab.NewNamespace("n1")
			if err == nil {
				sleep := n.Command(context.Background(), "sleep", "1000")
				sleep.Stdout = os.Stdout
				err = sleep.Start()
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
			ns, _ := os.Readlink("/proc/self/ns/pid")
			fmt.Println(ns)
			_, _ = io.Copy(io.Discard, os.Stdin)
			return 7
		})
	},
	"probe": func() (int, error) {
		return lab.Enter(func() int {
			l, err := threeNodesUp()
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
			w, err := l.Wire(0)
			if err == nil {
				var r lab.Report
				r, err = w.Probe(lab.Flow{From: l.Node("n1"), To: l.Host("outside"), Addr: netip.MustParseAddr("2001:db8:3::99"), Protocol: lab.UDP})
				fmt.Println(os.Getuid(), r.Answered, r.Source, r.Path(), err)
			}
			return 0
		})
	},
	"background": func() (int, error) {
		return 0, lab.Background(backgroundName, func(context.Context) (*lab.Lab, error) { return threeNodesUp() })
	},
	"fails": func() (int, error) {
		return 0, lab.Background("fails", func(context.Context) (*lab.Lab, error) { return nil, errors.New("no luck") })
	},
	// Asks another user's lab to go down.
	"intruder": func() (int, error) {
		c, err := net.Dial("unixpacket", "@polder-lab-0-"+backgroundName)
		if err != nil {
			return 0, err
		}
		if _, err := c.Write([]byte(`{"down":true}`)); err != nil {
			return 0, err
		}
		answer := make([]byte, 1<<10)
		n, err := c.Read(answer)
		fmt.Printf("%s\n", answer[:n])
		return 0, err
	},
	"exec": func() (int, error) { return lab.Exec(backgroundName, os.Args[1], os.Args[2:]) },
	"down": func() (int, error) { return 0, lab.Down(backgroundName) },
	// Says what Enter says where there can be no network namespace.
	"forbidden": func() (int, error) {
		if os.Getenv("POLDER_LAB_STAGE") == "" {
			if err := os.WriteFile("/proc/sys/user/max_net_namespaces", []byte("0"), 0); err != nil {
				return 0, err
			}
		}
		return lab.Enter(func() int { return 0 })
	},
}

func threeNodesUp() (*lab.Lab, error) {
	topo, diags := lab.LoadTopology("testdata/three-nodes.lab.hcl")
	if diags.HasErrors() {
		return nil, diags
	}
	return lab.Up(context.Background(), topo, threeNodes())
}

// program is the test binary in a role.
func program(t *testing.T, role string, args ...string) *exec.Cmd {
	t.Helper()
	lab.Require(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), roleEnv+"="+role)
	return cmd
}

func run(t *testing.T, role string) {
	t.Helper()
	if out, err := program(t, role).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", role, err, out)
	}
}

// started is a program of which the first line of output has been read: the
// PID namespace that it is in.
type started struct {
	*exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	errs   *bytes.Buffer
	pidNS  string
	mounts string
}

func start(t *testing.T, cmd *exec.Cmd) *started {
	t.Helper()
	s := &started{Cmd: cmd, errs: &bytes.Buffer{}, mounts: read(t, "/proc/self/mountinfo")}
	cmd.Stderr = s.errs
	var err error
	if s.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.out = bufio.NewReader(out)
	line, err := s.out.ReadString('\n')
	if err != nil {
		t.Fatalf("%v\n%s", err, s.errs)
	}
	s.pidNS = strings.TrimSpace(line)
	if own, err := os.Readlink("/proc/self/ns/pid"); err != nil || own == s.pidNS {
		t.Fatalf("the lab is in this PID namespace, %s (%v)", own, err)
	}
	return s
}

// gone waits for the end of the lab's processes, by the end of the output that
// they all hold open, and looks for what they may have left.
func (s *started) gone(t *testing.T) {
	t.Helper()
	if _, err := io.Copy(io.Discard, s.out); err != nil {
		t.Error(err)
	}
	_ = s.Wait() // how it ended is for the caller to say
	// A process closes its files before it ends.
	for _, pid := range members(t, s.pidNS) {
		awaitEnd(t, pid)
	}
	if left := members(t, s.pidNS); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
	if mounts := read(t, "/proc/self/mountinfo"); mounts != s.mounts {
		t.Errorf("mounts before\n%s\nand after\n%s", s.mounts, mounts)
	}
	if files, err := filepath.Glob("/run/*"); err != nil || len(files) > 0 {
		t.Errorf("files %v, %v", files, err)
	}
}

// awaitEnd waits until a process has ended, ten seconds at most.
func awaitEnd(t *testing.T, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return // it has ended
	}
	defer unix.Close(fd)
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// dead are the states behind EXIT_ZOMBIE and EXIT_DEAD (proc_pid_status(5)).
var dead = regexp.MustCompile(`(?m)^State:\s+[ZX]`)

// members are the living processes of a PID namespace.
func members(t *testing.T, pidNS string) []int {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, l := range links {
		if ns, err := os.Readlink(l); err != nil || ns != pidNS {
			continue
		}
		dir := strings.TrimSuffix(l, "/ns/pid")
		// A dead process keeps its PID namespace until it is reaped.
		if status, err := os.ReadFile(dir + "/status"); err != nil || dead.Match(status) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

func TestForegroundLeavesNothing(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(*started) error
		want int // exit status; -1: killed
	}{
		{"by itself", func(s *started) error { return s.in.Close() }, 7},
		{"by Ctrl-C", func(s *started) error { return s.Process.Signal(syscall.SIGINT) }, 128 + int(syscall.SIGINT)},
		{"by SIGTERM", func(s *started) error { return s.Process.Signal(syscall.SIGTERM) }, 128 + int(syscall.SIGTERM)},
		{"by kill -9", func(s *started) error { return s.Process.Kill() }, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t, program(t, "foreground"))
			if err := c.end(s); err != nil {
				t.Fatal(err)
			}
			s.gone(t)
			if got := s.ProcessState.ExitCode(); got != c.want {
				t.Errorf("exit status %d, want %d\n%s", got, c.want, s.errs)
			}
		})
	}
}

func TestBackgroundLeavesNothing(t *testing.T) {
	// kill kills the processes of the lab that are this program, by their
	// PID in the lab's namespace.
	kill := func(init bool) func(*testing.T, *started) {
		return func(t *testing.T, s *started) {
			found := false
			for _, pid := range members(t, s.pidNS) {
				b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
				if err != nil {
					continue // readlink(1), which has ended
				}
				status := strings.Fields(string(b))
				isInit := status[slices.Index(status, "NSpid:")+2] == "1"
				exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
				if err != nil || isInit != init || filepath.Base(exe) != "polder" {
					continue
				}
				found = true
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Error(err)
				}
			}
			if !found {
				t.Error("the process to kill was not found")
			}
		}
	}
	for _, c := range []struct {
		name string
		end  func(*testing.T, *started)
	}{
		{"by down", func(t *testing.T, _ *started) { run(t, "down") }},
		{"by kill -9 of the holder", kill(false)},
		{"by kill -9 of PID 1", kill(true)},
	} {
		t.Run(c.name, func(t *testing.T) {
			run(t, "background")
			s := start(t, program(t, "exec", "n1", "sh", "-c", "readlink /proc/self/ns/pid; sleep 1000"))
			c.end(t, s)
			s.gone(t)
			if sockets := read(t, "/proc/net/unix"); strings.Contains(sockets, "polder-lab") {
				t.Errorf("a socket is left:\n%s", sockets)
			}
			if out, err := program(t, "down").CombinedOutput(); err == nil || !strings.Contains(string(out), "is not up") {
				t.Errorf("down of a lab that is gone: %v, %s", err, out)
			}
		})
	}
}

func TestBackground(t *testing.T) {
	run(t, "background")
	defer run(t, "down")
	if out, err := program(t, "background").CombinedOutput(); err == nil || !strings.Contains(string(out), "up already") {
		t.Errorf("a second lab of one name: %v, %s", err, out)
	}
	if out, err := program(t, "fails").CombinedOutput(); err == nil || strings.TrimSpace(string(out)) != "no luck" {
		t.Errorf("a lab that cannot be made: %v, %s", err, out)
	}

	inLab := func(stdin string, argv ...string) (stdout, stderr string, status int) {
		t.Helper()
		cmd := program(t, "exec", argv...)
		cmd.Env = append(cmd.Env, "GREETING=hello")
		var out, errs bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
		if err := cmd.Run(); cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return out.String(), errs.String(), cmd.ProcessState.ExitCode()
	}
	out, errs, status := inLab("in", "web-1", "sh", "-c", `cat; echo " $GREETING $(uname -n) $(ls $0)"; echo err >&2; exit 9`, "testdata/three-nodes.lab.hcl")
	if out != "in hello web-1 testdata/three-nodes.lab.hcl\n" || errs != "err\n" || status != 9 {
		t.Errorf("output %q, errors %q, status %d", out, errs, status)
	}
	if _, errs, status := inLab("", "n7", "true"); status != 1 || !strings.Contains(errs, "the lab has no n7; it has db-1, ") {
		t.Errorf("unknown machine: %q, status %d", errs, status)
	}
	if _, errs, status := inLab("", "n1", "no-such-program"); status != 1 || !strings.Contains(errs, "no-such-program") {
		t.Errorf("unknown program: %q, status %d", errs, status)
	}
	if _, _, status := inLab("", "n1", "sh", "-c", "kill -KILL $$"); status != 137 {
		t.Errorf("killed program: status %d", status)
	}

	// A signal to the client is one to the program.
	s := start(t, program(t, "exec", "n1", "sh", "-c", `trap 'exit 5' TERM; readlink /proc/self/ns/pid; read line; exit 1`))
	if err := s.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, s.out)
	_ = s.Wait()
	if got := s.ProcessState.ExitCode(); got != 5 {
		t.Errorf("status %d, want 5\n%s", got, s.errs)
	}

	// When a client is killed, its program and what that started die.
	s = start(t, program(t, "exec", "n1", "sh", "-c", "readlink /proc/self/ns/pid; sleep 1000; true"))
	if err := s.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, s.out); err != nil { // ends when both have ended
		t.Error(err)
	}
	_ = s.Wait()
}

// What the shell sees of an interactive session: a terminal of its own.
func TestExecGivesATerminal(t *testing.T) {
	if _, err := exec.LookPath("script"); err != nil {
		t.Skip("script(1) is not installed")
	}
	run(t, "background")
	defer run(t, "down")
	p := program(t, "exec")
	script := p.Path + ` n1 sh -c 'test -t 0 && test -t 1 && tty </dev/tty && stty size && exit 6'`
	cmd := exec.Command("script", "-qec", "stty rows 33 cols 99; "+script, "/dev/null")
	cmd.Env = p.Env
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 6 || !strings.Contains(string(out), "33 99") {
		t.Errorf("%v\n%s", err, out)
	}
}

// nobody makes a program another user's. Go test's own folder is closed to
// others: the sandbox's copy is not.
func nobody(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if m := strings.Fields(read(t, "/proc/self/uid_map")); m[2] == "1" {
		t.Skip("this whole test runs as an ordinary user")
	}
	cmd.Path = "/etc/polder-lab/bin/polder"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
}

// Anybody may connect to an abstract socket; only its owner is served.
func TestOtherUsersAreRefused(t *testing.T) {
	cmd := program(t, "intruder")
	nobody(t, cmd)
	run(t, "background")
	defer run(t, "down")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "belongs to user") {
		t.Errorf("%v, %s", err, out)
	}
}

// The lab needs no root: it works for a user who has nothing.
func TestOrdinaryUser(t *testing.T) {
	cmd := program(t, "probe")
	nobody(t, cmd)
	out, err := cmd.CombinedOutput()
	if want := "0 true 2001:db8:1::11 direct <nil>\n"; err != nil || string(out) != want {
		t.Errorf("%v, %q; want %q", err, out, want)
	}
}

// Where namespaces are forbidden, the error says what to do, and tests are
// skipped, or fail if they are required.
func TestForbidden(t *testing.T) {
	forbid := func(cmd *exec.Cmd) (string, int) {
		t.Helper()
		// A user namespace of its own has limits of its own.
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		}
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return string(out), cmd.ProcessState.ExitCode()
	}
	out, status := forbid(program(t, "forbidden"))
	if status != 1 || !strings.Contains(out, "sudo sysctl -w user.max_net_namespaces=15000") {
		t.Errorf("status %d, %s", status, out)
	}
	for _, c := range []struct {
		require, want string
		status        int
	}{{"", "--- SKIP: TestDoReturnsTheError", 0}, {"require", "--- FAIL: TestDoReturnsTheError", 1}} {
		cmd := program(t, "")
		cmd.Env = append(cmd.Env, "POLDER_KERNEL="+c.require)
		cmd.Args = []string{"sh", "-c", `echo 0 >/proc/sys/user/max_net_namespaces && exec "$0" -test.v -test.run=TestDoReturnsTheError`, cmd.Path}
		cmd.Path = "/bin/sh"
		if out, status := forbid(cmd); status != c.status || !strings.Contains(out, c.want) {
			t.Errorf("POLDER_KERNEL=%s: status %d, %s", c.require, status, out)
		}
	}
}
