package overlay

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/poldernet/polder/spec"
)

// Reader reads the network of the namespace in which it was opened. It has no
// method that writes: that a plan changes nothing is a matter of types. One
// goroutine at a time.
type Reader struct {
	handle *netlink.Handle
	sock   *socket
}

// OpenReader opens a reader for the calling thread's network namespace.
func OpenReader() (*Reader, error) {
	sock, err := openSocket()
	if err != nil {
		return nil, err
	}
	handle, err := openHandle()
	if err != nil {
		return nil, errors.Join(err, sock.close())
	}
	return &Reader{handle, sock}, nil
}

// Close closes the sockets.
func (r *Reader) Close() error {
	r.handle.Close()
	return r.sock.close()
}

// Read reads the state and the facts. Sysctls are not part of it, see Sysctls.
func (r *Reader) Read(ctx context.Context, scope Scope) (State, Facts, error) {
	read := reading{Reader: r, scope: scope, state: NewState(scope.peers)}
	read.facts = Facts{Paths: map[netip.Addr]HostPath{}, AddressProtocol: keepsAddressProtocol()}
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"links", read.readLinks},
		{"bridge ports", read.readPorts},
		{"neighbours", read.readNeighbours},
		{"forwarding database", read.readFDB},
		{"nexthop objects", read.readNextHops},
		{"routes", read.readRoutes},
		{"paths to the peers", read.readPaths},
	} {
		if err := step.do(ctx); err != nil {
			return State{}, Facts{}, fmt.Errorf("reading %s: %w", step.what, err)
		}
	}
	read.facts.BridgeNetfilter = exists("net/bridge")
	read.facts.IPv6 = exists("net/ipv6/conf")
	return read.state, read.facts, nil
}

// reading is one pass over the kernel's objects.
type reading struct {
	*Reader
	scope Scope
	state State
	facts Facts
	links []kernelLink
	names map[int]string // link name by index
}

func (r *reading) readLinks(context.Context) error {
	links, err := list(r.handle)
	if err != nil {
		return err
	}
	r.links = links
	r.names = make(map[int]string, len(links))
	r.facts.Links = make(map[string]HostLink, len(links))
	for _, l := range links {
		r.names[l.index] = l.Name
		r.facts.Links[l.Name] = l.HostLink
		wanted := l.Marked() || slices.Contains(r.scope.Links, l.Name)
		if wanted || l.Type == TypeVXLAN {
			r.state.Links[l.Name] = l.Link
		}
		for _, a := range l.addresses {
			// An older kernel may have it from a newer one: then it marks the
			// addresses of its own, that of the loopback first.
			r.facts.AddressProtocol = r.facts.AddressProtocol || a.Protocol != 0
			if wanted && !a.Prefix.Addr().IsLinkLocalUnicast() { // which is the kernel's own
				r.state.Addresses[a.AddressKey] = a.Address
			}
		}
	}
	return nil
}

// oursVTEP says that what is on a VTEP is of interest: it bears our mark, or has
// the name of one of ours.
func (r *reading) oursVTEP(name string) bool {
	l, there := r.state.Links[name]
	return there && l.Type == TypeVXLAN && (l.Marked() || slices.Contains(r.scope.Links, name))
}

func (r *reading) readPorts(ctx context.Context) error {
	body := make([]byte, 16) // struct ifinfomsg
	body[0] = familyBridge
	hairpin := map[string]bool{}
	err := r.sock.dump(ctx, message{kind: rtmGetLink, body: body}, func() { clear(hairpin) }, func(b []byte) error {
		ifindex, on, err := decodePort(b)
		if on {
			hairpin[r.names[ifindex]] = true
		}
		return err
	})
	if err != nil {
		return err
	}
	for name, l := range r.facts.Links {
		r.state.Ports[name] = Port{Master: l.Master, Hairpin: hairpin[name], Up: l.Up}
	}
	return nil
}

func (r *reading) readNeighbours(ctx context.Context) error {
	for _, family := range []byte{familyInet, familyInet6} {
		for _, l := range r.links {
			if !r.oursVTEP(l.Name) {
				continue
			}
			// The index goes as an attribute: in the header a strict kernel
			// refuses it for these families (neighbour.c, neigh_valid_dump_req).
			body := appendAttr32(ndmsg(family, 0, 0, 0), ndaIfindex, uint32(l.index))
			var found []rawNeigh
			err := r.sock.dump(ctx, message{kind: rtmGetNeigh, body: body}, func() { found = found[:0] }, func(b []byte) error {
				n, err := decodeNeigh(b)
				if err == nil && n.ifindex == l.index && n.dst.IsValid() && !n.dst.IsMulticast() {
					found = append(found, n)
				}
				return err
			})
			if err != nil {
				return err
			}
			for _, n := range found {
				r.state.Neighbours[NeighbourKey{l.Name, n.dst}] = Neighbour{n.mac, n.state&nudPermanent != 0}
			}
		}
	}
	return nil
}

func (r *reading) readFDB(ctx context.Context) error {
	for _, l := range r.links {
		if !r.oursVTEP(l.Name) {
			continue
		}
		body := ndmsg(familyBridge, l.index, 0, 0)
		var found []rawNeigh
		err := r.sock.dump(ctx, message{kind: rtmGetNeigh, body: body}, func() { found = found[:0] }, func(b []byte) error {
			n, err := decodeNeigh(b)
			// Without "self" it is the row of a bridge that the VTEP is a port of.
			if err == nil && n.ifindex == l.index && n.flags&ntfSelf != 0 {
				found = append(found, n)
			}
			return err
		})
		if err != nil {
			return err
		}
		for _, n := range found {
			key := FDBKey{l.Name, n.mac, n.dst}
			other := n.other || r.state.FDB[key].Other // two rows that differ in their port alone have one key
			r.state.FDB[key] = FDBEntry{n.state&nudPermanent != 0, other}
		}
	}
	return nil
}

func (r *reading) readNextHops(ctx context.Context) error {
	return r.sock.dump(ctx, message{kind: rtmGetNextHop, body: make([]byte, 8)}, func() { clear(r.state.NextHops) }, func(b []byte) error {
		id, ifindex, hop, err := decodeNextHop(b)
		if err == nil {
			hop.Link = r.names[ifindex]
			r.state.NextHops[id] = hop
		}
		return err
	})
}

func (r *reading) readRoutes(ctx context.Context) error {
	for _, family := range []byte{familyInet, familyInet6} {
		body := make([]byte, 12) // struct rtmsg
		body[0], body[4] = family, tableMain
		var found []RouteEntry
		var advertised []string
		err := r.sock.dump(ctx, message{kind: rtmGetRoute, body: body}, func() { found, advertised = found[:0], nil }, func(b []byte) error {
			route, err := decodeRoute(b)
			if err != nil || route.table != tableMain || route.cloned {
				return err
			}
			route.Link = r.names[route.ifindex]
			if family == familyInet6 && route.Dst.Bits() == 0 && route.Protocol == protocolRA {
				advertised = append(advertised, route.Link)
			}
			if r.wantsRoute(route.RouteEntry) {
				found = append(found, route.RouteEntry)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if err := r.keepAdvertised(advertised); err != nil {
			return err
		}
		for _, e := range found {
			if _, there := r.state.Routes[e.RouteKey]; there {
				r.state.Duplicates = append(r.state.Duplicates, e)
				continue
			}
			r.state.Routes[e.RouteKey] = e.Route
		}
	}
	return nil
}

// keepAdvertised notes the links whose router advertisements the kernel itself
// listens to. Where accept_ra is 0, the route comes from a program such as
// systemd-networkd or NetworkManager, which goes on listening by itself; to
// raise it there would give the host a second set of addresses and routes.
func (r *reading) keepAdvertised(links []string) error {
	for _, link := range links {
		path := linkSysctl(link, "accept_ra")
		values, err := r.Sysctls([]string{path})
		if err != nil {
			return err
		}
		if values[path] != "0" {
			r.facts.RADefaults = append(r.facts.RADefaults, link)
		}
	}
	return nil
}

// wantsRoute keeps what is ours or lies in the pod network: the rest of a
// host's table is not our business, and may be the whole Internet's.
func (r *reading) wantsRoute(e RouteEntry) bool {
	if e.Protocol == Protocol || r.oursVTEP(e.Link) {
		return true
	}
	return slices.ContainsFunc(r.scope.Pods, func(p netip.Prefix) bool {
		return e.Dst.Bits() >= p.Bits() && p.Contains(e.Dst.Addr())
	})
}

func (r *reading) readPaths(context.Context) error {
	msgs := make([]message, len(r.scope.Ask))
	for i, a := range r.scope.Ask {
		msgs[i] = encodeRouteGet(a)
	}
	var broken error
	errs := r.sock.request(msgs, func(i int, body []byte) {
		route, err := decodeRoute(body)
		if err != nil {
			broken = err
			return
		}
		if route.kind == routeUnicast || route.kind == routeLocal {
			r.facts.Paths[r.scope.Ask[i]] = HostPath{
				Link:    r.names[route.ifindex],
				Gateway: route.Gateway,
				Local:   route.kind == routeLocal,
			}
		}
	})
	for i, err := range errs {
		if err != nil && !unreachable(err) {
			return fmt.Errorf("route to %s: %w", r.scope.Ask[i], err)
		}
	}
	return broken
}

// Sysctls reads switches by their path below /proc/sys. One that does not
// exist is left out.
func (r *Reader) Sysctls(paths []string) (map[string]string, error) {
	values := make(map[string]string, len(paths))
	for _, path := range paths {
		b, err := os.ReadFile(sysctlFile(path))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return nil, fmt.Errorf("reading sysctl %s: %w", SysctlName(path), err)
		}
		values[path] = strings.TrimSpace(string(b))
	}
	return values, nil
}

// keepsAddressProtocol says that the kernel is Linux 5.18 or later, which keeps
// the protocol of an address (IFA_PROTO).
func keepsAddressProtocol() bool {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return false
	}
	var major, minor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor); err != nil {
		return false
	}
	return major > 5 || major == 5 && minor >= 18
}

// ForwardingResets reads the switches that the kernel sets along with a
// family's forwarding, and that now have another value than they would get when
// it is switched off: forwarding of single links, and for IPv4 that redirects
// are not accepted (devinet.c, inet_forward_change; addrconf.c,
// addrconf_forward_change).
func (r *Reader) ForwardingResets(f spec.Family) (map[string]string, error) {
	exceptions := map[string]string{}
	files, err := filepath.Glob(sysctlFile("net/" + f.String() + "/conf/*/forwarding"))
	if err != nil {
		return nil, fmt.Errorf("listing forwarding of links: %w", err)
	}
	wanted := map[string]string{"net/ipv4/conf/all/accept_redirects": "0"}
	if f == spec.IPv6 {
		clear(wanted)
	}
	for _, file := range files {
		if path := strings.TrimPrefix(file, sysctlFile("")+"/"); !strings.HasSuffix(path, "/conf/all/forwarding") {
			wanted[path] = "1"
		}
	}
	values, err := r.Sysctls(slices.Collect(maps.Keys(wanted)))
	for path, value := range values {
		if value == wanted[path] {
			exceptions[path] = value
		}
	}
	return exceptions, err
}

// sysctlFile is the file of a switch. /proc/sys/net shows the namespace of the
// thread that opens it.
func sysctlFile(path string) string { return filepath.Join("/proc/sys", path) }

func exists(path string) bool {
	_, err := os.Stat(sysctlFile(path))
	return err == nil
}
