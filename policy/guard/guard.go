// Package guard compiles what keeps a node's pod network from being entered by
// the side: the door to the VXLAN port, and the check that a packet with a
// pod's source address comes from where that pod is.
package guard

import (
	"net/netip"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/policy/drop"
	"github.com/poldernet/polder/spec"
)

// Links are the names of the node's interfaces that the rules speak of.
type Links struct {
	Bridge   string
	VTEPs    spec.PerFamily[string] // by underlay family, "" where there is none
	Underlay spec.PerFamily[string] // by address family, "" where the node has no address
	// Local are the VTEPs' own addresses, by underlay family: the node's, or
	// what that is translated to on the way here.
	Local spec.PerFamily[netip.Addr]
	// Routed are those of pods that are not on the bridge.
	Routed []string
}

// The names of our chains and sets.
const (
	chainPrerouting = "guard_prerouting"
	chainOutput     = "guard_output"
	chainInput      = "guard_input"
	chainDoor       = "vxlan_door"
	chainFromPod    = "vxlan_from_pod"
	setPodLinks     = "pod_links"
	setRouted       = "routed_links"
)

var (
	setPeers   = spec.PerFamily[string]{IPv4: "vxlan_peers4", IPv6: "vxlan_peers6"}
	setSubnets = spec.PerFamily[string]{IPv4: "peer_subnets4", IPv6: "peer_subnets6"}
)

// Compile makes the guard's fragment of `inet polder`. Without a network block
// the fragment is empty.
func Compile(sp *spec.Spec, node *spec.Node, links Links) nft.Table {
	return Peers{}.Exchange(node.Name, nil, sp.Nodes).Compile(sp, node, links)
}

// Compile is Compile where it is known what the nodes of the spec come to.
func (p Peers) Compile(sp *spec.Spec, node *spec.Node, links Links) nft.Table {
	g := guard{sp: sp, node: node, links: links, peers: p, table: nft.Table{Family: nft.INet, Name: nft.TableName}}
	if sp.Network == nil {
		return g.table
	}
	// Raw, before connection tracking and any NAT: nothing that is dropped here
	// makes an entry, and addresses are still those of the sender.
	prerouting := base(chainPrerouting, "prerouting", nft.PriorityRaw)
	if sp.Network.Backend.Type == spec.VXLAN {
		g.vxlanSets()
		prerouting.Rules = append(prerouting.Rules, g.fromPods()...)
		prerouting.Rules = append(prerouting.Rules, g.untrackedIn()...)
		output := base(chainOutput, "output", nft.PriorityRaw)
		output.Rules = g.untrackedOut()
		g.table.Chains = append(g.table.Chains, output)
		g.door()
	}
	prerouting.Rules = append(prerouting.Rules, g.routed()...)
	prerouting.Rules = append(prerouting.Rules, g.sourceCheck()...)
	g.table.Chains = append(g.table.Chains, prerouting)
	return nft.Merge(g.table)
}

// guard is a fragment being compiled.
type guard struct {
	sp    *spec.Spec
	node  *spec.Node
	links Links
	peers Peers
	table nft.Table
}

func base(name, hook string, priority int32) nft.Chain {
	return nft.Chain{Name: name, Base: &nft.Base{Type: "filter", Hook: hook, Priority: priority, Policy: nft.PolicyAccept}}
}

func (g *guard) set(name string, key nft.Type, interval bool, elements []nft.Element) {
	g.table.Sets = append(g.table.Sets, nft.Set{Name: name, Key: []nft.Type{key}, Interval: interval, Elements: elements})
}

// dropped is the end of every rule that drops.
func (g *guard) dropped(r drop.Reason) nft.Statement {
	g.table.Counters = append(g.table.Counters, string(r))
	return r.Do()
}

// vxlan matches VXLAN's packets to our port.
func (g *guard) vxlan() nft.Statement {
	return nft.Dport(nft.UDP).Is(nft.Port(g.sp.Network.Backend.Port))
}

// underlays are the families that carry VXLAN.
func (g *guard) underlays() []spec.Family { return underlays(g.sp) }

func underlays(sp *spec.Spec) []spec.Family {
	var used []spec.Family
	for _, f := range spec.Families {
		for _, pods := range sp.Network.Pods {
			if sp.UnderlayFamily(pods.Family()) == f {
				used = append(used, f)
				break
			}
		}
	}
	return used
}

// Tunnel is how VXLAN's packets between this node and its peers are known, in
// either direction: the matches of one rule each. They use the guard's sets.
// Without VXLAN there is none.
func Tunnel(sp *spec.Spec) [][]nft.Statement {
	if sp.Network == nil || sp.Network.Backend.Type != spec.VXLAN {
		return nil
	}
	g := guard{sp: sp}
	var list [][]nft.Statement
	for _, f := range underlays(sp) {
		for _, address := range []nft.Field{nft.Saddr(f), nft.Daddr(f)} {
			list = append(list, []nft.Statement{g.vxlan(), address.In(setPeers.Get(f))})
		}
	}
	return list
}

// vxlanSets makes the sets of addresses and interfaces.
func (g *guard) vxlanSets() {
	links := append(ifNames(g.links.Routed), nft.Exact(nft.IfName(g.links.Bridge)))
	for _, f := range spec.Families {
		if vtep := g.links.VTEPs.Get(f); vtep != "" {
			links = append(links, nft.Exact(nft.IfName(vtep)))
		}
	}
	g.set(setPodLinks, nft.TypeIfName, false, links)
	for _, f := range g.underlays() {
		g.set(setPeers.Get(f), nft.AddrType(f), false, g.peers.addresses.Get(f))
	}
}

// fromPods keeps pods from speaking VXLAN themselves. A frame that a pod wraps
// would be unwrapped behind every check: at its own node directly, at another
// one with the address of the pod's node, after masquerading. A pod's packet is
// known by its interface or by its source, whichever it cannot forge.
func (g *guard) fromPods() []nft.Rule {
	c := nft.Chain{Name: chainFromPod}
	for _, f := range g.underlays() {
		c.Rules = append(c.Rules, nft.NewRule("VXLAN from a pod to a peer", nft.Daddr(f).In(setPeers.Get(f)), g.dropped(drop.GuardPod)))
	}
	c.Rules = append(c.Rules, nft.NewRule("VXLAN from a pod to this node", nft.DaddrLocal(), g.dropped(drop.GuardPod)))
	g.table.Chains = append(g.table.Chains, c)

	jump := nft.Do(nft.Jump(chainFromPod))
	rules := []nft.Rule{nft.NewRule("by a pod's interface", g.vxlan(), nft.IIFName().In(setPodLinks), jump)}
	for _, pods := range g.sp.Network.Pods {
		rules = append(rules, nft.NewRule("by a pod's address", g.vxlan(), nft.Saddr(pods.Family()).InPrefix(pods.CIDR), jump))
	}
	return rules
}

// untrackedIn and untrackedOut keep connection tracking off the outer packets
// between us and the peers. It would make an entry for each source port, which
// VXLAN takes from a hash of the inner flow.
func (g *guard) untrackedIn() []nft.Rule {
	return g.untracked(func(f spec.Family, own nft.Data) []nft.Statement {
		return []nft.Statement{nft.Saddr(f).In(setPeers.Get(f)), nft.Daddr(f).Is(own)}
	})
}

func (g *guard) untrackedOut() []nft.Rule {
	return g.untracked(func(f spec.Family, own nft.Data) []nft.Statement {
		return []nft.Statement{nft.Saddr(f).Is(own), nft.Daddr(f).In(setPeers.Get(f))}
	})
}

func (g *guard) untracked(between func(spec.Family, nft.Data) []nft.Statement) []nft.Rule {
	var rules []nft.Rule
	for _, f := range g.underlays() {
		if own := g.links.Local.Get(f); own.IsValid() {
			match := append([]nft.Statement{g.vxlan()}, between(f, nft.Addr(own))...)
			rules = append(rules, nft.NewRule("VXLAN between nodes", append(match, nft.Do(nft.Notrack{}))...))
		}
	}
	return rules
}

// door lets only the peers at our VXLAN port. VXLAN itself believes anybody.
// What comes by a pod's interface is refused whatever its source: broadcasts
// reach the port as well, and they are to no node's address.
func (g *guard) door() {
	// A frame to a MAC that bridges keep for themselves (01:80:c2:00:00:0x) comes
	// to the host by the port's own name, round the bridge and all that is asked
	// there (br_handle_frame in net/bridge/br_input.c). A peer sends to our MAC.
	door := nft.Chain{Name: chainDoor, Rules: []nft.Rule{
		nft.NewRule("VXLAN from a pod", nft.IIFName().In(setPodLinks), g.dropped(drop.GuardPod)),
		nft.NewRule("VXLAN that was not sent to this host", nft.PacketType().IsNot(nft.ToHost), g.dropped(drop.GuardStranger)),
	}}
	for _, f := range g.underlays() {
		door.Rules = append(door.Rules, nft.NewRule("VXLAN from a peer", nft.Saddr(f).In(setPeers.Get(f)), nft.Do(nft.Return)))
	}
	door.Rules = append(door.Rules, nft.NewRule("VXLAN from anybody else", g.dropped(drop.GuardStranger)))
	input := base(chainInput, "input", nft.PriorityFilter)
	input.Rules = []nft.Rule{nft.NewRule("the door of VXLAN", g.vxlan(), nft.Do(nft.Jump(chainDoor)))}
	g.table.Chains = append(g.table.Chains, door, input)
}
