package spec_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/poldernet/polder/spec"
)

// TestRanges has flannel's cases of lengths and bounds: what follows from a
// pod CIDR and overrides of it.
func TestRanges(t *testing.T) {
	w := newWorkbench(t)
	for _, c := range []struct{ network, want string }{
		{`pod_cidrs = ["10.3.0.0/16"]`, "10.3.1.0 10.3.255.0 24"},
		{`pod_cidrs = ["10.3.0.0/22"]`, "10.3.1.0 10.3.3.0 24"},
		{`pod_cidrs = ["10.3.0.0/23"]`, "10.3.0.128 10.3.1.128 25"},
		{`pod_cidrs = ["10.3.0.0/24"]`, "10.3.0.64 10.3.0.192 26"},
		{`pod_cidrs = ["10.3.0.0/28"]`, "10.3.0.4 10.3.0.12 30"},
		{`pod_cidrs = ["10.0.0.0/8"]`, "10.0.1.0 10.255.255.0 24"},
		{`pod_cidrs = ["fc00::/48"]`, "fc00:0:0:1:: fc00:0:0:ffff:: 64"},
		{`pod_cidrs = ["fc00::/62"]`, "fc00:0:0:1:: fc00:0:0:3:: 64"},
		{`pod_cidrs = ["fc00::/63"]`, "fc00::8000:0:0:0 fc00:0:0:1:8000:: 65"},
		{`pod_cidrs = ["fc00::/124"]`, "fc00::4 fc00::c 126"},
		{"pod_cidrs = [\"10.3.0.0/16\"]\nsubnet_len = { ipv4 = 28 }\nsubnet_min = \"10.3.5.0\"\nsubnet_max = \"10.3.8.0\"", "10.3.5.0 10.3.8.0 28"},
		{"pod_cidrs = [\"fc00::/48\"]\nsubnet_len = { ipv6 = 80 }\nsubnet_max = \"fc00::9:0:0:0\"", "fc00::1:0:0:0 fc00::9:0:0:0 80"},
		{"pod_cidrs = [\"10.3.0.0/16\"]\nsubnet_len = { ipv4 = 18 }", "10.3.64.0 10.3.192.0 18"},
		{"pod_cidrs = [\"10.3.0.0/16\"]\nsubnet_len = { ipv4 = 30 }", "10.3.0.4 10.3.255.252 30"},
		{"pod_cidrs = [\"fc00::/48\"]\nsubnet_len = { ipv6 = 126 }", "fc00::4 fc00::ffff:ffff:ffff:ffff:fffc 126"},
	} {
		w.put(t, map[string]string{"a.hcl": "cluster = \"edge\"\nnetwork {\n" + c.network + "\n}\n"})
		config, diags := spec.Load(string(w), spec.Inputs{})
		if diags.HasErrors() {
			t.Errorf("%s\n%s", c.network, rendered(t, config, diags))
			continue
		}
		r := config.Spec.Network.Pods[0]
		if got := fmt.Sprint(r.SubnetMin, r.SubnetMax, r.SubnetLen); got != c.want {
			t.Errorf("%s\nis %s, want %s", c.network, got, c.want)
		}
	}
}

// TestMACs holds computed MACs: nodes of one cluster may run different
// versions, and compute each other's.
func TestMACs(t *testing.T) {
	n := &spec.Node{Name: "n1"}
	s := &spec.Spec{Cluster: "edge", Network: &spec.Network{Bridge: spec.Bridge{Name: "cni0"}, Backend: spec.Backend{VNI: 1}}}
	for what, mac := range map[string]spec.MAC{
		"VTEP4":  s.VTEPMAC(n, spec.IPv4),
		"VTEP6":  s.VTEPMAC(n, spec.IPv6),
		"BRIDGE": s.BridgeMAC(n),
	} {
		if want := map[string]string{"VTEP4": "fe:1d:8e:fb:53:14", "VTEP6": "5e:54:ed:85:9f:d5", "BRIDGE": "2a:57:dc:a3:55:a2"}[what]; mac.String() != want {
			t.Errorf("%s has the MAC %s, want %s", what, mac, want)
		}
	}
	for i := range 1000 {
		n.Name = fmt.Sprint(i)
		if mac := s.BridgeMAC(n); !mac.IsUnicast() || mac[0]&2 == 0 {
			t.Fatalf("%s is not a locally administered address of one interface", mac)
		}
	}
}

func TestCheckNode(t *testing.T) {
	w := newWorkbench(t)
	w.put(t, map[string]string{"a.hcl": "cluster = \"edge\"\nnode \"rack-a\" {\n  addresses = [\"192.0.2.1\"]\n}\nnode \"rack-b\" {\n  addresses = [\"192.0.2.2\"]\n}\n"})
	config, diags := spec.Load(string(w), spec.Inputs{})
	if diags.HasErrors() {
		t.Fatalf("%s", rendered(t, config, diags))
	}
	if diags := config.CheckNode("rack-b"); len(diags) > 0 {
		t.Errorf("a node that is there: %v", diags)
	}
	got := string(rendered(t, config, config.CheckNode("rakc-a")))
	for _, want := range []string{`no node "rakc-a"`, `Did you mean "rack-a"?`, "rack-a and rack-b", "polder node add rakc-a --address ADDRESS --spec " + string(w)} {
		if !strings.Contains(strings.ReplaceAll(got, "\n", " "), want) {
			t.Errorf("nothing of %q in\n%s", want, got)
		}
	}
}

// TestCommandInMessageIsQuoted: the command can be pasted into a shell.
func TestCommandInMessageIsQuoted(t *testing.T) {
	t.Chdir(t.TempDir())
	const name = "it's a spec.hcl"
	write(t, name, []byte("cluster = \"edge\"\nnetwork {\n  pod_cidrs = [\"10.244.0.0/16\"]\n}\nnode \"n1\" {\n  addresses = [\"192.0.2.1\"]\n}\n"))
	_, diags := spec.Load(name, spec.Inputs{})
	if want := `polder node assign n1 --spec 'it'\''s a spec.hcl'`; !strings.HasSuffix(diags.Error(), want) {
		t.Errorf("%s\ndoes not end with %s", diags.Error(), want)
	}
}

// TestUnreadable: there is something to say about what cannot be read.
func TestUnreadable(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir("empty", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll("folder/dir.hcl", 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, "a.hcl", []byte("cluster = \"edge\"\n"))
	for _, c := range []struct {
		path     string
		varFiles []string
		want     string
	}{
		{"none", nil, "none: no such file"},
		{"empty", nil, "holds no *.hcl"},
		{"folder", nil, "dir.hcl: not a regular file"},
		{"a.hcl", []string{"none.vars"}, "none.vars: no such file"},
		{"a.hcl", []string{"a.hcl"}, "Undeclared variable"},
	} {
		config, diags := spec.Load(c.path, spec.Inputs{VarFiles: c.varFiles})
		if got := rendered(t, config, diags); !diags.HasErrors() || !bytes.Contains(got, []byte(c.want)) {
			t.Errorf("%s, %v: nothing of %q in\n%s", c.path, c.varFiles, c.want, got)
		}
	}
}

// TestWriteDiagnosticsColored: on a terminal the mark is coloured, and the text
// is the same.
func TestWriteDiagnosticsColored(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "a.hcl", []byte("cluster = \"Edge\"\n"))
	config, diags := spec.Load("a.hcl", spec.Inputs{})
	var colored bytes.Buffer
	if err := config.WriteDiagnostics(&colored, diags, true, 80); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(colored.String(), "\x1b[31;1m^^^^^^\x1b[") {
		t.Errorf("the mark has no colour in %q", colored.String())
	}
	plain := string(rendered(t, config, diags))
	for _, code := range []string{"\x1b[31;1m", "\x1b[0;22m", "\x1b[0m"} {
		colored = *bytes.NewBufferString(strings.ReplaceAll(colored.String(), code, ""))
	}
	if colored.String() != plain {
		t.Errorf("without colours %q, want %q", colored.String(), plain)
	}
}

// TestExamples loads every example.
func TestExamples(t *testing.T) {
	examples, err := filepath.Glob("../examples/*/polder.hcl")
	if err != nil || len(examples) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, name := range examples {
		config, diags := spec.Load(filepath.Dir(name), spec.Inputs{})
		if len(diags) > 0 {
			t.Errorf("%s", rendered(t, config, diags))
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if formatted, _, diags := spec.Format(name, text); diags.HasErrors() || !bytes.Equal(formatted, text) {
			t.Errorf("%s is not as polder fmt leaves it (%v)", name, diags)
		}
	}
}
