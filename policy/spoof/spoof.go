// Package spoof compiles what keeps a workload from speaking in another's name:
// the table `bridge polder`. Policies know endpoints by their addresses, so an
// address must mean the endpoint.
//
// A claim is a local endpoint with an interface. Its port may send IPv4, ARP
// and IPv6 only, with the endpoint's own addresses, and nothing by which
// routers and DHCP servers speak. What is claimed, and what the node itself has
// in the pod network, comes in by no other port of any bridge.
//
// A port that nothing claims has no identity. It may use every address that is
// not claimed, also one of an endpoint without an interface, whom policies then
// take it for.
//
// The key is the claim and not the bridge, because a rule cannot tell bridges
// apart: `meta ibrname` needs a module that kernels often lack. So a foreign
// bridge keeps all its frames but those that use a claimed identity, and those
// that hide what they carry (see fromOthers).
//
// A MAC that the spec gives is the only one of its port, and so is the link-local
// address that is made of it (RFC 4291): an endpoint that makes another one (RFC
// 7217) goes without `mac`. Without, a port may use any MAC and any link-local
// address that nobody claims.
package spoof

import (
	"net/netip"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/policy/drop"
	"github.com/poldernet/polder/spec"
)

// MarkFiltered is the bit of the mark by which `inet polder` says that it has
// seen a packet that crosses a bridge.
const MarkFiltered = 1 << 20

// Host is what the rules need to know of the node beside the spec.
type Host struct {
	// MACs and Addresses are the node's own on the bridges of the claimed
	// ports, beside those that the spec says: of a bridge that polder did not
	// make, or has adopted with its MAC.
	MACs      []spec.MAC
	Addresses []netip.Addr
	// Isolated are the addresses of the local endpoints that policies isolate,
	// in whichever direction.
	Isolated spec.PerFamily[[]netip.Addr]
}

// Table identifies the table.
var Table = nft.TableID{Family: nft.Bridge, Name: nft.TableName}

// The hooks of `inet` are run for frames by br_netfilter, at NF_BR_PRI_BRNF (0).
// Before these nothing forged gets to connection tracking; behind them it can be
// seen what they have done.
const (
	priorityEarly int32 = -350
	priorityLate  int32 = 10
)

// Compile makes the table `bridge polder`. It is empty where nothing is claimed
// and nobody is isolated.
func Compile(sp *spec.Spec, node *spec.Node, host Host) nft.Table {
	c := compiler{
		claims: newClaims(sp, node, host),
		table:  nft.Table{Family: Table.Family, Name: Table.Name},
	}
	if c.claims.empty() {
		return c.table
	}
	c.sets()
	c.fromPorts()
	c.fromClaimed()
	c.fromOthers()
	c.forward()
	return nft.Merge(c.table)
}

// compiler is a table being compiled.
type compiler struct {
	claims claims
	table  nft.Table
}

func (c *compiler) base(name, hook string, at int32, rules ...nft.Rule) {
	c.table.Chains = append(c.table.Chains, nft.Chain{
		Name:  name,
		Base:  &nft.Base{Type: "filter", Hook: hook, Priority: at, Policy: nft.PolicyAccept},
		Rules: rules,
	})
}

func (c *compiler) chain(name string, rules ...nft.Rule) {
	c.table.Chains = append(c.table.Chains, nft.Chain{Name: name, Rules: rules})
}

// drop is the end of every rule that drops.
func (c *compiler) drop(r drop.Reason) nft.Statement {
	c.table.Counters = append(c.table.Counters, string(r))
	return r.Do()
}
