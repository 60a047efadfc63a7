package reconcile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/poldernet/polder/overlay"
	"github.com/poldernet/polder/spec"
)

// memory is what we changed on objects that are not ours, so that it can be
// put back: sysctls, and the bridge of an endpoint's interface. It lives in the
// state directory, by default below /run: after a reboot the kernel begins with
// its own values, and so does the memory.
type memory struct {
	Version int                   `json:"version"`
	Sysctls map[string]remembered `json:"sysctls"` // by path below /proc/sys
	Masters map[string]remembered `json:"masters"` // by link
	// Resets are values that the kernel overwrote, or will, along with a
	// forwarding switch, by path below /proc/sys.
	Resets map[string]string `json:"resets,omitempty"`
}

// remembered is one value, as it was and as we wrote it, or were about to.
type remembered struct {
	Before string `json:"before"`
	Ours   string `json:"ours"`
	// Former is what we had written before Ours, "" for nothing: an apply that
	// was killed may not have come to write Ours.
	Former string `json:"former,omitempty"`
}

// isOurs says that a value is there because of us.
func (r remembered) isOurs(value string) bool {
	return value == r.Ours || r.Former != "" && value == r.Former
}

// empty says that nothing is remembered: there is no file then.
func (m memory) empty() bool { return len(m.Sysctls)+len(m.Masters)+len(m.Resets) == 0 }

const memoryVersion = 1

func newMemory() memory {
	return memory{memoryVersion, map[string]remembered{}, map[string]remembered{}, map[string]string{}}
}

func memoryFile(dir string) string { return filepath.Join(dir, "remembered.json") }

func loadMemory(dir string) (memory, error) {
	m := newMemory()
	b, err := os.ReadFile(memoryFile(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return m, fmt.Errorf("reading what was remembered: %w", err)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("reading %s: %w: values from before polder are unknown; correct the file, or delete it to forget them", memoryFile(dir), err)
	}
	if m.Version != memoryVersion {
		return m, fmt.Errorf("%s is of version %d, and this polder knows version %d", memoryFile(dir), m.Version, memoryVersion)
	}
	return m, nil
}

// saveOver writes the memory where the old one is, which is known to be in the
// file, so that a crash leaves the old file or the new one. One that holds
// nothing leaves no file. Where nothing is new nothing is written: a state
// directory that has become read-only is then no hindrance.
func (m memory) saveOver(old memory, dir string) error {
	if maps.Equal(m.Sysctls, old.Sysctls) && maps.Equal(m.Masters, old.Masters) && maps.Equal(m.Resets, old.Resets) {
		return nil
	}
	file := memoryFile(dir)
	if m.empty() {
		for _, name := range []string{file, unfinished(file)} {
			if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("forgetting what was remembered: %w", err)
			}
		}
		return nil
	}
	b, err := json.MarshalIndent(m, "", "\t")
	if err != nil {
		return fmt.Errorf("remembering: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("remembering: %w", err)
	}
	if err := writeAtomically(file, append(b, '\n')); err != nil {
		return fmt.Errorf("remembering: %w", err)
	}
	return nil
}

// unfinished is the name of a file that is being written. There is one writer,
// because of the lock, and what a killed one leaves the next overwrites.
func unfinished(file string) string { return file + ".new" }

func writeAtomically(file string, b []byte) error {
	f, err := os.OpenFile(unfinished(file), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return os.Rename(f.Name(), file)
}

// advertised adds the links whose accept_ra we raised to those that get their
// default route from router advertisements: a route that has run out is no
// reason to stop listening for the next one.
func (m memory) advertised(facts overlay.Facts) overlay.Facts {
	links := slices.Clone(facts.RADefaults)
	for path := range m.Sysctls {
		link, ok := strings.CutPrefix(path, "net/ipv6/conf/")
		if !ok {
			continue
		}
		link, ok = strings.CutSuffix(link, "/accept_ra")
		if _, there := facts.Links[link]; ok && there && !slices.Contains(links, link) {
			links = append(links, link)
		}
	}
	facts.RADefaults = links
	return facts
}

// restore makes the values from before us part of what is desired, where the
// spec no longer wants ours and nobody has changed them since.
func (m memory) restore(desired *overlay.Desired, observed overlay.State) {
	for path, r := range m.Sysctls {
		if _, wanted := desired.Sysctls[path]; !wanted && r.isOurs(observed.Sysctls[path]) {
			desired.Sysctls[path] = r.Before
		}
	}
	for link, r := range m.Masters {
		port, there := observed.Ports[link]
		if there && !desired.Declared[link] && r.isOurs(port.Master) {
			port.Master, port.Hairpin = "", false
			// A bridge that is gone, or is to go, takes no port back.
			_, there := observed.Ports[r.Before]
			_, stays := desired.Links[r.Before]
			if there && (stays || !observed.Links[r.Before].Marked()) {
				port.Master = r.Before
			}
			desired.Ports[link] = port
		}
	}
}

// remember notes, before ops are applied, what they are about to change on
// objects that are not ours. It returns a copy.
func (m memory) remember(ops []overlay.Op, ours func(link string) bool) memory {
	next := m.clone()
	for _, op := range ops {
		path, before, after, ok := op.Sysctl()
		if _, reset := m.Resets[path]; ok && !reset && !ours(overlay.SysctlLink(path)) {
			note(next.Sysctls, path, before, after)
		}
		if link, before, after, ok := op.Enslaved(); ok && !ours(link) {
			note(next.Masters, link, before, after)
		}
	}
	return next
}

func note(values map[string]remembered, key, before, after string) {
	old, known := values[key]
	switch {
	case !known:
		values[key] = remembered{Before: before, Ours: after}
	case after == old.Before:
		// It is put back. Until that is done, ours is ours.
	case old.isOurs(before):
		values[key] = remembered{old.Before, after, before}
	default:
		values[key] = remembered{Before: old.Before, Ours: after}
	}
}

// resetBy is the forwarding switch with which the kernel sets another one.
func resetBy(path string) string {
	if strings.HasPrefix(path, "net/ipv6/") {
		return overlay.ForwardingSwitch(spec.IPv6)
	}
	return overlay.ForwardingSwitch(spec.IPv4)
}

// resets are the operations that put back what the kernel sets along with a
// forwarding switch that is put back, or was by a run that did not come so far.
func (m memory) resets(desired *overlay.Desired, observed overlay.State) []overlay.Op {
	var ops []overlay.Op
	for _, path := range slices.Sorted(maps.Keys(m.Resets)) {
		by := resetBy(path)
		r, known := m.Sysctls[by]
		want, wanted := desired.Sysctls[by]
		now, there := observed.Sysctls[path]
		putBack := known && want == r.Before && r.isOurs(observed.Sysctls[by])
		switch {
		case !there || wanted && want != "0":
		case putBack:
			ops = append(ops, overlay.SetSysctl(path, now, m.Resets[path], true))
		case now != m.Resets[path]:
			ops = append(ops, overlay.SetSysctl(path, now, m.Resets[path], false))
		}
	}
	return ops
}

// forget drops what has been put back, or has been changed by others, so that
// nothing is left to restore.
func (m memory) forget(desired *overlay.Desired, observed overlay.State) memory {
	next := m.clone()
	for path, r := range m.Sysctls {
		switch now := observed.Sysctls[path]; {
		case now == r.Ours:
			next.Sysctls[path] = remembered{Before: r.Before, Ours: r.Ours}
		case !r.isOurs(now) && desired.Sysctls[path] != r.Ours:
			delete(next.Sysctls, path)
		}
	}
	for path, value := range m.Resets {
		_, switched := next.Sysctls[resetBy(path)]
		if now, there := observed.Sysctls[path]; !switched && (now == value || !there) {
			delete(next.Resets, path)
		}
	}
	for link, r := range m.Masters {
		switch now := observed.Ports[link].Master; {
		case now == r.Ours:
			next.Masters[link] = remembered{Before: r.Before, Ours: r.Ours}
		case !r.isOurs(now):
			delete(next.Masters, link)
		}
	}
	return next
}

func (m memory) clone() memory {
	c := newMemory()
	for k, v := range m.Sysctls {
		c.Sysctls[k] = v
	}
	for k, v := range m.Masters {
		c.Masters[k] = v
	}
	for k, v := range m.Resets {
		c.Resets[k] = v
	}
	return c
}

// sysctls lists the switches that the memory knows.
func (m memory) sysctls() []string {
	paths := make([]string, 0, len(m.Sysctls))
	for path := range m.Sysctls {
		paths = append(paths, path)
	}
	for path := range m.Resets {
		paths = append(paths, path)
	}
	return paths
}
