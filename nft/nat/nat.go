// Package nat compiles the address translation of a node's pods to nftables.
package nat

import (
	"net/netip"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/spec"
)

// markMasquerade is the bit by which kube-proxy marks packets that it will
// masquerade itself. It is one bit of a mark that others use too.
const markMasquerade = 0x4000

// multicast is what masquerading leaves alone, per family (RFC 5771, RFC 4291).
var multicast = spec.PerFamily[netip.Prefix]{
	IPv4: netip.MustParsePrefix("224.0.0.0/4"),
	IPv6: netip.MustParsePrefix("ff00::/8"),
}

// exceptSet names the set of destinations that see a pod's own address.
var exceptSet = spec.PerFamily[string]{IPv4: "nat_except4", IPv6: "nat_except6"}

// Compile makes the fragment of `inet polder` that masquerades. It has the
// semantics of flannel's iptables rules, so that a node can change from one to
// the other without a connection seeing another source:
//
//   - what goes to a pod of this node keeps its source: pods see each other,
//     and a load balancer's client, as they are;
//   - what a pod of the cluster sends elsewhere gets the node's address,
//     multicast aside;
//   - what comes from elsewhere for a pod of another node gets the node's
//     address, so that the answer comes back by this node;
//   - what kube-proxy has marked is left to kube-proxy.
//
// Destinations in the exceptions see a pod's own address. Without a masquerade
// block there is no translation and the fragment is empty.
func Compile(sp *spec.Spec, node *spec.Node) nft.Table {
	t := nft.Table{Family: nft.INet, Name: nft.TableName}
	if sp.Network == nil || sp.Network.Masquerade == nil {
		return t
	}
	m := sp.Network.Masquerade
	mark := nft.Number(markMasquerade)
	c := nft.Chain{
		Name: "postrouting",
		Base: &nft.Base{Type: "nat", Hook: "postrouting", Priority: nft.PrioritySrcNAT, Policy: nft.PolicyAccept},
		Rules: []nft.Rule{
			nft.NewRule("marked by kube-proxy, which masquerades it", nft.Mark().Masked(mark, mark), nft.Do(nft.Return)),
		},
	}
	for _, pods := range sp.Network.Pods {
		f := pods.Family()
		except := nft.Set{
			Name: exceptSet.Get(f), Key: []nft.Type{nft.AddrType(f)}, Interval: true,
			Elements: nft.PrefixElements(ofFamily(f, m.Except)),
		}
		if len(except.Elements) > 0 {
			t.Sets = append(t.Sets, except)
		}
		c.Rules = append(c.Rules, rules(pods, node, except, m.RandomFully)...)
	}
	t.Chains = []nft.Chain{c}
	return t
}

// rules are the rules of one family, in flannel's order. Its third and fourth
// rule return what comes from a pod, and what does not, for a pod of this node;
// one rule says the same.
func rules(pods spec.PodRange, node *spec.Node, except nft.Set, randomFully bool) []nft.Rule {
	f := pods.Family()
	from, to := nft.Saddr(f), nft.Daddr(f)
	masquerade := nft.Masquerade{}
	if randomFully {
		masquerade.Flags = nft.RandomFully
	}
	var list []nft.Rule
	if subnet, ok := node.Subnet(f); ok {
		list = append(list,
			nft.NewRule("pod of this node to a pod: source kept", from.InPrefix(subnet), to.InPrefix(pods.CIDR), nft.Do(nft.Return)),
			nft.NewRule("to a pod of this node: source kept", to.InPrefix(subnet), nft.Do(nft.Return)))
	}
	if len(except.Elements) > 0 {
		list = append(list, nft.NewRule("pod to an exception: source kept", from.InPrefix(pods.CIDR), to.In(except.Name), nft.Do(nft.Return)))
	}
	return append(list,
		nft.NewRule("pod to the outside", from.InPrefix(pods.CIDR), to.NotInPrefix(multicast.Get(f)), nft.Do(masquerade)),
		nft.NewRule("outside to a pod of another node", from.NotInPrefix(pods.CIDR), to.InPrefix(pods.CIDR), nft.Do(masquerade)))
}

func ofFamily(f spec.Family, prefixes []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range prefixes {
		if spec.FamilyOf(p.Addr()) == f {
			out = append(out, p)
		}
	}
	return out
}
