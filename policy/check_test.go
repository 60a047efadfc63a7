package policy_test

import (
	"bytes"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

var update = flag.Bool("update", false, "write golden files anew")

// golden loads the spec of each archive and compares what run makes of it with
// the archive's last part, "want".
func golden(t *testing.T, pattern string, run func(*testing.T) []byte) {
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
			got := run(t)
			if *update {
				archive.Files = append(files, txtar.File{Name: "want", Data: got})
				write(t, name, txtar.Format(archive))
				return
			}
			if !bytes.Equal(got, want) {
				t.Errorf("not as in %s:\n%s", name, diff.Diff("want", want, "got", got))
			}
		})
	}
}

func write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestChecks compares what is said of checks that fail.
func TestChecks(t *testing.T) {
	golden(t, "testdata/check/*.txtar", func(t *testing.T) []byte {
		config, m, diags := policy.Load("polder.hcl", spec.Inputs{})
		if (m != nil) == diags.HasErrors() {
			t.Errorf("there is a model in spite of errors, or none without")
		}
		var text bytes.Buffer
		if err := config.WriteDiagnostics(&text, diags, false, 0); err != nil {
			t.Fatal(err)
		}
		return text.Bytes()
	})
}

// A check on a whole end holds where it holds for each address.
func TestCheckWantsEveryAddress(t *testing.T) {
	for _, test := range []struct {
		expect spec.Action
		rules  []spec.Rule
		holds  bool
	}{
		{spec.Allow, []spec.Rule{allow(peers(cidr("0.0.0.0/0")))}, false},
		{spec.Deny, []spec.Rule{allow(peers(cidr("0.0.0.0/0")))}, false},
		{spec.Allow, []spec.Rule{allow(peers(cidr("0.0.0.0/0"), cidr("::/0")))}, true},
		{spec.Deny, []spec.Rule{allow(peers(cidr("10.244.0.0/16")))}, true},
	} {
		s := world(in(kube("x/p", "all()", ingress), test.rules...))
		s.Checks = []*spec.Check{{
			Name: "c", From: spec.End{Kind: spec.EndOutside}, To: spec.End{Kind: spec.EndEndpoint, Name: "x-a"},
			Services: []spec.Service{tcp(80)}, Expect: test.expect,
		}}
		if diags := model(t, s).Check(); diags.HasErrors() == test.holds {
			t.Errorf("%s with %v: %v", test.expect, test.rules, diags)
		}
	}
}

// Nobody has the address that stands for strangers, and no rule names it.
func TestOutside(t *testing.T) {
	for _, test := range []struct {
		name  string
		peers []spec.Peer
		want  [2]string
	}{
		{"nothing named", nil, [2]string{"203.0.113.1", "2001:db8:ffff::1"}},
		{"all is named", peers(cidr("0.0.0.0/0"), cidr("::/0")), [2]string{"203.0.113.1", "2001:db8:ffff::1"}},
		{"in a block", peers(cidr("203.0.113.0/24"), cidr("2001:db8::/32")), [2]string{"198.51.100.1", "3fff::1"}},
		{"in an exception", peers(cidr("0.0.0.0/0", "203.0.113.1/32")), [2]string{"198.51.100.1", "2001:db8:ffff::1"}},
		{"all of them", peers(cidr("203.0.113.0/24"), cidr("198.51.100.0/24"), cidr("192.0.2.0/24"), cidr("2000::/3")), [2]string{"203.0.114.0", "4000::"}},
		{"in two halves", peers(cidr("0.0.0.0/1"), cidr("128.0.0.0/1"), cidr("192.0.0.0/3")), [2]string{"128.0.0.0", "2001:db8:ffff::1"}},
	} {
		m := model(t, world(in(kube("x/p", "all()", ingress), allow(test.peers))))
		for i, f := range spec.Families {
			if got := m.Outside(f); got != netip.MustParseAddr(test.want[i]) {
				t.Errorf("%s: %s, want %s", test.name, got, test.want[i])
			}
		}
	}
}

func TestAsk(t *testing.T) {
	s := world()
	s.HostEndpoints = []*spec.HostEndpoint{{Name: "h", Node: "n1", Interface: "*", Ports: map[string]spec.Port{"ssh": {Number: 22, Protocol: "tcp"}}}}
	s.Endpoints = append(s.Endpoints, &spec.Endpoint{Name: "n2"})
	for _, pod := range []string{"test/db", "shop/db", "shop/web", "n1/web", "n2/web", "n3/web", "n4/web", "n5/web", "n6/web"} {
		s.Endpoints = append(s.Endpoints, &spec.Endpoint{Name: pod, Node: "n1"})
	}
	s.Kubernetes = &spec.Kubernetes{}
	m := model(t, s)
	for _, test := range []struct{ from, to, service, want string }{
		{"x-a", "n1", "80/tcp", "endpoint.x-a node.n1 80/tcp"},
		{"db", "n1", "80/tcp", `there is no endpoint and no node named "db", and it is none of endpoint.NAME, node.NAME, an address, and outside; did you mean shop/db or test/db?`},
		{"endpoint.web", "n1", "80/tcp", `there is no endpoint named "web"; did you mean n1/web or n2/web or n3/web or n4/web or n5/web, or one of 2 more?`},
		{"node.web", "n1", "80/tcp", `there is no node named "web"`},
		{"kube-system/kube-proxy", "n1", "80/tcp", `there is no endpoint and no node named "kube-system/kube-proxy", and it is none of endpoint.NAME, node.NAME, an address, and outside; a pod in the network of its node counts as that node, and one that has ended as nothing`},
		{"endpoint.x-a", "node.n1", "ssh", "endpoint.x-a node.n1 22/tcp"},
		{"outside", "x-b", "serve-81-udp/udp", "outside endpoint.x-b 81/udp"},
		{"outside", "x-b", "icmp", "outside endpoint.x-b echo-request/icmp"},
		{"2001:db8::7", "192.0.2.1", "gre", "2001:db8::7 192.0.2.1 gre"},
		{"x-d", "n1", "80/tcp", `there is no endpoint and no node named "x-d", and it is none of endpoint.NAME, node.NAME, an address, and outside; did you mean x-a?`},
		{"x-a", "n2", "80/tcp", "there are both endpoint.n2 and node.n2"},
		{"node.x-a", "n1", "80/tcp", `there is no node named "x-a"`},
		{"xa", "n1", "80/tcp", `there is no endpoint and no node named "xa", and it is none of endpoint.NAME, node.NAME, an address, and outside; did you mean x-a?`},
		{"endpoint.xa", "n1", "80/tcp", `there is no endpoint named "xa"; did you mean endpoint.x-a?`},
		{"x-a", "endpoint.n1", "80/tcp", `there is no endpoint named "n1"`},
		{"x-a", "n1", "web", `node.n1 has no port named "web"`},
		{"x-a", "x-b", "serve-81-udp/tcp", `the port "serve-81-udp" of endpoint.x-b is 81/udp`},
		{"x-a", "x-b", "80", `"80" is nothing to ask for: the protocol is missing, as in 80/tcp`},
	} {
		q, err := m.Ask(test.from, test.to, test.service)
		var got string
		if err != nil {
			got = err.Error()
		} else {
			got = q.From.String() + " " + q.To.String() + " " + q.Services[0].String()
		}
		if got != test.want {
			t.Errorf("%s %s %s: %s", test.from, test.to, test.service, got)
		}
	}
	if _, err := m.Answer(policy.Question{From: spec.End{Kind: spec.EndAddress, Address: netip.MustParseAddr("2001:db8::7")}, To: spec.End{Kind: spec.EndEndpoint, Name: "n2"}}); err == nil {
		t.Errorf("an answer without a flow")
	}
}

// What anybody asks has an answer or an error.
func FuzzAsk(f *testing.F) {
	for _, s := range []string{"x-a", "endpoint.x-a", "node.n1", "n2", "outside", "10.244.1.10", "2001:db8::1", ""} {
		for _, service := range []string{"80/tcp", "serve-80-udp", "serve-80-udp/tcp", "icmp", "13/icmp", "gre", "*/tcp", ""} {
			f.Add(s, "x-b", service)
			f.Add("outside", s, service)
		}
	}
	m := model(f, world(in(kube("x/p", "all()", ingress), allow(nil, tcp(80)))))
	f.Fuzz(func(t *testing.T, from, to, service string) {
		q, err := m.Ask(from, to, service)
		if err != nil {
			return
		}
		for _, end := range []spec.End{q.From, q.To} {
			if again, err := m.Ask(end.String(), end.String(), "80/tcp"); err != nil || again.From != end {
				t.Errorf("%s is read as %v: %v", end, again.From, err)
			}
		}
		decisions, err := m.Answer(q)
		if (len(decisions) == 0) != (err != nil) {
			t.Errorf("%d decisions, %v", len(decisions), err)
		}
	})
}
