package spec_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/rogpeppe/go-internal/diff"

	"github.com/poldernet/polder/spec"
)

// TestEdit edits the specs of testdata/edit by the lines "var: " of the
// comment, which are commands here, and compares what became of the files.
func TestEdit(t *testing.T) {
	golden(t, "testdata/edit/*.txtar", func(t *testing.T, in spec.Inputs) []byte {
		var got bytes.Buffer
		for _, command := range in.Vars {
			before := readFolder(t)
			fmt.Fprintf(&got, "# %s\n", command)
			edit, diags := runEdit(command)
			got.Write(rendered(t, edit.Config, diags))
			for _, a := range edit.Assignments {
				fmt.Fprintf(&got, "%s gets %v\n", a.Node, a.Subnets)
			}
			if diags.HasErrors() && len(edit.Files()) > 0 {
				t.Errorf("%s: an edit with errors would write %v", command, edit.Files())
			}
			if err := edit.Write(); err != nil {
				t.Errorf("%s: %v", command, err)
			}
			after := readFolder(t)
			if len(after) != len(before) {
				t.Errorf("%s: %d files became %d", command, len(before), len(after))
			}
			for _, name := range edit.Files() {
				got.Write(diff.Diff(name, before[name], name+" edited", after[name]))
				before[name] = after[name]
			}
			for name := range before {
				if !bytes.Equal(before[name], after[name]) {
					t.Errorf("%s: %s was written, and is not in Files", command, name)
				}
			}
		}
		return got.Bytes()
	})
}

// runEdit does "assign PATH NAME..." or "add PATH NAME ADDRESS...".
func runEdit(command string) (*spec.Edit, hcl.Diagnostics) {
	words := strings.Fields(command)
	if words[0] == "add" {
		return spec.AddNode(words[1], spec.Inputs{}, words[2], words[3:]...)
	}
	return spec.Assign(words[1], spec.Inputs{}, words[2:]...)
}

func readFolder(t *testing.T) map[string][]byte {
	t.Helper()
	names, err := filepath.Glob("*")
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string][]byte)
	for _, name := range names {
		if files[name], err = os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// TestAssignKeepsLineEnds edits a file with the line ends of Windows.
func TestAssignKeepsLineEnds(t *testing.T) {
	t.Chdir(t.TempDir())
	const text = "cluster = \"edge\"\r\nnetwork {\r\n  pod_cidrs = [\"10.244.0.0/16\"]\r\n}\r\nnode \"n1\" {\r\n  addresses = [\"192.0.2.11\"]\r\n%s}\r\n"
	write(t, "polder.hcl", fmt.Appendf(nil, text, ""))
	edit, diags := spec.Assign("polder.hcl", spec.Inputs{})
	if diags.HasErrors() {
		t.Fatalf("%s", rendered(t, edit.Config, diags))
	}
	if err := edit.Write(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("polder.hcl")
	if err != nil {
		t.Fatal(err)
	}
	spaces := func(s string) string {
		return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == ' ' }), " ")
	}
	if want := fmt.Sprintf(text, "  subnets = [\"10.244.1.0/24\"]\r\n"); spaces(string(got)) != spaces(want) {
		t.Errorf("the file became %q", got)
	}
}

// TestEditGrowsWithTheFile gives subnets to every node of a file and of one four
// times as large, which is to cost four times as much memory, not sixteen times.
func TestEditGrowsWithTheFile(t *testing.T) {
	allocated := func(nodes int, edit func(path string) (*spec.Edit, hcl.Diagnostics)) uint64 {
		w := newWorkbench(t)
		w.put(t, map[string]string{"polder.hcl": regexp.MustCompile(` +subnets .*\n`).ReplaceAllString(largeSpec(nodes, false), "")})
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		e, diags := edit(string(w))
		runtime.ReadMemStats(&after)
		if diags.HasErrors() || len(e.Assignments) == 0 {
			t.Fatalf("%s", rendered(t, e.Config, diags))
		}
		return after.TotalAlloc - before.TotalAlloc
	}
	for name, edit := range map[string]func(path string) (*spec.Edit, hcl.Diagnostics){
		"assign": func(path string) (*spec.Edit, hcl.Diagnostics) { return spec.Assign(path, spec.Inputs{}) },
		"add": func(path string) (*spec.Edit, hcl.Diagnostics) {
			return spec.AddNode(path, spec.Inputs{}, "new", "172.16.255.1/16")
		},
	} {
		small, large := allocated(50, edit), allocated(200, edit)
		if ratio := float64(large) / float64(small); ratio > 6 {
			t.Errorf("%s: four times the nodes cost %.1f times the memory", name, ratio)
		}
	}
}

// TestAddToFileWithoutNewline adds a node behind an unfinished line.
func TestAddToFileWithoutNewline(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "polder.hcl", []byte("cluster = \"edge\""))
	edit, diags := spec.AddNode("polder.hcl", spec.Inputs{}, "n1", "192.0.2.11")
	if diags.HasErrors() {
		t.Fatalf("%s", rendered(t, edit.Config, diags))
	}
	if err := edit.Write(); err != nil {
		t.Fatal(err)
	}
	const want = "cluster = \"edge\"\n\nnode \"n1\" {\n  addresses = [\"192.0.2.11\"]\n}\n"
	if got, err := os.ReadFile("polder.hcl"); err != nil || string(got) != want {
		t.Errorf("the file became %q (%v)", got, err)
	}
}

// TestWriteKeepsModeAndLink edits a file through a symbolic link.
func TestWriteKeepsModeAndLink(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "real.hcl", []byte("cluster = \"edge\"\n"))
	if err := os.Chmod("real.hcl", 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real.hcl", "link.hcl"); err != nil {
		t.Fatal(err)
	}
	edit, diags := spec.AddNode("link.hcl", spec.Inputs{}, "n1", "192.0.2.11")
	if diags.HasErrors() {
		t.Fatalf("%s", rendered(t, edit.Config, diags))
	}
	if err := edit.Write(); err != nil {
		t.Fatal(err)
	}
	link, err := os.Lstat("link.hcl")
	if err != nil || link.Mode().Type() != os.ModeSymlink {
		t.Errorf("the link became %v (%v)", link.Mode(), err)
	}
	file, err := os.Lstat("real.hcl")
	if err != nil || file.Mode() != 0o640 {
		t.Errorf("the file's mode became %v (%v)", file.Mode(), err)
	}
	text, err := os.ReadFile("real.hcl")
	if err != nil || !bytes.Contains(text, []byte(`node "n1"`)) {
		t.Errorf("the file became %q (%v)", text, err)
	}
}

// TestWriteRefusesChangedFile changes the file between reading and writing.
func TestWriteRefusesChangedFile(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "polder.hcl", []byte("cluster = \"edge\"\n"))
	edit, diags := spec.AddNode("polder.hcl", spec.Inputs{}, "n1", "192.0.2.11")
	if diags.HasErrors() {
		t.Fatalf("%s", rendered(t, edit.Config, diags))
	}
	write(t, "polder.hcl", []byte("cluster = \"other\"\n"))
	if err := edit.Write(); err == nil || !strings.Contains(err.Error(), "changed by somebody else") {
		t.Errorf("writing over a change: %v", err)
	}
	if text, err := os.ReadFile("polder.hcl"); err != nil || string(text) != "cluster = \"other\"\n" {
		t.Errorf("the file became %q (%v)", text, err)
	}
}

func TestFormat(t *testing.T) {
	got, _, diags := spec.Format("polder.hcl", []byte("network {\npod_cidrs=[ \"10.0.0.0/8\" ] # pods\n    mtu = 1400\n}\n"))
	want := "network {\n  pod_cidrs = [\"10.0.0.0/8\"] # pods\n  mtu       = 1400\n}\n"
	if diags.HasErrors() || string(got) != want {
		t.Errorf("formatted to\n%s%v", got, diags)
	}
	for name, text := range map[string]string{"polder.hcl": "network {", "polder.hcl.json": "{}", "a.hcl": "cluster = 1.5. 0\n"} {
		got, config, diags := spec.Format(name, []byte(text))
		if got != nil || !diags.HasErrors() || len(rendered(t, config, diags)) == 0 {
			t.Errorf("%s: formatted to %q", name, got)
		}
	}
}
