package filewatch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/poldernet/polder/internal/lab"
)

func TestMain(m *testing.M) { lab.Main(m) } // in which mounting is allowed

// bind mounts what is at one path at another one, too.
func bind(t *testing.T, from, to string) {
	t.Helper()
	must(t, unix.Mount(from, to, "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(t, unix.Unmount(to, 0)) })
}

// What is written under one name of a folder or a file is told of under
// another one, that a bind mount gave it.
func TestBindMounts(t *testing.T) {
	lab.Require(t)
	dir := temp(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"x", "y", "z"} {
		must(t, os.Mkdir(at(name), 0o755))
	}
	for _, name := range []string{"x/a.hcl", "x/b.hcl", "z/mounted.hcl", "z/original"} {
		must(t, os.WriteFile(at(name), nil, 0o644))
	}
	bind(t, at("x"), at("y"))
	bind(t, at("z/original"), at("z/mounted.hcl"))
	w := newStepper(t, dir, at("x/a.hcl"), at("y/b.hcl"), at("y/late.hcl"), at("z/mounted.hcl"))
	for _, name := range []string{"x/a.hcl", "y/a.hcl", "x/b.hcl", "y/b.hcl", "y/late.hcl", "z/original", "z/mounted.hcl"} {
		if must(t, os.WriteFile(at(name), []byte(name), 0o644)); !w.settle() {
			t.Errorf("not told that %s was written", name)
		}
	}
	must(t, w.Close())
}

// inotifyWatches is the number of watches that the process has, as the kernel
// counts them, and how many file descriptors.
func inotifyWatches(t *testing.T) (watches, files int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fdinfo")
	must(t, err)
	for _, e := range entries {
		text, err := os.ReadFile("/proc/self/fdinfo/" + e.Name())
		if errors.Is(err, os.ErrNotExist) {
			continue // the folder itself
		}
		must(t, err)
		watches += strings.Count(string(text), "inotify wd:")
		files++
	}
	return watches, files
}

// A thousand changes, as Kubernetes makes them to a mounted ConfigMap, are all
// seen, and leave nothing behind: no watch, no file, no goroutine.
func TestNothingLeaks(t *testing.T) {
	swaps := 1000
	if testing.Short() {
		swaps = 50
	}
	dir := temp(t)
	watchesBefore, filesBefore := inotifyWatches(t)
	before := runtime.NumGoroutine()
	version := func(i int) string { return filepath.Join(dir, fmt.Sprintf("..%d", i)) }
	swap := func(i int) {
		must(t, os.Mkdir(version(i), 0o755))
		must(t, os.WriteFile(filepath.Join(version(i), "a.hcl"), fmt.Append(nil, i), 0o644))
		must(t, os.Symlink(filepath.Base(version(i)), filepath.Join(dir, "..data_tmp")))
		must(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	}
	swap(0)
	must(t, os.Symlink("..data/a.hcl", filepath.Join(dir, "a.hcl")))
	r := newReader(t, dir)
	for i := 1; i <= swaps; i++ {
		swap(i)
		if r.sees(fmt.Sprint(i)); !strings.Contains(r.last, fmt.Sprint(": ", i)) {
			t.Fatalf("read was\n%safter swap %d", r.last, i)
		}
		if i%2 == 0 { // half of the old ones live on, so that their inodes do
			must(t, os.RemoveAll(version(i-1)))
		}
	}
	// What is left of the last swap's events may renew the watches still; then
	// they are as many.
	r.mu.Lock()
	want := len(r.watched)
	watches, _ := inotifyWatches(t)
	r.mu.Unlock()
	if watches-watchesBefore != want {
		t.Errorf("%d watches for %d paths", watches-watchesBefore, want)
	}
	must(t, r.Close())
	if watches, files := inotifyWatches(t); watches != watchesBefore || files != filesBefore {
		t.Errorf("%d watches and %d files are left of %d and %d", watches, files, watchesBefore, filesBefore)
	}
	// One that has told that it ends may be counted for a moment longer; one that
	// stays is shown by the stacks when the test's time is over.
	for runtime.NumGoroutine() > before {
		runtime.Gosched()
	}
}
