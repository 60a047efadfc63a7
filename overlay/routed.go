package overlay

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/poldernet/polder/spec"
)

// routed finds the pods that a route leads to by a link of their own. Of several
// routes it is the one that packets take.
func (o *Observed) routed() map[netip.Addr]string {
	var found map[netip.Addr]string
	metrics := map[netip.Addr]uint32{}
	for key, r := range o.State.Routes {
		l := o.Facts.Links[r.Link]
		if !key.Dst.IsSingleIP() || !o.inPods(key.Dst) || key.TOS != 0 || r.Gateway.IsValid() || r.NextHop != 0 || r.Other ||
			r.Protocol == Protocol || l.Name == "" || l.Type == TypeVXLAN || l.Type == TypeBridge {
			continue
		}
		a := key.Dst.Addr()
		if best, there := metrics[a]; there && best < key.Metric {
			continue
		}
		if found == nil {
			found = map[netip.Addr]string{}
		}
		found[a], metrics[a] = r.Link, key.Metric
	}
	return found
}

// proxies says that there are any on a link.
func (o *Observed) proxies(link string) bool {
	for key := range o.State.Proxies {
		if key.Link == link {
			return true
		}
	}
	return false
}

// routed are the links of this node's pods that are not on the bridge. Those on the
// bridge take them for neighbours, as their addresses are of one subnet: the node
// answers in their place, and at once, where the kernel would wait for up to 0.8 s
// (proxy_delay in ip-sysctl). IPv6 does so only where proxy_ndp is on.
func (c *compiler) routed() {
	links := map[string]bool{}
	for a, link := range c.facts.Routed {
		f := spec.FamilyOf(a)
		if subnet, ok := c.node.Subnet(f); !ok || !subnet.Contains(a) {
			continue
		}
		links[link] = true
		c.Proxies[NeighbourKey{c.Bridge, a}] = Proxy{Protocol: Protocol}
		c.Sysctls[proxyDelay(f, c.Bridge)] = "0"
		if f == spec.IPv6 {
			c.Sysctls[linkSysctl(c.Bridge, "proxy_ndp")] = "1"
		}
	}
	c.Routed = slices.Sorted(maps.Keys(links))
}

func proxyDelay(f spec.Family, link string) string {
	return "net/" + f.String() + "/neigh/" + link + "/proxy_delay"
}
