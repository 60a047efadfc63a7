package overlay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/poldernet/polder/internal/change"
)

const (
	actionCreate  = change.Create
	actionReplace = change.Replace
	actionAdopt   = change.Adopt
)

// Writer writes the network of the namespace in which it was opened. One
// goroutine at a time.
type Writer struct {
	handle  *netlink.Handle
	sock    *socket
	sysctls string // the directory
	// Of one Apply:
	byName map[string]netlink.Link // looked up
	failed map[string]bool         // links that could not be made, by name
	lost   map[uint32]bool         // nexthop objects that could not be made, by ID
	kept   map[uint32]bool         // those that a route could not be taken off, by ID
}

// OpenWriter opens a writer for the calling thread's network namespace. It writes
// switches below a directory, or where that is "", below /proc/sys, which is
// read-only in most containers.
func OpenWriter(sysctls string) (*Writer, error) {
	sock, err := openSocket()
	if err != nil {
		return nil, err
	}
	handle, err := openHandle()
	if err != nil {
		return nil, errors.Join(err, sock.close())
	}
	return &Writer{handle: handle, sock: sock, sysctls: cmp.Or(sysctls, procSys)}, nil
}

// Close closes the sockets.
func (w *Writer) Close() error {
	w.handle.Close()
	return w.sock.close()
}

// Apply carries out operations in order and reports each one, with its index
// and nil or what went wrong. One that fails does not stop those that follow.
// When ctx ends, what is left is reported with its error.
func (w *Writer) Apply(ctx context.Context, ops []Op, report func(i int, err error)) {
	w.byName, w.failed = map[string]netlink.Link{}, map[string]bool{}
	w.lost, w.kept = map[uint32]bool{}, map[uint32]bool{}
	for start := 0; start < len(ops); {
		if err := ctx.Err(); err != nil {
			for i := start; i < len(ops); i++ {
				report(i, err)
			}
			return
		}
		end := start + 1
		if batched(ops[start]) {
			// One kind at a time: what follows may need what a second attempt
			// makes, see forceOnLink.
			for end < len(ops) && end-start < batchSize && ops[end].object.kind() == ops[start].object.kind() {
				end++
			}
			w.applyBatch(ops[start:end], func(i int, err error) { report(start+i, err) })
		} else {
			report(start, wrap(ops[start], w.apply(ops[start])))
		}
		start = end
	}
}

// batched says that an operation goes over the wire together with others.
func batched(op Op) bool {
	switch op.object.(type) {
	case neighbourEntry, proxyEntry, fdbRow, nextHopEntry, RouteEntry:
		return true
	}
	return false
}

func (w *Writer) apply(op Op) error {
	if err := w.missing(op); err != nil {
		return err
	}
	switch o := op.object.(type) {
	case Link:
		return w.writeLink(op)
	case portEntry:
		return w.writePort(op)
	case addressEntry:
		return w.writeAddress(op)
	case sysctlEntry:
		return w.writeSysctl(o.path, o.value)
	}
	return fmt.Errorf("nothing writes a %s", op.object.kind())
}

// applyBatch writes neighbours, FDB rows, nexthop objects and routes.
func (w *Writer) applyBatch(ops []Op, report func(i int, err error)) {
	msgs := make([]message, 0, 2*len(ops)) // a replacement makes two
	owner := make([]int, 0, 2*len(ops))    // index into ops, by message
	failed := make([]error, len(ops))
	for i, op := range ops {
		if failed[i] = w.missing(op); failed[i] == nil {
			msgs, failed[i] = w.encode(msgs, op)
		}
		for len(owner) < len(msgs) {
			owner = append(owner, i)
		}
	}
	for i, err := range w.sock.request(msgs, func(int, []byte) {}) {
		if err == nil || msgs[i].deletes() && gone(ops[owner[i]], err) {
			continue
		}
		failed[owner[i]] = errors.Join(failed[owner[i]], err)
	}
	for i, err := range failed {
		if n, ok := ops[i].object.(nextHopEntry); ok && err != nil && !ops[i].delete {
			if mismatched(n, err) {
				err = w.forceOnLink(n)
			}
			if err != nil && ops[i].before == nil {
				w.lost[n.id] = true
			}
		}
		if r, ok := ops[i].before.(RouteEntry); ok && err != nil {
			w.kept[r.NextHop] = true
		}
		report(i, wrap(ops[i], err))
	}
}

// missing says that an operation is not to be attempted, because what it needs
// could not be made in the same Apply. It would fail for that reason, or, where
// the link's name is somebody else's, write on what is theirs.
func (w *Writer) missing(op Op) error {
	if op.delete {
		// A nexthop object takes its routes with it.
		if n, ok := op.object.(nextHopEntry); ok && w.kept[n.id] {
			return errors.New("not attempted while a route uses it")
		}
		return nil
	}
	link := ""
	switch o := op.object.(type) {
	case portEntry:
		link = o.Master
	case addressEntry:
		link = o.Link
	case neighbourEntry:
		link = o.Link
	case proxyEntry:
		link = o.Link
	case fdbRow:
		link = o.Link
	case nextHopEntry:
		link = o.Link
	case sysctlEntry:
		link = SysctlLink(o.path)
	case RouteEntry:
		link = o.Link
		if w.lost[o.NextHop] {
			return fmt.Errorf("not attempted without nexthop id %d", o.NextHop)
		}
	}
	if w.failed[link] {
		return fmt.Errorf("not attempted without link %s", link)
	}
	return nil
}

// mismatched says that the kernel refused an IPv6 next hop "on link" because
// its table leads to that address over another device (route.c,
// ip6_route_check_nh_onlink). A peer that moves to VXLAN from a direct route or
// from another VTEP runs into this: its gateway lies in its own subnet.
func mismatched(n nextHopEntry, err error) bool {
	return errors.Is(err, unix.EINVAL) && n.OnLink && n.Gateway.Is6()
}

// forceOnLink writes such a next hop while a host route says that the gateway
// is on the link. To delete the route in the way instead would lose packets.
func (w *Writer) forceOnLink(n nextHopEntry) error {
	l, err := w.link(n.Link)
	if err != nil {
		return err
	}
	ifindex := l.Attrs().Index
	host := RouteEntry{RouteKey{Dst: netip.PrefixFrom(n.Gateway, n.Gateway.BitLen())}, Route{Link: n.Link, Protocol: Protocol}}
	return errors.Join(w.sock.request([]message{
		encodeRoute(host, ifindex, false),
		encodeNextHop(n, ifindex, false),
		encodeRoute(host, ifindex, true),
	}, func(int, []byte) {})...)
}

// encode appends the request, or the two of them, that an operation makes.
// There is none for what went with its link.
func (w *Writer) encode(msgs []message, op Op) ([]message, error) {
	if op.delete {
		m, err := w.encodeObject(op.object, true)
		if notFound(err) {
			return msgs, nil
		}
		if err != nil {
			return msgs, err
		}
		return append(msgs, m), nil
	}
	m, err := w.encodeObject(op.object, false)
	if err != nil {
		return msgs, err
	}
	if op.Change.Action == actionCreate && overwrites(op.object) {
		m.flags = m.flags&^flagReplace | flagExcl
	}
	if (op.Change.Action == actionReplace || unmarked(op)) && op.before != nil {
		gone, err := w.encodeObject(op.before, true)
		if err != nil {
			return msgs, err
		}
		msgs = append(msgs, gone)
	}
	return append(msgs, m), nil
}

// unmarked says that a proxy loses its protocol, which the kernel does not write over.
func unmarked(op Op) bool {
	p, ok := op.object.(proxyEntry)
	return ok && p.Protocol == 0
}

// overwrites says that an object that is made could take the place of somebody
// else's, which has come since the plan was made. The others are on our links.
func overwrites(o object) bool {
	switch o.(type) {
	case nextHopEntry, RouteEntry:
		return true
	}
	return false
}

func (w *Writer) encodeObject(o object, del bool) (message, error) {
	var link string
	switch o := o.(type) {
	case neighbourEntry:
		link = o.Link
	case proxyEntry:
		link = o.Link
	case fdbRow:
		link = o.Link
	case nextHopEntry:
		if !del {
			link = o.Link
		}
	case RouteEntry:
		if o.NextHop == 0 {
			link = o.Link
		}
	}
	ifindex := 0
	if link != "" {
		l, err := w.link(link)
		if err != nil {
			return message{}, err
		}
		ifindex = l.Attrs().Index
	}
	switch o := o.(type) {
	case neighbourEntry:
		return encodeNeighbour(o, ifindex, del), nil
	case proxyEntry:
		return encodeProxy(o, ifindex, del), nil
	case fdbRow:
		return encodeFDB(o, ifindex, del), nil
	case nextHopEntry:
		return encodeNextHop(o, ifindex, del), nil
	case RouteEntry:
		return encodeRoute(o, ifindex, del), nil
	}
	return message{}, fmt.Errorf("nothing encodes a %s", o.kind())
}

func (m message) deletes() bool {
	return m.kind == rtmDelNeigh || m.kind == rtmDelNextHop || m.kind == rtmDelRoute
}

func (w *Writer) link(name string) (netlink.Link, error) {
	if l, ok := w.byName[name]; ok {
		return l, nil
	}
	l, err := w.handle.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("link %s: %w", name, err)
	}
	w.byName[name] = l
	return l, nil
}

// writeSysctl writes without creating or truncating, neither of which /proc
// knows.
func (w *Writer) writeSysctl(path, value string) error {
	f, err := os.OpenFile(filepath.Join(w.sysctls, path), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// wrap says what was being done when an operation failed.
func wrap(op Op, err error) error {
	if err == nil {
		return nil
	}
	verb := "writing"
	switch {
	case op.delete:
		verb = "deleting"
	case op.before == nil:
		verb = "adding"
	}
	return fmt.Errorf("%s %s %s: %w", verb, op.object.kind(), op.object.name(), err)
}

// notFound says that an object is not there: each kind has its own word.
func notFound(err error) bool {
	var link netlink.LinkNotFoundError
	return errors.As(err, &link) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) ||
		errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EADDRNOTAVAIL)
}

// gone says that there was nothing to delete. Of a route whose nexthop object
// is gone, and which is gone with it, the kernel says that the request is
// invalid (fib_frontend.c, rtm_to_fib_config).
func gone(op Op, err error) bool {
	r, ok := op.object.(RouteEntry)
	return notFound(err) || ok && r.NextHop != 0 && errors.Is(err, unix.EINVAL)
}

// unreachable says that a route was asked for and there is none.
func unreachable(err error) bool {
	return errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.EACCES) ||
		errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ESRCH)
}
