package spec_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/poldernet/polder/spec"
)

var update = flag.Bool("update", false, "write golden files anew")

// TestDiagnostics loads the specs of testdata/diagnostics and compares what is
// said about them. The last part of each archive, "want", is what should be;
// lines of the comment give inputs.
func TestDiagnostics(t *testing.T) {
	archives, err := filepath.Glob("testdata/diagnostics/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatalf("no archives: %v", err)
	}
	for _, name := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			name, err := filepath.Abs(name)
			if err != nil {
				t.Fatal(err)
			}
			archive, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			t.Chdir(t.TempDir())
			var files []txtar.File
			var want []byte
			for _, f := range archive.Files {
				if f.Name == "want" {
					want = f.Data
					continue
				}
				files = append(files, f)
				if err := os.WriteFile(f.Name, f.Data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var in spec.Inputs
			for line := range strings.Lines(string(archive.Comment)) {
				line = strings.TrimSpace(line)
				if v, ok := strings.CutPrefix(line, "var: "); ok {
					in.Vars = append(in.Vars, v)
				}
				if v, ok := strings.CutPrefix(line, "var-file: "); ok {
					in.VarFiles = append(in.VarFiles, v)
				}
				if v, ok := strings.CutPrefix(line, "env: "); ok {
					in.Environ = append(in.Environ, v)
				}
			}
			config, diags := spec.Load(".", in)
			if !diags.HasErrors() || config.Spec != nil {
				t.Errorf("the spec has no errors, or a value in spite of them")
			}
			var got bytes.Buffer
			if err := config.WriteDiagnostics(&got, diags, false, 80); err != nil {
				t.Fatal(err)
			}
			if *update {
				archive.Files = append(files, txtar.File{Name: "want", Data: got.Bytes()})
				if err := os.WriteFile(name, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if !bytes.Equal(got.Bytes(), want) {
				t.Errorf("other diagnostics:\n%s", diff.Diff("want", want, "got", got.Bytes()))
			}
		})
	}
}
