package spoof

import (
	"net/netip"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/policy/drop"
	"github.com/poldernet/polder/spec"
)

// The chains that frames go through, and the maps that spread them.
const (
	chainPrerouting = "spoof_prerouting"
	chainInput      = "spoof_input"
	chainPort       = "spoof_port"
	chainType       = "spoof_type"
	chainARP        = "spoof_arp"
	chainSender     = "spoof_sender"
	chainTarget     = "spoof_target"
	mapTypes        = "port_types"
)

var (
	chainIP          = spec.PerFamily[string]{IPv4: "spoof_ip4", IPv6: "spoof_ip6"}
	chainSource      = spec.PerFamily[string]{IPv4: "spoof_source4", IPv6: "spoof_source6"}
	chainUnspecified = spec.PerFamily[string]{IPv4: "spoof_unspecified4", IPv6: "spoof_unspecified6"}
	chainICMP        = spec.PerFamily[string]{IPv4: "spoof_icmp4", IPv6: "spoof_icmp6"}
	chainUDP         = spec.PerFamily[string]{IPv4: "spoof_udp4", IPv6: "spoof_udp6"}
	mapProtocols     = spec.PerFamily[string]{IPv4: "port_protocols4", IPv6: "port_protocols6"}
)

// The Ethernet types of VLAN tags (linux/if_ether.h).
const (
	etherVLAN uint16 = 0x8100 // 802.1Q
	etherQinQ uint16 = 0x88a8 // 802.1ad
)

// family is what the rules of an address family need.
type family struct {
	icmp        uint8
	unspecified netip.Addr
	// By routers and DHCP servers speak: ICMP types, and the UDP port.
	routerTypes []uint8
	serverPort  uint16
}

var families = spec.PerFamily[family]{
	IPv4: family{1, netip.IPv4Unspecified(), []uint8{5, 9}, 67},       // redirect, router advertisement (RFC 792, RFC 1256)
	IPv6: family{58, netip.IPv6Unspecified(), []uint8{134, 137}, 547}, // router advertisement, redirect (RFC 4861)
}

// ICMPv6 types of neighbour discovery (RFC 4861) and multicast listeners
// (RFC 2710, RFC 3810).
const (
	icmpListenerQuery    = 130
	icmpListenerReport   = 131
	icmpRouterSolicit    = 133
	icmpNeighborSolicit  = 135
	icmpNeighborAdvert   = 136
	icmpRedirect         = 137
	icmpListenerReportV2 = 143
)

func rule(comment string, statements ...nft.Statement) nft.Rule {
	return nft.NewRule(comment, statements...)
}

// carries matches frames by what they carry, whether under a tag or not.
func carries(etherType uint16) nft.Statement { return nft.Protocol().Is(nft.Ether(etherType)) }

// In the bridge family `meta nfproto` is the bridge's own, so that the fields
// of IP headers stand behind `carries` instead.
func saddr(f spec.Family) nft.Field    { return nft.Bare(nft.Saddr(f)) }
func daddr(f spec.Family) nft.Field    { return nft.Bare(nft.Daddr(f)) }
func icmpType(f spec.Family) nft.Field { return nft.Bare(nft.ICMPType(f)) }
func target() nft.Field                { return nft.Bare(nft.NDTarget()) }

// reserved matches frames to the groups 01:80:c2:00:00:00 to 0f (IEEE 802.1D,
// table 7-10). A bridge gives these to its port and not to itself
// (net/bridge/br_input.c, br_handle_frame): IP in such a frame would come in by
// the port's name, round the bridge's prerouting hook.
func reserved() nft.Statement {
	return nft.EtherDaddr().Masked(nft.Data("\xff\xff\xff\xff\xff\xf0"), nft.Data("\x01\x80\xc2\x00\x00\x00"))
}

// fromPorts are the base chains for what ports send. The rules are the same
// whatever is claimed, so that only sets change. The most common case is found
// first: a port that speaks with the MAC that it is bound to.
func (c *compiler) fromPorts() {
	claimed := nft.IIFName().In(setPorts)
	c.base(chainPrerouting, "prerouting", priorityEarly,
		rule("a port with its MAC", nft.Concat(nft.IIFName(), nft.EtherSaddr()).In(setBound), nft.Do(nft.Goto(chainType))),
		rule("a claimed port", claimed, nft.Do(nft.Goto(chainPort))),
		rule("any other port", nft.Do(nft.Goto(chainOther))))
	c.base(chainInput, "input", priorityEarly,
		rule("a claimed port, round the bridge", claimed, reserved(), c.drop(drop.SpoofReserved)),
		rule("any other port, round the bridge", reserved(), nft.Do(nft.Goto(chainOther))),
		rule("", carries(nft.EtherIPv6), saddr(spec.IPv6).InPrefix(linkLocals), nft.IIFName().In(setIsolated), nft.Do(nft.Goto(chainFrom))))
}

// fromClaimed are the chains for what claimed ports send. A frame that comes to
// the end of any is dropped.
//
// `ether type` and not `meta protocol` decides: the kernel takes a VLAN tag out
// before the bridge, and with id 0 the receiver does, too, while br_netfilter
// leaves tagged frames alone. Group and zero addresses as a source are dropped
// by the bridge itself.
func (c *compiler) fromClaimed() {
	c.chain(chainPort,
		rule("a MAC that nobody claims", nft.IIFName().In(setUnbound), nft.EtherSaddr().NotIn(setMACs), nft.Do(nft.Goto(chainType))),
		rule("", c.drop(drop.SpoofMAC)))
	c.verdicts(mapTypes, nft.TypeEtherType,
		nft.Ether(nft.EtherIPv4).Maps(nft.Goto(chainIP.IPv4)),
		nft.Ether(nft.EtherARP).Maps(nft.Goto(chainARP)),
		nft.Ether(nft.EtherIPv6).Maps(nft.Goto(chainIP.IPv6)))
	c.chain(chainType,
		rule("", nft.EtherType().VMap(mapTypes)),
		rule("", c.drop(drop.SpoofEtherType)))
	c.arp()
	c.neighbours()
	for _, f := range spec.Families {
		c.ip(f)
	}
}

func (c *compiler) verdicts(name string, key nft.Type, elements ...nft.Element) {
	c.table.Sets = append(c.table.Sets, nft.Set{Name: name, Key: []nft.Type{key}, Verdicts: true, Elements: elements})
}

// arp lets a port speak for its own MAC and address. Without an address of its
// own yet it may ask whether the one that it is going to use is free (RFC
// 5227).
func (c *compiler) arp() {
	next := nft.Do(nft.Goto(chainSender))
	address := setAddresses.IPv4
	c.chain(chainARP,
		rule("not for IPv4 over Ethernet", nft.ARPLayout().IsNot("\x00\x01\x08\x00\x06\x04"), c.drop(drop.SpoofARP)),
		rule("the port's MAC", nft.Concat(nft.IIFName(), nft.ARPSenderMAC()).In(setBound), next),
		rule("a MAC that nobody claims", nft.IIFName().In(setUnbound), nft.ARPSenderMAC().NotIn(setMACs), next),
		rule("", c.drop(drop.SpoofARP)))
	c.chain(chainSender,
		rule("the port's address", nft.Concat(nft.IIFName(), nft.ARPSenderIP()).In(address), nft.Do(nft.Accept)),
		rule("probe", nft.ARPOperation().Is(nft.Port(1)), nft.ARPSenderIP().Is(nft.Addr(netip.IPv4Unspecified())),
			nft.Concat(nft.IIFName(), nft.ARPTargetIP()).In(address), nft.Do(nft.Accept)),
		rule("", c.drop(drop.SpoofARP)))
}

// ip checks IP of a family. Fragments behind the first have no transport
// header: they pass by their source address, as what they belong to was judged
// by the first. That holds because headers that lead to no protocol are
// refused: in IPv6 these are the later fragments of packets that have further
// extension headers behind the fragment header (net/ipv6/exthdrs_core.c,
// ipv6_find_hdr), the trick that moves a message out of the first fragment
// (RFC 7113, RFC 6980).
func (c *compiler) ip(f spec.Family) {
	fam := families.Get(f)
	c.verdicts(mapProtocols.Get(f), nft.TypeInetProto,
		nft.Proto(nft.UDP).Maps(nft.Jump(chainUDP.Get(f))),
		nft.Proto(fam.icmp).Maps(nft.Jump(chainICMP.Get(f))))
	// Any protocol but 255, which is reserved (IANA): the comparison fails as
	// well where there is none.
	c.chain(chainIP.Get(f),
		rule("", nft.L4Proto().VMap(mapProtocols.Get(f))),
		rule("", nft.L4Proto().IsNot(nft.Proto(255)), nft.Do(nft.Goto(chainSource.Get(f)))),
		rule("", c.drop(drop.SpoofHeader)))

	source := []nft.Rule{rule("the port's address", carries(nft.EtherTypeOf(f)), nft.Concat(nft.IIFName(), saddr(f)).In(setAddresses.Get(f)), nft.Do(nft.Accept))}
	if f == spec.IPv6 {
		source = append(source, rule("a link-local address that nobody claims", nft.IIFName().In(setUnbound),
			carries(nft.EtherTypeOf(f)), saddr(f).InPrefix(linkLocals), saddr(f).NotIn(setClaimed.Get(f)), nft.Do(nft.Accept)))
	}
	c.chain(chainSource.Get(f), append(source,
		rule("no address yet", carries(nft.EtherTypeOf(f)), saddr(f).Is(nft.Addr(fam.unspecified)), nft.Do(nft.Goto(chainUnspecified.Get(f)))),
		rule("", c.drop(drop.SpoofIP)))...)
	c.chain(chainUnspecified.Get(f), append(c.unspecified(f), rule("", c.drop(drop.SpoofIP)))...)

	c.chain(chainUDP.Get(f), rule("DHCP server", nft.Sport(nft.UDP).Is(nft.Port(fam.serverPort)), c.drop(drop.SpoofDHCP)))
	var icmp []nft.Rule
	for _, t := range fam.routerTypes {
		icmp = append(icmp, rule("router", icmpType(f).Is(nft.Proto(t)), c.drop(drop.SpoofRA)))
	}
	if f == spec.IPv6 {
		icmp = append(icmp, rule("", icmpType(f).Is(nft.Proto(icmpNeighborAdvert)), nft.Do(nft.Jump(chainTarget))))
	}
	c.chain(chainICMP.Get(f), icmp...)
}

// unspecified is what a host says before it has an address: DHCP's client asks
// for one. In IPv6 it has a link-local address for that, and only looks whether
// an address is free (DAD, RFC 4862), asks for routers, and joins groups.
func (c *compiler) unspecified(f spec.Family) []nft.Rule {
	if f == spec.IPv4 {
		return []nft.Rule{rule("DHCP client", nft.Sport(nft.UDP).Is(nft.Port(68)), nft.Dport(nft.UDP).Is(nft.Port(67)), nft.Do(nft.Accept))}
	}
	rules := []nft.Rule{rule("", icmpType(f).Is(nft.Proto(icmpNeighborSolicit)), nft.Do(nft.Jump(chainTarget)))}
	for _, t := range []uint8{icmpNeighborSolicit, icmpRouterSolicit, icmpListenerReport, icmpListenerReportV2} {
		rules = append(rules, rule("", icmpType(f).Is(nft.Proto(t)), nft.Do(nft.Accept)))
	}
	return rules
}

// neighbours checks whose address an advertisement, or DAD, is about. One that
// is too short to say is refused. The MAC in its option is not looked at: it
// can only lead astray what is for the port's own address.
func (c *compiler) neighbours() {
	address := setAddresses.IPv6
	c.chain(chainTarget,
		rule("the port's address", nft.Concat(nft.IIFName(), target()).In(address), nft.Do(nft.Return)),
		rule("a link-local address that nobody claims", nft.IIFName().In(setUnbound),
			target().InPrefix(linkLocals), target().NotIn(setClaimed.IPv6), nft.Do(nft.Return)),
		rule("", c.drop(drop.SpoofND)))
}
