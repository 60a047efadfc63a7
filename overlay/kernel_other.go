//go:build !linux

package overlay

import (
	"context"
	"errors"
	"net/netip"

	"github.com/poldernet/polder/spec"
)

var errNotLinux = errors.New("this host's kernel is not Linux: polder can validate a spec here, but neither read nor change a network")

// Reader reads nothing here.
type Reader struct{}

// OpenReader fails: there is no Linux kernel to read.
func OpenReader() (*Reader, error) { return nil, errNotLinux }

// Close does nothing.
func (*Reader) Close() error { return nil }

// Read fails.
func (*Reader) Read(context.Context, Scope) (*Observed, error) { return nil, errNotLinux }

// Refresh fails.
func (*Reader) Refresh(context.Context, *Observed, Class) (*Observed, error) {
	return nil, errNotLinux
}

// Ask fails.
func (*Reader) Ask(*Observed, *spec.Spec, *spec.Node, []*spec.Node, []*spec.Node) (bool, error) {
	return false, errNotLinux
}

// Sysctls fails.
func (*Reader) Sysctls([]string) (map[string]string, error) { return nil, errNotLinux }

// ForwardingResets fails.
func (*Reader) ForwardingResets(spec.Family) (map[string]string, error) { return nil, errNotLinux }

// Writer writes nothing here.
type Writer struct{}

// OpenWriter fails: there is no Linux kernel to write.
func OpenWriter(string) (*Writer, error) { return nil, errNotLinux }

// Close does nothing.
func (*Writer) Close() error { return nil }

// Apply reports every operation as failed.
func (*Writer) Apply(_ context.Context, ops []Op, report func(i int, err error)) {
	for i := range ops {
		report(i, errNotLinux)
	}
}

// Forget fails.
func (*Writer) Forget(string, []netip.Addr) error { return errNotLinux }

// Watcher hears nothing here.
type Watcher struct{}

// OpenWatcher fails: there is no Linux kernel to listen to.
func OpenWatcher() (*Watcher, error) { return nil, errNotLinux }

// Next fails.
func (*Watcher) Next(context.Context) ([]Event, error) { return nil, errNotLinux }

// Close does nothing.
func (*Watcher) Close() error { return nil }
