package filewatch

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// trail is what lies on the way to some paths: every folder that a name is
// looked up in, through symbolic links, and the files at the end.
type trail struct {
	match   func(name string) bool
	folders []*folder // a parent before what is in it
	byPath  map[string]*folder
	files   []string // without symbolic links on the way
	sum     hash.Hash
}

// folder is a folder on a trail, without symbolic links on the way.
type folder struct {
	path  string
	info  fs.FileInfo
	names map[string]bool // that are looked up in it
	whole bool            // a path ends here: names that match are of interest, too
}

// follow makes the trail of paths.
func follow(paths []string, match func(name string) bool) *trail {
	t := &trail{match: match, byPath: make(map[string]*folder), sum: sha256.New()}
	for _, path := range paths {
		absolute, err := filepath.Abs(path)
		if err != nil {
			t.note(path, err)
			continue
		}
		end := t.walk(absolute)
		if end == nil {
			continue
		}
		end.whole = true
		entries, err := os.ReadDir(end.path)
		t.note(end.path, err)
		for _, entry := range entries {
			if match == nil || match(entry.Name()) {
				t.walk(filepath.Join(end.path, entry.Name()))
			}
		}
	}
	return t
}

// maxLinks is how many symbolic links the kernel follows on one way
// (MAXSYMLINKS in <linux/namei.h>).
const maxLinks = 40

// walk follows an absolute path. It returns the folder where the path ends, if
// it ends in one.
func (t *trail) walk(path string) *folder {
	at, rest, links := string(filepath.Separator), steps(path), 0
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			at = filepath.Dir(at)
			continue
		}
		t.folder(at).names[name] = true
		here := filepath.Join(at, name)
		info, err := os.Lstat(here)
		switch {
		case err != nil:
			t.note(here, err)
			return nil
		case info.IsDir():
			at = here
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(here)
			if links++; err == nil && links > maxLinks {
				err = unix.ELOOP
			}
			if err != nil {
				t.note(here, err)
				return nil
			}
			if filepath.IsAbs(target) {
				at = string(filepath.Separator)
			}
			rest = append(steps(target), rest...)
		default:
			t.file(here, info)
			return nil // or the path goes on behind a file, and leads nowhere
		}
	}
	t.note(at, nil)
	return t.folder(at)
}

func steps(path string) []string { return strings.Split(path, string(filepath.Separator)) }

// folder is the folder at a path. The same one at two paths, by a bind mount,
// has one entry: it has one inotify watch, whose events bear the first path.
func (t *trail) folder(path string) *folder {
	if f := t.byPath[path]; f != nil {
		return f
	}
	info, err := os.Lstat(path)
	if err == nil {
		i := slices.IndexFunc(t.folders, func(f *folder) bool { return f.info != nil && os.SameFile(f.info, info) })
		if i >= 0 {
			t.byPath[path] = t.folders[i]
			return t.folders[i]
		}
	}
	f := &folder{path: path, info: info, names: make(map[string]bool)}
	t.folders, t.byPath[path] = append(t.folders, f), f
	return f
}

// file notes a file at the end of a path.
func (t *trail) file(path string, info fs.FileInfo) {
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	// The change time moves with every write, also where somebody sets the
	// modification time.
	t.note(path, err, st.Dev, st.Ino, st.Mode, st.Size, st.Mtim, st.Ctim)
	if info.Mode().IsRegular() {
		t.files = append(t.files, path)
	}
}

// note adds a finding to the fingerprint.
func (t *trail) note(path string, err error, facts ...any) {
	var code unix.Errno
	if err != nil && !errors.As(err, &code) {
		facts = append(facts, err.Error())
	}
	fmt.Fprintf(t.sum, "%q %d %v\n", path, code, facts) // a hash takes everything
}

// watched is all that is to be watched, a parent before what is in it. A file
// is watched beside its folder: what writes to it by another name, a hard link
// or a bind mount of the file alone, is not seen in the folder.
func (t *trail) watched() []string {
	var list []string
	for _, f := range t.folders {
		list = append(list, f.path)
	}
	return append(list, slices.Compact(slices.Sorted(slices.Values(t.files)))...)
}

// leadsOver says whether a change under that name may change what is at the end
// of the paths.
func (t *trail) leadsOver(name string) bool {
	f, base := t.byPath[filepath.Dir(name)], filepath.Base(name)
	return f != nil && (f.names[base] || f.whole && (t.match == nil || t.match(base)))
}

// equal says whether two trails lead the same way, through the same folders.
func (t *trail) equal(o *trail) bool {
	return slices.Equal(t.files, o.files) && slices.EqualFunc(t.folders, o.folders, func(a, b *folder) bool {
		return a.path == b.path && os.SameFile(a.info, b.info) && a.whole == b.whole && maps.Equal(a.names, b.names)
	})
}

// Fingerprint stands for what paths lead to: which files there are, through
// which symbolic links, and their inodes, sizes and times. Paths and match are
// as with New. It reads no content.
//
// One that is the same before and after a reading says that what was read was
// whole, as far as clock ticks go (10 ms on file systems without finer times)
// and unless a writer pauses between two writes.
func Fingerprint(paths []string, match func(name string) bool) [sha256.Size]byte {
	return [sha256.Size]byte(follow(paths, match).sum.Sum(nil))
}
