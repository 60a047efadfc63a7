package guard

import (
	"net/netip"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/policy/drop"
	"github.com/poldernet/polder/spec"
)

// wrongInterface is the comment of rules that drop a pod's address which comes
// in where no packet from there belongs.
const wrongInterface = "pod address on a wrong interface"

// sourceCheck drops a packet with a pod's source address where the way back to
// that address does not lead: `fib saddr . iif` finds no route. That holds for
// a pod that takes another pod's address, or its gateway's (a local address is
// not reached through any interface), and for an outside host that takes a
// pod's. Link-local addresses, and with them neighbour discovery, are in no pod
// CIDR; the host's own packets over the loopback device pass (nft_fib.h,
// nft_fib_is_loopback).
func (g *guard) sourceCheck() []nft.Rule {
	var rules []nft.Rule
	for _, pods := range g.sp.Network.Pods {
		f := pods.Family()
		exceptions := append(g.unNATed(f), g.eitherPath(f)...)
		if len(exceptions) > 0 || !g.tunnelled() {
			g.peerSubnets(f)
		}
		rules = append(rules, exceptions...)
		rules = append(rules, g.nobody(pods),
			nft.NewRule(wrongInterface, nft.Saddr(f).InPrefix(pods.CIDR), nft.SaddrUnroutable(), g.dropped(drop.GuardInterface)))
	}
	return rules
}

// routed drops what a pod that is not on the bridge sends from any address but its
// own. The table of the bridge, which sees to that for the others, does not see it.
func (g *guard) routed() []nft.Rule {
	if len(g.links.Routed) == 0 {
		return nil
	}
	g.set(setRouted, nft.TypeIfName, false, ifNames(g.links.Routed))
	return []nft.Rule{nft.NewRule("not the address of a pod beside the bridge", nft.IIFName().In(setRouted), nft.SaddrUnroutable(), g.dropped(drop.GuardInterface))}
}

func ifNames(links []string) (list []nft.Element) {
	for _, name := range links {
		list = append(list, nft.Exact(nft.IfName(name)))
	}
	return list
}

// tunnelled says that all that comes from other nodes' pods to this node's
// comes by a VTEP.
func (g *guard) tunnelled() bool {
	return g.sp.Network.Backend.Type == spec.VXLAN && !g.sp.Network.Backend.AcceptDirect
}

// nobody drops the addresses of the pod CIDR that are in no node's subnet. The
// look-up would find the default route for them, and let them in where that
// leads. Where all comes by VTEPs, from which the default route does not lead
// back, it is enough to let nothing else in; a set of all subnets would be a
// third of the cost of an apply.
func (g *guard) nobody(pods spec.PodRange) nft.Rule {
	f := pods.Family()
	match := []nft.Statement{nft.Saddr(f).InPrefix(pods.CIDR)}
	if own, ok := g.node.Subnet(f); ok {
		match = append(match, nft.Saddr(f).NotInPrefix(own))
	}
	if g.tunnelled() {
		return nft.NewRule(wrongInterface, append(match, nft.IIFName().NotIn(setPodLinks), g.dropped(drop.GuardInterface))...)
	}
	return nft.NewRule("pod address of no node", append(match, nft.Saddr(f).NotIn(setSubnets.Get(f)), g.dropped(drop.GuardNobody))...)
}

// peerSubnets makes the set of the other nodes' pod subnets.
func (g *guard) peerSubnets(f spec.Family) {
	g.set(setSubnets.Get(f), nft.AddrType(f), true, g.peers.subnets.Get(f))
}

// eitherPath are the exceptions to the source check while two nodes may hold
// different opinions of the path between them: a peer's pods are let in from
// the underlay as well as from the VTEP, whichever this node uses itself. They
// are let in to this node's pods only. Who can send such a packet on the
// underlay can as well wrap it in VXLAN with the peer's outer address; for the
// node's own address, which a stranger may reach from further away, that does
// not hold.
//
// The rules do not depend on which peers are on this node's link: the peer may
// see that otherwise. Nor do they change when direct routing is turned on after
// what comes directly is accepted.
func (g *guard) eitherPath(f spec.Family) []nft.Rule {
	own, ok := g.node.Subnet(f)
	if !ok || !g.sp.Network.Backend.AcceptDirect {
		return nil
	}
	var rules []nft.Rule
	for _, path := range []struct{ link, comment string }{
		{g.links.Underlay.Get(f), "a peer's pod to a pod of this node, directly"},
		{g.links.VTEPs.Get(g.sp.UnderlayFamily(f)), "a peer's pod to a pod of this node, by VXLAN"},
	} {
		rules = append(rules, nft.NewRule(path.comment, nft.IIFName().Is(nft.IfName(path.link)),
			nft.Saddr(f).In(setSubnets.Get(f)), nft.Daddr(f).InPrefix(own), nft.Do(nft.Accept)))
	}
	return rules
}

// unNATed is the exception to the source check for the host itself. With VXLAN,
// a peer's pod that reaches this node's own address without masquerading does
// not come through the tunnel: the packet's destination is in no pod subnet, so
// its node sends it out plainly, and it comes in by the underlay, while the way
// back leads through the VTEP. It is let in for the host only, never to a pod,
// and only from subnets of the other nodes.
func (g *guard) unNATed(f spec.Family) []nft.Rule {
	own, ok := g.node.Address(f)
	underlay := g.links.Underlay.Get(f)
	if !ok || underlay == "" || g.sp.Network.Backend.Type != spec.VXLAN || masqueraded(g.sp.Network.Masquerade, own.Addr) {
		return nil
	}
	return []nft.Rule{nft.NewRule("a peer's pod to this node, not masqueraded",
		nft.IIFName().Is(nft.IfName(underlay)), nft.Saddr(f).In(setSubnets.Get(f)), nft.DaddrLocal(), nft.Do(nft.Accept))}
}

// masqueraded says that pods reach an address outside the pod network with
// their node's address.
func masqueraded(m *spec.Masquerade, to netip.Addr) bool {
	if m == nil {
		return false
	}
	for _, p := range m.Except {
		if p.Contains(to) {
			return false
		}
	}
	return true
}
