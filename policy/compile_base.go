package policy

import (
	"net/netip"
	"slices"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/policy/drop"
	"github.com/poldernet/polder/spec"
)

// The names of the chains that are always there, where there is anything.
const (
	chainForward = "policy_forward"
	chainInput   = "policy_input"
	chainOutput  = "policy_output"
	chainGuard   = "policy_guard"
)

// lookups are the names of the maps and sets by which base chains find the chains
// of this node's endpoints; "" where there is nobody to be found.
type lookups struct {
	egress, ingress       string
	isolated, isolatedFor string // in any direction; for ingress
}

// base makes the base chains.
//
// There is no rule that accepts what is established: each packet, of either
// direction, is judged by the tuple of its connection. What a change denies is
// denied from the next packet on, whoever sends it, and nothing has to be found
// out about connections that were open before.
func (c *compiler) base() {
	var found spec.PerFamily[lookups]
	isolates := false
	for _, f := range spec.Families {
		var d lookups
		var from, to []nft.Element
		d.egress, from = c.dispatch(side{Direction: spec.Egress, family: f})
		d.ingress, to = c.dispatch(side{Direction: spec.Ingress, family: f})
		key := []nft.Type{nft.AddrType(f)}
		if len(to) > 0 {
			d.isolatedFor = c.content("isolated_ingress"+number(f), nft.Set{Key: key, Elements: to})
		}
		all := from
		if !slices.Equal(from, to) {
			all = sorted(append(slices.Clip(from), to...))
		}
		if len(all) > 0 {
			d.isolated = c.content("isolated"+number(f), nft.Set{Key: key, Elements: all})
			isolates = true
			for _, e := range all {
				if a, ok := netip.AddrFromSlice([]byte(e.Key)); ok {
					c.isolated.Set(f, append(c.isolated.Get(f), a))
				}
			}
		}
		found.Set(f, d)
	}
	if isolates {
		c.guard(found)
	}
	forward, input, output := c.hook(chainForward, "forward"), c.hook(chainInput, "input"), c.hook(chainOutput, "output")
	strangers := c.strangers()
	forward.Rules, input.Rules = slices.Clone(strangers), slices.Clone(strangers)
	if isolates {
		c.endpoints(found, &forward, &input, &output)
	}
	c.hosts(isolates, &input, &output)
	for _, chain := range []nft.Chain{forward, input, output} {
		if len(chain.Rules) > 0 {
			c.add(chain)
		}
	}
}

// endpoints are the rules of the base chains about this node's endpoints.
func (c *compiler) endpoints(found spec.PerFamily[lookups], forward, input, output *nft.Chain) {
	// A packet that conntrack does not know has no tuple: it is judged by its
	// header. To the host's own packets that does not apply.
	untuned := nft.NewRule("without a connection", nft.CTStateIn(nft.CTStateInvalid|nft.CTStateUntracked), nft.Do(nft.Jump(chainGuard)))
	forward.Rules, input.Rules = append(forward.Rules, untuned), append(input.Rules, untuned)
	for _, chain := range []*nft.Chain{forward, input, output} {
		chain.Rules = append(chain.Rules, c.errors()...)
		chain.Rules = append(chain.Rules, nft.NewRule("TCP from its middle", midstream(nft.Do(nft.Jump(chainGuard)))...))
		chain.Rules = append(chain.Rules, c.kept()...)
		for _, f := range spec.Families {
			if name := found.Get(f).egress; name != "" {
				chain.Rules = append(chain.Rules, nft.NewRule("", nft.CTOriginalSaddr(f).VMap(name)))
			}
		}
	}
	for _, f := range spec.Families {
		if d := found.Get(f); d.ingress != "" {
			forward.Rules = append(forward.Rules,
				nft.NewRule("", nft.CTReplySaddr(f).VMap(d.ingress)),
				// No chain of the map ends without a verdict. If one did, it is
				// not open.
				nft.NewRule("no verdict", nft.CTReplySaddr(f).In(d.isolatedFor), c.drop(drop.NoVerdict)))
		}
	}
}

// midstream matches TCP that does not begin with its first packet. conntrack takes
// such a connection up, and takes who speaks first for its client: what was cut
// would come back the other way round.
func midstream(more ...nft.Statement) []nft.Statement {
	return append([]nft.Statement{
		nft.CTStateIn(nft.CTStateNew),
		nft.TCPFlagsNot(nft.TCPFin|nft.TCPSyn|nft.TCPRst|nft.TCPAck, nft.TCPSyn),
	}, more...)
}

func (c *compiler) hook(name, hook string) nft.Chain {
	return nft.Chain{Name: name, Base: &nft.Base{Type: "filter", Hook: hook, Priority: nft.PriorityFilter, Policy: nft.PolicyAccept}}
}

// errors let pass what ICMP has to say about a connection. Its tuple is that
// connection's, and its protocol is not.
func (c *compiler) errors() []nft.Rule {
	var rules []nft.Rule
	for _, f := range spec.Families {
		rules = append(rules, nft.NewRule("errors of connections", nft.CTStateIn(nft.CTStateRelated), nft.L4Proto().Is(nft.Proto(icmp(f))), nft.Do(nft.Accept)))
	}
	return rules
}

// kept lets open connections pass, if they are to be kept.
func (c *compiler) kept() []nft.Rule {
	if c.m.spec.Enforcement.Established != spec.Keep {
		return nil
	}
	return []nft.Rule{nft.NewRule("open connections are kept", nft.CTStateIn(nft.CTStateEstablished), nft.Do(nft.Accept))}
}

// neighbour are the ICMPv6 types that are never tracked: multicast listener
// discovery and neighbour discovery (noct_valid_new in the kernel's
// nf_conntrack_proto_icmpv6.c). Without them there is no IPv6.
var neighbour = []struct{ first, last byte }{{130, 137}, {143, 143}}

// guard makes the chain for packets that no connection's tuple can be asked
// for: they do not reach an isolated endpoint, and do not come from one.
func (c *compiler) guard(found spec.PerFamily[lookups]) {
	chain := nft.Chain{Name: chainGuard, Rules: c.discovery(nft.Return)}
	for _, f := range spec.Families {
		if set := found.Get(f).isolated; set != "" {
			chain.Rules = append(chain.Rules,
				nft.NewRule("from an isolated endpoint", nft.Saddr(f).In(set), c.drop(drop.NoConnection)),
				nft.NewRule("to an isolated endpoint", nft.Daddr(f).In(set), c.drop(drop.NoConnection)))
		}
	}
	c.add(chain)
}

// discovery gives the verdict on neighbour discovery.
func (c *compiler) discovery(v nft.Verdict) []nft.Rule {
	var rules []nft.Rule
	for _, n := range neighbour {
		match := nft.ICMPType(spec.IPv6).Is(nft.Proto(n.first))
		if n.first != n.last {
			match = nft.ICMPType(spec.IPv6).Between(nft.Proto(n.first), nft.Proto(n.last))
		}
		rules = append(rules, nft.NewRule("neighbour discovery", match, nft.Do(v)))
	}
	return rules
}

// strangers drop what comes from the bridge under an address that no endpoint
// of this node has, if that is wanted. Link-local addresses stay: neighbour
// discovery needs them, and the bridge's own table checks whose they are.
func (c *compiler) strangers() []nft.Rule {
	if c.m.spec.Enforcement.Unclaimed != spec.UnclaimedDrop || c.host.Bridge == "" {
		return nil
	}
	var rules []nft.Rule
	for _, f := range spec.Families {
		var claimed []nft.Element
		for _, e := range c.x.own {
			for _, a := range e.Addresses {
				if spec.FamilyOf(a) == f {
					claimed = append(claimed, nft.Exact(nft.Addr(a)))
				}
			}
		}
		match := []nft.Statement{nft.IIFName().Is(nft.IfName(c.host.Bridge)), nft.Saddr(f).NotInPrefix(linkLocal.Get(f)), nft.Saddr(f).NotInPrefix(unspecified.Get(f))}
		if len(claimed) > 0 {
			match = append(match, nft.Saddr(f).NotIn(c.content("claimed"+number(f), nft.Set{Key: []nft.Type{nft.AddrType(f)}, Elements: sorted(claimed)})))
		}
		rules = append(rules, nft.NewRule("from an address that no endpoint has", append(match, c.drop(drop.Unclaimed))...))
	}
	return rules
}
