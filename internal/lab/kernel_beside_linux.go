package lab

import (
	"fmt"

	"github.com/vishvananda/netlink"
)

// addBridge makes a node's bridge, and has the node forward.
func (l *Lab) addBridge(b bridge) error {
	n := l.machines[b.node]
	if err := n.Do(forward); err != nil {
		return err
	}
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: b.name, MTU: defaultMTU}}
	if err := n.handle.LinkAdd(br); err != nil {
		return err
	}
	if err := n.Do(func() error { return noDAD(b.name) }); err != nil {
		return err
	}
	for _, a := range b.addresses {
		if err := n.handle.AddrAdd(br, &netlink.Addr{IPNet: ipNet(a)}); err != nil {
			return fmt.Errorf("adding address %v: %w", a, err)
		}
	}
	return n.handle.LinkSetUp(br)
}

// attach makes a pod's veth a port of its node's bridge.
func (l *Lab) attach(p pod) error {
	h := l.machines[p.node].handle
	port, err := h.LinkByName(p.port)
	if err != nil {
		return err
	}
	br, err := h.LinkByName(p.bridge)
	if err != nil {
		return err
	}
	return h.LinkSetMaster(port, br)
}

func (l *Lab) addRoute(r route) error {
	return l.machines[r.machine].handle.RouteAdd(&netlink.Route{Dst: ipNet(r.to), Gw: r.via.AsSlice()})
}
