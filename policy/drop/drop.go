// Package drop names why packets are dropped that no rule of a policy, and no
// tier's default action, has decided about.
package drop

import (
	"slices"

	"github.com/poldernet/polder/nft"
)

// Reason is why: the name of the counter that such packets are counted by, in
// the table `inet polder` or `bridge polder` or both. The counter outlives
// changes of the rules.
type Reason string

// The reasons. Those of spoof are of the anti-spoofing on bridges, those of guard
// of what keeps the pod network from being entered by the side.
const (
	SpoofReserved  Reason = "spoof_reserved"
	SpoofEtherType Reason = "spoof_ethertype"
	SpoofMAC       Reason = "spoof_mac"
	SpoofIP        Reason = "spoof_ip"
	SpoofARP       Reason = "spoof_arp"
	SpoofND        Reason = "spoof_nd"
	SpoofRA        Reason = "spoof_ra"
	SpoofDHCP      Reason = "spoof_dhcp"
	SpoofHeader    Reason = "spoof_header"
	SpoofClaimed   Reason = "spoof_claimed"
	GuardPod       Reason = "guard_pod"
	GuardStranger  Reason = "guard_stranger"
	GuardInterface Reason = "guard_interface"
	GuardNobody    Reason = "guard_nobody"
	NoConnection   Reason = "policy_no_connection"
	NoVerdict      Reason = "policy_no_verdict"
	Unclaimed      Reason = "policy_unclaimed"
	Refused        Reason = "policy_refused"
	Unfiltered     Reason = "unfiltered"
	Unjudged       Reason = "unjudged"
)

// texts say what each reason is, in the order in which they are told.
var texts = []text{
	{SpoofReserved, "sent round the bridge, to a group that bridges keep to themselves"},
	{SpoofEtherType, "neither IPv4, ARP nor IPv6, or under a VLAN tag"},
	{SpoofMAC, "from a MAC that is not the endpoint's"},
	{SpoofIP, "from an address that is not the endpoint's"},
	{SpoofARP, "ARP in another's name"},
	{SpoofND, "neighbour discovery in another's name"},
	{SpoofRA, "a router's message from an endpoint"},
	{SpoofDHCP, "a DHCP server's message from an endpoint"},
	{SpoofHeader, "IP headers that lead to no protocol"},
	{SpoofClaimed, "an endpoint's or the node's MAC or address, by another port"},
	{GuardPod, "VXLAN from a pod"},
	{GuardStranger, "VXLAN from somebody who is no peer, or not sent to this node"},
	{GuardInterface, "a pod's address on a wrong interface, or another one by a pod's own"},
	{GuardNobody, "a pod's address that is in no node's subnet"},
	{NoConnection, "of no connection that policies could judge"},
	{NoVerdict, "left without a verdict by an endpoint's rules"},
	{Unclaimed, "from an address on the bridge that no endpoint has"},
	{Refused, "of an endpoint that is closed, because the kernel refuses a policy"},
	{Unfiltered, "across the bridge, and not shown to policies"},
	{Unjudged, "across the bridge, between addresses that policies do not know"},
}

type text struct {
	reason Reason
	text   string
}

// Reasons are all of them, in the order in which they are told.
func Reasons() []Reason {
	list := make([]Reason, len(texts))
	for i, t := range texts {
		list[i] = t.reason
	}
	return list
}

// Text is what such packets are.
func (r Reason) Text() string {
	if i := slices.IndexFunc(texts, func(t text) bool { return t.reason == r }); i >= 0 {
		return texts[i].text
	}
	return ""
}

// Do counts a packet, and drops it. The counter is the table's to have.
func (r Reason) Do() nft.Statement { return nft.Do(nft.CounterRef{Name: string(r)}, nft.Drop) }
