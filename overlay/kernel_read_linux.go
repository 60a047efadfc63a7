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
	"time"

	"golang.org/x/sys/unix"

	"github.com/poldernet/polder/spec"
)

// Reader reads the network of the namespace in which it was opened. It has no
// method that writes: that a plan changes nothing is a matter of types. One
// goroutine at a time.
type Reader struct{ sock *socket }

// OpenReader opens a reader for the calling thread's network namespace.
func OpenReader() (*Reader, error) {
	sock, err := openSocket()
	if err != nil {
		return nil, err
	}
	return &Reader{sock}, nil
}

// Close closes the socket.
func (r *Reader) Close() error { return r.sock.close() }

// Read reads the state and the facts. Sysctls are not part of it, see Sysctls.
func (r *Reader) Read(ctx context.Context, scope Scope) (*Observed, error) {
	return r.Refresh(ctx, newObserved(scope), Everything)
}

// Refresh reads some classes of objects again, and those that hang on links
// that turn out to have changed. What is not read, the result shares with the
// old reading, which stays as it was. Sysctls it carries over.
func (r *Reader) Refresh(ctx context.Context, old *Observed, classes Class) (*Observed, error) {
	next := *old
	read := reading{Reader: r, Observed: &next}
	for _, step := range []struct {
		class Class
		what  string
		do    func(context.Context) error
	}{
		{Links, "links", read.readLinks},
		{Neighbours, "neighbours", read.readNeighbours},
		{FDB, "forwarding database", read.readFDB},
		{Routes, "routes", read.readRoutes},
		{Paths, "paths to the peers", read.readPaths},
	} {
		if classes&step.class == 0 {
			continue
		}
		next.began[step.class.bit()] = time.Now()
		if err := step.do(ctx); err != nil {
			return nil, fmt.Errorf("reading %s: %w", step.what, err)
		}
		if step.class == Links {
			classes |= next.since(old)
		}
	}
	if read.unknown && classes&Links == 0 {
		return r.Refresh(ctx, old, classes|Links)
	}
	next.Facts.BridgeNetfilter = exists("net/bridge")
	next.Facts.IPv6 = exists("net/ipv6/conf")
	next.Facts.Routed = next.routed()
	next.index()
	var err error
	if next.Facts.StrictReversePath, err = r.strictReversePath(next.underlays); err != nil {
		return nil, err
	}
	return &next, nil
}

// reading is one pass over the kernel's objects. Each step replaces what it
// reads: what was there before is shared with another Observed.
type reading struct {
	*Reader
	*Observed
	unknown bool // an object is on a link that has come since the links were read
}

// linkName is the name of the link that an object is on.
func (r *reading) linkName(ifindex int) string {
	l, known := r.links[ifindex]
	r.unknown = r.unknown || !known && ifindex != 0
	return l.Name
}

func (r *reading) readLinks(ctx context.Context) error {
	var links []rawLink
	body := appendAttr32(make([]byte, 16), iflaExtMask, extMaskSkipStats)
	err := r.sock.dump(ctx, message{kind: rtmGetLink, body: body}, func() { links = links[:0] }, func(b []byte) error {
		l, err := decodeLink(b)
		links = append(links, l)
		return err
	})
	if err != nil {
		return err
	}
	var addresses []rawAddress
	err = r.sock.dump(ctx, message{kind: rtmGetAddr, body: make([]byte, 8)}, func() { addresses = addresses[:0] }, func(b []byte) error {
		a, err := decodeAddress(b)
		addresses = append(addresses, a)
		return err
	})
	if err != nil {
		return fmt.Errorf("addresses: %w", err)
	}
	r.Facts.AddressProtocol = keepsAddressProtocol()
	r.setLinks(links, addresses)
	return nil
}

func (r *reading) readNeighbours(ctx context.Context) error {
	r.State.Neighbours = make(map[NeighbourKey]Neighbour, len(r.State.Neighbours))
	for _, family := range []byte{familyInet, familyInet6} {
		for ifindex, l := range r.links {
			if !r.oursVTEP(l.Name) {
				continue
			}
			// The index goes as an attribute: in the header a strict kernel
			// refuses it for these families (neighbour.c, neigh_valid_dump_req).
			body := appendAttr32(ndmsg(family, 0, 0, 0), ndaIfindex, uint32(ifindex))
			var found []rawNeigh
			err := r.sock.dump(ctx, message{kind: rtmGetNeigh, body: body}, func() { found = found[:0] }, func(b []byte) error {
				n, err := decodeNeigh(b)
				if err == nil && n.ifindex == ifindex && n.dst.IsValid() && !n.dst.IsMulticast() {
					found = append(found, n)
				}
				return err
			})
			if err != nil {
				return err
			}
			for _, n := range found {
				r.State.Neighbours[NeighbourKey{l.Name, n.dst}] = Neighbour{n.mac, n.state&nudPermanent != 0}
			}
		}
	}
	return r.readProxies(ctx)
}

// readProxies reads for whom the bridge answers. The kernel tells nobody when that
// changes.
func (r *reading) readProxies(ctx context.Context) error {
	r.State.Proxies = make(map[NeighbourKey]Proxy, len(r.State.Proxies))
	for _, family := range []byte{familyInet, familyInet6} {
		var found []rawNeigh
		body := ndmsg(family, 0, 0, ntfProxy)
		err := r.sock.dump(ctx, message{kind: rtmGetNeigh, body: body}, func() { found = found[:0] }, func(b []byte) error {
			n, err := decodeNeigh(b)
			if err == nil && n.flags&ntfProxy != 0 && n.dst.IsValid() {
				found = append(found, n)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("proxies: %w", err)
		}
		for _, n := range found {
			if name := r.name(n.ifindex); r.oursBridge(name) {
				r.State.Proxies[NeighbourKey{name, n.dst}] = Proxy{n.proto}
			}
		}
	}
	return nil
}

func (r *reading) readFDB(ctx context.Context) error {
	r.State.FDB = make(map[FDBKey]FDBEntry, len(r.State.FDB))
	for ifindex, l := range r.links {
		if !r.oursVTEP(l.Name) {
			continue
		}
		body := ndmsg(familyBridge, ifindex, 0, 0)
		var found []rawNeigh
		err := r.sock.dump(ctx, message{kind: rtmGetNeigh, body: body}, func() { found = found[:0] }, func(b []byte) error {
			n, err := decodeNeigh(b)
			// Without "self" it is the row of a bridge that the VTEP is a port of.
			if err == nil && n.ifindex == ifindex && n.flags&ntfSelf != 0 {
				found = append(found, n)
			}
			return err
		})
		if err != nil {
			return err
		}
		for _, n := range found {
			key := FDBKey{l.Name, n.mac, n.dst}
			other := n.other || r.State.FDB[key].Other // two rows that differ in their port alone have one key
			r.State.FDB[key] = FDBEntry{n.state&nudPermanent != 0, other}
		}
	}
	return nil
}

func (r *reading) readNextHops(ctx context.Context) error {
	found := make(map[uint32]NextHop, len(r.State.NextHops))
	r.State.NextHops = found
	return r.sock.dump(ctx, message{kind: rtmGetNextHop, body: make([]byte, 8)}, func() { clear(found) }, func(b []byte) error {
		id, ifindex, hop, err := decodeNextHop(b)
		if err == nil {
			hop.Link = r.linkName(ifindex)
			found[id] = hop
		}
		return err
	})
}

func (r *reading) readRoutes(ctx context.Context) error {
	if err := r.readNextHops(ctx); err != nil {
		return fmt.Errorf("nexthop objects: %w", err)
	}
	found := make([]RouteEntry, 0, len(r.State.Routes)) // most likely as many as before
	r.State.Routes, r.State.Duplicates = make(map[RouteKey]Route, len(r.State.Routes)), nil
	r.advertised, r.Facts.RADefaults = map[string]bool{}, nil
	for _, family := range []byte{familyInet, familyInet6} {
		body := make([]byte, 12) // struct rtmsg
		body[0], body[4] = family, tableMain
		found = found[:0]
		var advertised []string
		err := r.sock.dump(ctx, message{kind: rtmGetRoute, body: body}, func() { found, advertised = found[:0], nil }, func(b []byte) error {
			route, err := decodeRoute(b)
			if err != nil || route.table != tableMain || route.cloned {
				return err
			}
			route.Link = r.name(route.ifindex)
			if route.advertises() {
				advertised = append(advertised, r.linkName(route.ifindex))
			}
			if r.wantsRoute(route.RouteEntry) {
				r.linkName(route.ifindex)
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
			if _, there := r.State.Routes[e.RouteKey]; there {
				r.State.Duplicates = append(r.State.Duplicates, e)
				continue
			}
			r.State.Routes[e.RouteKey] = e.Route
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
		r.advertised[link] = true
		path := linkSysctl(link, "accept_ra")
		values, err := r.Sysctls([]string{path})
		if err != nil {
			return err
		}
		if values[path] != "0" {
			r.Facts.RADefaults = append(r.Facts.RADefaults, link)
		}
	}
	return nil
}

// strictReversePath are those of some links where rp_filter is 1: the kernel
// goes by the greater of the link's and that of all.
func (r *Reader) strictReversePath(links map[string]bool) ([]string, error) {
	all := reversePathFilter("all")
	paths := []string{all}
	for link := range links {
		paths = append(paths, reversePathFilter(link))
	}
	values, err := r.Sysctls(paths)
	if err != nil {
		return nil, err
	}
	var strict []string
	for link := range links {
		if max(values[all], values[reversePathFilter(link)]) == strictReversePath {
			strict = append(strict, link)
		}
	}
	slices.Sort(strict)
	return strict, nil
}

func (r *reading) readPaths(context.Context) (err error) {
	r.Facts.Paths, err = r.paths(r.scope.Ask)
	return err
}

// paths asks the host where packets to addresses go.
func (r *reading) paths(addresses []netip.Addr) (map[netip.Addr]HostPath, error) {
	paths := make(map[netip.Addr]HostPath, len(addresses))
	msgs := make([]message, len(addresses))
	for i, a := range addresses {
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
			paths[addresses[i]] = HostPath{
				Link:    r.linkName(route.ifindex),
				Gateway: route.Gateway,
				Local:   route.kind == routeLocal,
			}
		}
	})
	for i, err := range errs {
		if err != nil && !unreachable(err) {
			return nil, fmt.Errorf("route to %s: %w", addresses[i], err)
		}
	}
	return paths, broken
}

// Ask has a reading be one for a spec in which some nodes have become others: where
// Compile has to know the paths to these, they are asked for. It changes o, which its
// caller has to have for himself, or it reports false where all has to be read.
func (r *Reader) Ask(o *Observed, sp *spec.Spec, node *spec.Node, gone, come []*spec.Node) (bool, error) {
	read := reading{Reader: r, Observed: o}
	ok, err := o.ask(sp, node, gone, come, read.paths)
	if err != nil {
		return false, fmt.Errorf("reading paths to the peers: %w", err)
	}
	return ok && !read.unknown, nil
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
func sysctlFile(path string) string { return filepath.Join(procSys, path) }

const procSys = "/proc/sys"

func exists(path string) bool {
	_, err := os.Stat(sysctlFile(path))
	return err == nil
}
