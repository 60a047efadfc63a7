//go:build !linux

package nflog

import (
	"context"
	"errors"
)

var errNotLinux = errors.New("NFLOG exists on Linux only")

// ErrLost says that messages were lost, on Linux.
var ErrLost = errors.New("messages were lost")

// Listener receives packets that are logged, on Linux.
type Listener struct{}

// Listen fails: there is no NFLOG here.
func Listen(uint16) (*Listener, error) { return nil, errNotLinux }

// Close does nothing.
func (*Listener) Close() error { return nil }

// Next fails.
func (*Listener) Next(context.Context) (Message, error) { return Message{}, errNotLinux }
