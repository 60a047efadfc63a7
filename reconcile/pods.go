package reconcile

import "net/netip"

// PodNetwork is what those who attach containers have to know of the node.
type PodNetwork struct {
	Bridge      string
	HairpinMode bool
	MTU         int // of the pods, in bytes
	Masquerade  bool
	CIDRs       []netip.Prefix // of the pods of all nodes, of families of which this one has some, IPv4 first
	Subnets     []netip.Prefix // of this node's, of which the bridge has the second address
}

// podNetwork is that of the node while containers can be attached to it; nil: they
// cannot, or polder makes none.
func (d *Daemon) podNetwork() *PodNetwork {
	if !d.now.Attachable || d.now.Held != "" || d.view == nil || d.view.compiled == nil || d.view.compiled.Bridge == "" {
		return nil
	}
	sp, node, err := d.applier.own()
	if err != nil || sp.Network == nil {
		return nil
	}
	n := &PodNetwork{
		Bridge: d.view.compiled.Bridge, HairpinMode: sp.Network.Bridge.HairpinMode,
		MTU: d.view.compiled.Links[d.view.compiled.Bridge].MTU, Masquerade: sp.Network.Masquerade != nil,
		Subnets: node.Subnets,
	}
	for _, p := range sp.Network.Pods {
		if _, has := node.Subnet(p.Family()); has {
			n.CIDRs = append(n.CIDRs, p.CIDR)
		}
	}
	return n
}
