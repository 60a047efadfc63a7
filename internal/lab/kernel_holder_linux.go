package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// readyWord is what a lab in the background says when it is up. Anything else
// is why it is not.
const readyWord = "ready"

// Background starts a lab that outlives its command. Like Enter, it executes
// the program again, in a sandbox without a terminal, and there calls build
// and serves Exec and Down until the lab is taken down. It returns in the
// first process only, when the lab is up or could not be made.
func Background(name string, build func(context.Context) (*Lab, error)) error {
	switch stage, _, _ := strings.Cut(os.Getenv(stageEnv), "/"); stage {
	case stageInit:
		os.Exit(initProcess())
	case stageInside:
		if err := os.Unsetenv(stageEnv); err != nil {
			return err
		}
		unavailable = nil
		os.Exit(hold(build))
	}
	return startHolder(name)
}

func startHolder(name string) error {
	socket, err := socketName(name, os.Getuid())
	if err != nil {
		return err
	}
	// Bound here, in the caller's network namespace: that is where exec and
	// down will look for it.
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: socket, Net: "unixpacket"})
	if errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("lab %s is up already; take it down with\n\n\tpolder lab down --name %s\n\nor give this one another --name", name, name)
	}
	if err != nil {
		return fmt.Errorf("listening for commands to the lab: %w", err)
	}
	defer l.Close()
	listener, err := l.File()
	if err != nil {
		return err
	}
	defer listener.Close()
	ready, readyW, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	cmd, err := startSandbox(os.Args, []*os.File{listener, readyW}, func(c *exec.Cmd) {
		c.SysProcAttr.Setsid = true // the terminal's signals are not for it
	})
	readyW.Close()
	if err != nil {
		return err
	}
	word, err := io.ReadAll(ready)
	if err != nil {
		return fmt.Errorf("waiting for the lab: %w", err)
	}
	if string(word) == readyWord {
		return cmd.Process.Release()
	}
	_ = cmd.Wait() // what it said is more than its status
	if len(word) == 0 {
		return errors.New("the lab ended before it was up")
	}
	return errors.New(string(word))
}

// hold is the last stage: it builds the lab and serves it until it is told to
// go down.
func hold(build func(context.Context) (*Lab, error)) int {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	unix.CloseOnExec(firstFD)
	unix.CloseOnExec(firstFD + 1)
	listenerFile, ready := os.NewFile(firstFD, "listener"), os.NewFile(firstFD+1, "ready")
	l, listener, err := func() (*Lab, *net.UnixListener, error) {
		inherited, err := net.FileListener(listenerFile)
		if err != nil {
			return nil, nil, err
		}
		listener, ok := inherited.(*net.UnixListener)
		if !ok {
			return nil, nil, fmt.Errorf("descriptor %d is a %T", firstFD, inherited)
		}
		l, err := build(ctx)
		return l, listener, err
	}()
	listenerFile.Close()
	if err != nil {
		fmt.Fprint(ready, err)
		ready.Close()
		return 1
	}
	// The lab keeps nobody's folder busy.
	if err := os.Chdir("/"); err != nil {
		fmt.Fprint(ready, err)
		return 1
	}
	fmt.Fprint(ready, readyWord)
	ready.Close()
	h := holder{lab: l, listener: listener, down: stop}
	go h.serve()
	<-ctx.Done()
	// The processes of the lab die with PID 1, which ends after this one.
	return 0
}

// holder serves the commands of a lab.
type holder struct {
	lab      *Lab
	listener *net.UnixListener
	down     func()
}

func (h *holder) serve() {
	defer h.down()
	for {
		c, err := h.listener.AcceptUnix()
		if err != nil {
			return
		}
		go h.converse(c)
	}
}

func (h *holder) converse(c *net.UnixConn) {
	var r reply
	request, files, err := receiveRequest(c)
	switch {
	case err != nil:
	case request.Down:
		// The connection is left open: its end, by the end of this process,
		// is the answer. The name is free before.
		h.listener.Close()
		return
	default:
		r.Exit, err = h.exec(c, request, files)
	}
	if err != nil {
		r.Error = err.Error()
	}
	// A client that is gone needs no answer.
	_ = sendPacket(c, r)
	c.Close()
}

// receiveRequest reads the first packet of a connection, with its descriptors,
// and checks who sent it: anybody may connect to an abstract name.
func receiveRequest(c *net.UnixConn) (request, []*os.File, error) {
	buf, oob := make([]byte, packetLimit), make([]byte, unix.CmsgSpace(3*4))
	n, oobn, flags, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil {
		return request{}, nil, fmt.Errorf("reading the request: %w", err)
	}
	files, err := receivedFiles(oob[:oobn])
	if err == nil {
		// Not before the packet is read: closing a connection with something
		// unread resets it, and the client does not learn why.
		err = samePeer(c)
	}
	if err == nil && flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		err = errors.New("reading the request: it is too long")
	}
	var r request
	if err == nil {
		r, err = decodeRequest(buf[:n])
	}
	if err == nil && !r.Down && len(files) != 3 {
		err = fmt.Errorf("reading the request: %d standard streams, want 3", len(files))
	}
	if err != nil {
		closeAll(files)
	}
	return r, files, err
}

// samePeer says whether the other end of the connection belongs to the same
// user. In a user namespace, others appear as the overflow user, never as 0.
func samePeer(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var failure error
	err = raw.Control(func(fd uintptr) {
		cred, failure = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, failure); err != nil {
		return err
	}
	if int(cred.Uid) != os.Getuid() {
		return fmt.Errorf("the lab's socket belongs to user %d", cred.Uid)
	}
	return nil
}

func receivedFiles(oob []byte) ([]*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("reading the request's descriptors: %w", err)
	}
	var files []*os.File
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			closeAll(files)
			return nil, fmt.Errorf("reading the request's descriptors: %w", err)
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "stream"))
		}
	}
	return files, nil
}

// exec runs the process that a client asks for.
func (h *holder) exec(c *net.UnixConn, r request, streams []*os.File) (int, error) {
	defer closeAll(streams)
	n := h.lab.Machine(r.Machine)
	if n == nil {
		return 0, fmt.Errorf("the lab has no %s; it has %s", r.Machine, strings.Join(h.lab.Names(), ", "))
	}
	// What was attached to a bridge since the last command now has its MTU.
	if err := h.lab.SyncPodMTU(); err != nil {
		return 0, err
	}
	env, path := withPath(r.Env)
	program, err := lookPath(r.Argv[0], path, r.Dir)
	if err != nil {
		return 0, err
	}
	cmd := n.Command(context.Background(), program)
	cmd.Args, cmd.Env, cmd.Dir = r.Argv, env, r.Dir
	cmd.Stdin, cmd.Stdout, cmd.Stderr = streams[0], streams[1], streams[2]
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if r.Terminal {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	// A terminal's reader sees its end only when nobody holds it open.
	closeAll(streams)
	stop := passSignals(c, cmd.Process.Pid)
	code, err := exitStatus(cmd.Wait())
	return code, errors.Join(err, stop())
}

// passSignals hands a client's signals to the process's group until it is
// stopped. If the client goes away before, the group is killed.
func passSignals(c *net.UnixConn, group int) (stop func() error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1<<10)
		for {
			n, err := c.Read(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return
			}
			var r request
			switch {
			case err != nil || n == 0:
				_ = unix.Kill(-group, unix.SIGKILL) // ESRCH: it has just ended
				return
			case json.Unmarshal(buf[:n], &r) == nil && r.Signal > 0:
				_ = unix.Kill(-group, syscall.Signal(r.Signal))
			}
		}
	}()
	return func() error {
		err := c.SetReadDeadline(time.Now())
		<-done
		return err
	}
}

func sendPacket(c *net.UnixConn, v any, files ...*os.File) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var oob []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		oob = unix.UnixRights(fds...)
	}
	_, _, err = c.WriteMsgUnix(b, oob, nil)
	return err
}
