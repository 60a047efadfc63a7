package conflist

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Install makes the plugin in a directory a copy of this program, and returns its
// path. The file is replaced, not written to: a program that runs cannot be written
// to (ETXTBSY), and one that is half written must not be run.
func Install(dir string) (to string, err error) {
	to = filepath.Join(dir, "polder")
	self, err := os.Executable()
	if err != nil {
		return to, err
	}
	from, err := os.Open(self)
	if err != nil {
		return to, err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	// Of one name: what a run leaves that was killed, the next one takes away.
	next := filepath.Join(dir, ".polder.new")
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return to, err
	}
	if err := writeProgram(next, from); err != nil {
		return to, err
	}
	return to, os.Rename(next, to)
}

// writeProgram writes a new file that all may run, whatever the umask is.
func writeProgram(path string, content io.Reader) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o700)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := io.Copy(f, content); err != nil {
		return err
	}
	if err := f.Chmod(0o755); err != nil {
		return err
	}
	// Or the name could be on the disk before the content is, at a power cut.
	return f.Sync()
}
