package overlay

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/spec"
)

// Desired is what the spec makes of one node, given the facts of its host.
type Desired struct {
	State
	Pods     []netip.Prefix             // the pod CIDRs
	Bridge   string                     // name of the bridge; "": no pod network
	VTEPs    spec.PerFamily[string]     // name by underlay family, "" where not used
	Local    spec.PerFamily[netip.Addr] // what packets to peers come from, by underlay family
	Underlay spec.PerFamily[string]     // interface by underlay family, "" where not used
	Routed   []string                   // links of pods that are not on the bridge
	Peers    []Peer                     // every other node, once for each pod family
	Declared map[string]bool            // links that an endpoint of the spec attaches to the bridge
	Findings []change.Conflict          // what this host cannot have as the spec wants it
	Warnings []string                   // worth knowing, nothing is done about it
	// LeftOut are nodes to which no path can lead from here. One of the files is among
	// the findings, too; one of a cluster is no fault of this host.
	LeftOut []spec.LeftOut
}

// Peer is another node's pod subnet and how this node reaches it.
type Peer struct {
	Node    string
	Subnet  netip.Prefix
	Direct  bool       // a plain route; else VXLAN
	Address netip.Addr // the peer's underlay address
	NextHop uint32     // nexthop object ID
}

// Leads says that an observed state holds the way to a peer.
func (d *Desired) Leads(observed State, p Peer) bool {
	key := RouteKey{Dst: p.Subnet, Metric: defaultMetric(spec.FamilyOf(p.Subnet.Addr()))}
	hop := d.NextHops[p.NextHop]
	if observed.Routes[key] != d.Routes[key] || observed.NextHops[p.NextHop] != hop {
		return false
	}
	if p.Direct {
		return true
	}
	neighbour := NeighbourKey{hop.Link, hop.Gateway}
	row := FDBKey{hop.Link, d.Neighbours[neighbour].MAC, p.Address}
	return observed.Neighbours[neighbour] == d.Neighbours[neighbour] && observed.FDB[row] == d.FDB[row]
}

// Stands says that an observed state holds the node's own part of the pod network,
// without the ways to peers.
func (d *Desired) Stands(observed State) bool {
	for name, want := range d.Links {
		if have := observed.Links[name]; have.Type != want.Type || have.MAC != want.MAC || !have.Up {
			return false
		}
	}
	for key := range d.Addresses {
		if _, there := observed.Addresses[key]; !there {
			return false
		}
	}
	return d.Bridge != ""
}

// OnlyLeads says that an object, or what is in its way, has to do with the ways to peers
// alone. A plan, and a conflict, have its kind and name.
func (d *Desired) OnlyLeads(kind, name string) bool {
	what, on, _ := strings.Cut(name, " ")
	switch kind {
	case "nexthop", "fdb":
		return true
	case "neighbour":
		link := strings.TrimPrefix(on, "dev ")
		return link != "" && (link == d.VTEPs.IPv4 || link == d.VTEPs.IPv6)
	case "route":
		dst, err := netip.ParsePrefix(what)
		if err != nil {
			return false
		}
		for key := range d.Addresses { // of the node's own subnets
			if key.Prefix.Masked().Overlaps(dst) {
				return false
			}
		}
		return true
	}
	return false
}

// Overhead of VXLAN in bytes (RFC 7348, section 5): outer IP, UDP 8, VXLAN 8,
// inner Ethernet 14.
const vxlanOverhead = 8 + 8 + 14

func overhead(b spec.Backend, underlay spec.Family) int {
	switch {
	case b.Type != spec.VXLAN:
		return 0
	case underlay == spec.IPv4:
		return vxlanOverhead + 20
	default:
		return vxlanOverhead + 40
	}
}

// minMTUv6 is the least MTU of a link that carries IPv6 (RFC 8200, section 5).
// Below it Linux takes IPv6 off the link.
const minMTUv6 = 1280

// Compile computes what the node's network should be. It fails where nothing
// sensible can be computed at all: the underlay is not there, or its MTU is
// too small.
func Compile(sp *spec.Spec, node *spec.Node, facts Facts) (*Desired, error) {
	d := &Desired{State: NewState(len(sp.Nodes)), Declared: map[string]bool{}}
	c := newCompiler(d, sp, node, facts)
	if sp.Network == nil {
		if enforces(sp) {
			c.bridgeCalls(spec.Families[:])
			c.foreignBridge()
		}
		return d, nil
	}
	if err := c.chooseUnderlays(); err != nil {
		return nil, err
	}
	mtu, err := c.mtu()
	if err != nil {
		return nil, err
	}
	for _, p := range c.net.Pods {
		c.Pods = append(c.Pods, p.CIDR)
	}
	c.bridge(mtu)
	if c.net.Backend.Type == spec.VXLAN {
		c.vteps()
	}
	c.peers()
	c.sysctls()
	c.routed()
	return d, nil
}

type compiler struct {
	*Desired
	sp        *spec.Spec
	net       *spec.Network
	node      *spec.Node
	facts     Facts
	rides     spec.PerFamily[spec.Family] // the underlay family, by pod family
	underlays spec.PerFamily[*underlay]   // by underlay family, nil where no pod family rides it
}

func newCompiler(d *Desired, sp *spec.Spec, node *spec.Node, facts Facts) *compiler {
	c := &compiler{Desired: d, sp: sp, net: sp.Network, node: node, facts: facts}
	for _, subnet := range node.Subnets {
		pods := spec.FamilyOf(subnet.Addr())
		c.rides.Set(pods, sp.UnderlayFamily(pods))
	}
	return c
}

// chooseUnderlays finds the interface for every underlay family that carries
// pods.
func (c *compiler) chooseUnderlays() error {
	for _, pods := range c.net.Pods {
		if !c.has(pods.Family()) {
			continue
		}
		family := c.rides.Get(pods.Family())
		if c.underlays.Get(family) != nil {
			continue
		}
		u, err := c.facts.chooseUnderlay(c.sp, c.node, family)
		if err == nil && slices.Contains(ScopeOf(c.sp, c.node).Links, u.link.Name) {
			err = fmt.Errorf("underlay interface %s has the name of a link that polder makes: name the bridge, or the backend's device, otherwise", u.link.Name)
		}
		if err != nil {
			if c.node.Range.Filename == "" { // the cluster told of it
				return err
			}
			return fmt.Errorf("%s: %w", spec.FileLine(c.node.Range), err)
		}
		c.underlays.Set(family, &u)
		c.Underlay.Set(family, u.link.Name)
		c.Local.Set(family, u.local)
	}
	return nil
}

// has says that the node has pods of a family: one of the files has them of each, a
// cluster's perhaps not.
func (c *compiler) has(pods spec.Family) bool {
	_, ok := c.node.Subnet(pods)
	return ok
}

// vtepMTU is what an underlay leaves for the packets inside.
func (c *compiler) vtepMTU(family spec.Family) int {
	mtu := c.underlays.Get(family).link.MTU - overhead(c.net.Backend, family)
	if c.net.MTU != 0 {
		mtu = min(mtu, c.net.MTU)
	}
	return mtu
}

// mtu is the pods' MTU: the smallest of what applies.
func (c *compiler) mtu() (int, error) {
	mtu := 0
	for _, family := range spec.Families {
		u := c.underlays.Get(family)
		if u == nil {
			continue
		}
		fits := c.vtepMTU(family)
		if fits < c.net.MTU {
			return 0, fmt.Errorf("%s: mtu %d does not fit the underlay: %s has MTU %d, and the backend takes %d of it, which leaves %d",
				spec.FileLine(c.net.Range), c.net.MTU, u.link.Name, u.link.MTU, overhead(c.net.Backend, family), fits)
		}
		if mtu == 0 || fits < mtu {
			mtu = fits
		}
		if _, v6 := c.net.PodRange(spec.IPv6); v6 && c.has(spec.IPv6) && fits < minMTUv6 {
			return 0, fmt.Errorf("%s: underlay %s has MTU %d, which leaves %d for pods: IPv6 needs %d",
				spec.FileLine(c.net.Range), u.link.Name, u.link.MTU, fits, minMTUv6)
		}
	}
	return mtu, nil
}

func (c *compiler) bridge(mtu int) {
	name := c.net.Bridge.Name
	c.Bridge = name
	link := Link{
		Name: name,
		Type: TypeBridge,
		MAC:  c.sp.BridgeMAC(c.node),
		MTU:  mtu,
		Up:   true,
	}
	mark := Mark{Cluster: c.sp.Cluster}
	if there, ok := c.facts.Links[name]; ok && there.Type == TypeBridge {
		if m, ours := parseMark(there.Alias); ours {
			mark.MAC = m.MAC
		} else if there.MAC != link.MAC {
			mark.MAC = there.MAC
		}
		if !mark.MAC.IsZero() {
			link.MAC = mark.MAC
		}
	}
	link.Alias = mark.String()
	c.Links[name] = link

	for _, subnet := range c.node.Subnets {
		gateway := subnet.Addr().Next()
		c.Addresses[AddressKey{name, netip.PrefixFrom(gateway, subnet.Bits())}] = c.address()
		connected := connectedRoute(name, gateway, subnet)
		c.Routes[connected.RouteKey] = connected.Route
	}
	c.ports()
}

// address is ours, as far as this kernel lets us say so.
func (c *compiler) address() Address {
	if !c.facts.AddressProtocol {
		return Address{}
	}
	return Address{Protocol: Protocol}
}

// ports are those that the bridge has, whoever attached them, and the
// interfaces of this node's endpoints. An interface that is not there yet
// becomes a port when it comes: a workload that is down is no fault of the
// network.
func (c *compiler) ports() {
	port := Port{Master: c.Bridge, Hairpin: c.net.Bridge.HairpinMode}
	for _, l := range c.facts.Links {
		if l.Master == c.Bridge {
			port.Up = l.Up
			c.Ports[l.Name] = port
		}
	}
	for _, e := range c.sp.Endpoints {
		if e.Node != c.node.Name || e.Interface == "" {
			continue
		}
		if e.Interface == c.Underlay.IPv4 || e.Interface == c.Underlay.IPv6 {
			c.Findings = append(c.Findings, change.Conflict{
				Kind: "port", Name: e.Interface,
				Reason: fmt.Sprintf("endpoint %q wants it in the pod network, and it is this node's underlay: the node would be cut off", e.Name),
				Remedy: "correct the endpoint's interface",
			})
			continue
		}
		if _, there := c.facts.Links[e.Interface]; there {
			port.Up = true
			c.Ports[e.Interface] = port
			c.Declared[e.Interface] = true
		}
	}
}

func (c *compiler) vteps() {
	for _, family := range spec.Families {
		u := c.underlays.Get(family)
		if u == nil {
			continue
		}
		name := c.net.Backend.Device.Get(family)
		c.VTEPs.Set(family, name)
		if there := c.facts.Links[name]; there.Master != "" {
			c.Ports[name] = Port{Up: there.Up} // a port would bridge what it has to route
		}
		c.Links[name] = Link{
			Name:  name,
			Type:  TypeVXLAN,
			Alias: Mark{Cluster: c.sp.Cluster}.String(),
			MAC:   c.vtepMAC(name, family),
			MTU:   c.vtepMTU(family),
			Up:    true,
			VXLAN: VXLAN{
				VNI:    c.net.Backend.VNI,
				Port:   c.net.Backend.Port,
				Local:  u.local,
				Device: u.link.Name,
			},
		}
	}
	// The base address of the subnet is the VTEP's: traffic from the host to
	// remote pods leaves with it, so the answer finds the way back.
	for _, subnet := range c.node.Subnets {
		pods := spec.FamilyOf(subnet.Addr())
		name := c.VTEPs.Get(c.rides.Get(pods))
		c.Addresses[AddressKey{name, netip.PrefixFrom(subnet.Addr(), pods.Bits())}] = c.address()
	}
}

// vtepMAC is the MAC of the node's own VTEP. In a network that is shared with
// flannel, a device that is there keeps its own as long as the node has published
// none: peers that knew it go on sending to it.
func (c *compiler) vtepMAC(name string, family spec.Family) spec.MAC {
	there := c.facts.Links[name]
	if c.net.Compat == spec.CompatFlannel && c.node.VTEPMAC.Get(family).IsZero() && there.Type == TypeVXLAN && there.MAC.IsUnicast() {
		return there.MAC
	}
	return c.sp.VTEPMAC(c.node, family)
}

func (c *compiler) peers() {
	c.Peers = make([]Peer, 0, len(c.sp.Nodes)*len(c.net.Pods))
	for _, peer := range c.sp.Nodes {
		c.peer(peer)
	}
}

// peer leads the subnets of a node to it, if it is another one.
func (c *compiler) peer(peer *spec.Node) {
	if peer.Name == c.node.Name {
		return
	}
	for _, subnet := range peer.Subnets {
		c.subnet(peer, subnet)
	}
}

// subnet leads one subnet of a peer to it.
func (c *compiler) subnet(peer *spec.Node, subnet netip.Prefix) {
	pods := spec.FamilyOf(subnet.Addr())
	family := c.rides.Get(pods) // 0: this node has no pods of that family
	address, ok := peer.Address(family)
	if !ok {
		return
	}
	path, known := c.facts.Paths[address.Addr]
	adjacent := known && !path.Local && !path.Gateway.IsValid()

	hop := NextHop{Protocol: Protocol}
	direct := c.net.Backend.Type == spec.HostGW || c.net.Backend.DirectRouting && adjacent && family == pods
	if direct {
		if !adjacent {
			finding := notAdjacent(peer, subnet, address.Addr, path, known)
			c.LeftOut = append(c.LeftOut, spec.LeftOut{Node: peer.Name, Family: pods, Reason: spec.NoPath, Text: finding.Reason})
			if peer.Range.Filename != "" {
				c.Findings = append(c.Findings, finding)
			}
			return
		}
		hop.Gateway, hop.Link = address.Addr, path.Link
	} else {
		vtep, mac := c.VTEPs.Get(family), c.sp.VTEPMAC(peer, family)
		hop.Gateway, hop.Link, hop.OnLink = subnet.Addr(), vtep, true
		c.Neighbours[NeighbourKey{vtep, subnet.Addr()}] = Neighbour{MAC: mac, Permanent: true}
		c.FDB[FDBKey{vtep, mac, address.Addr}] = FDBEntry{Permanent: true}
	}
	id := nextHopID(c.sp.Cluster, nextHopOwner{peer.Name, pods}, c.NextHops)
	c.NextHops[id] = hop
	c.Routes[RouteKey{Dst: subnet, Metric: defaultMetric(pods)}] = Route{NextHop: id, Protocol: Protocol}
	c.Peers = append(c.Peers, Peer{peer.Name, subnet, direct, address.Addr, id})
}

// notAdjacent says why host-gw cannot lead to a peer.
func notAdjacent(peer *spec.Node, subnet netip.Prefix, address netip.Addr, path HostPath, known bool) change.Conflict {
	c := change.Conflict{
		Kind:   "route",
		Name:   subnet.String(),
		Remedy: "use backend \"vxlan\", with direct_routing = true if the other nodes share a link",
	}
	switch {
	case !known:
		c.Reason = fmt.Sprintf("this host has no route to node %s at %s", peer.Name, address)
		c.Remedy = "check the host's own network, or " + c.Remedy
	case path.Local:
		c.Reason = fmt.Sprintf("the address of node %s, %s, is this host's own", peer.Name, address)
		c.Remedy = "correct the node's addresses in the spec, or --node"
	default:
		c.Reason = fmt.Sprintf("node %s at %s is behind the gateway %s, and host-gw works only between nodes on one link", peer.Name, address, path.Gateway)
	}
	return c
}

// Owns says that a link is one that the spec makes.
func (d *Desired) Owns(link string) bool {
	_, ok := d.Links[link]
	return ok
}
