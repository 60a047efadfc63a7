//go:build !linux

package lab

import (
	"errors"
	"runtime"
)

var errNotLinux = errors.New("network namespaces exist on Linux only, this is " + runtime.GOOS)

// Enter runs fn in a sandbox. There is none on this system.
func Enter(func() int) (int, error) { return 0, errNotLinux }

// Namespace is one machine of a lab. It exists on Linux only.
type Namespace struct{}

// NewNamespace fails on this system.
func NewNamespace(string) (*Namespace, error) { return nil, errNotLinux }

// Name is the machine's hostname.
func (*Namespace) Name() string { return "" }

// Path is of no file.
func (*Namespace) Path() string { return "" }

// Do fails on this system.
func (*Namespace) Do(func() error) error { return errNotLinux }

// Close does nothing.
func (*Namespace) Close() error { return nil }
