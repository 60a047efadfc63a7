package overlay

import (
	"net/netip"

	"github.com/poldernet/polder/spec"
)

// Facts are what Compile must know of the host beyond the spec.
type Facts struct {
	Links map[string]HostLink
	// Paths are the host's answers to questions. An address without an answer
	// has no route.
	Paths map[netip.Addr]HostPath
	// RADefaults are the links over which an IPv6 default route came from a
	// router advertisement that the kernel listened to. Forwarding makes the host deaf to these, unless
	// the link's accept_ra is 2.
	RADefaults []string
	// StrictReversePath are the links of the underlay where IPv4 drops what the
	// way back does not lead to (rp_filter 1).
	StrictReversePath []string
	// Routed are addresses of the pod network to which a route leads by a link of
	// their own, round the bridge: pods that canal has made, for one.
	Routed map[netip.Addr]string
	// AddressProtocol says that the kernel keeps the protocol of an address.
	AddressProtocol bool
	// IPv6 says that the kernel speaks it in this namespace.
	IPv6 bool
	// BridgeNetfilter says that br_netfilter is loaded in this namespace.
	BridgeNetfilter bool
}

// HostLink is a link of the host, ours or not.
type HostLink struct {
	Link
	Master    string
	Addresses []netip.Prefix // addresses with their prefix length, kernel order, deprecated and temporary ones last
}

// HostPath is the host's route to an address.
type HostPath struct {
	Link    string
	Gateway netip.Addr // not valid: the address is on the link itself
	Local   bool       // the address is the host's own
}

// questions lists the addresses whose route Compile must know on this node:
// the peers' where plain routes are wanted, and the one that selects the
// underlay.
func questions(sp *spec.Spec, node *spec.Node) []netip.Addr {
	if sp.Network == nil {
		return nil
	}
	var asked []netip.Addr
	if to := underlayChoice(sp, node).RouteTo; to.IsValid() {
		asked = append(asked, to)
	}
	return append(asked, peerQuestions(sp, node, sp.Nodes)...)
}

// peerQuestions are those about some nodes.
func peerQuestions(sp *spec.Spec, node *spec.Node, peers []*spec.Node) (asked []netip.Addr) {
	if sp.Network == nil || sp.Network.Backend.Type != spec.HostGW && !sp.Network.Backend.DirectRouting {
		return nil
	}
	for _, peer := range peers {
		if peer.Name == node.Name {
			continue
		}
		for _, a := range peer.Addresses {
			asked = append(asked, a.Addr)
		}
	}
	return asked
}
