package rows

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/policy/kube"
	"github.com/poldernet/polder/spec"
)

// example is a case of the table: policies, and what becomes of connections.
type example struct {
	row, name string
	hcl       string // of the spec
	yaml      string // NetworkPolicies, as a file of the spec
	stored    *networkingv1.NetworkPolicy
	// want has lines "FROM -> TO SERVICE: VERDICT", as probe says.
	want string
	// refused are words of the mistake for which the spec is not loaded.
	refused []string
}

func (c *example) String() string { return c.row + ": " + c.name }

// np is a NetworkPolicy as YAML; its spec in flow style.
func np(name, text string) string {
	namespace, name, _ := strings.Cut(name, "/")
	return fmt.Sprintf("---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: %s, namespace: %q}\nspec: %s\n", name, namespace, text)
}

// load loads the spec of a case, with its policies.
func (c *example) load(t *testing.T) (*spec.Spec, *policy.Model, hcl.Diagnostics) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"polder.hcl": world() + c.hcl, "policies.yaml": c.yaml} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config, m, diags := policy.Load(dir, spec.Inputs{})
	if diags.HasErrors() || c.stored == nil {
		return config.Spec, m, diags
	}
	// What an API server has stored comes in by another door than files.
	stored, _ := kube.Convert(c.stored)
	config.Spec.Policies = append(config.Spec.Policies, stored)
	m, diags = policy.New(config.Spec)
	return config.Spec, m, diags
}

// must is load where no mistake is expected.
func (c *example) must(t *testing.T) (*spec.Spec, *policy.Model) {
	t.Helper()
	sp, m, diags := c.load(t)
	if diags.HasErrors() {
		t.Fatalf("%v\nin\n%s%s", diags, c.hcl, c.yaml)
	}
	return sp, m
}

// verdict is what becomes of a probe.
type verdict string

const (
	allow verdict = "allow"
	deny  verdict = "deny"
	// refused is allowed, and what the server's machine says of a closed port
	// comes back.
	refused verdict = "refused"
)

// probe is a line of a case, in one family: a connection that is opened, or a
// message that is sent. TO may be "service:POD", and the port is the service's
// then. SERVICE is as in a check of a spec, or one of linkMessages.
type probe struct {
	line     string
	family   spec.Family
	from, to party
	protocol uint8
	port     uint16 // that is dialled
	service  bool   // it is dialled at the service's address
	typ      uint8
	code     uint8
	want     verdict
}

func (p probe) String() string { return fmt.Sprintf("%s over %s", p.line, p.family) }

// linkMessages are messages of ICMP that are about the link or about routes: no
// rule can be about them, and the evaluator is not asked.
var linkMessages = map[string]struct {
	family spec.Family
	typ    uint8
	router bool // only routers send them
}{
	"router-solicit":     {spec.IPv6, 133, false},
	"router-advert":      {spec.IPv6, 134, true},
	"neighbour-solicit":  {spec.IPv6, 135, false},
	"neighbour-advert":   {spec.IPv6, 136, false},
	"redirect":           {spec.IPv6, 137, true},
	"redirect-ipv4":      {spec.IPv4, 5, true},
	"router-advert-ipv4": {spec.IPv4, 9, true},
}

// link says that the probe is one of these.
func (p probe) link() bool {
	for _, m := range linkMessages {
		if p.icmp() && m.family == p.family && m.typ == p.typ {
			return true
		}
	}
	return false
}

func (p probe) icmp() bool {
	return p.protocol == spec.ProtocolICMP || p.protocol == spec.ProtocolICMPv6
}

// probes are the lines of a case, in each family: "v4" or "v6" before a line says
// that it is about this one only.
func (c *example) probes(t *testing.T) (list []probe) {
	t.Helper()
	for line := range strings.Lines(c.want) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		families := spec.Families[:]
		rest := line
		if r, ok := strings.CutPrefix(line, "v4 "); ok {
			rest, families = r, []spec.Family{spec.IPv4}
		} else if r, ok := strings.CutPrefix(line, "v6 "); ok {
			rest, families = r, []spec.Family{spec.IPv6}
		}
		f := strings.Fields(strings.Replace(rest, ": ", " ", 1))
		if len(f) != 5 || f[1] != "->" {
			t.Fatalf("%s: not understood: %s", c, line)
		}
		to, service := strings.CutPrefix(f[2], "service:")
		p := probe{line: line, from: everybody.find(f[0]), to: everybody.find(to), service: service, want: verdict(f[4])}
		if p.from.name == "" || p.to.name == "" || p.want != allow && p.want != deny && p.want != refused {
			t.Fatalf("%s: not understood: %s", c, line)
		}
		before := len(list)
		for _, p.family = range families {
			list = append(list, p.asked(t, f[3])...)
		}
		if len(list) == before {
			t.Fatalf("%s: in no family: %s", c, line)
		}
	}
	return list
}

// asked are the probes with what is asked for, of those services that are of
// their family.
func (p probe) asked(t *testing.T, text string) (list []probe) {
	t.Helper()
	icmp := uint8(spec.ProtocolICMP)
	if p.family == spec.IPv6 {
		icmp = spec.ProtocolICMPv6
	}
	if m, ok := linkMessages[text]; ok {
		if m.family == p.family {
			p.protocol, p.typ = icmp, m.typ
			list = append(list, p)
		}
		return list
	}
	services, err := spec.ParseServices(text)
	if err != nil {
		t.Fatalf("%s: %v", p.line, err)
	}
	for _, s := range services {
		if s.ICMP != nil && s.Protocol != icmp {
			continue
		}
		p.protocol, p.port = s.Protocol, s.Ports.First
		if s.ICMP != nil {
			p.typ = s.ICMP.Type
			if s.ICMP.Code != nil {
				p.code = *s.ICMP.Code
			}
		}
		if p.service && servicePorts[p.port] == 0 {
			t.Fatalf("%s: services have no such port", p.line)
		}
		list = append(list, p)
	}
	return list
}

// served is the port of the server.
func (p probe) served() uint16 {
	if p.service {
		return servicePorts[p.port]
	}
	return p.port
}

// hostLink is the interface by which nodes reach each other and the outside.
const hostLink = "eth0"

// flow is the probe's connection.
func (p probe) flow() policy.Flow {
	return policy.Flow{
		From: p.from.of(p.family), To: p.to.of(p.family), Protocol: p.protocol, Port: p.served(), Type: p.typ, Code: p.code,
		FromInterface: hostLink, ToInterface: hostLink,
	}
}

// TestEvaluator has the evaluator judge every case, or the spec refuse it.
func TestEvaluator(t *testing.T) {
	for _, c := range cases {
		t.Run(c.String(), func(t *testing.T) {
			if len(c.refused) > 0 {
				_, _, diags := c.load(t)
				if !diags.HasErrors() {
					t.Error("it is not refused")
				}
				for _, words := range c.refused {
					if !strings.Contains(diags.Error(), words) {
						t.Errorf("%v does not say %q", diags, words)
					}
				}
				return
			}
			_, m := c.must(t)
			for _, p := range c.probes(t) {
				if p.link() {
					continue
				}
				d := m.Evaluate(p.flow())
				if got := d.Verdict == spec.Allow; got != (p.want != deny) {
					t.Errorf("%s: egress %s, ingress %s", p, d.Sides[0].Why(), d.Sides[1].Why())
				}
			}
		})
	}
}
