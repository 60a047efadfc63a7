package policy_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

// TestCompile compiles the specs of testdata/compile for the node n1 and
// compares the rules.
func TestCompile(t *testing.T) {
	archives, err := filepath.Glob("testdata/compile/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatalf("no archives: %v", err)
	}
	for _, name := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			var want []byte
			files := archive.Files[:0]
			for _, f := range archive.Files {
				if f.Name == "want" {
					want = f.Data
					continue
				}
				files = append(files, f)
				if err := os.WriteFile(filepath.Join(dir, f.Name), f.Data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			config, m, diags := policy.Load(dir, spec.Inputs{})
			if diags.HasErrors() {
				t.Fatal(diags)
			}
			node := config.Spec.Node("n1")
			host := policy.Host{Node: node, Bridge: config.Spec.Enforcement.Bridge, Links: []string{"polder.1"}}
			got := []byte(nft.Ruleset{policy.Compile(m, host, nft.Table{}).Table}.String())
			if *update {
				archive.Files = append(files, txtar.File{Name: "want", Data: got})
				if err := os.WriteFile(name, txtar.Format(archive), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if !bytes.Equal(got, want) {
				t.Errorf("not as in %s:\n%s", name, diff.Diff("want", want, "got", got))
			}
		})
	}
}
