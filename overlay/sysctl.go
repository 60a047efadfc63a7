package overlay

import (
	"fmt"
	"slices"
	"strings"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/spec"
)

// sysctls are the kernel's switches that the pod network leans on.
func (c *compiler) sysctls() {
	for _, pods := range c.net.Pods {
		if !c.has(pods.Family()) {
			continue
		}
		switch pods.Family() {
		case spec.IPv4:
			c.Sysctls[ForwardingSwitch(spec.IPv4)] = "1"
			// IPv4 asks the link that a packet comes in by, which begins with
			// conf/default and not with what ip_forward says (devinet.c).
			for _, link := range c.Links {
				c.Sysctls["net/ipv4/conf/"+link.Name+"/forwarding"] = "1"
			}
			c.reversePath()
		case spec.IPv6:
			c.Sysctls[ForwardingSwitch(spec.IPv6)] = "1"
			for _, link := range c.facts.RADefaults {
				c.Sysctls[linkSysctl(link, "accept_ra")] = "2"
			}
			for _, link := range c.Links {
				c.Sysctls[linkSysctl(link.Name, "disable_ipv6")] = "0"
			}
		}
	}
	var families []spec.Family
	for _, pods := range c.net.Pods {
		families = append(families, pods.Family())
	}
	c.bridgeCalls(families)
	if c.facts.IPv6 {
		// A pod that advertises itself as a router must not become the host's
		// default route (CVE-2020-10749), whatever family the pods have.
		for name, link := range c.Links {
			if link.MTU >= minMTUv6 {
				c.Sysctls[linkSysctl(name, "accept_ra")] = "0"
			}
		}
	}
}

// enforces says that there are policies, which need to see what passes a bridge
// that something else makes.
func enforces(sp *spec.Spec) bool { return len(sp.Policies)+len(sp.Manifests) > 0 }

// bridgeCalls show what passes a bridge to the inet hooks.
func (c *compiler) bridgeCalls(families []spec.Family) {
	if !c.facts.BridgeNetfilter {
		c.Warnings = append(c.Warnings, "the kernel module br_netfilter is not loaded: packets between pods of one node pass no inet hook. "+
			"Load it with `modprobe br_netfilter`, and list it in /etc/modules-load.d/polder.conf")
		return
	}
	for _, f := range families {
		c.Sysctls[bridgeCall(f)] = "1"
	}
}

// foreignBridge warns where the bridge that endpoints are said to be on is not there:
// its name may be wrong, and then nothing is held to its own addresses.
func (c *compiler) foreignBridge() {
	if name := c.sp.Enforcement.Bridge; c.facts.Links[name].Type != TypeBridge {
		c.Warnings = append(c.Warnings, fmt.Sprintf("this node has no bridge %s: policies hold by address, but who sends from a pod's address is not checked. "+
			"If pods are on another bridge, name it in the enforcement block; if they come later, nothing is wrong", name))
	}
}

// reversePath has the VTEP take packets whose way back leads elsewhere: over the
// underlay, to a peer that sends by VXLAN still, or again. The guard checks
// sources more closely. The kernel goes by the greater of this switch and that
// of all links (ip-sysctl, rp_filter): 0 would not do where that is 1, as the
// defaults of some distributions are. IPv6 has no such check.
func (c *compiler) reversePath() {
	if c.net.Backend.AcceptDirect {
		c.Sysctls[reversePathFilter(c.VTEPs.Get(c.rides.Get(spec.IPv4)))] = looseReversePath
	}
	// The underlay's is not ours to set.
	link := c.Underlay.Get(spec.IPv4)
	if c.net.Backend.AcceptDirect && !c.net.Backend.DirectRouting && slices.Contains(c.facts.StrictReversePath, link) {
		name := SysctlName(reversePathFilter(link))
		c.Warnings = append(c.Warnings, fmt.Sprintf("the kernel drops on %s what peers send directly, as its rp_filter is strict. "+
			"Loosen it for the change with `sysctl %s=2`", link, name))
	}
}

// Values of rp_filter.
const (
	strictReversePath = "1"
	looseReversePath  = "2" // asks only for some route to the source
)

// reversePathFilter is the switch of a link by which IPv4 drops what the way
// back does not lead to.
func reversePathFilter(link string) string { return "net/ipv4/conf/" + link + "/rp_filter" }

// sysctls plans the switches: of the host first, and of our links when these
// are there.
func (d *differ) sysctls() {
	for path, value := range d.want.Sysctls {
		p, link := phaseSysctls, SysctlLink(path)
		if _, ours := d.want.Links[link]; ours {
			if d.blocked[link] {
				continue
			}
			p = phaseLinkSysctls
		}
		after := sysctlEntry{path, value}
		now, there := d.have.Sysctls[path]
		switch {
		case !there:
			d.add(p, put(change.Create, after, nil, ""))
		case d.gone[link]:
			d.add(p, put(change.Replace, after, nil, reasonLinkReplaced))
		case now != value:
			d.add(p, put(change.Update, after, sysctlEntry{path, now}, ""))
		}
	}
}

// ForwardingSwitch is the switch by which a host forwards a family.
func ForwardingSwitch(f spec.Family) string {
	if f == spec.IPv4 {
		return "net/ipv4/ip_forward"
	}
	return "net/ipv6/conf/all/forwarding"
}

// SetSysctl is the operation that writes a switch of which the spec says
// nothing.
func SetSysctl(path, before, after string, hidden bool) Op {
	op := put(change.Update, sysctlEntry{path, after}, sysctlEntry{path, before}, "")
	op.Hidden = hidden
	return op
}

// SysctlName is a switch's name as sysctl(8) writes it: dots separate, and a
// dot in an interface's name becomes a slash.
func SysctlName(path string) string {
	return strings.Map(func(r rune) rune {
		switch r {
		case '/':
			return '.'
		case '.':
			return '/'
		}
		return r
	}, path)
}

// SysctlLink is the link that a switch belongs to, "" for one of the host.
func SysctlLink(path string) string {
	parts := strings.Split(path, "/")
	if len(parts) == 5 && (parts[2] == "conf" || parts[2] == "neigh") && parts[3] != "all" && parts[3] != "default" {
		return parts[3]
	}
	return ""
}

// sysctlRank orders the host's switches: what keeps its own default route
// comes before forwarding.
func sysctlRank(op Op) int {
	if s, ok := op.object.(sysctlEntry); ok && strings.HasSuffix(s.path, "/accept_ra") {
		return 0
	}
	return 1
}

// linkSysctl is an IPv6 switch of one link.
func linkSysctl(link, name string) string { return "net/ipv6/conf/" + link + "/" + name }

// bridgeCall is the switch that shows bridged packets to the inet hooks.
func bridgeCall(f spec.Family) string {
	if f == spec.IPv4 {
		return "net/bridge/bridge-nf-call-iptables"
	}
	return "net/bridge/bridge-nf-call-ip6tables"
}
