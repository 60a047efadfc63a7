package lab

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestSocketName(t *testing.T) {
	a, err := socketName("default", 1000)
	if err != nil || a != "@polder-lab-1000-default" {
		t.Errorf("%q, %v", a, err)
	}
	// Two users' labs of one name are two labs.
	if b, err := socketName("default", 1001); err != nil || a == b {
		t.Errorf("%q, %v", b, err)
	}
	// sun_path has 108 bytes, of which the abstract name has 107.
	if long, err := socketName(strings.Repeat("a", 32), 1<<32-2); err != nil || len(long) > 107 {
		t.Errorf("%d bytes, %v", len(long), err)
	}
	for _, bad := range []string{"", "A", "-a", "a/b", "a\x00b", strings.Repeat("a", 33)} {
		if got, err := socketName(bad, 0); err == nil {
			t.Errorf("%q was accepted as %q", bad, got)
		}
	}
}

func TestWithPath(t *testing.T) {
	env, path := withPath([]string{"A=1", "PATH=/usr/bin", "B=2"})
	want := []string{"A=1", "B=2", "PATH=" + binDir + ":/usr/bin"}
	if !slices.Equal(env, want) || path != binDir+":/usr/bin" {
		t.Errorf("%q, %q", env, path)
	}
}

func TestLookPath(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"bin/tool": 0o755, "bin/data": 0o644, "other/tool": 0o755} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ program, path, want string }{
		{"tool", dir + "/other:" + dir + "/bin", "other/tool"},
		{"tool", "bin", "bin/tool"}, // PATH counts from the client's folder
		{"./bin/tool", "", "bin/tool"},
		{dir + "/bin/tool", "", "bin/tool"},
		{"data", dir + "/bin", ""}, // not executable
		{"nothing", dir + "/bin", ""},
	} {
		got, err := lookPath(c.program, c.path, dir)
		if c.want == "" {
			if !errors.Is(err, exec.ErrNotFound) {
				t.Errorf("%s: %q, %v", c.program, got, err)
			}
			continue
		}
		if err != nil || got != filepath.Join(dir, c.want) {
			t.Errorf("%s in %s: %q, %v", c.program, c.path, got, err)
		}
	}
}

func FuzzDecodeRequest(f *testing.F) {
	for _, r := range []request{{Down: true}, {Machine: "n1", Argv: []string{"ls"}, Env: []string{"A=1"}, Dir: "/", Terminal: true}, {Signal: 2}} {
		b, err := json.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRequest(b)
		if err == nil && !r.Down && len(r.Argv) == 0 {
			t.Fatalf("%+v asks for nothing", r)
		}
	})
}
