package flannel

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"

	"github.com/poldernet/polder/spec"
)

var update = flag.Bool("update", false, "write testdata/*.hcl and testdata/*.txt anew")

// samples are the configurations in testdata.
func samples(t testing.TB) (files []string) {
	t.Helper()
	for _, pattern := range []string{"testdata/*.json", "testdata/*.yml"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %v, %d files", pattern, err, len(found))
		}
		files = append(files, found...)
	}
	return files
}

func read(t testing.TB, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// golden compares with a file, or writes it.
func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want := read(t, file); !bytes.Equal(got, want) {
		t.Errorf("%s is\n%s\nand not\n%s", file, got, want)
	}
}

// rendered is what a person sees of diagnostics.
func rendered(t testing.TB, name string, text []byte, diags hcl.Diagnostics) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := spec.WriteDiagnostics(&b, map[string]*hcl.File{name: {Bytes: text}}, diags, false, 0); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// load is polder validate.
func load(t testing.TB, text []byte) *spec.Spec {
	t.Helper()
	file := filepath.Join(t.TempDir(), "imported.hcl")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	config, diags := spec.Load(file, spec.Inputs{})
	if diags.HasErrors() {
		var b strings.Builder
		_ = config.WriteDiagnostics(&b, diags, false, 0)
		t.Fatalf("%s\nin\n%s", b.String(), text)
	}
	return config.Spec
}

// laidOut fails if polder fmt would change a spec.
func laidOut(t testing.TB, text []byte) {
	t.Helper()
	if formatted, _, diags := spec.Format("imported.hcl", text); diags.HasErrors() || !bytes.Equal(formatted, text) {
		t.Errorf("%v: polder fmt makes of\n%s\nthis:\n%s", diags, text, formatted)
	}
}

// Every sample becomes the spec beside it, which is valid, or, where its name
// says that it is broken, the messages beside it.
func TestImport(t *testing.T) {
	for _, file := range samples(t) {
		name := filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			text := read(t, file)
			got, diags := Import(name, text, "edge")
			if strings.HasPrefix(name, "broken") {
				if !diags.HasErrors() || got != nil {
					t.Fatalf("it was imported:\n%s", got)
				}
				golden(t, strings.TrimSuffix(file, filepath.Ext(file))+".txt", rendered(t, name, text, diags))
				return
			}
			if len(diags) > 0 {
				t.Fatalf("%s", rendered(t, name, text, diags))
			}
			golden(t, strings.TrimSuffix(file, filepath.Ext(file))+".hcl", got)
			laidOut(t, got)
			load(t, got)
		})
	}
}

// The block that the comment shows makes a spec with a node, when it is filled
// in.
func TestTheCommentShowsANode(t *testing.T) {
	got, _ := Import("dual.json", []byte(`{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:10:244::/48", "Backend": {"Type": "vxlan"}}`), "edge")
	block := regexp.MustCompile(`(?s)# {3}node .*?\n# {3}}`).Find(got)
	filled := strings.Replace(strings.ReplaceAll("\n"+string(block), "\n#", "\n"), "…", "0a:69:7b:a9:e7:44", 1)
	filled = strings.Replace(filled, "…", "0a:69:7b:a9:e7:46", 1)
	s := load(t, append(got, filled...))
	if len(s.Nodes) != 1 || s.Nodes[0].VTEPMAC.IPv6.IsZero() || len(s.Nodes[0].Subnets) != 2 {
		t.Errorf("the node is %+v", s.Nodes)
	}
}

// Nodes are the API server's where flannel has them from there, and only where polder
// has flannel's backend does it speak flannel's words.
func TestWhereNodesAreFrom(t *testing.T) {
	for name, test := range map[string]struct {
		backend, options string
		kubernetes       bool
		compat           spec.Compat
	}{
		"kube-flannel.yml":  {"vxlan", "--kube-subnet-mgr", true, spec.CompatFlannel},
		"host-gw":           {"host-gw", "--kube-subnet-mgr=true", true, spec.CompatFlannel},
		"another backend":   {"wireguard", "--kube-subnet-mgr", true, ""},
		"other annotations": {"vxlan", "--kube-subnet-mgr, --kube-annotation-prefix=x", true, ""},
		"etcd":              {"vxlan", "--etcd-endpoints=http://192.0.2.1:2379", false, ""},
		"not so":            {"vxlan", "--kube-subnet-mgr=false", false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			text := `---
{kind: ConfigMap, data: {net-conf.json: '{"Network": "10.244.0.0/16", "Backend": {"Type": "` + test.backend + `"}}'}}
---
{kind: DaemonSet, spec: {template: {spec: {containers: [{name: kube-flannel, args: [` + test.options + `]}]}}}}
`
			got, diags := Import(name, []byte(text), "edge")
			if len(diags) > 0 {
				t.Fatalf("%s", rendered(t, name, []byte(text), diags))
			}
			s := load(t, got)
			if (s.Kubernetes != nil) != test.kubernetes || s.Network.Compat != test.compat {
				t.Errorf("it is wanted: in Kubernetes %t, compat %q\n%s", test.kubernetes, test.compat, got)
			}
			if asks := bytes.Contains(got, []byte("node \"n1\"")); asks == test.kubernetes {
				t.Errorf("that nodes are to be written is said: %t\n%s", asks, got)
			}
		})
	}
}

// FuzzImport: no file makes it panic; messages have places in the file, and
// what is written is a valid spec, whatever the file says.
func FuzzImport(f *testing.F) {
	for _, file := range samples(f) {
		f.Add(read(f, file))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got, diags := Import("fuzz", text, "edge")
		for _, diag := range diags {
			if r := diag.Subject; r == nil || r.Filename != "fuzz" || r.Start.Line < 1 || r.Start.Byte > r.End.Byte || r.End.Byte > len(text) {
				t.Fatalf("%s: %v is no place in %q", diag.Detail, r, text)
			}
		}
		rendered(t, "fuzz", text, diags)
		if diags.HasErrors() == (got != nil) {
			t.Fatalf("%v and %q", diags, got)
		}
		if got != nil {
			laidOut(t, got)
			load(t, got)
		}
	})
}
