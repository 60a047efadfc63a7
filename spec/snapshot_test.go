package spec_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"pgregory.net/rapid"

	"github.com/poldernet/polder/spec"
)

// snapshotOf is the snapshot of a Config without errors.
func snapshotOf(t fataler, c *spec.Config) []byte {
	t.Helper()
	b, err := c.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// checkRestored checks that a snapshot stands for the same spec, with its
// places, its warnings and the files to watch, and is its own snapshot.
func checkRestored(t fataler, c *spec.Config, diags hcl.Diagnostics, snapshot []byte) {
	t.Helper()
	restored, again := spec.Restore(snapshot)
	if again.HasErrors() {
		t.Fatalf("%s", rendered(t, restored, again))
	}
	if !reflect.DeepEqual(restored.Spec, c.Spec) {
		t.Fatalf("loaded was\n%s\nrestored is\n%s", dump(t, c.Spec), dump(t, restored.Spec))
	}
	if !bytes.Equal(rendered(t, restored, again), rendered(t, c, diags)) {
		t.Fatalf("warnings were\n%s\nand are\n%s", rendered(t, c, diags), rendered(t, restored, again))
	}
	if !slices.Equal(restored.Files(), c.Files()) {
		t.Fatalf("files were %v and are %v", c.Files(), restored.Files())
	}
	if !bytes.Equal(snapshotOf(t, restored), snapshot) {
		t.Fatalf("the snapshot was\n%s\nand is\n%s", snapshot, snapshotOf(t, restored))
	}
}

// What was loaded is restored after its files are gone.
func TestSnapshotOutlivesFiles(t *testing.T) {
	golden(t, "testdata/load/*.txtar", func(t *testing.T, in spec.Inputs) []byte {
		config, diags := spec.Load(".", in)
		snapshot := snapshotOf(t, config)
		t.Chdir(t.TempDir())
		t.Setenv("POLDER_VAR_region", "elsewhere")
		checkRestored(t, config, diags, snapshot)
		return dump(t, config.Spec)
	})
	examples, err := filepath.Glob("../examples/*/polder.hcl")
	if err != nil || len(examples) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, path := range examples {
		config, diags := spec.Load(path, spec.Inputs{})
		if diags.HasErrors() {
			t.Fatalf("%s", rendered(t, config, diags))
		}
		checkRestored(t, config, diags, snapshotOf(t, config))
	}
}

func TestPropertySnapshot(t *testing.T) {
	w := newWorkbench(t)
	rapid.Check(t, func(t *rapid.T) {
		w.put(t, map[string]string{"a.hcl": genSpec(t, false).native("")})
		config, diags := spec.Load(string(w), spec.Inputs{})
		if diags.HasErrors() {
			t.Skip()
		}
		snapshot := snapshotOf(t, config)
		w.put(t, map[string]string{"a.hcl": "}"})
		checkRestored(t, config, diags, snapshot)
	})
}

// readsFiles is a spec that depends on files of every kind.
var readsFiles = map[string]string{
	"a.hcl": `
cluster              = trimspace(file("name.txt"))
kubernetes_manifests = ["k8s/*.yaml"]
variable "address" { type = string }
locals {
  late  = try(file("sub/late.txt"), "not there")
  bytes = can(file("latin1.txt"))
}
node "n1" {
  addresses = [var.address]
}
endpoint "e" {
  node      = "n1"
  addresses = ["10.0.0.1"]
  labels    = { late = local.late, bytes = tostring(local.bytes), again = trimspace(file("name.txt")), set = var.set }
}
`,
	"k8s/a.yaml":  "a",
	"b.hcl":       "variable \"set\" {}\n",
	"name.txt":    "edge\n",
	"latin1.txt":  "caf\xe9",
	"values.json": `{"address": "192.0.2.1"}`,
	"other.hcl~":  "nothing of the spec",
}

// Every file that the spec depends on is told, also one that is not there yet,
// and kept.
func TestFilesAndSnapshotOfDependencies(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, text := range readsFiles {
		writeIn(t, "etc", name, text)
	}
	// Outside the folder: else it would be a part of the spec.
	write(t, "vars.hcl", []byte("set = \"in a file\""))
	in := spec.Inputs{
		Environ:  []string{"HOME=/root", "POLDER_VAR_set=from the environment", "POLDER_VAR_unused=x"},
		VarFiles: []string{"vars.hcl", "etc/values.json"},
		Vars:     []string{"set=wins"},
	}
	config, diags := spec.Load("etc", in)
	if diags.HasErrors() {
		t.Fatalf("%s", rendered(t, config, diags))
	}
	want := []string{"etc/a.hcl", "etc/b.hcl", "etc/k8s", "etc/k8s/a.yaml", "etc/latin1.txt", "etc/name.txt", "etc/sub/late.txt", "etc/values.json", "vars.hcl"}
	if got := config.Files(); !slices.Equal(got, want) {
		t.Errorf("files %v, want %v", got, want)
	}
	snapshot := snapshotOf(t, config)
	if strings.Contains(string(snapshot), "HOME") {
		t.Errorf("the snapshot keeps all of the environment:\n%s", snapshot)
	}
	// Now everything is otherwise.
	if err := os.RemoveAll("vars.hcl"); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"a.hcl": "}", "name.txt": "other", "sub/late.txt": "there", "latin1.txt": "text", "values.json": "{}", "k8s/a.yaml": "b", "k8s/b.yaml": "b"} {
		writeIn(t, "etc", name, text)
	}
	restored, diags := spec.Restore(snapshot)
	if diags.HasErrors() {
		t.Fatalf("%s", rendered(t, restored, diags))
	}
	if !reflect.DeepEqual(restored.Spec, config.Spec) {
		t.Errorf("restored is\n%s\nwas\n%s", dump(t, restored.Spec), dump(t, config.Spec))
	}
	if labels := restored.Spec.Endpoints[0].Labels; restored.Spec.Cluster != "edge" || labels["late"] != "not there" || labels["bytes"] != "false" || labels["again"] != "edge" || labels["set"] != "wins" {
		t.Errorf("restored is\n%s", dump(t, restored.Spec))
	}
}

// writeIn writes a file in a folder, which is made where it is not there.
func writeIn(t *testing.T, folder, name, text string) {
	t.Helper()
	name = filepath.Join(folder, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, name, []byte(text))
}

// With errors there is no snapshot, but the files are told: one of them is what
// has to change.
func TestFilesWithErrors(t *testing.T) {
	t.Chdir(t.TempDir())
	for files, want := range map[string][]string{
		"a.hcl=}":                        {"etc/a.hcl"},
		"a.hcl=cluster = file(\"none\")": {"etc/a.hcl", "etc/none"},
		"a.hcl=,b.hcl=/":                 {"etc/a.hcl", "etc/b.hcl"}, // a folder
	} {
		if err := os.RemoveAll("etc"); err != nil {
			t.Fatal(err)
		}
		for _, file := range strings.Split(files, ",") {
			name, text, _ := strings.Cut(file, "=")
			if text == "/" {
				name = filepath.Join(name, "x")
			}
			writeIn(t, "etc", name, text)
		}
		config, diags := spec.Load("etc", spec.Inputs{})
		if !diags.HasErrors() || !slices.Equal(config.Files(), want) {
			t.Errorf("%s: files %v, want %v; diagnostics %v", files, config.Files(), want, diags)
		}
		if b, err := config.Snapshot(); err == nil {
			t.Errorf("a snapshot of errors: %s", b)
		}
	}
	if config, diags := spec.Load("nowhere", spec.Inputs{}); !diags.HasErrors() || len(config.Files()) > 0 {
		t.Errorf("nothing there: files %v, diagnostics %v", config.Files(), diags)
	}
}

// A damaged snapshot is refused with a reason.
func TestRestoreRefuses(t *testing.T) {
	w := newWorkbench(t)
	w.put(t, map[string]string{"a.hcl": `cluster = "edge"`})
	config, diags := spec.Load(string(w), spec.Inputs{})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	whole := snapshotOf(t, config)
	for n := range whole {
		if c, diags := spec.Restore(whole[:n]); c.Spec != nil || !diags.HasErrors() {
			t.Fatalf("%d of %d bytes are taken", n, len(whole))
		}
	}
	alter := func(key string, value any) []byte {
		var m map[string]any
		if err := json.Unmarshal(whole, &m); err != nil {
			t.Fatal(err)
		}
		m[key] = value
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for want, b := range map[string][]byte{
		"unexpected end of JSON":          whole[:len(whole)/2],
		"invalid character":               append(slices.Clone(whole), "x"...),
		`format version "2.0"`:            alter("format_version", "2.0"),
		`format version ""`:               []byte("{}"),
		"names no file":                   alter("path", ""),
		"the file nowhere.hcl is missing": alter("sources", []string{"nowhere.hcl"}),
		"names no file of the spec":       alter("sources", nil),
		"illegal base64":                  alter("files", map[string]string{"a.hcl": "?"}),
		"a.hcl: not in the snapshot":      alter("var_files", []string{"a.hcl"}),
	} {
		c, diags := spec.Restore(b)
		if c.Spec != nil || !strings.Contains(diags.Error(), want) {
			t.Errorf("diagnostics %v, want %q", diags, want)
		}
		rendered(t, c, diags)
	}
}

// FuzzRestore: whatever is in the file, there is a spec or an error.
func FuzzRestore(f *testing.F) {
	f.Add([]byte(`{"format_version":"1.0","path":"a.hcl","sources":["a.hcl"],"files":{"a.hcl":"Y2x1c3RlciA9ICJlZGdlIg=="}}`))
	f.Add([]byte(`{"format_version":"1.0","path":"a","sources":["a/a.hcl","a/a.hcl"],"vars":["=",""],"environ":["POLDER_VAR_"],"var_files":["a/a.hcl"],"files":{"a/a.hcl":null}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, diags := spec.Restore(b)
		if diags.HasErrors() != (c.Spec == nil) {
			t.Fatalf("a spec %v with diagnostics %v", c.Spec, diags)
		}
		rendered(t, c, diags)
		if c.Spec != nil {
			checkRestored(t, c, diags, snapshotOf(t, c))
		}
	})
}
