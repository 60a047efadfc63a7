package spec_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/rogpeppe/go-internal/diff"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/poldernet/polder/spec"
)

var update = flag.Bool("update", false, "write golden files anew")

// TestDiagnostics loads the specs of testdata/diagnostics and compares what is
// said about them.
func TestDiagnostics(t *testing.T) {
	golden(t, "testdata/diagnostics/*.txtar", func(t *testing.T, in spec.Inputs) []byte {
		config, diags := spec.Load(".", in)
		if !diags.HasErrors() || config.Spec != nil {
			t.Errorf("the spec has no errors, or a value in spite of them")
		}
		return rendered(t, config, diags)
	})
}

// TestLoad loads the specs of testdata/load and compares their values.
func TestLoad(t *testing.T) {
	golden(t, "testdata/load/*.txtar", func(t *testing.T, in spec.Inputs) []byte {
		config, diags := spec.Load(".", in)
		if len(diags) > 0 {
			t.Fatalf("%s", rendered(t, config, diags))
		}
		return dump(t, config.Spec)
	})
}

// golden runs each archive's spec, in a folder of its own, and compares the
// result with the archive's last part, "want". Lines of the archive's comment
// give inputs.
func golden(t *testing.T, pattern string, run func(*testing.T, spec.Inputs) []byte) {
	archives, err := filepath.Glob(pattern)
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
				write(t, f.Name, f.Data)
			}
			got := run(t, inputs(archive.Comment))
			if *update {
				files = append(files, txtar.File{Name: "want", Data: got})
				archive.Files = files
				write(t, name, txtar.Format(archive))
				return
			}
			if !bytes.Equal(got, want) {
				t.Errorf("not as in %s:\n%s", name, diff.Diff("want", want, "got", got))
			}
		})
	}
}

func inputs(comment []byte) spec.Inputs {
	var in spec.Inputs
	for line := range strings.Lines(string(comment)) {
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
	return in
}

func write(t testing.TB, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// dump is a spec as JSON, without the places in files and what is not set.
func dump(t fataler, s *spec.Spec) []byte {
	t.Helper()
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var tree map[string]any
	if err := json.Unmarshal(text, &tree); err != nil {
		t.Fatal(err)
	}
	text, err = json.MarshalIndent(pruned(tree), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(text, '\n')
}

func pruned(v any) any {
	switch v := v.(type) {
	case string:
		if v == "" {
			return nil
		}
	case map[string]any:
		delete(v, "Range")
		for key, value := range v {
			if v[key] = pruned(value); v[key] == nil {
				delete(v, key)
			}
		}
		if len(v) == 0 {
			return nil
		}
	case []any:
		if len(v) == 0 {
			return nil
		}
		if mac, ok := macOf(v); ok {
			return pruned(mac)
		}
		for i := range v {
			v[i] = pruned(v[i])
		}
	}
	return v
}

// macOf is the text of a MAC, which is six numbers in JSON.
func macOf(list []any) (string, bool) {
	var mac spec.MAC
	if len(list) != len(mac) {
		return "", false
	}
	for i := range list {
		n, ok := list[i].(float64)
		if !ok {
			return "", false
		}
		mac[i] = byte(n)
	}
	if mac.IsZero() {
		return "", true
	}
	return mac.String(), true
}

// fataler is what a test and a property have in common.
type fataler interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// rendered is what a user sees of diagnostics.
func rendered(t fataler, config *spec.Config, diags hcl.Diagnostics) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := config.WriteDiagnostics(&b, diags, false, 80); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
