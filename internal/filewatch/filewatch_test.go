package filewatch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"pgregory.net/rapid"
)

// fataler is what testing.T and rapid.T have in common.
type fataler interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

func must(t fataler, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// temp is a folder whose name has no symbolic links in it.
func temp(t testing.TB) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	return dir
}

func isHCL(name string) bool {
	return strings.HasSuffix(name, ".hcl") && !strings.HasPrefix(name, ".")
}

// read is what a reader of the paths finds: of a folder, the files that match.
func read(paths []string) string {
	var b strings.Builder
	for _, path := range paths {
		names := []string{path}
		if entries, err := os.ReadDir(path); err == nil {
			names = names[:0]
			for _, e := range entries {
				if isHCL(e.Name()) {
					names = append(names, filepath.Join(path, e.Name()))
				}
			}
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			var failure *os.PathError
			if errors.As(err, &failure) {
				err = failure.Err
			}
			fmt.Fprintf(&b, "%s: %s %v\n", name, text, err)
		}
	}
	return b.String()
}

// delivered waits for a delivery.
func delivered(t fataler, w *Watcher, what string) {
	t.Helper()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	select {
	case <-w.Changes():
	case <-deadline.C:
		t.Fatalf("%s: nothing is delivered", what)
	}
}

// reader reads the paths whenever a change is delivered.
type reader struct {
	*Watcher
	t     fataler
	paths []string
	last  string
}

func newReader(t fataler, paths ...string) *reader {
	t.Helper()
	w, err := New(paths, isHCL)
	must(t, err)
	must(t, w.Err())
	return &reader{Watcher: w, t: t, paths: paths, last: read(paths)}
}

// sees waits until the last reading after a delivery is what is there.
func (r *reader) sees(what string) {
	r.t.Helper()
	for want := read(r.paths); r.last != want; r.last = read(r.paths) {
		delivered(r.t, r.Watcher, fmt.Sprintf("%s: after\n%sthere is\n%s", what, r.last, want))
	}
}

// stepper is a Watcher in slow motion: it looks at events when it is told to.
type stepper struct {
	*Watcher
	t        fataler
	dir      string // in which the paths are
	barriers int
}

func newStepper(t fataler, dir string, paths ...string) *stepper {
	t.Helper()
	w, err := newWatcher(paths, isHCL)
	must(t, err)
	must(t, w.Err())
	return &stepper{Watcher: w, t: t, dir: dir}
}

// settle does all that the Watcher has to do about what has happened, and says
// whether it delivers then.
func (s *stepper) settle() bool {
	s.t.Helper()
	for {
		s.barriers++
		barrier := filepath.Join(s.dir, fmt.Sprintf("barrier-%d", s.barriers))
		must(s.t, os.Mkdir(barrier, 0o755))
		for event := range s.fs.Events {
			if s.sort(event); event.Name == barrier {
				break
			}
		}
		select {
		case <-s.moved:
			s.retrace()
			continue
		default:
		}
		select {
		case <-s.changes:
			return true
		default:
			return false
		}
	}
}

// Each way of changing a file is told of.
func TestEveryWayOfChanging(t *testing.T) {
	type step struct {
		what string
		do   func(dir string) error
	}
	write := func(name, text string) step {
		return step{"write " + name, func(dir string) error {
			name := filepath.Join(dir, name)
			return errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o644))
		}}
	}
	rename := func(from, to string) step {
		return step{"rename " + from + " to " + to, func(dir string) error {
			return os.Rename(filepath.Join(dir, from), filepath.Join(dir, to))
		}}
	}
	link := func(target, name string) step { // in one step, as ln -sfn does not
		return step{"link " + name + " to " + target, func(dir string) error {
			name := filepath.Join(dir, name)
			return errors.Join(os.Symlink(target, name+".tmp"), os.Rename(name+".tmp", name))
		}}
	}
	hardLink := func(from, to string) step {
		return step{"hard link " + to + " to " + from, func(dir string) error {
			return os.Link(filepath.Join(dir, from), filepath.Join(dir, to))
		}}
	}
	absoluteLink := func(target, name string) step {
		return step{"link " + name + " to /" + target, func(dir string) error {
			return os.Symlink(filepath.Join(dir, target), filepath.Join(dir, name))
		}}
	}
	remove := func(name string) step {
		return step{"remove " + name, func(dir string) error { return os.RemoveAll(filepath.Join(dir, name)) }}
	}
	appendTo := func(name string) step {
		return step{"append to " + name, func(dir string) error {
			f, err := os.OpenFile(filepath.Join(dir, name), os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteString("more")
			return errors.Join(err, f.Close())
		}}
	}
	truncate := func(name string) step {
		return step{"truncate " + name, func(dir string) error { return os.Truncate(filepath.Join(dir, name), 1) }}
	}
	for name, c := range map[string]struct {
		paths []string
		steps []step
	}{
		"in place":                {[]string{"a.hcl"}, []step{write("a.hcl", "1"), write("a.hcl", "22"), appendTo("a.hcl"), truncate("a.hcl")}},
		"renamed over":            {[]string{"a.hcl"}, []step{write("a.hcl", "1"), write("b", "2"), rename("b", "a.hcl"), write("b", "3"), rename("b", "a.hcl"), appendTo("a.hcl")}},
		"backed up":               {[]string{"a.hcl"}, []step{write("a.hcl", "1"), rename("a.hcl", "a.hcl~"), write("a.hcl", "2"), remove("a.hcl~"), appendTo("a.hcl")}},
		"removed":                 {[]string{"a.hcl"}, []step{write("a.hcl", "1"), remove("a.hcl"), write("a.hcl", "2")}},
		"behind a link":           {[]string{"a.hcl"}, []step{write("x/f", "1"), link("x/f", "a.hcl"), appendTo("x/f"), write("y/f", "2"), link("y/f", "a.hcl"), appendTo("y/f"), remove("y"), write("y/f", "3")}},
		"chain of links":          {[]string{"l1"}, []step{write("x/f", "1"), link("l2/f", "l1"), link("l3", "l2"), link("x", "l3"), appendTo("x/f"), write("y/f", "2"), link("y", "l3"), link("x", "l2"), appendTo("x/f")}},
		"a circle of links":       {[]string{"l1"}, []step{link("l2", "l1"), link("l1", "l2"), write("f", "1"), link("f", "l2"), appendTo("f")}},
		"links upwards":           {[]string{"x/y/l/f"}, []step{write("x/f", "1"), write("x/y/z", ""), link("../../x", "x/y/l"), appendTo("x/f"), link("..", "x/y/l"), remove("x/f"), write("x/f", "2")}},
		"ConfigMap file":          {[]string{"spec.hcl"}, []step{write("..1/spec.hcl", "1"), link("..1", "..data"), link("..data/spec.hcl", "spec.hcl"), write("..2/spec.hcl", "2"), link("..2", "..data"), remove("..1"), write("..3/spec.hcl", "3"), link("..3", "..data"), remove("..2")}},
		"ConfigMap folder":        {[]string{"."}, []step{write("..1/spec.hcl", "1"), link("..1", "..data"), link("..data/spec.hcl", "spec.hcl"), write("..2/spec.hcl", "2"), write("..2/more.hcl", "2"), link("..2", "..data"), link("..data/more.hcl", "more.hcl"), remove("..1"), remove("more.hcl")}},
		"late folder":             {[]string{"x/y/z/a.hcl"}, []step{write("x/b", ""), write("x/y/b", ""), write("x/y/z/a.hcl", "1"), appendTo("x/y/z/a.hcl")}},
		"folder again":            {[]string{"x/y/a.hcl"}, []step{write("x/y/a.hcl", "1"), remove("x"), write("x/y/a.hcl", "2"), appendTo("x/y/a.hcl"), remove("x/y"), write("x/y/a.hcl", "3")}},
		"parent renamed":          {[]string{"x/y/a.hcl"}, []step{write("x/y/a.hcl", "1"), rename("x", "w"), write("x/y/a.hcl", "2"), remove("x"), rename("w", "x"), appendTo("x/y/a.hcl")}},
		"folder swapped":          {[]string{"x"}, []step{write("x/a.hcl", "1"), write("w/a.hcl", "2"), rename("x", "v"), rename("w", "x"), appendTo("x/a.hcl"), write("x/b.hcl", "3")}},
		"moved in":                {[]string{"x"}, []step{write("x/a.hcl", "1"), write("b.hcl", "2"), rename("b.hcl", "x/b.hcl"), appendTo("x/b.hcl"), rename("x/b.hcl", "b.hcl")}},
		"folder is a link":        {[]string{"x"}, []step{write("v/a.hcl", "1"), link("v", "x"), appendTo("v/a.hcl"), write("w/b.hcl", "2"), link("w", "x"), write("w/c.hcl", "3")}},
		"file becomes folder":     {[]string{"x"}, []step{write("x", "1"), remove("x"), write("x/a.hcl", "2"), remove("x"), write("x", "3")}},
		"folder in the way":       {[]string{"x/a.hcl"}, []step{write("x", "1"), remove("x"), write("x/a.hcl", "2")}},
		"through a hard link":     {[]string{"a.hcl"}, []step{write("a.hcl", "1"), hardLink("a.hcl", "b"), appendTo("b"), remove("a.hcl"), rename("b", "a.hcl"), appendTo("a.hcl")}},
		"several":                 {[]string{"a.hcl", "x", "y/b.txt"}, []step{write("a.hcl", "1"), write("y/b.txt", "2"), write("x/c.hcl", "3"), appendTo("y/b.txt"), appendTo("a.hcl"), appendTo("x/c.hcl")}},
		"by an absolute link":     {[]string{"x/l/f"}, []step{write("y/f", "1"), write("x/z", ""), absoluteLink("y", "x/l"), appendTo("y/f")}},
		"folder named as a file":  {[]string{"x"}, []step{write("x/z", ""), write("x/a.hcl/z", ""), remove("x/a.hcl")}},
		"linked out of a folder":  {[]string{"x"}, []step{write("x/z", ""), write("w/f", "1"), link("../w/f", "x/a.hcl"), appendTo("w/f"), remove("w"), write("w/f", "2")}},
		"unreadable and readable": {[]string{"a.hcl"}, []step{write("a.hcl", "1"), {"chmod", func(dir string) error { return os.Chmod(filepath.Join(dir, "a.hcl"), 0o600) }}, appendTo("a.hcl")}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := temp(t)
			var paths []string
			for _, path := range c.paths {
				paths = append(paths, filepath.Join(dir, path))
			}
			w := newStepper(t, dir, paths...)
			defer func() { must(t, w.Close()) }()
			for _, s := range c.steps {
				before, was := read(paths), Fingerprint(paths, isHCL)
				must(t, s.do(dir))
				told := w.settle()
				if read(paths) == before {
					continue
				}
				if !told {
					t.Errorf("%s: not told of", s.what)
				}
				if Fingerprint(paths, isHCL) == was {
					t.Errorf("%s: the same fingerprint", s.what)
				}
			}
		})
	}
}

// The changes of other files are not told of.
func TestOthersAreNotToldOf(t *testing.T) {
	dir := temp(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"x", "spec"} {
		must(t, os.Mkdir(at(name), 0o755))
	}
	must(t, os.WriteFile(at("x/a.hcl"), nil, 0o644))
	paths := []string{at("x/a.hcl"), at("spec")}
	w := newStepper(t, dir, paths...)
	was := Fingerprint(paths, isHCL)
	for _, name := range []string{"x/.a.hcl.swp", "x/4913", "x/b.hcl", "x/a.hcl~", "spec/.b.hcl.swp", "spec/notes.txt", "a.hcl"} {
		must(t, os.WriteFile(at(name), []byte(name), 0o644))
		must(t, os.Rename(at(name), at(name)+".old"))
		must(t, os.Remove(at(name)+".old"))
		if w.settle() {
			t.Errorf("told of %s", name)
		}
	}
	if Fingerprint(paths, isHCL) != was {
		t.Error("they change the fingerprint")
	}
	must(t, os.WriteFile(at("spec/b.hcl"), nil, 0o644))
	if !w.settle() {
		t.Error("not told of what matters")
	}
	must(t, w.Close())
}

// After an overflow of the kernel's queue, which has lost that a folder is
// another one, everything is looked for anew.
func TestOverflow(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "x", "a.hcl")
	must(t, os.Mkdir(filepath.Dir(file), 0o755))
	must(t, os.WriteFile(file, []byte("old"), 0o644))
	w, err := newWatcher([]string{file}, isHCL)
	must(t, err)
	r := &reader{Watcher: w, t: t, paths: []string{file}, last: read([]string{file})}
	noise, err := os.Create(filepath.Join(dir, "x", "noise"))
	must(t, err)
	limit := 16384 // fs.inotify.max_queued_events
	if text, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events"); err == nil {
		_, err := fmt.Sscan(string(text), &limit)
		must(t, err)
	}
	// Two files in turn, since equal events that follow each other are one.
	for range limit + 5000 {
		_, err := noise.WriteString("x")
		must(t, errors.Join(err, os.Chmod(noise.Name(), 0o600)))
	}
	must(t, noise.Close())
	must(t, os.Rename(filepath.Dir(file), filepath.Join(dir, "y")))
	must(t, os.Mkdir(filepath.Dir(file), 0o755))
	must(t, os.WriteFile(file, []byte("new"), 0o644))
	w.running.Go(w.listen)
	w.running.Go(w.maintain)
	r.sees("overflow")
	must(t, os.WriteFile(file, []byte("newer"), 0o644))
	r.sees("after the overflow")
	must(t, r.Close())
}

// Any error of fsnotify may stand for lost events.
func TestErrorsAreChanges(t *testing.T) {
	r := newReader(t, filepath.Join(t.TempDir(), "a.hcl"))
	r.fs.Errors <- fsnotify.ErrEventOverflow
	delivered(t, r.Watcher, "overflow")
	must(t, r.Close())
}

// Set watches other paths.
func TestSet(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "x", "a.hcl"), filepath.Join(dir, "y", "b.hcl")
	for _, name := range []string{a, b} {
		must(t, os.Mkdir(filepath.Dir(name), 0o755))
		must(t, os.WriteFile(name, nil, 0o644))
	}
	r := newReader(t, a)
	r.Set([]string{a})
	select {
	case <-r.Changes():
		t.Error("told of a change where nothing changed")
	default:
	}
	r.Set([]string{b})
	delivered(t, r.Watcher, "b may have changed before it was watched")
	r.paths, r.last = []string{b}, read([]string{b})
	must(t, os.WriteFile(b, []byte("1"), 0o644))
	r.sees("the new path")
	if r.trail.Load().leadsOver(a) {
		t.Error("the old path is watched still")
	}
	must(t, r.Close())
	if r.Set([]string{a}); r.Err() == nil {
		t.Error("a closed Watcher watches")
	}
}

// A folder that may not be read is told of, and the rest is watched.
func TestUnreadableFolder(t *testing.T) {
	if os.Geteuid() == 0 && runtime.GOOS == "linux" {
		t.Skip("root reads everything")
	}
	dir := t.TempDir()
	closed := filepath.Join(dir, "x")
	must(t, os.Mkdir(closed, 0o111))
	w, err := New([]string{filepath.Join(closed, "a.hcl")}, isHCL)
	must(t, err)
	if err := w.Err(); !errors.Is(err, os.ErrPermission) {
		t.Errorf("error %v, want %v", err, os.ErrPermission)
	}
	must(t, os.Chmod(closed, 0o755))
	delivered(t, w, "it may be read now")
	must(t, errors.Join(w.Err(), w.Close()))
}

// A link is pointed elsewhere while the watches are being made for where it
// led before. The content behind its last target is written later.
func TestLinkMovesMeanwhile(t *testing.T) {
	dir := temp(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"x", "y"} {
		must(t, os.Mkdir(at(name), 0o755))
		must(t, os.WriteFile(at(name+"/f"), []byte(name), 0o644))
	}
	must(t, os.Symlink("x", at("link")))
	r := newReader(t, at("link/f"))
	for round := range 100 {
		var last string
		for i := range 10 + round%7 {
			last = []string{"x", "y"}[i%2]
			must(t, errors.Join(os.Symlink(last, at("spare")), os.Rename(at("spare"), at("link"))))
		}
		r.sees("links")
		must(t, os.WriteFile(at(last+"/f"), fmt.Append(nil, last, round), 0o644))
		r.sees("content")
	}
	must(t, r.Close())
}

// operate does something to one of a few names.
func operate(t *rapid.T, dir string, i int) {
	name, other := drawName(t, dir, "name"), drawName(t, dir, "other")
	text := []byte(strings.Repeat("x", i) + fmt.Sprint(i))
	spare := filepath.Join(dir, "spare")
	must(t, os.RemoveAll(spare))
	// Many fail, where something is in the way. So they do in life.
	switch rapid.IntRange(0, 8).Draw(t, "operation") {
	case 0, 1:
		_ = os.WriteFile(name, text, 0o644)
	case 2:
		must(t, os.WriteFile(spare, text, 0o644))
		_ = os.Rename(spare, name)
	case 3:
		_ = os.Mkdir(name, 0o755)
	case 4:
		_ = os.RemoveAll(name)
	case 5:
		_ = os.Rename(name, other)
	case 6:
		_ = os.Symlink(other, name)
	case 7:
		target, err := filepath.Rel(filepath.Dir(name), other)
		must(t, errors.Join(err, os.Symlink(target, spare)))
		_ = os.Rename(spare, name)
	case 8:
		_ = os.Link(name, other)
	}
}

func drawName(t *rapid.T, dir, what string) string {
	return filepath.Join(dir, rapid.SampledFrom([]string{
		"a.hcl", "b.hcl", "x", "y", "x/a.hcl", "x/b.hcl", "y/a.hcl", "y/x", "x/y", "y/x/a.hcl",
	}).Draw(t, what))
}

// Whatever is done, any number of operations at a time: if there is something
// else to read after them, that is told of, and shows in the fingerprint.
func TestPropertyChangesAreToldOf(t *testing.T) {
	base, n := temp(t), 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		dir := filepath.Join(base, fmt.Sprint(n))
		must(t, os.Mkdir(dir, 0o755))
		paths := []string{drawName(t, dir, "path"), drawName(t, dir, "path")}
		w := newStepper(t, dir, paths...)
		last, was := read(paths), Fingerprint(paths, isHCL)
		for i := range rapid.IntRange(1, 25).Draw(t, "operations") {
			if operate(t, dir, i); rapid.Bool().Draw(t, "more") {
				continue
			}
			told, now := w.settle(), read(paths)
			if now != last && !told {
				t.Fatalf("not told of a change from\n%sto\n%s", last, now)
			}
			if now != last && Fingerprint(paths, isHCL) == was {
				t.Fatalf("the same fingerprint after a change from\n%sto\n%s", last, now)
			}
			last, was = now, Fingerprint(paths, isHCL)
		}
		must(t, errors.Join(w.Close(), os.RemoveAll(dir)))
	})
}

// However readings fall between operations, the last reading after a delivery
// is what is there.
func TestPropertyLastReadingIsTheLatest(t *testing.T) {
	base, n := temp(t), 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		dir := filepath.Join(base, fmt.Sprint(n))
		must(t, os.Mkdir(dir, 0o755))
		r := newReader(t, drawName(t, dir, "path"), drawName(t, dir, "path"), drawName(t, dir, "path"))
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				select {
				case <-r.Changes():
					r.last = read(r.paths)
				case <-stop:
					return
				}
			}
		}()
		for i := range rapid.IntRange(1, 30).Draw(t, "operations") {
			operate(t, dir, i)
		}
		close(stop)
		<-stopped
		r.sees("in the end")
		must(t, errors.Join(r.Close(), os.RemoveAll(dir)))
	})
}
