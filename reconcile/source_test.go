package reconcile

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// Files of Kubernetes objects are followed as the spec's own are: those that are
// changed, and new ones that match a pattern.
func TestManifestsAreFollowed(t *testing.T) {
	dir := t.TempDir()
	folder := filepath.Join(dir, "policies")
	put := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("polder.hcl", "cluster = \"edge\"\nkubernetes_manifests = [\"policies/*.yaml\"]\nnode \"n1\" {\n  addresses = [\"192.0.2.11\"]\n}\n")
	source := Source{Path: filepath.Join(dir, "polder.hcl")}

	first := source.load("n1")
	if first.err == nil {
		t.Fatal("a folder that is not there is no mistake")
	}
	box := newMailbox()
	go source.watch(t.Context(), "n1", first.files, box)
	sees := func(want ...string) {
		t.Helper()
		deadline := time.After(10 * time.Second)
		for {
			select {
			case <-box.wake:
			case <-deadline:
				t.Fatalf("no spec with the manifests %q", want)
			}
			m := box.take()
			for _, err := range m.troubles {
				t.Fatal(err)
			}
			if m.spec == nil || m.spec.config == nil {
				continue
			}
			var got []string
			for _, manifest := range m.spec.config.Spec.Manifests {
				got = append(got, string(manifest.Text))
			}
			if slices.Equal(got, want) {
				return
			}
		}
	}
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	sees()
	put("policies/b.yaml", "# b")
	sees("# b")
	put("policies/a.yaml", "# a")
	sees("# a", "# b")
	put("policies/b.yaml", "# c")
	sees("# a", "# c")
	if err := os.Remove(filepath.Join(folder, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	sees("# c")
}
