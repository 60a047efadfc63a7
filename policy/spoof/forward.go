package spoof

import (
	"net/netip"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/policy/drop"
	"github.com/poldernet/polder/spec"
)

const (
	chainForward  = "spoof_forward"
	chainFiltered = "spoof_filtered"
	chainFrom     = "spoof_from"
	chainControl  = "spoof_control"
	mapForward    = "forward_types"
)

var (
	chainFilter = spec.PerFamily[string]{IPv4: "spoof_filter4", IPv6: "spoof_filter6"}
	chainTo     = spec.PerFamily[string]{IPv4: "spoof_to4", IPv6: "spoof_to6"}
)

// forward is the chain for what crosses a bridge.
//
// Nothing but plain IPv4, ARP and IPv6 goes to a claimed port: policies see
// nothing else. And of these nothing goes from or to an isolated endpoint that
// they have not seen, because br_netfilter was told to leave it alone
// (bridge-nf-call-iptables, bridge-nf-call-ip6tables); the kernel tells nobody
// when these change. The mark ends here: the bit means nothing to whom it
// leaves the bridge for.
func (c *compiler) forward() {
	unfiltered := c.drop(drop.Unfiltered)
	c.verdicts(mapForward, nft.TypeEtherType,
		nft.Ether(nft.EtherIPv4).Maps(nft.Goto(chainFilter.IPv4)),
		nft.Ether(nft.EtherARP).Maps(nft.Accept),
		nft.Ether(nft.EtherIPv6).Maps(nft.Goto(chainFilter.IPv6)))
	c.base(chainForward, "forward", priorityLate,
		rule("", nft.EtherType().VMap(mapForward)),
		rule("to a claimed port", nft.OIFName().In(setPorts), c.drop(drop.SpoofEtherType)),
		rule("under a tag", nft.Protocol().VMap(mapForward)))
	for _, f := range spec.Families {
		ip := carries(nft.EtherTypeOf(f))
		rules := []nft.Rule{rule("", nft.OIFName().In(setIsolated), nft.Do(nft.Jump(chainTo.Get(f))))}
		if f == spec.IPv6 {
			rules = append(rules, rule("", ip, saddr(f).InPrefix(linkLocals), nft.IIFName().In(setIsolated), nft.Do(nft.Jump(chainFrom))))
		}
		c.chain(chainFilter.Get(f), append(rules,
			rule("seen by policies", nft.Mark().Masked(nft.Number(MarkFiltered), nft.Number(MarkFiltered)), nft.Do(nft.Goto(chainFiltered))),
			rule("", ip, saddr(f).In(setSelected.Get(f)), unfiltered),
			rule("", ip, daddr(f).In(setSelected.Get(f)), unfiltered))...)
	}
	c.chain(chainFiltered, rule("", nft.ClearMark(MarkFiltered)))
	c.judged()
}

// judged keeps isolated endpoints to the addresses by which policies know them.
// On a bridge they could be reached by others as well: by link-local addresses,
// which belong to no endpoint, and with a group or a broadcast address as the
// destination, which any socket hears that is bound to no address. Between
// these passes only what neighbours need, and DHCP.
func (c *compiler) judged() {
	back, control := nft.Do(nft.Return), nft.Do(nft.Goto(chainControl))
	ip4, ip6 := carries(nft.EtherIPv4), carries(nft.EtherIPv6)
	c.chain(chainFrom,
		rule("DHCP client", nft.Sport(nft.UDP).Is(nft.Port(546)), nft.Dport(nft.UDP).Is(nft.Port(547)), back),
		rule("", control))
	c.chain(chainTo.IPv4,
		rule("", ip4, daddr(spec.IPv4).In(setClaimed.IPv4), back),
		rule("DHCP server", nft.Sport(nft.UDP).Is(nft.Port(67)), nft.Dport(nft.UDP).Is(nft.Port(68)), back),
		rule("to all, or to nobody", c.drop(drop.Unjudged)))
	c.chain(chainTo.IPv6,
		rule("DHCP server", nft.Sport(nft.UDP).Is(nft.Port(547)), nft.Dport(nft.UDP).Is(nft.Port(546)), back),
		rule("link-local", ip6, daddr(spec.IPv6).InPrefix(linkLocals), control),
		rule("", ip6, daddr(spec.IPv6).In(setClaimed.IPv6), back),
		rule("to all, or to nobody", control))
	c.chain(chainControl,
		rule("listeners and neighbours", icmpType(spec.IPv6).Between(nft.Proto(icmpListenerQuery), nft.Proto(icmpRedirect)), back),
		rule("listeners", icmpType(spec.IPv6).Is(nft.Proto(icmpListenerReportV2)), back),
		rule("", c.drop(drop.Unjudged)))
}

var linkLocals = netip.MustParsePrefix("fe80::/10")
