package reconcile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"

	"github.com/poldernet/polder/spec"
)

// A spec whose policies do not do what its checks expect is not taken up.
func TestSourceHoldsChecks(t *testing.T) {
	const text = `cluster = "edge"
node "n1" { addresses = ["192.0.2.11"] }
endpoint "web" {
  node      = "n1"
  addresses = ["10.244.1.5"]
}
check "web is open" {
  from   = "outside"
  to     = "endpoint.web"
  port   = "80/tcp"
  expect = "allow"
}
`
	file := filepath.Join(t.TempDir(), "polder.hcl")
	for _, test := range []struct{ more, want string }{
		{"", ""},
		{`policy "shut" {}`, `Check "web is open" fails`},
	} {
		if err := os.WriteFile(file, []byte(text+test.more), 0o600); err != nil {
			t.Fatal(err)
		}
		l := Source{Path: file}.load("n1")
		if (l.err == nil) != (test.want == "") || l.err != nil && !strings.Contains(l.err.Error(), test.want) {
			t.Errorf("with %q: %v", test.more, l.err)
		}
		if (l.config == nil) != (l.err != nil) {
			t.Errorf("with %q: a spec in spite of an error, or none without", test.more)
		}
	}
}

// A spec that does not suit is not taken up, and that it does not is said before that
// it lacks the node, which it may have elsewhere.
func TestSourceSuits(t *testing.T) {
	file := filepath.Join(t.TempDir(), "polder.hcl")
	source := Source{Path: file, Suits: func(sp *spec.Spec) hcl.Diagnostics {
		if sp.Kubernetes != nil {
			return nil
		}
		return hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "It asks nobody"}}
	}}
	for text, want := range map[string]string{"kubernetes {}": "", "": "It asks nobody", "kubernetes = 1": "kubernetes"} {
		if err := os.WriteFile(file, []byte("cluster = \"edge\"\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
		l := source.load("n1")
		if (l.err == nil) != (want == "") || l.err != nil && (!strings.Contains(l.err.Error(), want) || strings.Contains(l.err.Error(), "No such node")) || (l.config == nil) != (l.err != nil) {
			t.Errorf("with %q: %v", text, l.err)
		}
	}
}
