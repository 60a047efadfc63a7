package policy_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

// TestChanges tells what becomes of policies when one spec follows another, in
// both of which the node is the same.
func TestChanges(t *testing.T) {
	const before = `
cluster = "edge"
node "n1" {
  addresses = ["192.0.2.11"]
}
endpoint "web" {
  node      = "n1"
  addresses = ["10.244.1.5", "fd00::5"]
  labels    = { app = "web" }
}
endpoint "db" {
  node      = "n1"
  addresses = ["10.244.1.6", "fd00::6"]
  labels    = { app = "db" }
}
policy "db" {
  selector = "app == 'db'"
  ingress {
    action = "allow"
    from { selector = "app == 'web'" }
    ports = ["5432/tcp"]
  }
  ingress { action = "log" }
}
`
	for _, c := range []struct{ name, old, new, want string }{
		{"nothing", "", "", ""},
		{"a rule says more", `"5432/tcp"`, `"5432/tcp", "6432/tcp"`,
			`update policy db: ingress 1 "allow 5432/tcp from app == 'web'" -> "allow 5432/tcp, 6432/tcp from app == 'web'"`},
		{"a rule comes before the others", "  ingress {\n    action = \"allow\"", "  ingress { action = \"deny\" }\n  ingress {\n    action = \"allow\"",
			`update policy db: ingress 1 "allow 5432/tcp from app == 'web'" -> "deny", ingress 2 "log" -> "allow 5432/tcp from app == 'web'", ingress 3 "" -> "log"`},
		{"an endpoint is relabelled", `{ app = "web" }`, `{ app = "other" }`,
			`update members policy db ingress 1: endpoints "web 10.244.1.5, web fd00::5" -> ""`},
		{"a policy without rules comes", "policy \"db\"", "policy \"all\" {}\npolicy \"db\"",
			`create policy all:; create isolation web: ingress "" -> "policy all"; update isolation db: ingress "policy db" -> "policy all, policy db"`},
		{"a policy goes", "app == 'db'\"\n", "app == 'none'\"\n",
			`delete policy db: ingress 1 "allow 5432/tcp from app == 'web'" -> "", ingress 2 "log" -> ""; delete isolation db: ingress "policy db" -> ""`},
		{"a host's policy comes", "policy \"db\"", "host_endpoint \"n1\" {\n  node = \"n1\"\n  interface = \"*\"\n}\npolicy \"host\" {\n  host_selector = \"all()\"\n  ingress { action = \"deny\" }\n}\npolicy \"db\"",
			`create policy host: ingress 1 "" -> "deny"`},
		{"lines move", "cluster", "\n\n\ncluster", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, node := modelOf(t, before)
			have := policy.Compile(m, policy.Host{Node: node}, nft.Table{}).Table
			after := strings.Replace(before, c.old, c.new, 1)
			if c.old != "" && after == before {
				t.Fatalf("no %q", c.old)
			}
			m, node = modelOf(t, after)
			want := policy.Compile(m, policy.Host{Node: node}, have).Table
			objects := nft.Diff(nft.Ruleset{want}, nft.Ruleset{have}).Changes()
			var told []string
			for _, x := range policy.Changes(objects, want, have, nameOf(m)) {
				if !x.Detail {
					told = append(told, describe(x))
				}
			}
			if got := strings.Join(told, "; "); got != c.want {
				t.Errorf("told is\n%s, want\n%s", got, c.want)
			}
		})
	}
}

func describe(c change.Change) string {
	var attrs []string
	for _, a := range c.Attrs {
		attrs = append(attrs, fmt.Sprintf(" %s %q -> %q", a.Name, a.Before, a.After))
	}
	return fmt.Sprintf("%s %s %s:%s", c.Action, c.Kind, c.Name, strings.Join(attrs, ","))
}

func modelOf(t *testing.T, text string) (*policy.Model, *spec.Node) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "polder.hcl")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	config, m, diags := policy.Load(file, spec.Inputs{})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return m, config.Spec.Node("n1")
}

func nameOf(m *policy.Model) func(netip.Addr) string {
	return func(a netip.Addr) string {
		if e := m.Endpoint(a); e != nil {
			return e.Name
		}
		return ""
	}
}

// TestChangesOfOthers leaves no rule or chain of somebody else's untold because
// policies change, too.
func TestChangesOfOthers(t *testing.T) {
	const text = `
cluster = "edge"
node "n1" {
  addresses = ["192.0.2.11"]
}
endpoint "db" {
  node      = "n1"
  addresses = ["10.244.1.6"]
  ports     = { metrics = "9100/tcp" }
}
policy "db" {
  ingress {
    action = "allow"
    ports  = ["5432/tcp"]
  }
  egress {
    action = "allow"
    ports  = ["metrics"]
  }
}
`
	m, node := modelOf(t, text)
	have := policy.Compile(m, policy.Host{Node: node}, nft.Table{}).Table
	m, node = modelOf(t, strings.Replace(text, "5432", "6432", 1))
	want := policy.Compile(m, policy.Host{Node: node}, have).Table
	i := slices.IndexFunc(have.Chains, func(c nft.Chain) bool { return c.Name == "policy_forward" })
	have.Chains[i].Rules = slices.Insert(slices.Clone(have.Chains[i].Rules), 0, nft.NewRule("", nft.Do(nft.Accept)))
	have.Chains = append(have.Chains, nft.Chain{Name: "policy_mine"}, nft.Chain{Name: "ingress4-mine"})
	named := slices.IndexFunc(have.Sets, func(s nft.Set) bool { return strings.HasPrefix(s.Name, "named4") && len(s.Elements) > 0 })
	stranger := have.Sets[named].Elements[0]
	stranger.Key = "\x0a\xf4\x02\x09" + stranger.Key[4:]
	have.Sets[named].Elements = append(slices.Clip(have.Sets[named].Elements), stranger)
	objects := nft.Diff(nft.Ruleset{want}, nft.Ruleset{have}).Changes()
	told := map[string]bool{}
	members := ""
	for _, c := range policy.Changes(objects, want, have, nameOf(m)) {
		told[c.Name] = !c.Detail
		if c.Kind == "members" {
			members += describe(c)
		}
	}
	if want := `update members policy db egress 1: endpoints "10.244.2.9" -> ""`; members != want {
		t.Errorf("of who was made a member it says %q, want %q", members, want)
	}
	for _, chain := range []string{"policy_forward", "policy_mine", "ingress4-mine"} {
		if !told["inet polder "+chain] {
			t.Errorf("what somebody did to %s is a detail", chain)
		}
	}
}
