package program

import (
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

// TestFind looks into a cache without programs. That it finds nothing, and
// leaves nothing, says that it does not build.
func TestFind(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("GOCACHE", cache)
	shelf := filepath.Join(cache, "0a", "hash-d")
	if err := os.MkdirAll(shelf, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, p := range All {
		// Of its name, but nothing that Go has built.
		if err := os.WriteFile(filepath.Join(shelf, p.file), []byte("#!"), 0o700); err != nil {
			t.Fatal(err)
		}
		if path, err := p.Find(t.Context()); err == nil || !strings.Contains(err.Error(), cache) {
			t.Errorf("%s: %q, %v", p.Name, path, err)
		}
	}
	left, err := filepath.Glob(filepath.Join(cache, "??"))
	if err != nil || len(left) != 1 {
		t.Errorf("the cache has %v, %v", left, err)
	}
}

func TestMade(t *testing.T) {
	const sums = "a.test/main v1.2.3 h1:main=\na.test/main v1.2.3/go.mod h1:mod=\na.test/other v0.1.0 h1:other=\n"
	p := &Program{pkg: "a.test/main/cmd"}
	for want, change := range map[string]func(*debug.BuildInfo){
		"":                    func(*debug.BuildInfo) {},
		"another package":     func(i *debug.BuildInfo) { i.Path = "a.test/main" },
		"another Go":          func(i *debug.BuildInfo) { i.GoVersion = "go1.2" },
		"another version":     func(i *debug.BuildInfo) { i.Main.Version = "v1.2.4" },
		"another checksum":    func(i *debug.BuildInfo) { i.Deps[0].Replace.Sum = "h1:mod=" },
		"with the C compiler": func(i *debug.BuildInfo) { i.Settings[0].Value = "1" },
		"race detector": func(i *debug.BuildInfo) {
			i.Settings = append(i.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
		},
	} {
		info := &debug.BuildInfo{
			Path: p.pkg, GoVersion: runtime.Version(), Main: debug.Module{Path: "a.test/main", Version: "v1.2.3", Sum: "h1:main="},
			Deps: []*debug.Module{
				{Path: "b.test/one", Version: "v0.0.0", Replace: &debug.Module{Path: "a.test/other", Version: "v0.1.0", Sum: "h1:other="}},
				{Path: "b.test/two", Version: "v1.0.0", Replace: &debug.Module{Path: "./two", Version: "(devel)"}},
			},
			Settings: []debug.BuildSetting{{Key: "CGO_ENABLED", Value: "0"}},
		}
		change(info)
		if got := p.made(info, sums); got != (want == "") {
			t.Errorf("%q: %t", want, got)
		}
	}
}
