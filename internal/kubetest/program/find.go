package program

import (
	"context"
	"debug/buildinfo"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

// Need is the path of a program. Where it is not built, the test is skipped; it
// fails if the environment says that the program must be there.
func Need(t testing.TB, p *Program) string {
	t.Helper()
	path, err := p.Find(t.Context())
	switch {
	case err == nil:
		return path
	case os.Getenv(p.require) == "require":
		t.Fatalf("this test needs %s, which `./task %s` builds: %v", p.Name, p.Task, err)
	default:
		t.Skipf("this test needs %s, which `./task %s` builds: %v", p.Name, p.Task, err)
	}
	return ""
}

// Find is the path of a program that is built already. It asks the build cache
// by its files: `go tool -n` would build the program, for a quarter of an hour.
func (p *Program) Find(ctx context.Context) (string, error) {
	place, err := locate(ctx)
	if err != nil {
		return "", err
	}
	sums, err := os.ReadFile(filepath.Join(place.module, folder, strings.TrimSuffix(p.modfile, ".mod")+".sum"))
	if err != nil {
		return "", err
	}
	// A program is in a folder that has the hash of its content as its name
	// (cmd/go/internal/cache, PutExecutable).
	shelves, err := filepath.Glob(filepath.Join(place.cache, "[0-9a-f][0-9a-f]"))
	if err != nil {
		return "", err
	}
	for _, shelf := range shelves {
		entries, err := os.ReadDir(shelf)
		if err != nil {
			return "", err
		}
		for _, e := range entries {
			if !e.IsDir() {
				continue
			}
			path := filepath.Join(shelf, e.Name(), p.file)
			if info, err := buildinfo.ReadFile(path); err == nil && p.made(info, string(sums)) {
				return path, nil
			}
		}
	}
	return "", fmt.Errorf("it is not in %s", place.cache)
}

// made says whether a program is what would be built now: by this Go, of modules
// that the modfile's checksums name.
func (p *Program) made(info *debug.BuildInfo, sums string) bool {
	if info.Path != p.pkg || info.GoVersion != runtime.Version() {
		return false
	}
	for _, s := range info.Settings {
		if s.Key == "CGO_ENABLED" && s.Value != p.cgoEnabled() || s.Key == "-race" {
			return false
		}
	}
	for _, m := range append(info.Deps, &info.Main) {
		if m.Replace != nil {
			m = m.Replace
		}
		// A folder of ours that replaces a module has no checksum.
		if m.Sum != "" && !strings.Contains(sums, m.Path+" "+m.Version+" "+m.Sum+"\n") {
			return false
		}
	}
	return true
}
