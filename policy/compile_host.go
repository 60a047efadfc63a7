package policy

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/policy/drop"
	"github.com/poldernet/polder/spec"
)

var (
	linkLocal = spec.PerFamily[netip.Prefix]{IPv4: netip.MustParsePrefix("169.254.0.0/16"), IPv6: netip.MustParsePrefix("fe80::/10")}
	// unspecified is the source of those who have no address yet.
	unspecified = spec.PerFamily[netip.Prefix]{IPv4: netip.MustParsePrefix("0.0.0.0/32"), IPv6: netip.MustParsePrefix("::/128")}
)

// chainHostGuard judges what host endpoints get without a connection.
const chainHostGuard = "policy_host_guard"

// hosts adds the rules for the node's own end of what passes its interfaces. A
// packet of the direction in which the connection was opened is the node's
// ingress where it comes in and its egress where it goes out; an answer is the
// other one's. endpoints says that the chains have what endpoints need, of which
// hosts need a part.
func (c *compiler) hosts(endpoints bool, input, output *nft.Chain) {
	guarded := c.hostLinks()
	if guarded == nil {
		return
	}
	guard := nft.Chain{Name: chainHostGuard, Rules: append(c.discovery(nft.Return), c.tunnel()...)}
	guard.Rules = append(guard.Rules, nft.NewRule("without a connection", c.drop(drop.NoConnection)))
	c.add(guard)
	if !endpoints {
		for _, chain := range []*nft.Chain{input, output} {
			chain.Rules = append(chain.Rules, c.errors()...)
			chain.Rules = append(chain.Rules, c.kept()...)
		}
	}
	for _, hook := range []struct {
		chain *nft.Chain
		link  nft.Field
		first spec.Direction // of what opens a connection
	}{{input, nft.IIFName(), spec.Ingress}, {output, nft.OIFName(), spec.Egress}} {
		for _, g := range guarded {
			hook.chain.Rules = append(hook.chain.Rules, nft.NewRule("without a connection",
				nft.CTStateIn(nft.CTStateInvalid|nft.CTStateUntracked), g(hook.link), nft.Do(nft.Jump(chainHostGuard))))
		}
		if hook.chain == output {
			hook.chain.Rules = append(hook.chain.Rules, c.inside()...)
		}
		hook.chain.Rules = append(hook.chain.Rules, c.hostMiddle(hook.first, hook.link)...)
		for _, d := range spec.Directions {
			way := nft.Original
			if d != hook.first {
				way = nft.Reply
			}
			hook.chain.Rules = append(hook.chain.Rules, c.hostRules(d, way, hook.link)...)
		}
	}
}

// inside lets what the node sends to itself and to its endpoints pass, which no
// interface of a host endpoint is about. Where it goes there by way of a service,
// the interface does not tell: destination NAT in the output hook routes the
// packet anew, but chains behind it still see the interface of the old route
// (nf_hook_state.out).
func (c *compiler) inside() []nft.Rule {
	var rules []nft.Rule
	for _, f := range spec.Families {
		var local []nft.Element
		add := func(list []netip.Addr) {
			for _, a := range list {
				if spec.FamilyOf(a) == f {
					local = append(local, nft.Exact(nft.Addr(a)))
				}
			}
		}
		add(NodeAddresses(c.host.Node))
		for _, e := range c.x.own {
			add(e.Addresses)
		}
		if len(local) > 0 {
			set := c.content("local"+number(f), nft.Set{Key: []nft.Type{nft.AddrType(f)}, Elements: sorted(local)})
			rules = append(rules, nft.NewRule("does not leave the node", nft.CTDirection(nft.Original), nft.CTReplySaddr(f).In(set), nft.Do(nft.Accept)))
		}
	}
	return rules
}

// tunnel lets VXLAN between nodes pass: the guard of its port decides about it.
func (c *compiler) tunnel() []nft.Rule {
	var rules []nft.Rule
	for _, t := range c.host.Tunnel {
		rules = append(rules, nft.NewRule("VXLAN between nodes", append(t, nft.Do(nft.Return))...))
	}
	return rules
}

// own are the host endpoints of this node.
func (c *compiler) own() []*spec.HostEndpoint {
	var list []*spec.HostEndpoint
	for _, h := range c.m.spec.HostEndpoints {
		if h.Node == c.host.Node.Name {
			list = append(list, h)
		}
	}
	return list
}

// hostStages are the tiers that judge something of a host endpoint.
func (c *compiler) hostStages(h *spec.HostEndpoint, d spec.Direction) []stage {
	var list []*spec.Policy
	for _, p := range c.x.hostPolicies {
		if selectsHost(p, h) {
			list = append(list, p)
		}
	}
	return c.m.stages(d, list)
}

// hostMiddle drops TCP from its middle, as endpoints' is: an answer of the node in
// a connection that it may not be asked for would be one that it opens. What a
// client says to a failsafe service passes, so that connections to these go on
// where conntrack begins to look while they are in use. What the server says
// waits for that, or else the client's would be the answers.
func (c *compiler) hostMiddle(first spec.Direction, link nft.Field) []nft.Rule {
	var rules []nft.Rule
	for _, h := range c.own() {
		if !c.hostIsolated(h) {
			continue
		}
		on := c.hostLink(h, link)
		failsafe := h.FailsafeInbound
		if first == spec.Egress {
			failsafe = h.FailsafeOutbound
		}
		if open, some := c.tcpPorts(failsafe); some {
			rules = append(rules, nft.NewRule("failsafe", midstream(on, open, nft.Do(nft.Accept))...))
		}
		rules = append(rules, nft.NewRule("TCP from its middle", midstream(on, c.drop(drop.NoConnection))...))
	}
	return rules
}

// tcpPorts matches what is sent to certain services of TCP; some says that there
// are any.
func (c *compiler) tcpPorts(services []spec.Service) (match nft.Statement, some bool) {
	var list []spec.PortRange
	for _, v := range services {
		if v.Protocol == nft.TCP {
			list = append(list, v.Ports)
		}
	}
	if len(list) == 0 {
		return match, false
	}
	list = mergedPorts(list)
	if list[0].IsZero() {
		list[0].Last = 1<<16 - 1
	}
	return nft.Dport(nft.TCP).In(c.content("ports", portSet(list))), true
}

// hostIsolated says that a policy judges a host endpoint in any direction.
func (c *compiler) hostIsolated(h *spec.HostEndpoint) bool {
	return len(c.hostStages(h, spec.Ingress))+len(c.hostStages(h, spec.Egress)) > 0
}

// hostLink matches the interfaces of a host endpoint.
func (c *compiler) hostLink(h *spec.HostEndpoint, link nft.Field) nft.Statement {
	if h.Interface == spec.AllInterfaces {
		return c.others(link)
	}
	return link.Is(nft.IfName(h.Interface))
}

// hostLinks are matches of the interfaces whose host endpoint is isolated in
// any direction.
func (c *compiler) hostLinks() []func(nft.Field) nft.Statement {
	var named []nft.Element
	var list []func(nft.Field) nft.Statement
	for _, h := range c.own() {
		if !c.hostIsolated(h) {
			continue
		}
		if h.Interface == spec.AllInterfaces {
			list = append(list, c.others)
			continue
		}
		named = append(named, nft.Exact(nft.IfName(h.Interface)))
	}
	if len(named) > 0 {
		set := c.content("host_links", nft.Set{Key: []nft.Type{nft.TypeIfName}, Elements: sorted(named)})
		list = append(list, func(link nft.Field) nft.Statement { return link.In(set) })
	}
	return list
}

// others matches the interfaces that AllInterfaces stands for: those that have
// no host endpoint of their own, are not loopback, and do not lead to pods.
func (c *compiler) others(link nft.Field) nft.Statement {
	names := append([]string{"lo"}, c.host.Links...)
	if c.host.Bridge != "" {
		names = append(names, c.host.Bridge)
	}
	for _, h := range c.own() {
		if h.Interface != spec.AllInterfaces {
			names = append(names, h.Interface)
		}
	}
	var list []nft.Element
	for _, n := range names {
		list = append(list, nft.Exact(nft.IfName(n)))
	}
	return link.NotIn(c.content("not_host_links", nft.Set{Key: []nft.Type{nft.TypeIfName}, Elements: sorted(list)}))
}

// hostRules find the chain of an interface's host endpoint.
func (c *compiler) hostRules(d spec.Direction, way nft.Direction, link nft.Field) []nft.Rule {
	var rules []nft.Rule
	for _, f := range spec.Families {
		s := side{d, f, true}
		var verdicts []nft.Element
		family := nft.NFProto().Is(nft.Proto(nfproto.Get(f)))
		for _, h := range c.own() {
			stages := c.hostStages(h, d)
			if len(stages) == 0 {
				continue
			}
			chain := nft.Jump(c.hostChain(s, h, stages))
			if h.Interface == spec.AllInterfaces {
				rules = append(rules, nft.NewRule(nft.Comment("host endpoint "+h.Name), family, nft.CTDirection(way), c.others(link), nft.Do(chain)))
				continue
			}
			verdicts = append(verdicts, nft.IfName(h.Interface).Maps(chain))
		}
		if len(verdicts) > 0 {
			slices.SortFunc(verdicts, compareKeys)
			name := c.content(s.prefix(), nft.Set{Key: []nft.Type{nft.TypeIfName}, Verdicts: true, Elements: verdicts})
			rules = append(rules, nft.NewRule("", family, nft.CTDirection(way), link.VMap(name)))
		}
	}
	return rules
}

// nfproto are the numbers of the families to netfilter, <linux/netfilter.h>.
var nfproto = spec.PerFamily[uint8]{IPv4: 2, IPv6: 10}

// hostChain makes the chain of a host endpoint: its failsafe services, then its
// policies.
func (c *compiler) hostChain(s side, h *spec.HostEndpoint, stages []stage) string {
	services := h.FailsafeInbound
	if s.Direction == spec.Egress {
		services = h.FailsafeOutbound
	}
	var rules []nft.Rule
	for _, v := range c.services(s, &spec.Rule{Services: append([]spec.Service{}, services...)}) {
		rules = append(rules, nft.NewRule("failsafe", append(v.statements, nft.Do(nft.Return))...))
	}
	judge := c.judge(s, stages)
	rules = append(rules, nft.NewRule("", nft.Do(nft.Goto(judge.Chain))))
	return c.named(s.prefix(), rules)
}

// sorted is a set's elements in order, each once.
func sorted(list []nft.Element) []nft.Element {
	list = slices.Clone(list) // Compact clears what is behind the end
	slices.SortFunc(list, compareKeys)
	return slices.Compact(list)
}

func compareKeys(a, b nft.Element) int { return strings.Compare(string(a.Key), string(b.Key)) }
