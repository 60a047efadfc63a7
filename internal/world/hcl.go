package world

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/poldernet/polder/spec"
)

// HCL is a world as a spec file. NetworkPolicies, of which a spec only has the
// names of files, are comments in it.
func HCL(sp *spec.Spec) string {
	var p printer
	p.attr("cluster", quote(sp.Cluster))
	p.open("network")
	var pods []string
	for _, r := range sp.Network.Pods {
		pods = append(pods, r.CIDR.String())
	}
	p.attr("pod_cidrs", list(pods))
	if sp.Network.Backend.DirectRouting {
		p.line("backend %q { direct_routing = true }", sp.Network.Backend.Type)
	} else {
		p.line("backend %q {}", sp.Network.Backend.Type)
	}
	p.end()
	for _, n := range sp.Nodes {
		p.open("node", n.Name)
		var addresses []string
		for _, a := range n.Addresses {
			text := a.Addr.String()
			if a.Link.IsValid() {
				text = netip.PrefixFrom(a.Addr, a.Link.Bits()).String()
			}
			addresses = append(addresses, text)
		}
		p.attr("addresses", list(addresses))
		p.attr("subnets", list(texts(n.Subnets)))
		p.end()
	}
	for _, n := range sp.Namespaces {
		p.open("namespace", n.Name)
		p.labels(n.Labels)
		p.end()
	}
	for _, e := range sp.Endpoints {
		p.open("endpoint", e.Name)
		p.attr("node", quote(e.Node))
		p.attr("namespace", quote(e.Namespace))
		p.attr("addresses", list(texts(e.Addresses)))
		p.labels(e.Labels)
		p.ports(e.Ports)
		p.end()
	}
	for _, s := range sp.NetworkSets {
		p.open("network_set", s.Name)
		p.attr("cidrs", list(texts(s.CIDRs)))
		p.labels(s.Labels)
		p.end()
	}
	for _, h := range sp.HostEndpoints {
		p.open("host_endpoint", h.Name)
		p.attr("node", quote(h.Node))
		p.attr("interface", quote(h.Interface))
		p.labels(h.Labels)
		p.ports(h.Ports)
		p.attr("failsafe_inbound", list(texts(h.FailsafeInbound)))
		p.attr("failsafe_outbound", list(texts(h.FailsafeOutbound)))
		p.end()
	}
	for _, t := range sp.Tiers {
		p.open("tier", t.Name)
		p.attr("order", number(t.Order))
		p.attr("default_action", quote(string(t.DefaultAction)))
		p.end()
	}
	for _, policy := range sp.Policies {
		if policy.Kind == spec.KindPolicy {
			p.policy(policy)
		} else {
			p.comment(policy)
		}
	}
	p.open("enforcement")
	p.attr("established", quote(string(sp.Enforcement.Established)))
	p.attr("unclaimed", quote(string(sp.Enforcement.Unclaimed)))
	p.attr("log_drops", strconv.FormatBool(sp.Enforcement.LogDrops))
	p.end()
	return p.text.String()
}

// printer writes blocks.
type printer struct {
	text  strings.Builder
	depth int
}

func (p *printer) line(format string, args ...any) {
	fmt.Fprintf(&p.text, strings.Repeat("  ", p.depth)+format+"\n", args...)
}

func (p *printer) open(block string, labels ...string) {
	for _, l := range labels {
		block += " " + quote(l)
	}
	p.line("%s {", block)
	p.depth++
}

func (p *printer) end() {
	p.depth--
	p.line("}")
}

func (p *printer) attr(name, value string) { p.line("%s = %s", name, value) }

func (p *printer) labels(labels map[string]string) {
	if len(labels) == 0 {
		return
	}
	var pairs []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		pairs = append(pairs, quote(k)+" = "+quote(labels[k]))
	}
	p.attr("labels", "{ "+strings.Join(pairs, ", ")+" }")
}

func (p *printer) ports(ports map[string]spec.Port) {
	if len(ports) == 0 {
		return
	}
	var pairs []string
	for _, k := range slices.Sorted(maps.Keys(ports)) {
		pairs = append(pairs, quote(k)+" = "+quote(ports[k].String()))
	}
	p.attr("ports", "{ "+strings.Join(pairs, ", ")+" }")
}

func (p *printer) policy(policy *spec.Policy) {
	p.open("policy", policy.Name)
	p.attr("tier", quote(policy.Tier))
	if policy.Order != nil {
		p.attr("order", number(*policy.Order))
	}
	if policy.Namespace != "" {
		p.attr("namespace", quote(policy.Namespace))
	}
	if policy.Selector != nil {
		p.attr("selector", quote(policy.Selector.String()))
	}
	if policy.NamespaceSelector != nil {
		p.attr("namespace_selector", quote(policy.NamespaceSelector.String()))
	}
	if policy.HostSelector != nil {
		p.attr("host_selector", quote(policy.HostSelector.String()))
	}
	p.attr("types", list(texts(policy.Types)))
	for _, d := range spec.Directions {
		for _, r := range policy.Rules(d) {
			p.rule(d, r)
		}
	}
	p.end()
}

// comment prints a policy behind number signs. Lists that match nothing are told
// from those that are not there.
func (p *printer) comment(policy *spec.Policy) {
	var inner printer
	inner.policy(policy)
	for line := range strings.Lines(inner.text.String()) {
		p.text.WriteString("# " + line)
	}
	for _, d := range spec.Directions {
		for i, r := range policy.Rules(d) {
			if r.Peers != nil && len(r.Peers) == 0 {
				p.line("# %s %d: no peers match", d, i+1)
			}
			if r.Services != nil && len(r.Services) == 0 {
				p.line("# %s %d: no services match", d, i+1)
			}
		}
	}
}

func (p *printer) rule(d spec.Direction, r spec.Rule) {
	p.open(string(d))
	p.attr("action", quote(string(r.Action)))
	p.services(r.Services)
	block := "from"
	if d == spec.Egress {
		block = "to"
	}
	for _, peer := range r.Peers {
		p.open(block)
		p.peer(peer)
		p.end()
	}
	p.end()
}

// services prints what a rule of a file can have. Protocols as a whole, of
// which it has one, go without ports.
func (p *printer) services(services []spec.Service) {
	if len(services) == 0 {
		return
	}
	name := "ports"
	switch first := services[0]; {
	case first.ICMP != nil:
		name = "icmp"
	case len(services) == 1 && first.Name == "" && first.Ports.IsZero():
		p.attr("protocol", quote(strconv.Itoa(int(first.Protocol))))
		return
	}
	p.attr(name, list(texts(services)))
}

func (p *printer) peer(peer spec.Peer) {
	switch {
	case peer.Any:
		p.attr("any", "true")
	case peer.Node != "":
		p.attr("node", quote(peer.Node))
	case peer.NetworkSet != "":
		p.attr("network_set", quote(peer.NetworkSet))
	case peer.Block != nil:
		p.attr("cidr", quote(peer.Block.CIDR.String()))
		p.attr("except", list(texts(peer.Block.Except)))
	case peer.Endpoints != nil:
		if peer.Endpoints.Selector != nil {
			p.attr("selector", quote(peer.Endpoints.Selector.String()))
		}
		if peer.Endpoints.Namespaces != nil {
			p.attr("namespace_selector", quote(peer.Endpoints.Namespaces.String()))
		}
	}
}

// texts are values as a spec has them.
func texts[T netip.Addr | netip.Prefix | spec.Service | spec.Direction](values []T) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = fmt.Sprint(v)
	}
	return out
}

func list(values []string) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = quote(v)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// quote is a string of a file. No value of a world needs HCL's own escapes.
func quote(s string) string { return strconv.Quote(s) }

func number(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
