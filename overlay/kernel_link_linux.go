package overlay

import (
	"errors"
	"fmt"
	"io/fs"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// openHandle opens a handle of the library for the calling thread's namespace.
func openHandle() (*netlink.Handle, error) {
	h, err := netlink.NewHandleWithOptions(netlink.HandleOptions{
		DisableVFInfoCollection: true, // thousands of attributes on SR-IOV hosts
		RetryInterrupted:        true, // torn dumps, which the library otherwise returns
	}, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink handle: %w", err)
	}
	if err := h.SetSocketTimeout(replyTimeout); err != nil {
		h.Close()
		return nil, fmt.Errorf("setting the timeout of a netlink handle: %w", err)
	}
	return h, nil
}

// writeLink makes a link as op says.
func (w *Writer) writeLink(op Op) error {
	want := op.object.(Link)
	if op.delete {
		return w.deleteLink(want)
	}
	have, there := op.before.(Link)
	if !there || op.Change.Action == actionReplace {
		if err := w.createLink(want); err != nil {
			w.failed[want.Name] = true
			return err
		}
		// The kernel ignores an alias, and "up", in the request that creates.
		have = want
		have.Alias, have.Up = "", false
	}
	pin := want.Type == TypeBridge && (!have.Up || op.Change.Action == actionAdopt)
	l, err := w.link(want.Name)
	if err != nil {
		return err
	}
	if have.MAC != want.MAC {
		if err := w.handle.LinkSetHardwareAddr(l, want.MAC[:]); err != nil {
			return fmt.Errorf("setting address %s: %w", want.MAC, err)
		}
	} else if pin && there {
		// Written over itself, the address becomes fixed: until then a
		// bridge's follows its ports (br_stp_if.c,
		// br_stp_recalculate_bridge_id).
		if err := w.handle.LinkSetHardwareAddr(l, want.MAC[:]); err != nil {
			return fmt.Errorf("pinning address %s: %w", want.MAC, err)
		}
	}
	// The mark comes before what could make the link look like a stranger's if
	// this was the last that we did. "Up" is the last: what was begun and not
	// finished is down, and done again.
	if have.Alias != want.Alias {
		if err := w.handle.LinkSetAlias(l, want.Alias); err != nil {
			return fmt.Errorf("setting alias %q: %w", want.Alias, err)
		}
	}
	if pin {
		if err := w.pinMTU(l, want.MTU); err != nil {
			return err
		}
	} else if have.MTU != want.MTU {
		if err := w.handle.LinkSetMTU(l, want.MTU); err != nil {
			return fmt.Errorf("setting mtu %d: %w", want.MTU, err)
		}
	}
	if have.STP != want.STP || have.VLANFiltering != want.VLANFiltering || have.TTL != want.TTL || have.DF != want.DF {
		if err := w.write(encodeLink(have, want, l.Attrs().Index)); err != nil {
			return fmt.Errorf("setting the attributes of a %s: %w", want.Type, err)
		}
	}
	if want.Up && !have.Up {
		if err := w.handle.LinkSetUp(l); err != nil {
			return fmt.Errorf("setting up: %w", err)
		}
	}
	return nil
}

// write sends one request.
func (w *Writer) write(m message) error {
	return w.sock.request([]message{m}, func(int, []byte) {})[0]
}

// pinMTU fixes a bridge's MTU, which otherwise becomes the smallest of its
// ports'. Only a write that changes it counts (br_device.c, br_change_mtu;
// dev.c, __dev_set_mtu), and the MTU in the request that creates does not.
func (w *Writer) pinMTU(l netlink.Link, mtu int) error {
	other := mtu + 1
	if mtu == maxMTU {
		other = mtu - 1
	}
	for _, m := range []int{other, mtu} {
		if err := w.handle.LinkSetMTU(l, m); err != nil {
			return fmt.Errorf("setting mtu %d: %w", m, err)
		}
	}
	return nil
}

// maxMTU is a bridge's largest (if_ether.h, ETH_MAX_MTU).
const maxMTU = 65535

func (w *Writer) createLink(want Link) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = want.Name, want.MTU, want.MAC[:]
	var l netlink.Link = &netlink.Bridge{LinkAttrs: attrs}
	if want.Type == TypeVXLAN {
		dev, err := w.link(want.VXLAN.Device)
		if err != nil {
			return err
		}
		l = &netlink.Vxlan{
			LinkAttrs:    attrs,
			VxlanId:      int(want.VXLAN.VNI),
			VtepDevIndex: dev.Attrs().Index,
			SrcAddr:      want.VXLAN.Local.AsSlice(),
			Port:         int(want.VXLAN.Port),
			Learning:     want.VXLAN.Learning,
		}
	}
	delete(w.byName, want.Name)
	if err := w.handle.LinkAdd(l); err != nil {
		return err
	}
	// Until the link-local address has passed duplicate address detection, a
	// second or two after "up", the kernel solicits no neighbour (ndisc.c,
	// ndisc_send_ns), and nobody behind the link is reached over IPv6. Nobody
	// else can have an address that comes of a MAC of ours.
	err := w.writeSysctl(linkSysctl(want.Name, "accept_dad"), "0")
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a kernel without IPv6
	}
	return err
}

// deleteLink deletes a link if it is still the one that was read: ours, or not, see
// RemoveLink.
func (w *Writer) deleteLink(seen Link) error {
	l, err := w.link(seen.Name)
	if notFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	now := Link{Type: LinkType(l.Type()), Alias: l.Attrs().Alias}
	switch {
	case seen.Marked() && !now.Marked():
		return fmt.Errorf("link %s is no longer polder's", seen.Name)
	case !seen.Marked() && (now.Marked() || now.Type != seen.Type):
		return fmt.Errorf("link %s is no longer what it was", seen.Name)
	}
	delete(w.byName, seen.Name)
	if err := w.handle.LinkDel(l); err != nil && !notFound(err) {
		return err
	}
	return nil
}

// writePort attaches a port to its bridge, or takes it off. A workload may have
// ended since the plan was made, and its port with it: that is no failure.
func (w *Writer) writePort(op Op) error {
	err := w.changePort(op.object.(portEntry), op.before)
	if err == nil {
		return nil
	}
	if _, gone := w.handle.LinkByName(op.object.name()); notFound(gone) {
		return nil
	}
	return err
}

func (w *Writer) changePort(p portEntry, before object) error {
	have, _ := before.(portEntry)
	l, err := w.link(p.link)
	if err != nil {
		return err
	}
	if have.Master != p.Master || before == nil {
		master := 0
		if p.Master != "" {
			bridge, err := w.link(p.Master)
			if err != nil {
				return err
			}
			master = bridge.Attrs().Index
		}
		if err := w.handle.LinkSetMasterByIndex(l, master); err != nil {
			return fmt.Errorf("setting master %s: %w", orNone(p.Master), err)
		}
		have.Hairpin, have.Limits = false, PortLimits{} // which is how a port begins
	}
	if p.Master != "" && have.Hairpin != p.Hairpin {
		if err := w.handle.LinkSetHairpin(l, p.Hairpin); err != nil {
			return fmt.Errorf("setting hairpin %s: %w", onOff(p.Hairpin), err)
		}
	}
	if p.Master != "" && have.Limits != p.Limits {
		if err := w.write(encodePort(p.Limits, l.Attrs().Index)); err != nil {
			return fmt.Errorf("setting learning, flooding and isolation: %w", err)
		}
	}
	if p.Up && !have.Up {
		if err := w.handle.LinkSetUp(l); err != nil {
			return fmt.Errorf("setting up: %w", err)
		}
	}
	return nil
}

// writeAddress adds an address without duplicate address detection, or
// deletes it.
func (w *Writer) writeAddress(op Op) error {
	a := op.object.(addressEntry)
	l, err := w.link(a.Link)
	if err != nil {
		if op.delete && notFound(err) {
			return nil
		}
		return err
	}
	addr := &netlink.Addr{
		IPNet:    &net.IPNet{IP: a.Prefix.Addr().AsSlice(), Mask: net.CIDRMask(a.Prefix.Bits(), a.Prefix.Addr().BitLen())},
		Protocol: int(a.Protocol),
	}
	if a.Prefix.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	if op.delete || op.Change.Action == actionReplace {
		if err := w.handle.AddrDel(l, addr); err != nil && !notFound(err) {
			return err
		}
	}
	if op.delete {
		return nil
	}
	return w.handle.AddrReplace(l, addr)
}
