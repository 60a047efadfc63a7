package flannel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/poldernet/polder/overlay"
	"github.com/poldernet/polder/spec"
)

// Node is a node as flannel has made it.
type Node struct {
	Name string
	// Kubernetes says that flannel has its nodes from there.
	Kubernetes bool

	Env   []byte // what is in EnvFile
	Links map[string]overlay.HostLink
	State overlay.State // of flannel's VTEPs, and the routes to pods
	// Default is the interface that leads to the outside.
	Default spec.PerFamily[string]
}

// outside are addresses of nobody (RFC 5737, RFC 3849): what leads to them is
// the default route, whose interface flannel takes where nobody names one.
var outside = spec.PerFamily[netip.Addr]{IPv4: netip.MustParseAddr("203.0.113.254"), IPv6: netip.MustParseAddr("2001:db8:ffff:ffff::fffe")}

// ErrNone says that flannel does not run on the node, nor has since it booted.
var ErrNone = errors.New("flannel has not run here since the node booted")

// ReadNode looks at the node that the calling thread's network namespace is of.
func ReadNode(ctx context.Context, name string) (_ *Node, err error) {
	n := &Node{Name: name}
	if n.Env, err = os.ReadFile(EnvFile); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w: %w", ErrNone, err)
		}
		return nil, err
	}
	reader, err := overlay.OpenReader()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	// VTEPs are read by their names, which only a first look shows.
	observed, err := reader.Read(ctx, overlay.Scope{})
	if err != nil {
		return nil, err
	}
	scope := overlay.Scope{Ask: []netip.Addr{outside.IPv4, outside.IPv6}}
	for name, l := range observed.Facts.Links {
		if l.Type == overlay.TypeVXLAN && strings.HasPrefix(name, "flannel") {
			scope.Links = append(scope.Links, name)
		}
	}
	e := (&document{name: EnvFile, text: n.Env}).env()
	for _, f := range spec.Families {
		if network := e.network.Get(f); network.IsValid() {
			scope.Pods = append(scope.Pods, network)
		}
	}
	if observed, err = reader.Read(ctx, scope); err != nil {
		return nil, err
	}
	n.Links, n.State = observed.Facts.Links, observed.State
	for _, f := range spec.Families {
		n.Default.Set(f, observed.Facts.Paths[outside.Get(f)].Link)
	}
	return n, nil
}

// peer is a part of another node that one of flannel's routes leads to.
type peer struct {
	subnet  netip.Prefix
	address netip.Addr
	mac     spec.MAC // zero: it is reached without encapsulation
	direct  bool
	link    string
}

// nodeReader makes a spec of a node.
type nodeReader struct {
	*Node
	*document
	env
	out   draft
	vteps spec.PerFamily[overlay.HostLink]
	peers spec.PerFamily[[]peer]
}

// Import writes the spec of a cluster with that name as the node shows it: its
// own block, and one for each node that it has a route to, unless Kubernetes tells
// of nodes.
func (n *Node) Import(cluster string) ([]byte, hcl.Diagnostics) {
	r := nodeReader{Node: n, document: &document{name: EnvFile, text: n.Env}}
	r.env = r.document.env()
	if r.diags.HasErrors() {
		return nil, r.diags
	}
	r.out.cluster = cluster
	r.out.header.add("flannel's network, as node %s shows it. Comments that begin with \"dropped\" tell what polder has not, or has otherwise.", quoted(n.Name))
	for _, f := range spec.Families {
		if subnet := r.subnet.Get(f); subnet.IsValid() {
			r.out.cidrs = append(r.out.cidrs, r.network.Get(f).String())
			r.out.lens.Set(f, subnet.Bits())
			r.findVTEP(f, subnet)
			r.findPeers(f, subnet)
		}
	}
	ours := r.draftBackend()
	if n.Kubernetes {
		r.draftKubernetes(ours)
	} else {
		r.out.header.add("Where flannel has its nodes from Kubernetes, `polder import flannel --kubernetes` writes a spec without them.")
		r.out.network.add("SubnetMin and SubnetMax are not to be seen on a node: copy them from net-conf.json, where they are in it.")
		r.ownNode()
		r.otherNodes()
	}
	r.draftBridge()
	if r.masquerade {
		r.out.masquerade = &spec.Masquerade{RandomFully: true}
	} else {
		r.out.natWhy.add("flannel runs without --ip-masq: pods reach the outside with their own addresses.")
	}
	return r.finish(&r.out)
}

// draftKubernetes leaves to the cluster what it tells of. With a backend that polder
// has not, too, there is nothing to share.
func (r *nodeReader) draftKubernetes(ours bool) {
	r.out.inCluster()
	r.out.lens, r.out.backend.Device = spec.PerFamily[int]{}, spec.PerFamily[string]{}
	if ours {
		r.out.share()
	}
}

// findVTEP finds the device that has the base of the node's subnet.
func (r *nodeReader) findVTEP(f spec.Family, subnet netip.Prefix) {
	for _, name := range slices.Sorted(maps.Keys(r.Links)) {
		l := r.Links[name]
		if l.Type == overlay.TypeVXLAN && slices.Contains(l.Addresses, netip.PrefixFrom(subnet.Addr(), f.Bits())) {
			r.vteps.Set(f, l)
		}
	}
}

// findPeers finds what flannel's routes lead to.
func (r *nodeReader) findPeers(f spec.Family, own netip.Prefix) {
	var found []peer
	macs := map[spec.MAC]netip.Addr{}
	vtep := r.vteps.Get(f).Name
	for key := range r.State.FDB {
		if key.Link == vtep {
			macs[key.MAC] = key.Dst
		}
	}
	for key, route := range r.State.Routes {
		if key.Dst == own || key.Dst.Bits() != own.Bits() || !r.network.Get(f).Contains(key.Dst.Addr()) || !route.Gateway.IsValid() {
			continue
		}
		p := peer{subnet: key.Dst, address: route.Gateway, direct: true, link: route.Link}
		if vtep != "" && route.Link == vtep {
			p.direct = false
			p.mac = r.State.Neighbours[overlay.NeighbourKey{Link: vtep, Addr: route.Gateway}].MAC
			p.address = macs[p.mac]
		}
		if p.address.IsValid() {
			found = append(found, p)
		}
	}
	slices.SortFunc(found, func(a, b peer) int { return a.subnet.Addr().Compare(b.subnet.Addr()) })
	r.peers.Set(f, found)
}

// otherDevices are what flannel makes with backends that polder has not.
var otherDevices = map[string]string{"flannel-wg": "wireguard", "flannel-wg-v6": "wireguard", "flannel.ipip": "ipip", "flannel0": "udp"}

// draftBackend says whether it is one that polder has, too.
func (r *nodeReader) draftBackend() (ours bool) {
	for _, name := range slices.Sorted(maps.Keys(otherDevices)) {
		if _, there := r.Links[name]; !there {
			continue
		}
		typ := otherDevices[name]
		deployment{config: config{backend: backend{typ: typ}}}.draftBackend(&r.out)
		return false
	}
	r.out.backend = spec.Backend{Type: spec.HostGW}
	direct := false
	for _, f := range spec.Families {
		direct = direct || slices.ContainsFunc(r.peers.Get(f), func(p peer) bool { return p.direct })
		vtep := r.vteps.Get(f)
		if vtep.Name == "" {
			continue
		}
		r.out.backend.Type, r.out.backend.VNI, r.out.backend.Port = spec.VXLAN, vtep.VXLAN.VNI, vtep.VXLAN.Port
		r.out.backend.Device.Set(f, vtep.Name)
		if vtep.VXLAN.Learning {
			r.out.backendWhy.drop("Learning of %s. polder's VTEPs have static entries, and it does not take over one that learns: the VTEP is made anew.", vtep.Name)
		}
		if vtep.VXLAN.Other {
			r.out.backendWhy.drop("a feature of %s that polder's VTEPs have not, GBP or another that `ip -d link show` tells. polder does not take it over: the VTEP is made anew.", vtep.Name)
		}
		r.draftMTU(vtep)
	}
	switch {
	case r.out.backend.Type == spec.HostGW:
		if len(r.peers.IPv4)+len(r.peers.IPv6) == 0 {
			r.out.backendWhy.add("Nothing here says how packets reach other nodes: there is no VTEP, nor a route to another node's pods. \"host-gw\" is the backend of flannel's that would look so.")
		}
	case direct:
		r.out.backend.DirectRouting = true
	default:
		r.out.backendWhy.add("No route here leads to a node without encapsulation. Where net-conf.json has DirectRouting, add direct_routing = true.")
	}
	return true
}

// draftMTU notes an MTU that is not what the underlay leaves.
func (r *nodeReader) draftMTU(vtep overlay.HostLink) {
	underlay, there := r.Links[vtep.VXLAN.Device]
	if r.mtu == 0 || !there || underlay.MTU-vxlanOverhead == r.mtu {
		return
	}
	r.out.mtu = r.mtu
	if len(r.out.network) == 1 { // said once, of both families
		r.out.network.add("FLANNEL_MTU is not what is left of the %d bytes of %s.", underlay.MTU, underlay.Name)
	}
}

// draftBridge finds the bridge by its address, and what its ports are like.
func (r *nodeReader) draftBridge() {
	for _, name := range slices.Sorted(maps.Keys(r.Links)) {
		l := r.Links[name]
		if l.Type != overlay.TypeBridge || !slices.ContainsFunc(l.Addresses, r.gateway) {
			continue
		}
		r.out.bridge = &spec.Bridge{Name: name, HairpinMode: true}
		for link, port := range r.State.Ports {
			if port.Master == name && !port.Hairpin {
				r.out.bridge.HairpinMode = false
				r.out.bridgeWhy.add("Not all ports have hairpin mode, %s for one.", link)
				break
			}
		}
		return
	}
	r.out.bridgeWhy.add("No bridge has the first address of the node's subnet: there have been no pods. cni0 is what flannel's CNI plugin would make.")
	r.out.bridge = &spec.Bridge{Name: "cni0", HairpinMode: true}
}

// gateway says that an address is the one that pods here have as their gateway.
func (r *nodeReader) gateway(p netip.Prefix) bool {
	subnet := r.subnet.Get(spec.FamilyOf(p.Addr()))
	return subnet.IsValid() && p == netip.PrefixFrom(subnet.Addr().Next(), subnet.Bits())
}

// ownNode drafts the node's own block.
func (r *nodeReader) ownNode() {
	n := nodeDraft{name: r.Name}
	for _, f := range spec.Families {
		subnet := r.subnet.Get(f)
		if !subnet.IsValid() {
			continue
		}
		address, ok := r.ownAddress(f)
		if !ok {
			r.document.fail(r.between(0, 0), "No address", "The %s address at which other nodes reach this one is not to be seen: there is no VTEP of flannel's, no route to another node's pods, and no default route. Import net-conf.json instead, and write the node's block by hand.", familyName(f))
			continue
		}
		n.addresses = append(n.addresses, address.String())
		n.subnets = append(n.subnets, subnet.String())
		if vtep := r.vteps.Get(f); vtep.Name != "" && r.out.backend.Device.Get(f) != "" {
			n.macs.Set(f, vtep.MAC.String())
		}
	}
	r.out.nodes = append(r.out.nodes, n)
}

// ownAddress is where flannel's packets come from, with the length of the link.
func (r *nodeReader) ownAddress(f spec.Family) (netip.Prefix, bool) {
	vtep := r.vteps.Get(f)
	link := cmp.Or(vtep.VXLAN.Device, r.Default.Get(f))
	peers := r.peers.Get(f)
	if vtep.Name == "" && len(peers) > 0 {
		link = peers[0].link
	}
	var usable []netip.Prefix
	for _, p := range r.Links[link].Addresses {
		if spec.FamilyOf(p.Addr()) == f && !p.Addr().IsLinkLocalUnicast() {
			usable = append(usable, p)
		}
	}
	for _, p := range usable {
		if p.Addr() == vtep.VXLAN.Local || vtep.Name == "" && len(peers) > 0 && p.Contains(peers[0].address) {
			return p, true
		}
	}
	if len(usable) == 0 {
		return netip.Prefix{}, false
	}
	return usable[0], true
}

// otherNodes drafts the blocks of the nodes that routes lead to. Which IPv6
// subnet is on the node of which IPv4 one is not in the kernel.
func (r *nodeReader) otherNodes() {
	count := max(len(r.peers.IPv4), len(r.peers.IPv6))
	families := 0
	for _, f := range spec.Families {
		if !r.subnet.Get(f).IsValid() {
			continue
		}
		families++
		if have := len(r.peers.Get(f)); have < count {
			r.out.footer.add("This node has %s routes to %d nodes, and %d in the other family. Blocks are written for those in both; add the rest by hand.", familyName(f), have, count)
			count = min(have, count)
		}
	}
	for i := range count {
		n := nodeDraft{}
		for _, f := range spec.Families {
			if !r.subnet.Get(f).IsValid() {
				continue
			}
			p := r.peers.Get(f)[i]
			if n.name == "" {
				n.name = "node-" + strings.NewReplacer(".", "-", ":", "-").Replace(p.address.StringExpanded())
			}
			n.addresses = append(n.addresses, r.withLength(f, p.address))
			n.subnets = append(n.subnets, p.subnet.String())
			switch {
			case r.out.backend.Device.Get(f) == "":
			case p.mac.IsZero():
				n.why.add("vtep_mac.%s is on the node, in /sys/class/net/%s/address: packets go to it from here without encapsulation.", f, r.out.backend.Device.Get(f))
			default:
				n.macs.Set(f, p.mac.String())
			}
		}
		r.out.nodes = append(r.out.nodes, n)
	}
	if count == 0 {
		return
	}
	first := &r.out.nodes[1].why
	if families > 1 {
		*first = append(notes{"Which IPv6 subnet is on the node of which IPv4 one is not to be seen here: they are paired in the order of their subnets. Compare them with the blocks that the nodes write themselves."}, *first...)
	}
	*first = append(notes{"The names of other nodes are not to be seen here: write their hostnames."}, *first...)
}

// withLength is an address of a node, with the length of the link where it is
// on this node's own.
func (r *nodeReader) withLength(f spec.Family, a netip.Addr) string {
	if own, ok := r.ownAddress(f); ok && own.Contains(a) {
		return a.String() + "/" + strconv.Itoa(own.Bits())
	}
	return a.String()
}
