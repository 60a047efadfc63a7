package kube_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	kubeyaml "sigs.k8s.io/yaml"

	"github.com/poldernet/polder/policy/kube"
	"github.com/poldernet/polder/spec"
	"github.com/poldernet/polder/spec/selector"
)

// rows are what Kubernetes expects of NetworkPolicies, as far as the
// conversion decides it.
var rows = []struct {
	name string
	spec string // of the object, in YAML
	want spec.Policy
}{
	{"no rules: nothing is allowed", `{podSelector: {}, ingress: []}`, ingress()},
	{"null rules: nothing is allowed", `{podSelector: {}, ingress: null}`, ingress()},
	{"rules left out: nothing is allowed", `{podSelector: {}}`, ingress()},
	{"an empty rule: everything is allowed", `{podSelector: {}, ingress: [{}]}`, ingress(rule(nil))},
	{"no sources: any source", `{podSelector: {}, ingress: [{from: []}]}`, ingress(rule(nil))},
	{"no ports: any port", `{podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: []}]}`, ingress(rule(peers(own(selector.All()))))},
	{"ports only: any source", `{podSelector: {}, ingress: [{ports: [{port: 80}]}]}`, ingress(rule(nil, tcp(80, 80)))},
	{"no protocol: TCP", `{podSelector: {}, ingress: [{ports: [{}]}]}`, ingress(rule(nil, spec.Service{Protocol: 6}))},
	{"a protocol without a port: all its ports", `{podSelector: {}, ingress: [{ports: [{protocol: UDP}, {protocol: SCTP}]}]}`,
		ingress(rule(nil, spec.Service{Protocol: 17}, spec.Service{Protocol: 132}))},
	{"no policyTypes: ingress", `{podSelector: {}, egress: []}`, ingress()},
	{"no policyTypes, egress rules: both", `{podSelector: {}, egress: [{}]}`,
		policy(spec.Directions, nil, []spec.Rule{rule(nil)})},
	{"policyTypes without a section's direction: it is ignored", `{podSelector: {}, policyTypes: [Ingress], ingress: [{}], egress: [{}]}`, ingress(rule(nil))},
	{"policyTypes Egress", `{podSelector: {}, policyTypes: [Egress], ingress: [{}]}`, policy([]spec.Direction{spec.Egress}, nil, nil)},
	{"policyTypes in another order", `{podSelector: {}, policyTypes: [Egress, Ingress]}`, policy(spec.Directions, nil, nil)},
	{"peers: own namespace, other namespaces, both", `
podSelector: {}
ingress:
- from:
  - podSelector: {matchLabels: {app: web}}
  - namespaceSelector: {matchLabels: {team: a}}
  - podSelector: {matchLabels: {app: web}}
    namespaceSelector: {}
  - namespaceSelector: {}
  - podSelector: {}
`, ingress(rule(peers(
		own(selector.Equals("app", "web")),
		spec.Peer{Endpoints: &spec.PeerSelector{Namespaces: selector.Equals("team", "a")}},
		spec.Peer{Endpoints: &spec.PeerSelector{Selector: selector.Equals("app", "web"), Namespaces: selector.All()}},
		spec.Peer{Endpoints: &spec.PeerSelector{Namespaces: selector.All()}},
		own(selector.All()),
	)))},
	{"blocks, with holes that overlap and stand twice", `
podSelector: {}
ingress:
- from:
  - ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, 10.1.2.0/24, 10.1.0.0/16]}
  - ipBlock: {cidr: "::/0", except: ["2001:db8::/32"]}
  - ipBlock: {cidr: 0.0.0.0/0}
`, ingress(rule(peers(
		block("10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.0.0/16"),
		block("::/0", "2001:db8::/32"),
		block("0.0.0.0/0"),
	)))},
	{"ports that overlap, up to the last, and of one", `
podSelector: {}
ingress:
- ports: [{port: 1, endPort: 65535}, {port: 80, endPort: 90}, {port: 80}, {port: 80, endPort: 80}]
`, ingress(rule(nil, tcp(1, 65535), tcp(80, 90), tcp(80, 80), tcp(80, 80)))},
	{"named ports keep their protocol", `{podSelector: {}, ingress: [{ports: [{port: http}, {port: dns, protocol: UDP}]}]}`,
		ingress(rule(nil, spec.Service{Protocol: 6, Name: "http"}, spec.Service{Protocol: 17, Name: "dns"}))},
	{"a named port without destinations", `{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: http}]}]}`,
		policy([]spec.Direction{spec.Egress}, nil, []spec.Rule{rule(nil, spec.Service{Protocol: 6, Name: "http"})})},
	{"selectors", `
podSelector:
  matchLabels: {b: x, a: ""}
  matchExpressions:
  - {key: c, operator: In, values: [w, ""]}
  - {key: d, operator: NotIn, values: [z]}
  - {key: e, operator: Exists}
  - {key: f, operator: DoesNotExist}
`, subject(selector.And(selector.Equals("a", ""), selector.Equals("b", "x"), selector.In("c", "w", ""),
		selector.NotIn("d", "z"), selector.Has("e"), selector.Not(selector.Has("f"))))},
}

func policy(types []spec.Direction, ingress, egress []spec.Rule) spec.Policy {
	return spec.Policy{Selector: selector.All(), Types: types, Ingress: ingress, Egress: egress}
}

func ingress(rules ...spec.Rule) spec.Policy {
	return policy([]spec.Direction{spec.Ingress}, rules, nil)
}

func subject(s *selector.Selector) spec.Policy {
	p := ingress()
	p.Selector = s
	return p
}

func rule(peers []spec.Peer, services ...spec.Service) spec.Rule {
	return spec.Rule{Action: spec.Allow, Peers: peers, Services: services}
}

func peers(list ...spec.Peer) []spec.Peer { return append([]spec.Peer{}, list...) }

func own(s *selector.Selector) spec.Peer {
	return spec.Peer{Endpoints: &spec.PeerSelector{Selector: s}}
}

func block(cidr string, except ...string) spec.Peer {
	b := &spec.Block{CIDR: netip.MustParsePrefix(cidr)}
	for _, e := range except {
		b.Except = append(b.Except, netip.MustParsePrefix(e))
	}
	return spec.Peer{Block: b}
}

func tcp(first, last uint16) spec.Service {
	return spec.Service{Protocol: 6, Ports: spec.PortRange{First: first, Last: last}}
}

// told is a policy as text, without places. Nil lists differ from empty ones.
func told(p *spec.Policy) string {
	var b strings.Builder
	order := "none"
	if p.Order != nil {
		order = fmt.Sprint(*p.Order)
	}
	fmt.Fprintf(&b, "%s, tier %s, order %s, namespace %s, types %v\nselects %s\n", p.ID(), p.Tier, order, p.Namespace, p.Types, p.Selector)
	if p.NamespaceSelector != nil || p.HostSelector != nil {
		b.WriteString("and more\n")
	}
	for _, d := range spec.Directions {
		for _, r := range p.Rules(d) {
			fmt.Fprintf(&b, "%s %s, peers %t, services %t\n", d, r.Action, r.Peers != nil, r.Services != nil)
			for _, q := range r.Peers {
				switch {
				case q.Block != nil:
					fmt.Fprintf(&b, "  block %s %s\n", q.Block.CIDR, q.Block.Except)
				default:
					// A selector that is left out says so: it prints as nil.
					fmt.Fprintf(&b, "  endpoints %s of %s\n", orNone(q.Endpoints.Selector), orNone(q.Endpoints.Namespaces))
				}
			}
			for _, s := range r.Services {
				fmt.Fprintf(&b, "  service %d %d-%d %q\n", s.Protocol, s.Ports.First, s.Ports.Last, s.Name)
			}
		}
	}
	return b.String()
}

func orNone(s *selector.Selector) string {
	if s == nil {
		return "none"
	}
	return s.String()
}

// object is an object with a spec in YAML.
func object(t *testing.T, spec string) (*networkingv1.NetworkPolicy, []byte) {
	t.Helper()
	text := "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: p\n  namespace: shop\nspec: " +
		strings.ReplaceAll(spec, "\n", "\n  ") + "\n"
	np := new(networkingv1.NetworkPolicy)
	if err := kubeyaml.Unmarshal([]byte(text), np); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return np, []byte(text)
}

func TestRows(t *testing.T) {
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			order := 1000.0
			row.want.Kind, row.want.Name, row.want.Namespace = spec.KindNetworkPolicy, "shop/p", "shop"
			row.want.Tier, row.want.Order = spec.DefaultTier, &order
			want := told(&row.want)
			np, text := object(t, row.spec)
			p, problems := kube.Convert(np)
			if got := told(p); got != want || len(problems) > 0 {
				t.Errorf("converted: %v\n%s\nwant\n%s", problems, got, want)
			}
			list, diags := kube.Decode("p.yaml", text)
			if len(list) != 1 || len(diags) > 0 {
				t.Fatalf("%s", rendered(t, "p.yaml", text, diags))
			}
			if got := told(list[0]); got != want {
				t.Errorf("decoded:\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// TestStored converts what API servers took once, and what none ever took.
func TestStored(t *testing.T) {
	for _, test := range []struct {
		name, spec string
		want       []spec.Rule
		problems   string // fields
	}{
		{"host bits and leading zeros", `
ingress:
- from:
  - ipBlock: {cidr: 010.008.000.001/08, except: [10.009.1.2/16]}
  - ipBlock: {cidr: "2001:db8::1/032"}
  - ipBlock: {cidr: "::ffff:10.0.0.1/104"}
`, []spec.Rule{rule(peers(block("10.0.0.0/8", "10.9.0.0/16"), block("2001:db8::/32"), block("10.0.0.0/8")))}, ""},
		{"peers that are none", `
ingress:
- from: [{}, {ipBlock: {cidr: 10.0.0.0/33}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]
- from: [{podSelector: {}}, {podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}]
`, []spec.Rule{rule(peers()), rule(peers(own(selector.All())))},
			"spec.ingress[0].from[0] spec.ingress[0].from[1].ipBlock.cidr spec.ingress[0].from[2].ipBlock.except[0] spec.ingress[1].from[1]"},
		{"ports that are none", `
ingress:
- ports: [{port: 0}, {protocol: ICMP}, {port: http, endPort: 90}, {endPort: 90}, {port: "80"}, {port: 80}]
`, []spec.Rule{rule(nil, tcp(80, 80))},
			"spec.ingress[0].ports[0].port spec.ingress[0].ports[1].protocol spec.ingress[0].ports[2].endPort spec.ingress[0].ports[3].endPort spec.ingress[0].ports[4].port"},
		{"a selector of peers", `
ingress:
- from: [{namespaceSelector: {matchExpressions: [{key: a, operator: Equals, values: [b]}]}}]
`, []spec.Rule{rule(peers())}, "spec.ingress[0].from[0].namespaceSelector.matchExpressions[0].operator"},
	} {
		t.Run(test.name, func(t *testing.T) {
			np, _ := object(t, test.spec)
			p, problems := kube.Convert(np)
			want := ingress(test.want...)
			want.Kind, want.Name, want.Namespace, want.Tier, want.Order = p.Kind, p.Name, p.Namespace, p.Tier, p.Order
			if got, want := told(p), told(&want); got != want {
				t.Errorf("%s\nwant\n%s", got, want)
			}
			var fields []string
			for _, problem := range problems {
				fields = append(fields, problem.Field)
			}
			if got := strings.Join(fields, " "); got != test.problems {
				t.Errorf("problems %v\nwant %s", problems, test.problems)
			}
		})
	}
}

// TestDoubt converts policies of which it is not sure whom they are about.
func TestDoubt(t *testing.T) {
	np, _ := object(t, `
podSelector:
  matchLabels: {app: web, "a b": c}
  matchExpressions: [{key: d, operator: Like}]
ingress: [{}]
`)
	p, problems := kube.Convert(np)
	if len(problems) != 2 || p.Selector.String() != selector.Equals("app", "web").String() || !p.Applies(spec.Ingress) || len(p.Ingress) > 0 {
		t.Errorf("%v\n%s", problems, told(p))
	}
	np, _ = object(t, `{policyTypes: [Ingress, Sideways], ingress: [{}], egress: [{}]}`)
	p, problems = kube.Convert(np)
	if len(problems) != 1 || !p.Applies(spec.Egress) || len(p.Ingress) != 1 || len(p.Egress) > 0 {
		t.Errorf("%v\n%s", problems, told(p))
	}
}

// TestPlaces looks at where policies, rules and peers are said to be.
func TestPlaces(t *testing.T) {
	text := []byte(`apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: web
spec:
  ingress:
  - ports: [{port: 80}]
    from:
    - podSelector: {}
  egress: [{}]
`)
	list, diags := kube.Decode("p.yaml", text)
	if len(diags) > 0 {
		t.Fatal(diags)
	}
	p := list[0]
	for got, want := range map[string]string{
		string(p.Range.SliceBytes(text)):                     "web",
		p.Range.String():                                     "p.yaml:4,9-12",
		p.Ingress[0].Range.String():                          "p.yaml:7,5-9,22",
		string(p.Ingress[0].Peers[0].Range.SliceBytes(text)): "podSelector: {}",
		string(p.Egress[0].Range.SliceBytes(text)):           "{}",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	np, _ := object(t, `{ingress: [{}]}`)
	if p, _ := kube.Convert(np); p.Range.Filename != "networkpolicies/shop/p" || p.Ingress[0].Range != p.Range {
		t.Errorf("%+v", p)
	}
	np.Namespace = ""
	if p, _ := kube.Convert(np); p.Name != "default/p" || p.Namespace != "default" || p.Range.Filename != "networkpolicies/default/p" {
		t.Errorf("%+v", p)
	}
}
