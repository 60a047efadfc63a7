package lab

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Namespace is one machine of a lab: a network namespace, with the UTS
// namespace that holds its hostname and a mount namespace with a /run of its
// own. It lives as long as it is open or a process runs in it.
type Namespace struct {
	name string
	// Descriptors of /proc/thread-self/ns/*, in the order in which they are
	// entered.
	net, uts, mnt *os.File
	handle        *netlink.Handle
}

// kinds is what setns(2) is told about the descriptors of a Namespace.
var kinds = []struct {
	name string
	flag int
}{{"net", unix.CLONE_NEWNET}, {"uts", unix.CLONE_NEWUTS}, {"mnt", unix.CLONE_NEWNS}}

// NewNamespace makes a machine of that hostname, with its loopback up. It
// works in a sandbox only.
func NewNamespace(name string) (*Namespace, error) {
	if unavailable != nil {
		return nil, fmt.Errorf("making namespace %s: %w", name, unavailable)
	}
	n := &Namespace{name: name}
	if err := onNewThread(n.create); err != nil {
		return nil, errors.Join(fmt.Errorf("making namespace %s: %w", name, err), n.Close())
	}
	return n, nil
}

// onNewThread runs fn on a thread that ends with it. The goroutine is never
// unlocked from its thread, so that the runtime cannot give the thread, with
// its changed namespaces, to anybody else. Threads that the runtime starts
// meanwhile do not inherit them: while a goroutine is locked it starts threads
// from a clean template (runtime/proc.go, startTemplateThread).
func onNewThread(fn func() error) error {
	// A Goexit in fn (t.FailNow) closes the channel with nothing in it.
	done := make(chan error, 1)
	go func() {
		defer close(done)
		runtime.LockOSThread()
		done <- fn()
	}()
	err, ok := <-done
	if !ok {
		return errors.New("the function ended its goroutine; testing.T's FailNow must be called outside")
	}
	return err
}

func (n *Namespace) create() error {
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Sethostname([]byte(n.name)); err != nil {
		return fmt.Errorf("setting the hostname: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("mounting /run: %w", err)
	}
	// sysfs shows the network namespace of who mounts it. Only tools that read
	// /sys/class/net care, so that a container which masks /sys, for which the
	// kernel answers EPERM (fs/namespace.c, mount_too_revealing), is no reason
	// to stop.
	err := unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	if err != nil && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("mounting /sys: %w", err)
	}
	if err := raiseLoopback(); err != nil {
		return err
	}
	for i, f := range []**os.File{&n.net, &n.uts, &n.mnt} {
		if *f, err = os.Open("/proc/thread-self/ns/" + kinds[i].name); err != nil {
			return err
		}
	}
	n.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("opening rtnetlink: %w", err)
	}
	if err := n.handle.SetSocketTimeout(time.Minute); err != nil {
		return fmt.Errorf("limiting rtnetlink's answers: %w", err)
	}
	return nil
}

func raiseLoopback() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("finding lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("raising lo: %w", err)
	}
	return nil
}

// Name is the machine's hostname.
func (n *Namespace) Name() string { return n.name }

// Path is a file by which other programs of the sandbox find the network
// namespace, while it is open.
func (n *Namespace) Path() string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.net.Fd())
}

// Do runs fn on a thread of its own inside the namespace and returns its
// error. Sockets that fn opens stay in the namespace and may be used from
// anywhere afterwards. Goroutines that fn starts run outside. The working
// directory is kept.
func (n *Namespace) Do(fn func() error) error {
	dir, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("entering %s: %w", n.name, err)
	}
	return onNewThread(func() error {
		if err := n.enter(dir); err != nil {
			return fmt.Errorf("entering %s: %w", n.name, err)
		}
		return fn()
	})
}

// enter moves the calling thread, which must be locked and never be unlocked.
func (n *Namespace) enter(dir string) error {
	// A thread that shares its root and working directory with others may not
	// enter a mount namespace (setns(2)).
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	for i, f := range []*os.File{n.net, n.uts, n.mnt} {
		if err := unix.Setns(int(f.Fd()), kinds[i].flag); err != nil {
			return fmt.Errorf("setns %s: %w", kinds[i].name, err)
		}
	}
	// Entering a mount namespace leads to its root directory.
	if err := unix.Chdir(dir); err != nil {
		return fmt.Errorf("returning to %s: %w", dir, err)
	}
	return nil
}

// Close lets the namespace go. It ends with its last process.
func (n *Namespace) Close() error {
	var errs []error
	for _, f := range []*os.File{n.net, n.uts, n.mnt} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	if n.handle != nil {
		n.handle.Close()
	}
	return errors.Join(errs...)
}
