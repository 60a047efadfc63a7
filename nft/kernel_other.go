//go:build !linux

package nft

import (
	"context"
	"errors"
)

var errNotLinux = errors.New("nftables exists on Linux only")

// Reader reads rulesets from the kernel, on Linux.
type Reader struct{}

// OpenReader fails: there are no nftables here.
func OpenReader() (*Reader, error) { return nil, errNotLinux }

// Close does nothing.
func (*Reader) Close() error { return nil }

// Generation fails.
func (*Reader) Generation() (Generation, error) { return 0, errNotLinux }

// Read fails.
func (*Reader) Read(context.Context, ...TableID) (Ruleset, Generation, error) {
	return nil, 0, errNotLinux
}

// Counters fails.
func (*Reader) Counters(context.Context, TableID) (map[string]CounterValue, error) {
	return nil, errNotLinux
}

// ForeignDrops fails.
func (*Reader) ForeignDrops(context.Context) ([]ForeignDrop, error) { return nil, errNotLinux }

// ChainNames fails.
func (*Reader) ChainNames() (map[TableID][]string, error) { return nil, errNotLinux }

// Foreign fails.
func (*Reader) Foreign(context.Context, func(TableID) bool) (map[TableID][]ForeignChain, Generation, error) {
	return nil, 0, errNotLinux
}

// Writer commits plans, on Linux.
type Writer struct{}

// OpenWriter fails: there are no nftables here.
func OpenWriter() (*Writer, error) { return nil, errNotLinux }

// Close does nothing.
func (*Writer) Close() error { return nil }

// Try fails.
func (*Writer) Try(context.Context, Table) error { return errNotLinux }

// Commit fails.
func (*Writer) Commit(context.Context, *Plan, Generation) (Generation, error) { return 0, errNotLinux }

// Remove fails.
func (*Writer) Remove(context.Context, []Removal, Generation) error { return errNotLinux }

// Watcher tells of commits, on Linux.
type Watcher struct{}

// OpenWatcher fails: there are no nftables here.
func OpenWatcher() (*Watcher, error) { return nil, errNotLinux }

// Close does nothing.
func (*Watcher) Close() error { return nil }

// Next fails.
func (*Watcher) Next(context.Context) (Commit, error) { return Commit{}, errNotLinux }
