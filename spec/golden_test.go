package spec_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/rogpeppe/go-internal/diff"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/poldernet/polder/spec"
	"github.com/poldernet/polder/spec/selector"
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
				writeIn(t, ".", f.Name, string(f.Data))
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
	text, err := json.MarshalIndent(tree(reflect.ValueOf(s)), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(text, '\n')
}

// tree is a value in the terms of JSON, or nil for what is not set. What has a
// text in the spec is that text.
func tree(v reflect.Value) any {
	switch x := v.Interface().(type) {
	case hcl.Range:
		return nil
	case *selector.Selector, spec.MAC, spec.Service, spec.End, netip.Addr, netip.Prefix:
		if v.IsZero() {
			return nil
		}
		return fmt.Sprint(x)
	case []byte:
		return string(x)
	case []spec.Peer, []spec.Service:
		// Not the same as none at all.
		if !v.IsNil() && v.Len() == 0 {
			return "nothing"
		}
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return tree(v.Elem())
	case reflect.Struct:
		out := make(map[string]any)
		for i := range v.NumField() {
			if field := tree(v.Field(i)); field != nil {
				out[v.Type().Field(i).Name] = field
			}
		}
		if len(out) > 0 {
			return out
		}
	case reflect.Map:
		out := make(map[string]any)
		for it := v.MapRange(); it.Next(); {
			if out[it.Key().String()] = tree(it.Value()); it.Value().Kind() == reflect.String {
				out[it.Key().String()] = it.Value().String() // also an empty one
			}
		}
		if len(out) > 0 {
			return out
		}
	case reflect.Slice:
		var out []any
		for i := range v.Len() {
			out = append(out, tree(v.Index(i)))
		}
		if len(out) > 0 {
			return out
		}
	case reflect.String:
		if v.Len() > 0 {
			return v.String()
		}
	default:
		return v.Interface()
	}
	return nil
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
