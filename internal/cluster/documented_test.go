package cluster

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/poldernet/polder/spec"
)

// documented is what docs/kubernetes.md says of what is written.
func documented(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## What it writes\n")
	section, _, _ = strings.Cut(section, "\n## ")
	return section
}

// words are those in code spans, in order and each once.
func words(text string) []string {
	found := map[string]bool{}
	for _, m := range regexp.MustCompile("`([A-Z][A-Za-z]+)`").FindAllStringSubmatch(text, -1) {
		found[m[1]] = true
	}
	return slices.Sorted(maps.Keys(found))
}

// sources are those of the package.
func sources(t *testing.T) (text string) {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		text += string(b)
	}
	return text
}

func TestAnnotationsAreListed(t *testing.T) {
	for _, key := range []string{polderAddress.IPv4, polderAddress.IPv6, polderMAC.IPv4, polderMAC.IPv6} {
		if !strings.Contains(documented(t), "`"+key+"`") {
			t.Errorf("the manual does not have %s", key)
		}
	}
}

// TestConditionsAreListed holds the conditions of the manual, with their reasons, to
// those that are written.
func TestConditionsAreListed(t *testing.T) {
	names := map[string]corev1.NodeConditionType{"networkUnavailable": networkUnavailable, "podCIDRs": podCIDRs, "peers": peers}
	said := map[corev1.NodeConditionType][]string{}
	for _, m := range regexp.MustCompile(`say\((\w+), [\w.]+, (?:"(\w+)"|string\(s\.Self\[0\]\.Reason\))`).FindAllStringSubmatch(sources(t), -1) {
		c := names[m[1]]
		if reason := m[2]; reason != "" && !slices.Contains(said[c], reason) {
			said[c] = append(said[c], reason)
		}
	}
	if len(said) != len(conditions) || len(names) != len(conditions) {
		t.Fatalf("found %v", said)
	}
	rows := regexp.MustCompile("(?m)^\\| `([^`]+)` \\|.*\\| (.*) \\|$").FindAllStringSubmatch(documented(t), -1)
	listed := 0
	for _, row := range rows {
		c := corev1.NodeConditionType(row[1])
		if !slices.Contains(conditions, c) {
			continue // it is an annotation
		}
		listed++
		if want := slices.Sorted(slices.Values(said[c])); !slices.Equal(words(row[2]), want) {
			t.Errorf("of %s the manual has the reasons %q, and written are %q", c, words(row[2]), want)
		}
	}
	if listed != len(conditions) {
		t.Errorf("the manual lists %d of the conditions %q", listed, conditions)
	}
}

// TestReasonsAreListed: why a node has no part in the network is in the manual, if it
// is something that the node says of itself. Reasons for its peers alone are not.
func TestReasonsAreListed(t *testing.T) {
	address, subnet, mac := netip.MustParseAddr("192.0.2.11"), netip.MustParsePrefix("10.244.1.0/24"), spec.MAC{2, 0, 0, 0, 0, 1}
	node := func(name string, made int64) spec.Candidate {
		c := spec.Candidate{Name: name, Created: made}
		c.Addresses.IPv4, c.Subnets.IPv4 = address.Next(), netip.MustParsePrefix("10.244.2.0/24")
		if name == "n1" {
			c.Addresses.IPv4, c.Subnets.IPv4 = address, subnet
		}
		return c
	}
	var reasons []string
	for _, compat := range []spec.Compat{"", spec.CompatFlannel} {
		for _, change := range []func(own, older *spec.Candidate){
			func(own, _ *spec.Candidate) { own.Subnets = spec.PerFamily[netip.Prefix]{} },
			func(own, _ *spec.Candidate) { own.Subnets.IPv4 = netip.MustParsePrefix("10.99.1.0/24") },
			func(own, older *spec.Candidate) { own.Subnets = older.Subnets },
			func(own, _ *spec.Candidate) { own.Addresses = spec.PerFamily[netip.Addr]{} },
			func(own, _ *spec.Candidate) { own.Addresses.IPv4 = netip.MustParseAddr("10.244.9.9") },
			func(own, older *spec.Candidate) { own.Addresses = older.Addresses },
			func(own, older *spec.Candidate) {
				own.Polder.MACs.IPv4, older.Polder.MACs.IPv4 = mac, mac
				own.Flannel.MACs.IPv4, older.Flannel.MACs.IPv4 = mac, mac
			},
			func(own, _ *spec.Candidate) { own.Polder.Garbled.IPv4, own.Flannel.Garbled.IPv4 = "garbled", "garbled" },
			func(own, _ *spec.Candidate) { own.Flannel.Backend = spec.HostGW },
			func(*spec.Candidate, *spec.Candidate) {},
		} {
			own, older := node("n1", 2), node("n2", 1)
			older.Flannel.Backend, older.Flannel.Addresses, older.Flannel.MACs.IPv4 = spec.VXLAN, older.Addresses, spec.MAC{2, 0, 0, 0, 0, 2}
			change(&own, &older)
			sp := &spec.Spec{Cluster: "edge", Kubernetes: &spec.Kubernetes{}, Network: &spec.Network{
				Compat: compat, Backend: spec.Backend{Type: spec.VXLAN, VNI: 1, Port: 8472},
				Pods: []spec.PodRange{{CIDR: netip.MustParsePrefix("10.244.0.0/16"), SubnetLen: 24}},
			}}
			_, out := sp.Join([]spec.Candidate{own, older}, "n1")
			for _, l := range out {
				if l.Node == "n1" && !slices.Contains(reasons, string(l.Reason)) {
					reasons = append(reasons, string(l.Reason))
				}
			}
		}
	}
	slices.Sort(reasons)
	_, list, _ := strings.Cut(documented(t), "Why a node has no part")
	list, _, _ = strings.Cut(list, "\n\n")
	if !slices.Equal(words(list), reasons) {
		t.Errorf("the manual has the reasons %q, and there are %q", words(list), reasons)
	}
	// Those that a node does not say of itself. Another one has to be in the manual, or
	// here.
	others := []spec.Reason{spec.NotPublished, spec.OtherBackend, spec.GarbledData, spec.NoPath}
	text, err := os.ReadFile("../../spec/join.go")
	if err != nil {
		t.Fatal(err)
	}
	all := regexp.MustCompile(`Reason = "(\w+)"`).FindAllStringSubmatch(string(text), -1)
	for _, m := range all {
		if !slices.Contains(reasons, m[1]) && !slices.Contains(others, spec.Reason(m[1])) {
			t.Errorf("nobody knows who says %s", m[1])
		}
	}
	if len(all) != len(reasons)+len(others) {
		t.Errorf("there are %d reasons: %q and %q are not all", len(all), reasons, others)
	}
}

// TestEventsAreListed holds the Events of the manual to those that are written: of a
// policy by their own reasons, of a node by that of its condition, and no others.
func TestEventsAreListed(t *testing.T) {
	text := sources(t)
	for call, want := range map[string]int{`[^c] event\(`: 3, `\bnodeEvent\(`: 2, `\bpolicyEvent\(`: 2, `\brefusalEvent\(`: 2, `nodeEvent\(node, c\.Reason,`: 1} {
		if n := len(regexp.MustCompile(call).FindAllString(text, -1)); n != want {
			t.Errorf("%s is %d times in the sources, and was %d times when the manual was compared", call, n, want)
		}
	}
	reasons := regexp.MustCompile(`np\.Namespace, "(\w+)", `).FindAllStringSubmatch(text, -1)
	if len(reasons) != 2 {
		t.Fatalf("Events of policies have the reasons %q", reasons)
	}
	rows := []string{fmt.Sprintf("| Node | that of %#q | ", podCIDRs)}
	for _, reason := range reasons {
		rows = append(rows, fmt.Sprintf("| NetworkPolicy | %#q | ", reason[1]))
	}
	for _, row := range rows {
		if !strings.Contains(documented(t), row) {
			t.Errorf("the manual has no row %q", row)
		}
	}
}
