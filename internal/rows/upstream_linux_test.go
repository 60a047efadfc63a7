package rows

import (
	"fmt"
	"path"
	"strings"
	"testing"
	"time"
)

// story is one of Kubernetes' own tests of NetworkPolicies, by what it says it
// tests (test/e2e/network/netpol): steps, and who reaches whom after each.
type story struct {
	title string
	steps []step
}

// step changes something and says what is so then.
type step struct {
	clear bool     // all policies go
	put   string   // policies
	label []string // as kubernetes.label has it
	// ports are tried from each pod to each other one. All arrives but what the
	// lines of but say, which are "FROM -> TO PORT: VERDICT" with patterns; the
	// last that matches counts.
	ports string
	but   string
}

// probes are all that a step tries.
func (s step) probes(t *testing.T) []probe { return (&example{want: s.lines(t)}).probes(t) }

func (s step) lines(t *testing.T) string {
	t.Helper()
	var lines strings.Builder
	for _, from := range pods {
		for _, to := range pods {
			for port := range strings.FieldsSeq(s.ports) {
				if from.name != to.name {
					fmt.Fprintf(&lines, "%s -> %s %s: %s\n", from.name, to.name, port, s.verdict(t, from.name, to.name, port))
				}
			}
		}
	}
	return lines.String()
}

func (s step) verdict(t *testing.T, from, to, port string) verdict {
	t.Helper()
	v := allow
	for line := range strings.Lines(s.but) {
		f := strings.Fields(strings.Replace(line, ": ", " ", 1))
		if len(f) == 0 {
			continue
		}
		if len(f) != 5 || f[1] != "->" {
			t.Fatalf("not understood: %s", line)
		}
		matches := true
		for pattern, name := range map[string]string{"from " + f[0]: "from " + from, "to " + f[2]: "to " + to, "on " + f[3]: "on " + port} {
			ok, err := path.Match(pattern, name)
			if err != nil {
				t.Fatal(err)
			}
			matches = matches && ok
		}
		if matches {
			v = verdict(f[4])
		}
	}
	return v
}

// upstreamPatience is how long Kubernetes' tests wait for a policy.
const upstreamPatience = 3 * time.Second

// tell plays a story. All of it must be so within the time that Kubernetes' tests
// give; how long it took is logged.
func (k *kubernetes) tell(t *testing.T, s story) {
	defer k.restore(t)
	for i, step := range s.steps {
		list := step.probes(t)
		before, count := k.events(), 0
		if step.clear {
			count += k.clear(t)
		}
		count += k.put(t, step.put)
		for _, l := range step.label {
			k.label(t, l)
			count++
		}
		began := time.Now()
		k.told(t, before, count)
		if took := time.Since(began); took > upstreamPatience {
			t.Errorf("step %d is in force after %v", i+1, took)
		} else {
			t.Logf("step %d: %d probes; in force after %v", i+1, len(list), took)
		}
		for _, wrong := range k.tryAll(t, list, patience) {
			t.Errorf("step %d: %s\nwith\n%s", i+1, wrong, step.put)
		}
	}
}

// The policies of the stories.
const (
	nobody   = `{podSelector: {}, policyTypes: [Ingress]}`
	anybody  = `{podSelector: {}, ingress: [{}], policyTypes: [Ingress]}`
	nowhere  = `{podSelector: {}, policyTypes: [Egress]}`
	anywhere = `{podSelector: {}, egress: [{}], policyTypes: [Egress]}`
)

// onA is the text of a policy about pods a.
func onA(rest string) string { return `{podSelector: {matchLabels: {pod: a}}, ` + rest + `}` }

// upstream is Kubernetes' list, but for what only its API server is asked.
var upstream = []story{
	{"default-deny-ingress", []step{{
		put: np("x/p", nobody), ports: "80/tcp 81/tcp", but: `*/* -> x/* */*: deny`,
	}}},
	{"default-deny-all", []step{{
		put: np("x/p", `{podSelector: {}, policyTypes: [Ingress, Egress]}`), ports: "80/tcp", but: `
			*/* -> x/* */*: deny
			x/* -> */* */*: deny`,
	}}},
	{"allow from server namespace by PodSelector", []step{{
		put: np("x/p", onA(`ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]`)), ports: "80/tcp", but: `
			*/* -> x/a */*: deny
			x/b -> x/a */*: allow`,
	}}},
	{"allow ingress for a target", []step{{
		put: np("x/deny", nobody) + np("x/p", onA(`ingress: [{}]`)), ports: "80/tcp", but: `
			*/* -> x/* */*: deny
			*/* -> x/a */*: allow`,
	}}},
	{"ingress from pods in all namespaces", []step{{
		put: np("x/deny", nobody) + np("x/p", onA(`ingress: [{from: [{namespaceSelector: {}}]}]`)), ports: "80/tcp", but: `
			*/* -> x/* */*: deny
			*/* -> x/a */*: allow`,
	}}},
	{"only from different namespace by NamespaceSelector", []step{{
		put: np("x/p", onA(`ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}}]}]`)), ports: "80/tcp", but: `
			*/* -> x/a */*: deny
			y/* -> x/a */*: allow`,
	}}},
	{"PodSelector with MatchExpressions", []step{{
		put: np("x/p", onA(`ingress: [{from: [{podSelector: {matchExpressions: [{key: pod, operator: In, values: [b]}]}}]}]`)), ports: "80/tcp", but: `
			*/* -> x/a */*: deny
			x/b -> x/a */*: allow`,
	}}},
	{"NamespaceSelector with MatchExpressions", []step{{
		put: np("x/p", onA(`ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: ns, operator: In, values: ["y"]}]}}]}]`)), ports: "80/tcp", but: `
			*/* -> x/a */*: deny
			y/* -> x/a */*: allow`,
	}}},
	{"PodSelector or NamespaceSelector", []step{{
		put: np("x/p", onA(`ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: ns, operator: NotIn, values: [x]}]}}, {podSelector: {matchLabels: {pod: b}}}]}]`)), ports: "80/tcp", but: `
			x/* -> x/a */*: deny
			x/b -> x/a */*: allow`,
	}}},
	{"PodSelector and NamespaceSelector", []step{{
		put: np("x/p", onA(`ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: ns, operator: NotIn, values: [x]}]}, podSelector: {matchLabels: {pod: b}}}]}]`)), ports: "80/tcp", but: `
			*/* -> x/a */*: deny
			[yz]/b -> x/a */*: allow`,
	}}},
	{"multiple PodSelectors and NamespaceSelectors", []step{{
		put: np("x/p", onA(`ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: ns, operator: NotIn, values: [x]}]}, podSelector: {matchExpressions: [{key: pod, operator: In, values: [b, c]}]}}]}]`)), ports: "80/tcp", but: `
			*/* -> x/a */*: deny
			[yz]/[bc] -> x/a */*: allow`,
	}}},
	{"any PodSelectors", []step{{
		put: np("x/p", onA(`ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}, {podSelector: {matchLabels: {pod: c}}}]}]`)), ports: "80/tcp", but: `
			*/* -> x/a */*: deny
			x/[bc] -> x/a */*: allow`,
	}}},
	{"from a pod in a different namespace by both selectors", []step{{
		put: np("x/p", onA(`ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}, podSelector: {matchLabels: {pod: a}}}]}]`)), ports: "80/tcp", but: `
			*/* -> x/a */*: deny
			y/a -> x/a */*: allow`,
	}}},
	{"based on ports", []step{{
		put: np("x/p", onA(`ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}}], ports: [{port: 81}]}]`)), ports: "80/tcp 81/tcp", but: `
			*/* -> x/a */*: deny
			y/* -> x/a 81/*: allow`,
	}}},
	{"stacked policies with overlapping PodSelectors", []step{
		{put: np("x/p", onA(`ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}}], ports: [{port: 81}]}]`)), ports: "80/tcp 81/tcp", but: `
			*/* -> x/a */*: deny
			y/* -> x/a 81/*: allow`},
		{put: np("x/q", onA(`ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}}], ports: [{port: 80}]}]`)), ports: "80/tcp 81/tcp", but: `
			*/* -> x/a */*: deny
			y/* -> x/a */*: allow`},
	}},
	{"allow-all", []step{{put: np("x/p", anybody), ports: "80/tcp 81/tcp"}}},
	{"ingress on one named port", []step{{
		put: np("x/p", `{podSelector: {}, ingress: [{ports: [{port: serve-81-tcp}]}]}`), ports: "80/tcp 81/tcp", but: `*/* -> x/* 80/*: deny`,
	}}},
	{"ingress from namespace on one named port", []step{{
		put: np("x/p", onA(`ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}}], ports: [{port: serve-80-tcp}]}]`)), ports: "80/tcp 81/tcp", but: `
			*/* -> x/a */*: deny
			y/* -> x/a 80/*: allow`,
	}}},
	{"egress on one named port", []step{{
		put: np("x/p", onA(`policyTypes: [Egress], egress: [{ports: [{port: serve-80-tcp}]}]`)), ports: "80/tcp 81/tcp", but: `x/a -> */* 81/*: deny`,
	}}},
	{"not all ports if a port cannot be limited", []step{{
		put: np("x/p", onA(`ingress: [{ports: [{port: no-such-port}]}]`)), ports: "80/tcp 81/tcp", but: `*/* -> x/a */*: deny`,
	}}},
	{"updated policy", []step{
		{put: np("x/p", anybody), ports: "80/tcp"},
		{put: np("x/p", nobody), ports: "80/tcp", but: `*/* -> x/* */*: deny`},
	}},
	{"updated namespace", []step{
		{put: np("x/p", onA(`ingress: [{from: [{namespaceSelector: {matchLabels: {ns2: updated}}}]}]`)), ports: "80/tcp", but: `*/* -> x/a */*: deny`},
		{label: []string{"y ns2=updated"}, ports: "80/tcp", but: `
			*/* -> x/a */*: deny
			y/* -> x/a */*: allow`},
	}},
	{"updated pod", []step{
		{put: np("x/p", onA(`ingress: [{from: [{podSelector: {matchLabels: {pod: b, pod2: updated}}}]}]`)), ports: "80/tcp", but: `*/* -> x/a */*: deny`},
		{label: []string{"x/b pod2=updated"}, ports: "80/tcp", but: `
			*/* -> x/a */*: deny
			x/b -> x/a */*: allow`},
	}},
	{"deny from other namespaces", []step{{
		put: np("x/p", `{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}`), ports: "80/tcp", but: `[yz]/* -> x/* */*: deny`,
	}}},
	{"deny access to an updated pod", []step{
		{put: np("x/p", `{podSelector: {matchLabels: {target: isolated}}}`), ports: "80/tcp"},
		{label: []string{"x/a target=isolated"}, ports: "80/tcp", but: `*/* -> x/a */*: deny`},
	}},
	{"deny egress by PodSelector", []step{{
		put: np("x/p", onA(`policyTypes: [Egress]`)), ports: "80/tcp", but: `x/a -> */* */*: deny`,
	}}},
	{"deny egress of a whole namespace", []step{{
		put: np("x/p", nowhere), ports: "80/tcp", but: `x/* -> */* */*: deny`,
	}}},
	{"ingress and egress together", []step{{
		put: np("x/p", onA(`policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}], egress: [{ports: [{port: 80}]}]`)), ports: "80/tcp 81/tcp", but: `
			*/* -> x/a */*: deny
			x/b -> x/a */*: allow
			x/a -> */* 81/*: deny`,
	}}},
	{"egress denied at the client wins", []step{
		{put: np("x/in", onA(`ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}, podSelector: {matchLabels: {pod: a}}}]}]`)), ports: "80/tcp", but: `
			*/* -> x/a */*: deny
			y/a -> x/a */*: allow`},
		{put: np("y/out", onA(`policyTypes: [Egress]`)), ports: "80/tcp", but: `
			*/* -> x/a */*: deny
			y/a -> */* */*: deny`},
	}},
	{"egress to another namespace by both selectors", []step{{
		put: np("x/p", onA(`policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {ns: "y"}}, podSelector: {matchLabels: {pod: a}}}]}]`)), ports: "80/tcp", but: `
			x/a -> */* */*: deny
			x/a -> y/a */*: allow`,
	}}},
	{"any port of one protocol", []step{{
		put: np("x/p", onA(`ingress: [{ports: [{protocol: TCP}]}]`)), ports: "80/tcp 81/tcp 80/udp", but: `*/* -> x/a */udp: deny`,
	}}},
	{"allow-all beats a restrictive policy at ingress", []step{
		{put: np("x/deny", nobody), ports: "80/tcp", but: `*/* -> x/* */*: deny`},
		{put: np("x/p", anybody), ports: "80/tcp"},
	}},
	{"allow-all beats a restrictive policy at egress", []step{
		{put: np("x/deny", nowhere), ports: "80/tcp", but: `x/* -> */* */*: deny`},
		{put: np("x/p", anywhere), ports: "80/tcp"},
	}},
	{"a deleted policy is not in force", []step{
		{put: np("x/p", `{podSelector: {}, policyTypes: [Ingress, Egress]}`), ports: "80/tcp", but: `
			*/* -> x/* */*: deny
			x/* -> */* */*: deny`},
		{clear: true, ports: "80/tcp"},
	}},
	{"egress to a CIDR", []step{{
		put: np("x/p", onA(`policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.244.1.21/32}}, {ipBlock: {cidr: "fd00:10:244:1::21/128"}}]}]`)), ports: "80/tcp", but: `
			x/a -> */* */*: deny
			x/a -> y/b */*: allow`,
	}}},
	{"except of a CIDR, and another policy that allows it", []step{
		{put: np("x/p", onA(`policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.244.0.0/16, except: [10.244.1.11/32]}}, {ipBlock: {cidr: "fd00:10:244::/48", except: ["fd00:10:244:1::11/128"]}}]}]`)), ports: "80/tcp", but: `x/a -> x/b */*: deny`},
		{put: np("x/q", onA(`policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.244.1.11/32}}, {ipBlock: {cidr: "fd00:10:244:1::11/128"}}]}]`)), ports: "80/tcp"},
	}},
	{"ingress and egress are independent", []step{{
		put: np("x/in", onA(`ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {pod: none}}}]}]`)) + np("x/out", onA(`policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {pod: b}}}]}]`)), ports: "80/tcp", but: `
			*/* -> x/a */*: deny
			x/a -> */* */*: deny
			x/a -> x/b */*: allow`,
	}}},
	{"SCTP is not TCP", []step{{
		put: np("x/p", onA(`ingress: [{ports: [{port: 81, protocol: SCTP}]}]`)), ports: "81/tcp 81/sctp", but: `*/* -> x/a */tcp: deny`,
	}}},
	{"a rule of SCTP isolates TCP", []step{{
		put: np("x/p", onA(`ingress: [{ports: [{port: 80, protocol: SCTP}]}]`)), ports: "81/tcp 81/sctp 80/sctp", but: `*/* -> x/a 81/*: deny`,
	}}},
	{"no TCP where only UDP is allowed", []step{{
		put: np("x/p", onA(`ingress: [{ports: [{port: 81, protocol: UDP}]}]`)), ports: "81/tcp 81/udp", but: `*/* -> x/a */tcp: deny`,
	}}},
	{"a namespace by the label of its name", []step{{
		put: np("x/p", onA(`ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: "y"}}}]}]`)), ports: "80/tcp", but: `
			*/* -> x/a */*: deny
			y/* -> x/a */*: allow`,
	}}},
	{"a namespace by an expression about the label of its name", []step{{
		put: np("x/p", onA(`policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: NotIn, values: ["y"]}]}}]}]`)), ports: "80/tcp", but: `x/a -> y/* */*: deny`,
	}}},
	{"default-deny-ingress, UDP", []step{{put: np("x/p", nobody), ports: "80/udp 81/udp", but: `*/* -> x/* */*: deny`}}},
	{"based on ports, UDP", []step{{
		put: np("x/p", onA(`ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}}], ports: [{port: 81, protocol: UDP}]}]`)), ports: "80/udp 81/udp", but: `
			*/* -> x/a */*: deny
			y/* -> x/a 81/*: allow`,
	}}},
	{"by both selectors, UDP", []step{{
		put: np("x/p", onA(`ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}, podSelector: {matchLabels: {pod: a}}}], ports: [{port: 80, protocol: UDP}]}]`)), ports: "80/udp 81/udp", but: `
			*/* -> x/a */*: deny
			y/a -> x/a 80/*: allow`,
	}}},
	{"default-deny-ingress, SCTP", []step{{put: np("x/p", nobody), ports: "80/sctp 81/sctp", but: `*/* -> x/* */*: deny`}}},
	{"based on ports, SCTP", []step{{
		put: np("x/p", onA(`ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}}], ports: [{port: 81, protocol: SCTP}]}]`)), ports: "80/sctp 81/sctp", but: `
			*/* -> x/a */*: deny
			y/* -> x/a 81/*: allow`,
	}}},
	{"by both selectors, SCTP", []step{{
		put: np("x/p", onA(`ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}, podSelector: {matchLabels: {pod: a}}}], ports: [{port: 80, protocol: SCTP}]}]`)), ports: "80/sctp 81/sctp", but: `
			*/* -> x/a */*: deny
			y/a -> x/a 80/*: allow`,
	}}},
}
