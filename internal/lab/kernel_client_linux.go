package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// dial connects to a user's lab.
func dial(name string) (*net.UnixConn, error) {
	socket, err := socketName(name, os.Getuid())
	if err != nil {
		return nil, err
	}
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: socket, Net: "unixpacket"})
	if errors.Is(err, unix.ECONNREFUSED) {
		return nil, fmt.Errorf("lab %s is not up; bring one up with\n\n\tpolder lab up FILE --name %s", name, name)
	}
	if err != nil {
		return nil, fmt.Errorf("connecting to lab %s: %w", name, err)
	}
	// The credentials are those of who listened: a name can be taken by others.
	if err := samePeer(c); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Down takes a lab in the background down and returns when it is gone.
func Down(name string) error {
	c, err := dial(name)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := sendPacket(c, request{Down: true}); err != nil {
		return fmt.Errorf("taking lab %s down: %w", name, err)
	}
	r, err := receiveReply(c)
	if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
		return nil // the holder has ended
	}
	if err == nil {
		err = errors.New(r.Error)
	}
	return fmt.Errorf("taking lab %s down: %w", name, err)
}

// Exec runs a program on a machine of a lab in the background, with this
// process's standard streams, environment and working directory, and returns
// its exit status. Signals are passed on. If standard input is a terminal, the
// program gets one of its own, so that a shell can control its jobs.
func Exec(name, machine string, argv []string) (int, error) {
	c, err := dial(name)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	dir, err := os.Getwd()
	if err != nil {
		return 0, err
	}
	r := request{Machine: machine, Argv: argv, Env: os.Environ(), Dir: dir}
	streams := []*os.File{os.Stdin, os.Stdout, os.Stderr}
	if !isTerminal(os.Stdin) {
		// Caught before the program can start, or one that comes early would
		// end this process in its place.
		signals := make(chan os.Signal, 8)
		signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
		defer func() { signal.Stop(signals); close(signals) }()
		if err := sendPacket(c, r, streams...); err != nil {
			return 0, fmt.Errorf("asking the lab: %w", err)
		}
		go sendSignals(c, signals)
		return awaitExit(c)
	}

	t, err := openTerminal()
	if err != nil {
		return 0, fmt.Errorf("making a terminal: %w", err)
	}
	defer t.Close()
	for i, f := range streams {
		if isTerminal(f) {
			streams[i] = t.slave
		}
	}
	r.Terminal = true
	if err := errors.Join(sendPacket(c, r, streams...), t.slave.Close()); err != nil {
		return 0, fmt.Errorf("asking the lab: %w", err)
	}
	var code int
	err = t.relay(func() (err error) {
		code, err = awaitExit(c)
		return err
	})
	return code, err
}

// awaitExit waits for the reply to an exec.
func awaitExit(c *net.UnixConn) (int, error) {
	r, err := receiveReply(c)
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET):
		return 0, errors.New("the lab went down")
	case err != nil:
		return 0, fmt.Errorf("waiting for the lab: %w", err)
	case r.Error != "":
		return 0, errors.New(r.Error)
	}
	return r.Exit, nil
}

func receiveReply(c *net.UnixConn) (reply, error) {
	buf := make([]byte, 1<<16)
	n, err := c.Read(buf)
	if err != nil {
		return reply{}, err
	}
	// A closed connection of packets reads as an empty one (recv(2)).
	if n == 0 {
		return reply{}, io.EOF
	}
	var r reply
	if err := json.Unmarshal(buf[:n], &r); err != nil {
		return reply{}, fmt.Errorf("reading the lab's reply: %w", err)
	}
	return r, nil
}

func sendSignals(c *net.UnixConn, signals <-chan os.Signal) {
	for s := range signals {
		if n, ok := s.(unix.Signal); ok {
			_ = sendPacket(c, request{Signal: int(n)}) // fails if it has ended
		}
	}
}
