//go:build !linux

package lab

import (
	"errors"
	"runtime"
)

var errNotLinux = errors.New("network namespaces exist on Linux only, this is " + runtime.GOOS)

// Enter runs fn in a sandbox. There is none on this system.
func Enter(func() int) (int, error) { return 0, errNotLinux }
