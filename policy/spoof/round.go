package spoof

import (
	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/policy/drop"
	"github.com/poldernet/polder/spec"
)

const chainRound = "spoof_round"

// CompileINet makes the fragment of `inet polder` that belongs to the table
// `bridge polder`: what crosses the bridge is marked as seen, and IP does not come
// in by a claimed port's own name.
func CompileINet(sp *spec.Spec, node *spec.Node) nft.Table {
	c := compiler{
		claims: claims{ports: claimedPorts(sp, node)},
		table:  nft.Table{Family: nft.INet, Name: nft.TableName},
	}
	c.seen(sp, node)
	c.round()
	return nft.Merge(c.table)
}

// round keeps IP from coming in by a claimed port's own name. A frame to LLDP's
// group, 01:80:c2:00:00:0e, and with STP one to 01:80:c2:00:00:00, would: the
// bridge leaves it to its port and runs none of its hooks (br_input.c,
// br_handle_frame), so that a workload could send the node whatever it likes, a
// peer's VXLAN packet for one. A claimed port is one of a bridge: what comes by
// its own name while it is none is refused as well.
func (c *compiler) round() {
	if len(c.claims.ports) == 0 {
		return
	}
	c.set(c.claims.names(), setPorts, nft.TypeIfName)
	c.base(chainRound, "prerouting", nft.PriorityRaw,
		rule("round the bridge", nft.IIFName().In(setPorts), c.drop(drop.SpoofReserved)))
}
