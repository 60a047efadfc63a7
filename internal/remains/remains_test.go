package remains

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/overlay"
	"github.com/poldernet/polder/spec"
)

// chain is a chain with rules "COMMENT -> TARGET", or "COMMENT -> drop".
func chain(name string, base *nft.Base, rules ...string) nft.ForeignChain {
	c := nft.ForeignChain{Name: name, Base: base}
	for i, text := range rules {
		comment, target, _ := strings.Cut(text, " -> ")
		verdict := nft.Jump(target)
		if target == "drop" {
			verdict = nft.Drop
		}
		c.Rules = append(c.Rules, nft.ForeignRule{Rule: nft.Rule{Comment: comment, Exprs: []nft.Expr{verdict}}, Handle: uint64(i + 10)})
	}
	return c
}

func forward(policy nft.Policy) *nft.Base {
	return &nft.Base{Type: "filter", Hook: "forward", Policy: policy}
}

func names(changes []change.Change) (list []string) {
	for _, c := range changes {
		list = append(list, c.Kind+" "+c.Name)
	}
	return list
}

// What is a program's is found by its exact names and by what its rules say of
// themselves; what only looks like it is not.
func TestRulesOf(t *testing.T) {
	id := func(f nft.Family, name string) nft.TableID { return nft.TableID{Family: f, Name: name} }
	found := rulesOf(map[nft.TableID][]nft.ForeignChain{
		id(nft.IP, "nat"): {
			chain("POSTROUTING", nil, "cali:O3lYWMrLQYEMJtB5 -> cali-POSTROUTING", " -> KUBE-POSTROUTING", "flanneld masq -> FLANNEL-POSTRTG"),
			chain("FLANNEL-POSTRTG", nil, "flanneld masq -> x"), chain("KUBE-POSTROUTING", nil), chain("cali-POSTROUTING", nil),
		},
		id(nft.IP, "filter"): {
			chain("FORWARD", forward(nft.PolicyDrop), "cali:wUHhoiAYhphO9Mso -> cali-FORWARD", "flanneld forward -> FLANNEL-FWD", "cali:S93hcgKJrXEqnTfs -> accept"),
			chain("FLANNEL-FWD", nil), chain("cali-FORWARD", nil, "x -> drop"), chain("FLANNEL-FWD-MINE", nil),
		},
		id(nft.IP6, "filter"):      {chain("FORWARD", forward(nft.PolicyAccept), "flanneld forward -> FLANNEL-FWD", " -> FLANNEL-FWD"), chain("FLANNEL-FWD", nil)},
		id(nft.IP, "mangle"):       {chain("FLANNEL-FWD", nil)}, // not where flannel has any
		id(nft.INet, "filter"):     {chain("cali-FORWARD", nil)},
		id(nft.IP, "flannel-ipv4"): {chain("forward", forward(nft.PolicyAccept)), chain("postrtg", nil, "x -> y")},
		id(nft.IP6, "calico"):      {chain("filter-cali-FORWARD", nil, "x -> y")},
		id(nft.IP, "calico"):       {chain("mine", nil)},
	})
	var got []string
	for _, r := range found {
		got = append(got, fmt.Sprintf("%s: %s: %s masquerades %t conflicts %d warnings %d", r.Of, r.Name, strings.Join(names(r.changes), ", "), r.masquerades, len(r.conflicts), len(r.warnings)))
		if len(r.changes) != len(r.removals) {
			t.Errorf("%s: %d changes by %d removals", r.Name, len(r.changes), len(r.removals))
		}
	}
	want := []string{
		"flannel: chain ip filter FLANNEL-FWD: rule ip filter FORWARD 2, chain ip filter FLANNEL-FWD masquerades false conflicts 0 warnings 1",
		"Felix: chains cali-* in table ip filter: rule ip filter FORWARD 1, rule ip filter FORWARD 3, chain ip filter cali-FORWARD masquerades false conflicts 0 warnings 1",
		"flannel: table ip flannel-ipv4: table ip flannel-ipv4 masquerades true conflicts 0 warnings 0",
		"flannel: chain ip nat FLANNEL-POSTRTG: rule ip nat POSTROUTING 3, chain ip nat FLANNEL-POSTRTG masquerades true conflicts 0 warnings 0",
		"Felix: chains cali-* in table ip nat: rule ip nat POSTROUTING 1, chain ip nat cali-POSTROUTING masquerades false conflicts 0 warnings 0",
		"Felix: table ip6 calico: table ip6 calico masquerades false conflicts 0 warnings 0",
		"flannel: chain ip6 filter FLANNEL-FWD:  masquerades false conflicts 1 warnings 0",
	}
	if !slices.Equal(got, want) {
		t.Errorf("found\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestWhatRuns(t *testing.T) {
	for _, test := range []struct {
		name   string
		wrote  bool
		of     Program
		remedy string
	}{
		{"flanneld", false, Flannel, "systemctl disable"},
		{"flannel", false, Flannel, "systemctl disable"},
		{"k3s-agent", true, Flannel, "--flannel-backend=none"},
		{"k3s-agent", false, "", ""}, // with another backend
		{"calico-node", false, Felix, "canal's DaemonSet"},
		{"containerd", true, "", ""},
	} {
		of, remedy, ok := runs(test.name, test.wrote)
		if of != test.of || ok != (test.of != "") || !strings.Contains(remedy, test.remedy) {
			t.Errorf("%s, %t: %q, %q", test.name, test.wrote, of, remedy)
		}
	}
}

func TestOfKubernetes(t *testing.T) {
	if !ofKubernetes("flanneld", []string{"flanneld", "--kube-subnet-mgr"}) || ofKubernetes("flanneld", []string{"flanneld"}) || !ofKubernetes("k3s-agent", nil) {
		t.Error("where flannel has its nodes from is not told by its command line")
	}
}

// specOf is a spec with a network of two nodes.
func specOf(backend spec.BackendType) *spec.Spec {
	return &spec.Spec{
		Network: &spec.Network{
			Pods:       []spec.PodRange{{CIDR: netip.MustParsePrefix("10.244.0.0/16"), SubnetLen: 24}},
			Backend:    spec.Backend{Type: backend, Device: spec.PerFamily[string]{IPv4: "flannel.1", IPv6: "flannel-v6.1"}},
			Masquerade: &spec.Masquerade{},
		},
		Nodes: []*spec.Node{{Name: "n1", Subnets: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}}, {Name: "n2", Subnets: []netip.Prefix{netip.MustParsePrefix("10.244.2.0/24")}}},
	}
}

func TestLinksOf(t *testing.T) {
	links := map[string]overlay.HostLink{}
	for _, l := range []overlay.Link{
		{Name: "flannel.1", Type: overlay.TypeVXLAN, VXLAN: overlay.VXLAN{VNI: 1}},
		{Name: "flannel.7", Type: overlay.TypeVXLAN, VXLAN: overlay.VXLAN{VNI: 7}},
		{Name: "flannel-v6.7", Type: overlay.TypeVXLAN, VXLAN: overlay.VXLAN{VNI: 7}, Alias: "polder cluster=edge"},
		{Name: "flannel.8", Type: overlay.TypeVXLAN, VXLAN: overlay.VXLAN{VNI: 9}},
		{Name: "flannel.9", Type: overlay.TypeBridge},
		{Name: "flannel-wg", Type: "wireguard"},
		{Name: "flannel0", Type: "veth"},
		{Name: "vxlan7", Type: overlay.TypeVXLAN, VXLAN: overlay.VXLAN{VNI: 7}},
	} {
		links[l.Name] = overlay.HostLink{Link: l}
	}
	for backend, want := range map[spec.BackendType]string{spec.VXLAN: "flannel-wg flannel.7", spec.HostGW: "flannel-wg flannel.1 flannel.7"} {
		var got []string
		for _, l := range linksOf(specOf(backend), links) {
			got = append(got, l.Name)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: found %q, want %s", backend, got, want)
		}
	}
}

// What is in the way keeps what it concerns, and nothing else.
func TestPlan(t *testing.T) {
	route := func(dst string, protocol uint8) overlay.RouteEntry {
		return overlay.RouteEntry{RouteKey: overlay.RouteKey{Dst: netip.MustParsePrefix(dst)}, Route: overlay.Route{Gateway: netip.MustParseAddr("192.0.2.13"), Link: "eth0", Protocol: protocol}}
	}
	left := func(processes ...Process) Remains {
		return Remains{
			Processes: processes,
			Rules: []Rules{
				{Of: Flannel, changes: []change.Change{gone("table", "ip flannel-ipv4")}, removals: []nft.Removal{{}}},
				{Of: Felix, changes: []change.Change{gone("table", "ip calico")}, removals: []nft.Removal{{}}},
			},
			routes: []overlay.RouteEntry{route("10.244.9.0/24", protocolBoot), route("10.244.8.0/24", 4), route("10.244.7.0/28", protocolBoot)},
			links:  []overlay.Link{{Name: "flannel.7", Type: overlay.TypeVXLAN}},
		}
	}
	policyOnly := specOf(spec.HostGW)
	policyOnly.Network = nil
	for name, test := range map[string]struct {
		left    Remains
		sp      *spec.Spec
		pending int
		changes string
		kept    string // by the conflicts
		warned  string
	}{
		"all":         {left(), specOf(spec.HostGW), 0, "table ip flannel-ipv4, table ip calico, route 10.244.9.0/24, link flannel.7", "", "10.244.8.0/24"},
		"flanneld":    {left(Process{Of: Flannel, Program: "flanneld"}), specOf(spec.HostGW), 0, "table ip calico", "process flanneld", "no policies"},
		"Felix":       {left(Process{Of: Felix, Program: "calico-node"}), specOf(spec.HostGW), 0, "table ip flannel-ipv4, route 10.244.9.0/24, link flannel.7", "process calico-node", "10.244.7.0/28"},
		"not applied": {left(), specOf(spec.HostGW), 3, "", "node n1", "no policies"},
		"policy only": {left(Process{Of: Flannel, Program: "flanneld"}), policyOnly, 0, "table ip calico", "", "no network block"},
		"nothing":     {Remains{Processes: []Process{{Of: Felix}}}, policyOnly, 3, "", "", ""},
	} {
		p := test.left.plan(test.sp, "n1", test.pending)
		var kept []string
		for _, c := range p.Conflicts {
			kept = append(kept, c.Kind+" "+c.Name)
		}
		if got := strings.Join(names(p.Changes), ", "); got != test.changes || strings.Join(kept, ", ") != test.kept {
			t.Errorf("%s: it removes %q and is kept by %q", name, got, kept)
		}
		if len(p.rules) != p.inRules || len(p.rules)+len(p.network) != len(p.Changes) {
			t.Errorf("%s: %d changes by %d removals and %d operations", name, len(p.Changes), len(p.rules), len(p.network))
		}
		if warned := strings.Join(p.Warnings, "\n"); !strings.Contains(warned, test.warned) || test.warned == "" && warned != "" {
			t.Errorf("%s: warned of %s", name, warned)
		}
	}
}
