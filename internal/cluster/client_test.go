package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/poldernet/polder/spec"
)

// TestCredentials: of a kubeconfig the context counts that is named, or else its current
// one; where there is none, the error names the file, and what there is.
func TestCredentials(t *testing.T) {
	const clusters = `apiVersion: v1
kind: Config
clusters:
- {name: c1, cluster: {server: "https://192.0.2.1:6443"}}
- {name: c2, cluster: {server: "https://192.0.2.2:6443"}}
`
	const contexts = `contexts:
- {name: edge, context: {cluster: c1, user: u}}
- {name: core, context: {cluster: c2, user: u}}
users:
- {name: u, user: {token: t}}
`
	for name, c := range map[string]struct{ text, context, host, err string }{
		"the current one":       {clusters + contexts + "current-context: edge\n", "", "https://192.0.2.1:6443", ""},
		"a named one":           {clusters + contexts + "current-context: edge\n", "core", "https://192.0.2.2:6443", ""},
		"one that is not":       {clusters + contexts + "current-context: edge\n", "egde", "", `the kubeconfig FILE has no context "egde": it has "core", "edge"`},
		"a current one, not":    {clusters + contexts + "current-context: gone\n", "", "", `the kubeconfig FILE has no context "gone": it has "core", "edge"`},
		"none at all":           {clusters, "edge", "", `the kubeconfig FILE has no context "edge": it has none`},
		"none is the current":   {clusters + contexts, "", "", "the kubeconfig FILE: invalid configuration: "},
		"an empty file":         {"", "", "", "the kubeconfig FILE: invalid configuration: "},
		"what is no kubeconfig": {"- a", "", "", "FILE"},
	} {
		file := filepath.Join(t.TempDir(), "kubeconfig")
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		config, err := Credentials(&spec.Kubernetes{Kubeconfig: file, Context: c.context})
		switch want := strings.ReplaceAll(c.err, "FILE", file); {
		case want == "" && (err != nil || config.Host != c.host):
			t.Errorf("%s: %+v, %v", name, config, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v", name, err)
		}
	}
	gone := filepath.Join(t.TempDir(), "gone")
	if _, err := Credentials(&spec.Kubernetes{Kubeconfig: gone}); err == nil || strings.Count(err.Error(), gone) != 1 {
		t.Errorf("of no file: %v", err)
	}
}
