package overlay

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Forget has a link's neighbours with these addresses looked for anew. Packets that
// wait for the answer of one are dropped: they have passed all hooks, by the rules
// of when they came (neighbour.c, neigh_resolve_output; what deletes an entry ends
// in neigh_invalidate). Entries that somebody has made for good stay.
func (w *Writer) Forget(link string, addresses []netip.Addr) error {
	l, err := w.handle.LinkByName(link)
	if err != nil {
		return fmt.Errorf("link %s: %w", link, err)
	}
	list, err := w.handle.NeighList(l.Attrs().Index, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("reading the neighbours on %s: %w", link, err)
	}
	var errs []error
	for _, n := range list {
		a, ok := netip.AddrFromSlice(n.IP)
		if !ok || n.State&(netlink.NUD_PERMANENT|netlink.NUD_NOARP) != 0 || !slices.Contains(addresses, a.Unmap()) {
			continue
		}
		if err := w.handle.NeighDel(&n); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("deleting neighbour %v on %s: %w", a, link, err))
		}
	}
	return errors.Join(errs...)
}
