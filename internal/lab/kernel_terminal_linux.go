package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo-terminal (pty(7)) between the user's terminal and a
// program in the lab. The user's own cannot be handed over: it controls this
// session, and the program needs one that controls its own.
type terminal struct {
	master *os.File
	// fd is the master's descriptor. os.File.Fd would make it block, and
	// reads could no longer be given a deadline.
	fd    int
	slave *os.File // the program's side
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// openTerminal makes a terminal of the size of standard input.
func openTerminal() (*terminal, error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening /dev/ptmx: %w", err)
	}
	t := &terminal{master: os.NewFile(uintptr(fd), "/dev/ptmx"), fd: fd}
	number, err := unix.IoctlGetUint32(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0) // unlock the slave
	}
	if err == nil {
		t.slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	t.resize()
	return t, nil
}

// Close closes the user's side.
func (t *terminal) Close() error { return t.master.Close() }

// resize hands on the size of the user's terminal. One without a size keeps
// none.
func (t *terminal) resize() {
	if size, err := unix.IoctlGetWinsize(int(os.Stdin.Fd()), unix.TIOCGWINSZ); err == nil {
		_ = unix.IoctlSetWinsize(t.fd, unix.TIOCSWINSZ, size)
	}
}

// drainTime is how long the rest of the output is waited for when the program
// has ended but others still hold its terminal.
const drainTime = 100 * time.Millisecond

// relay joins the user's terminal with this one until wait returns.
func (t *terminal) relay(wait func() error) error {
	restore, err := makeRaw(int(os.Stdin.Fd()))
	if err != nil {
		return err
	}
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, unix.SIGWINCH)
	go func() {
		for range resized {
			t.resize()
		}
	}()
	// Ends with this process: a read of a terminal cannot be taken back.
	go func() { _, _ = io.Copy(t.master, os.Stdin) }()
	output := make(chan struct{})
	go func() {
		defer close(output)
		_, _ = io.Copy(os.Stdout, t.master) // ends with EIO when nobody holds the slave
	}()

	err = wait()
	err = errors.Join(err, t.master.SetReadDeadline(time.Now().Add(drainTime)))
	<-output
	signal.Stop(resized)
	close(resized)
	return errors.Join(err, restore())
}

// makeRaw is cfmakeraw(3): Ctrl-C and the rest are the other terminal's
// business.
func makeRaw(fd int) (restore func() error, err error) {
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, err
	}
	raw := *before
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &raw); err != nil {
		return nil, err
	}
	return func() error { return unix.IoctlSetTermios(fd, unix.TCSETS, before) }, nil
}
