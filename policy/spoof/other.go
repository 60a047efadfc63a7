package spoof

import (
	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/policy/drop"
	"github.com/poldernet/polder/spec"
)

const (
	chainOther       = "spoof_other"
	chainOtherARP    = "spoof_other_arp"
	chainOtherTagged = "spoof_other_tagged"
	mapOther         = "other_types"
)

var chainOtherIP = spec.PerFamily[string]{IPv4: "spoof_other_ip4", IPv6: "spoof_other_ip6"}

// fromOthers are the chains for what ports send that nothing claims: everything
// but what is claimed. These look under a VLAN tag, because a receiver takes off
// one of id 0. Such a tag around further tags, however many, is taken off as
// well (net/core/dev.c, __netif_receive_skb_core) and cannot be looked under;
// nobody else has a use for it.
func (c *compiler) fromOthers() {
	claimed := c.drop(drop.SpoofClaimed)
	c.verdicts(mapOther, nft.TypeEtherType,
		nft.Ether(nft.EtherIPv4).Maps(nft.Goto(chainOtherIP.IPv4)),
		nft.Ether(nft.EtherARP).Maps(nft.Goto(chainOtherARP)),
		nft.Ether(nft.EtherIPv6).Maps(nft.Goto(chainOtherIP.IPv6)),
		nft.Ether(etherVLAN).Maps(nft.Goto(chainOtherTagged)),
		nft.Ether(etherQinQ).Maps(nft.Goto(chainOtherTagged)))
	c.chain(chainOther,
		rule("", nft.EtherSaddr().In(setMACs), claimed),
		rule("", nft.Protocol().VMap(mapOther)))
	c.chain(chainOtherTagged,
		rule("tag of no VLAN around another", nft.TagControl().Masked("\x0f\xff", "\x00\x00"), c.drop(drop.SpoofEtherType)))
	c.chain(chainOtherARP,
		rule("", carries(nft.EtherARP), nft.Bare(nft.ARPSenderMAC()).In(setMACs), claimed),
		rule("", carries(nft.EtherARP), nft.Bare(nft.ARPSenderIP()).In(setClaimed.IPv4), claimed))
	for _, f := range spec.Families {
		fam, set := families.Get(f), setClaimed.Get(f)
		rules := []nft.Rule{rule("", carries(nft.EtherTypeOf(f)), saddr(f).In(set), claimed)}
		if f == spec.IPv6 {
			rules = append(rules,
				rule("neighbour advertisement", icmpType(f).Is(nft.Proto(icmpNeighborAdvert)), target().In(set), claimed),
				rule("DAD", carries(nft.EtherTypeOf(f)), saddr(f).Is(nft.Addr(fam.unspecified)),
					icmpType(f).Is(nft.Proto(icmpNeighborSolicit)), target().In(set), claimed))
		}
		c.chain(chainOtherIP.Get(f), rules...)
	}
}
