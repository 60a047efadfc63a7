package spoof

import (
	"slices"

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

// Isolates says that `bridge polder` drops what is not marked, of anybody.
func Isolates(rs nft.Ruleset) bool {
	t, _ := rs.Table(Table)
	return slices.ContainsFunc(spec.Families[:], func(f spec.Family) bool {
		s, _ := t.Set(setSelected.Get(f))
		return len(s.Elements) > 0
	})
}
