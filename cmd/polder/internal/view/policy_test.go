package view

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
	"github.com/poldernet/polder/spec/selector"
)

// crowd is a spec of n endpoints, each with a policy of n rules, of which the
// last one is about the endpoint's neighbour.
func crowd(t *testing.T, n int) *policy.Model {
	s := &spec.Spec{Tiers: []*spec.Tier{{Name: spec.DefaultTier, DefaultAction: spec.Deny}}}
	for i := range n {
		name := fmt.Sprintf("e%02d", i)
		s.Endpoints = append(s.Endpoints, &spec.Endpoint{
			Name: name, Node: "n1", Labels: map[string]string{"name": name}, Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 244, 1, byte(i)})},
		})
		p := &spec.Policy{Kind: spec.KindPolicy, Name: "p-" + name, Tier: spec.DefaultTier, Selector: selector.Equals("name", name), Types: []spec.Direction{spec.Ingress}}
		for j := range n {
			peer := spec.Peer{NetworkSet: "nowhere"}
			if j == n-1 {
				peer = spec.Peer{Endpoints: &spec.PeerSelector{Selector: selector.Equals("name", fmt.Sprintf("e%02d", (i+1)%n))}}
			}
			p.Ingress = append(p.Ingress, spec.Rule{Action: spec.Allow, Peers: []spec.Peer{peer}, Services: []spec.Service{{Protocol: spec.ProtocolTCP, Ports: spec.PortRange{First: 80, Last: 80}}}})
		}
		s.Policies = append(s.Policies, p)
	}
	m, diags := policy.New(s)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return m
}

func explained(t *testing.T, m *policy.Model, from, to, service string) Explanation {
	t.Helper()
	q, err := m.Ask(from, to, service)
	if err != nil {
		t.Fatal(err)
	}
	decisions, err := m.Answer(q)
	if err != nil {
		t.Fatal(err)
	}
	return NewExplanation(&spec.Config{}, q, decisions)
}

// Of many rules that do not match the first few are shown, and the one that
// decides always.
func TestExplanationOfManyRules(t *testing.T) {
	e := explained(t, crowd(t, 20), "e01", "e00", "80/tcp")
	var short, long, coloured bytes.Buffer
	for out, text := range map[*bytes.Buffer]Text{&short: {}, &long: {Verbose: true}, &coloured: {Color: true}} {
		if err := e.WriteText(out, text); err != nil {
			t.Fatal(err)
		}
	}
	golden(t, "explanation-many.txt", short.Bytes())
	golden(t, "explanation-colour.txt", coloured.Bytes())
	if n := strings.Count(long.String(), "another peer"); n != 19 || strings.Contains(long.String(), "--verbose") {
		t.Errorf("%d of 19 rules that do not match are shown:\n%s", n, &long)
	}
}

// A matrix that is too wide for a table is a list.
func TestMatrixText(t *testing.T) {
	for _, n := range []int{3, 30} {
		var out bytes.Buffer
		if err := NewMatrix(crowd(t, n).Matrix()).WriteText(&out, Text{}); err != nil {
			t.Fatal(err)
		}
		golden(t, fmt.Sprintf("matrix-%d.txt", n), out.Bytes())
	}
}

// The text of a rule is in the words of the spec, and says what it cannot match.
func TestRuleText(t *testing.T) {
	block := &spec.Block{CIDR: netip.MustParsePrefix("10.0.0.0/8"), Except: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("10.2.3.4/32")}}
	for _, test := range []struct {
		rule spec.Rule
		d    spec.Direction
		want string
	}{
		{spec.Rule{Action: spec.Deny}, spec.Ingress, "deny"},
		{spec.Rule{Action: spec.Pass, Peers: []spec.Peer{{Any: true}, {Node: "n1"}}}, spec.Egress, "pass to anybody or node n1"},
		{spec.Rule{Action: spec.Log, Peers: []spec.Peer{{Block: block}}}, spec.Ingress, "log from 10.0.0.0/8 except 10.1.0.0/16, 10.2.3.4"},
		{spec.Rule{Action: spec.Allow, Peers: []spec.Peer{}, Services: []spec.Service{}}, spec.Ingress, "allow nothing from nobody"},
		{spec.Rule{Action: spec.Allow, Peers: []spec.Peer{{NetworkSet: "office"}, {}}, Services: []spec.Service{{Name: "http"}, {Protocol: spec.ProtocolUDP}}}, spec.Egress,
			"allow http, */udp to network_set office or nobody"},
		{spec.Rule{Action: spec.Allow, Peers: []spec.Peer{{Endpoints: &spec.PeerSelector{Selector: selector.Has("app"), Namespaces: selector.All()}}, {Endpoints: &spec.PeerSelector{}}}}, spec.Ingress,
			"allow from has(app) in namespaces all() or all()"},
	} {
		if got := policy.Describe(&test.rule, test.d); got != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
}
