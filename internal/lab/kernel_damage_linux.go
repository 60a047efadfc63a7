package lab

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

// DeleteLink is what somebody else does to a machine by `ip link del`.
func (n *Namespace) DeleteLink(name string) error {
	link, err := n.handle.LinkByName(name)
	if err == nil {
		err = n.handle.LinkDel(link)
	}
	if err != nil {
		return fmt.Errorf("deleting link %s in %s: %w", name, n.name, err)
	}
	return nil
}

// DeleteRoute is what somebody else does to a machine by `ip route del`.
func (n *Namespace) DeleteRoute(dst netip.Prefix) error {
	to := &net.IPNet{IP: dst.Addr().AsSlice(), Mask: net.CIDRMask(dst.Bits(), dst.Addr().BitLen())}
	if err := n.handle.RouteDel(&netlink.Route{Dst: to}); err != nil {
		return fmt.Errorf("deleting route %v in %s: %w", dst, n.name, err)
	}
	return nil
}

// FlushRuleset is what somebody else does to a machine by `nft flush ruleset`.
func (n *Namespace) FlushRuleset() error {
	err := n.Do(func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		conn.FlushRuleset()
		return conn.Flush()
	})
	if err != nil {
		return fmt.Errorf("flushing the ruleset in %s: %w", n.name, err)
	}
	return nil
}
