package kube_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/rogpeppe/go-internal/diff"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/poldernet/polder/policy/kube"
	"github.com/poldernet/polder/spec"
)

var update = flag.Bool("update", false, "write golden files anew")

// rendered is what a user sees of diagnostics.
func rendered(t testing.TB, name string, text []byte, diags hcl.Diagnostics) []byte {
	t.Helper()
	var b bytes.Buffer
	files := map[string]*hcl.File{name: {Bytes: text}}
	if err := spec.WriteDiagnostics(&b, files, diags, false, 80); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestDiagnostics reads the files of testdata/diagnostics and compares what is
// said about them.
func TestDiagnostics(t *testing.T) {
	archives, err := filepath.Glob("testdata/diagnostics/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatalf("no archives: %v", err)
	}
	for _, name := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			file := archive.Files[0]
			policies, diags := kube.Decode(file.Name, file.Data)
			var got bytes.Buffer
			for _, p := range policies {
				got.WriteString("read " + p.Name + "\n")
			}
			got.Write(rendered(t, file.Name, file.Data, diags))
			if *update {
				archive.Files = []txtar.File{file, {Name: "want", Data: got.Bytes()}}
				if err := os.WriteFile(name, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if want := archive.Files[1].Data; !bytes.Equal(got.Bytes(), want) {
				t.Errorf("not as in %s:\n%s", name, diff.Diff("want", want, "got", got.Bytes()))
			}
		})
	}
}

func samples(t testing.TB, pattern string, f func(t *testing.T, name string, text []byte)) {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) == 0 {
		t.Fatalf("no samples: %v", err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if t, ok := t.(*testing.T); ok {
			t.Run(strings.TrimSuffix(filepath.Base(name), ".yaml"), func(t *testing.T) { f(t, name, text) })
			continue
		}
		f(nil, name, text)
	}
}

// TestAccepted reads objects that an API server accepts.
func TestAccepted(t *testing.T) {
	samples(t, "testdata/accepted/*.yaml", func(t *testing.T, name string, text []byte) {
		policies, diags := kube.Decode(name, text)
		if diags.HasErrors() || len(policies) != 1 {
			t.Errorf("%d policies\n%s", len(policies), rendered(t, name, text, diags))
		}
	})
}

// TestRejected reads objects that an API server rejects. The lines that are
// wrong end in "# here".
func TestRejected(t *testing.T) {
	samples(t, "testdata/rejected/*.yaml", func(t *testing.T, name string, text []byte) {
		policies, diags := kube.Decode(name, text)
		var want, got []int
		for i, line := range strings.Split(string(text), "\n") {
			if strings.HasSuffix(line, "# here") {
				want = append(want, i+1)
			}
		}
		for _, d := range diags {
			if d.Severity == hcl.DiagError {
				got = append(got, d.Subject.Start.Line)
			}
		}
		if len(policies) != 0 || !slices.Equal(slices.Compact(got), want) {
			t.Errorf("%d policies, errors in lines %v, want %v\n%s", len(policies), got, want, rendered(t, name, text, diags))
		}
	})
}
