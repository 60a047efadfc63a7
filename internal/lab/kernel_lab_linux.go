package lab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/poldernet/polder/spec"
)

// Lab is a network that is up.
type Lab struct {
	blueprint *blueprint
	// fabric holds the links: a bridge for each.
	fabric *Namespace
	// machines are the namespaces of machines and pods by name.
	machines map[string]*Namespace
	ports    int // of the fabric, so far
}

// Up makes the network that the topology and the spec describe: links,
// machines with addresses and routes, and pods with a veth to their node. It
// makes nothing that polder makes; where the spec has no network block, polder
// makes no pod network, and Up makes one of bridges and routes. On error nothing
// is left. A mistake in the files is an error of type hcl.Diagnostics.
func Up(ctx context.Context, t *Topology, s *spec.Spec) (*Lab, error) {
	b, diags := t.complete(s)
	if diags.HasErrors() {
		return nil, diags
	}
	l := &Lab{blueprint: b, machines: map[string]*Namespace{}}
	if err := l.up(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Lab) up(ctx context.Context) error {
	var err error
	if l.fabric, err = NewNamespace("fabric"); err != nil {
		return err
	}
	if err := l.fabric.Do(quietFabric); err != nil {
		return err
	}
	for i, link := range l.blueprint.links {
		if err := l.addLink(i, link); err != nil {
			return fmt.Errorf("making link %s: %w", link.Name, err)
		}
	}
	for _, m := range l.blueprint.machines {
		if err := errors.Join(ctx.Err(), l.addMachine(m)); err != nil {
			return fmt.Errorf("making %s %s: %w", m.Role, m.Name, err)
		}
	}
	for _, b := range l.blueprint.bridges {
		if err := errors.Join(ctx.Err(), l.addBridge(b)); err != nil {
			return fmt.Errorf("making bridge %s of %s: %w", b.name, b.node, err)
		}
	}
	for _, p := range l.blueprint.pods {
		if err := errors.Join(ctx.Err(), l.addPod(p)); err != nil {
			return fmt.Errorf("making pod %s: %w", p.name, err)
		}
	}
	for _, r := range l.blueprint.routes {
		if err := errors.Join(ctx.Err(), l.addRoute(r)); err != nil {
			return fmt.Errorf("making the route of %s to %v: %w", r.machine, r.to, err)
		}
	}
	return nil
}

// quietFabric keeps br_netfilter off the links: they are cables, and what
// crosses them is not to be tracked a second time.
func quietFabric() error {
	for _, name := range []string{"iptables", "ip6tables", "arptables"} {
		err := writeSysctl("net/bridge/bridge-nf-call-"+name, "0")
		if err != nil && !errors.Is(err, unix.ENOENT) { // ENOENT: the module is not loaded
			return err
		}
	}
	return nil
}

func bridgeName(i int) string { return "link" + strconv.Itoa(i) }

func (l *Lab) addLink(i int, link *Link) error {
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName(i), MTU: link.MTU}}
	h := l.fabric.handle
	if err := h.LinkAdd(br); err != nil {
		return err
	}
	return h.LinkSetUp(br)
}

func (l *Lab) addMachine(m *Machine) error {
	n, err := l.addNamespace(m.Name)
	if err != nil {
		return err
	}
	if m.Role == RoleRouter {
		if err := n.Do(forward); err != nil {
			return err
		}
	}
	for i, at := range m.Interfaces {
		if err := l.addInterface(n, "eth"+strconv.Itoa(i), at); err != nil {
			return fmt.Errorf("on link %s: %w", at.Link, err)
		}
	}
	return nil
}

func (l *Lab) addNamespace(name string) (*Namespace, error) {
	n, err := NewNamespace(name)
	if err != nil {
		return nil, err
	}
	l.machines[name] = n
	return n, nil
}

func forward() error {
	return errors.Join(
		writeSysctl("net/ipv4/ip_forward", "1"),
		writeSysctl("net/ipv6/conf/all/forwarding", "1"))
}

func (l *Lab) addInterface(n *Namespace, name string, at Interface) error {
	index := slices.IndexFunc(l.blueprint.links, func(x *Link) bool { return x.Name == at.Link })
	port := "port" + strconv.Itoa(l.ports)
	l.ports++
	v := veth{
		outer: l.fabric, outerName: port,
		inner: n, innerName: name,
		mtu:       l.blueprint.links[index].MTU,
		addresses: at.Addresses, gateways: at.Gateways,
	}
	if err := v.create(); err != nil {
		return err
	}
	h := l.fabric.handle
	br, err := h.LinkByName(bridgeName(index))
	if err != nil {
		return err
	}
	p, err := h.LinkByName(port)
	if err != nil {
		return err
	}
	return h.LinkSetMaster(p, br)
}

func (l *Lab) addPod(p pod) error {
	n, err := l.addNamespace(p.name)
	if err != nil {
		return err
	}
	v := veth{
		outer: l.machines[p.node], outerName: p.port,
		inner: n, innerName: "eth0", innerMAC: p.mac,
		mtu:       defaultMTU,
		addresses: p.addresses, gateways: p.gateways,
	}
	if err := v.create(); err != nil || p.bridge == "" {
		return err
	}
	return l.attach(p)
}

// veth is a pair between two namespaces. The addresses are the inner end's.
type veth struct {
	outer, inner         *Namespace
	outerName, innerName string
	innerMAC             spec.MAC // zero: the kernel chooses
	mtu                  int
	addresses            []netip.Prefix
	gateways             []netip.Addr
}

func (v veth) create() error {
	pair := netlink.NewVeth(netlink.LinkAttrs{Name: v.outerName, MTU: v.mtu})
	pair.PeerName, pair.PeerNamespace = v.innerName, netlink.NsFd(v.inner.net.Fd())
	pair.PeerMTU = uint32(v.mtu)
	if !v.innerMAC.IsZero() {
		pair.PeerHardwareAddr = v.innerMAC[:]
	}
	if err := v.outer.handle.LinkAdd(pair); err != nil {
		return fmt.Errorf("making veth %s: %w", v.outerName, err)
	}
	for _, end := range []struct {
		n    *Namespace
		name string
	}{{v.outer, v.outerName}, {v.inner, v.innerName}} {
		// Before it is up, or its addresses are tentative for a second.
		if err := end.n.Do(func() error { return noDAD(end.name) }); err != nil {
			return fmt.Errorf("turning off DAD on %s: %w", end.name, err)
		}
		link, err := end.n.handle.LinkByName(end.name)
		if err != nil {
			return err
		}
		if err := end.n.handle.LinkSetUp(link); err != nil {
			return fmt.Errorf("raising %s: %w", end.name, err)
		}
	}
	return v.configure()
}

// noDAD turns duplicate address detection off on one interface. Those that
// polder makes on a node keep the kernel's default, as on a real host.
func noDAD(link string) error {
	err := writeSysctl("net/ipv6/conf/"+link+"/accept_dad", "0")
	if errors.Is(err, unix.ENOENT) {
		return nil // no IPv6 on this kernel
	}
	return err
}

// configure sets the inner end's addresses and default routes.
func (v veth) configure() error {
	h := v.inner.handle
	link, err := h.LinkByName(v.innerName)
	if err != nil {
		return err
	}
	for _, a := range v.addresses {
		if err := h.AddrAdd(link, &netlink.Addr{IPNet: ipNet(a)}); err != nil {
			return fmt.Errorf("adding address %v: %w", a, err)
		}
	}
	for _, g := range v.gateways {
		all := netip.PrefixFrom(unspecified(spec.FamilyOf(g)), 0)
		r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(all), Gw: g.AsSlice()}
		if err := h.RouteAdd(r); err != nil {
			return fmt.Errorf("adding the default route through %v: %w", g, err)
		}
	}
	return nil
}

// Node is the namespace of a node, or nil.
func (l *Lab) Node(name string) *Namespace { return l.role(name, RoleNode) }

// Host is the namespace of a host or a router, or nil.
func (l *Lab) Host(name string) *Namespace { return l.role(name, RoleHost, RoleRouter) }

func (l *Lab) role(name string, roles ...Role) *Namespace {
	for _, m := range l.blueprint.machines {
		if m.Name == name && slices.Contains(roles, m.Role) {
			return l.machines[name]
		}
	}
	return nil
}

// Pod is the namespace of a pod, or nil.
func (l *Lab) Pod(name string) *Namespace {
	for _, p := range l.blueprint.pods {
		if p.name == name {
			return l.machines[name]
		}
	}
	return nil
}

// Machine is the namespace of any of them, or nil.
func (l *Lab) Machine(name string) *Namespace { return l.machines[name] }

// Names lists the machines and pods, sorted.
func (l *Lab) Names() []string { return slices.Sorted(maps.Keys(l.machines)) }

// MountSpec shows a folder as /etc/polder in every namespace, where polder
// looks for its spec.
func (l *Lab) MountSpec(dir string) error {
	for _, n := range l.machines {
		if err := n.Do(func() error { return unix.Mount(dir, SpecDir, "", unix.MS_BIND|unix.MS_REC, "") }); err != nil {
			return fmt.Errorf("mounting %s on %s's %s: %w", dir, n.name, SpecDir, err)
		}
	}
	return nil
}

// SyncPodMTU gives every pod the MTU of the bridge that its veth is a port of,
// as a CNI plugin does when it attaches a pod. Pods that are on no bridge keep
// theirs.
func (l *Lab) SyncPodMTU() error {
	for _, p := range l.blueprint.pods {
		h := l.machines[p.node].handle
		port, err := h.LinkByName(p.port)
		var gone netlink.LinkNotFoundError
		if errors.As(err, &gone) {
			continue // somebody took it away, to see what happens
		}
		if err != nil {
			return fmt.Errorf("finding the veth of pod %s: %w", p.name, err)
		}
		master := port.Attrs().MasterIndex
		if master == 0 {
			continue
		}
		br, err := h.LinkByIndex(master)
		if err != nil {
			return fmt.Errorf("finding the bridge of pod %s: %w", p.name, err)
		}
		if err := l.setPodMTU(p, br.Attrs().MTU); err != nil {
			return err
		}
	}
	return nil
}

// SetPodMTU sets the MTU of every pod, in bytes.
func (l *Lab) SetPodMTU(mtu int) error {
	for _, p := range l.blueprint.pods {
		if err := l.setPodMTU(p, mtu); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) setPodMTU(p pod, mtu int) error {
	for _, end := range []struct{ machine, link string }{{p.node, p.port}, {p.name, "eth0"}} {
		h := l.machines[end.machine].handle
		link, err := h.LinkByName(end.link)
		if err != nil {
			return fmt.Errorf("finding %s of pod %s: %w", end.link, p.name, err)
		}
		if link.Attrs().MTU == mtu {
			continue
		}
		if err := h.LinkSetMTU(link, mtu); err != nil {
			return fmt.Errorf("setting the MTU of pod %s: %w", p.name, err)
		}
	}
	return nil
}

// Close takes the network down. Processes that still run keep their
// namespaces.
func (l *Lab) Close() error {
	var errs []error
	for _, n := range l.machines {
		errs = append(errs, n.Close())
	}
	if l.fabric != nil {
		errs = append(errs, l.fabric.Close())
	}
	return errors.Join(errs...)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func unspecified(f spec.Family) netip.Addr {
	if f == spec.IPv4 {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}
