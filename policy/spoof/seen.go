package spoof

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/spec"
)

const chainSeen = "spoof_seen"

// seen marks what crosses the bridge by the inet family, whether anybody is
// isolated yet or not. A frame comes by the hooks of the inet family first, and
// then by the bridge's: did the mark come with the first isolation, and go with the
// last, a frame between the two would be dropped for want of it.
func (c *compiler) seen(sp *spec.Spec, node *spec.Node) {
	own := func(e *spec.Endpoint) bool { return e.Node == node.Name }
	if sp.Enforcement.Bridge == "" || sp.Network == nil && !slices.ContainsFunc(sp.Endpoints, own) {
		return
	}
	name := nft.IfName(sp.Enforcement.Bridge)
	c.base(chainSeen, "forward", nft.PriorityFilter,
		rule("crossed the bridge by the inet family", nft.IIFName().Is(name), nft.OIFName().Is(name), nft.SetMark(MarkFiltered)))
}

// Seen is the chain of `inet polder` that marks what crosses the bridge.
func Seen(rs nft.Ruleset) (nft.Chain, bool) {
	t, _ := rs.Table(nft.TableID{Family: nft.INet, Name: nft.TableName})
	return t.Chain(chainSeen)
}

// Isolated are the isolated endpoints that `bridge polder` knows: their ports and
// their addresses. An endpoint without an interface has no port.
func Isolated(rs nft.Ruleset) (ports []string, addresses []netip.Addr) {
	t, _ := rs.Table(Table)
	list, _ := t.Set(setIsolated)
	for _, e := range list.Elements {
		ports = append(ports, strings.TrimRight(string(e.Key), "\x00"))
	}
	for _, f := range spec.Families {
		list, _ := t.Set(setSelected.Get(f))
		for _, e := range list.Elements {
			if a, ok := netip.AddrFromSlice([]byte(e.Key)); ok {
				addresses = append(addresses, a)
			}
		}
	}
	return ports, addresses
}
