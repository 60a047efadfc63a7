package spec_test

import (
	"fmt"

	"pgregory.net/rapid"

	"github.com/poldernet/polder/spec"
)

var (
	anySelector = rapid.SampledFrom([]string{"all()", "app == 'web'", "has(app)", "app in {'web', 'db'} && !has(x)"})
	anyPorts    = rapid.SampledFrom([]string{"80/tcp", "5432/tcp", "8000-8100/udp", "*/sctp", "http", "http/tcp"})
	anyICMP     = rapid.SampledFrom([]string{"echo-request", "timestamp-request", "13:0/icmp", "139/icmpv6"})
	anyBlock    = rapid.SampledFrom([]string{"10.0.0.0/8", "0.0.0.0/0", "192.0.2.7", "2001:db8::/32", "::/0"})
)

// addPolicies draws what is about policies, for the nodes and endpoints that
// there are. With lacking, not all of these have the same families.
func (g *generated) addPolicies(t *rapid.T, lacking bool) {
	var nodes, endpoints []string
	for _, it := range g.items {
		switch it.block {
		case "node":
			nodes = append(nodes, it.label)
		case "endpoint":
			if it.attrs["addresses"] != nil {
				endpoints = append(endpoints, it.label)
			}
		}
	}
	some := func(what string, most int) int { return rapid.IntRange(0, most).Draw(t, what) }
	maybe := func(it item, name string, value any) {
		if rapid.Bool().Draw(t, name) {
			it.attrs[name] = value
		}
	}
	names := func(prefix string, n int) []string {
		list := make([]string, n)
		for i := range list {
			list[i] = fmt.Sprintf("%s%d", prefix, i)
		}
		return list
	}
	add := func(block, label string) item {
		it := item{block: block, label: label, attrs: make(map[string]any)}
		g.items = append(g.items, it)
		return it
	}
	for _, name := range names("space", some("namespaces", 2)) {
		maybe(add("namespace", name), "labels", map[string]any{"team": name})
	}
	sets := names("set", some("network sets", 2))
	for _, name := range sets {
		add("network_set", name).attrs["cidrs"] = rapid.SliceOfN(anyBlock, 0, 4).Draw(t, "cidrs")
	}
	tiers := append(names("tier", some("tiers", 2)), spec.DefaultTier)
	for _, name := range tiers {
		if name == spec.DefaultTier && rapid.Bool().Draw(t, "implicit") {
			continue
		}
		it := add("tier", name)
		it.attrs["order"] = rapid.IntRange(-2, 2).Draw(t, "order")
		maybe(it, "default_action", "pass")
	}
	for i := range some("policies", 4) {
		it := add("policy", fmt.Sprintf("p%d", i))
		it.attrs["tier"] = rapid.SampledFrom(tiers).Draw(t, "tier")
		maybe(it, "order", rapid.Float64Range(-9, 9).Draw(t, "order"))
		maybe(it, "selector", anySelector.Draw(t, "selector"))
		if rapid.Bool().Draw(t, "host") {
			it.attrs["host_selector"] = anySelector.Draw(t, "host_selector")
		} else {
			maybe(it, "namespace", "space0")
			maybe(it, "namespace_selector", anySelector.Draw(t, "namespace_selector"))
		}
		for range some("rules", 3) {
			direction := rapid.SampledFrom([]string{"ingress", "egress"}).Draw(t, "direction")
			it.items = append(it.items, genRule(t, direction, nodes, sets))
		}
		g.items[len(g.items)-1] = it
	}
	for i, node := range nodes {
		if !rapid.Bool().Draw(t, "host endpoint") {
			continue
		}
		it := add("host_endpoint", fmt.Sprintf("h%d", i))
		it.attrs["node"] = node
		it.attrs["interface"] = rapid.SampledFrom([]string{"*", "eth0"}).Draw(t, "interface")
		maybe(it, "failsafe_inbound", []string{})
		maybe(it, "ports", map[string]any{"ssh": "22/tcp"})
	}
	// One: the order of checks is that of the files.
	if len(endpoints) > 0 && rapid.Bool().Draw(t, "check") {
		it := add("check", "it works")
		from := []string{"outside"}
		if !lacking {
			for _, name := range endpoints {
				from = append(from, "endpoint."+name)
			}
		}
		it.attrs["from"] = rapid.SampledFrom(from).Draw(t, "from")
		it.attrs["to"] = "endpoint." + endpoints[0]
		it.attrs["port"] = rapid.SampledFrom([]string{"80/tcp", "icmp", "gre"}).Draw(t, "port")
		it.attrs["expect"] = rapid.SampledFrom([]string{"allow", "deny"}).Draw(t, "expect")
	}
	if rapid.Bool().Draw(t, "enforcement") {
		add("enforcement", "").attrs["log_rate"] = rapid.IntRange(1, 10_000).Draw(t, "log_rate")
	}
}

// genRule draws a rule for one direction.
func genRule(t *rapid.T, direction string, nodes, sets []string) item {
	rule := item{block: direction, attrs: make(map[string]any)}
	rule.attrs["action"] = rapid.SampledFrom([]string{"allow", "deny", "pass", "log"}).Draw(t, "action")
	switch rapid.IntRange(0, 3).Draw(t, "services") {
	case 1:
		rule.attrs["ports"] = rapid.SliceOfN(anyPorts, 1, 3).Draw(t, "ports")
	case 2:
		rule.attrs["icmp"] = rapid.SliceOfN(anyICMP, 1, 3).Draw(t, "icmp")
	case 3:
		rule.attrs["protocol"] = rapid.SampledFrom([]any{"udp", 47, "icmp", 255}).Draw(t, "protocol")
	}
	for range rapid.IntRange(0, 3).Draw(t, "peers") {
		peer := item{block: map[string]string{"ingress": "from", "egress": "to"}[direction], attrs: make(map[string]any)}
		switch kind := rapid.IntRange(0, 4).Draw(t, "kind"); {
		case kind == 1:
			peer.attrs["cidr"] = "10.0.0.0/8"
			peer.attrs["except"] = rapid.SliceOfN(rapid.SampledFrom([]string{"10.1.0.0/16", "10.1.2.0/24", "10.9.9.9"}), 0, 3).Draw(t, "except")
		case kind == 2 && len(nodes) > 0:
			peer.attrs["node"] = rapid.SampledFrom(nodes).Draw(t, "node")
		case kind == 3 && len(sets) > 0:
			peer.attrs["network_set"] = rapid.SampledFrom(sets).Draw(t, "network_set")
		case kind == 4:
			peer.attrs["any"] = true
		default:
			peer.attrs["selector"] = anySelector.Draw(t, "selector")
			if rapid.Bool().Draw(t, "of namespaces") {
				peer.attrs["namespace_selector"] = anySelector.Draw(t, "namespace_selector")
			}
		}
		rule.items = append(rule.items, peer)
	}
	return rule
}
