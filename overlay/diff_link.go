package overlay

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/poldernet/polder/internal/change"
)

// links plans the bridge and the VTEPs, and notes what that does to the
// objects on them. A link that is not wanted any more stays while the one that
// is to take its place cannot be made.
func (d *differ) links() {
	refused := map[LinkType]bool{}
	for _, name := range slices.Sorted(maps.Keys(d.want.Links)) {
		want := d.want.Links[name]
		d.link(want)
		refused[want.Type] = refused[want.Type] || d.blocked[name]
	}
	for _, name := range slices.Sorted(maps.Keys(d.have.Links)) {
		have := d.have.Links[name]
		if _, wanted := d.want.Links[name]; wanted || !have.Marked() {
			continue
		}
		p := d.roomPhase(have)
		if refused[have.Type] && p != phaseMakeRoom {
			d.blocked[name] = true
			continue
		}
		d.gone[name], d.leaving[name] = p == phaseMakeRoom, true
		d.loose(p, have)
		d.warnPorts(name)
	}
}

// warnPorts says whose network goes with a bridge.
func (d *differ) warnPorts(bridge string) {
	var cut []string
	for link, have := range d.have.Ports {
		if _, moves := d.want.Ports[link]; have.Master == bridge && !moves {
			cut = append(cut, link)
		}
	}
	if len(cut) > 0 {
		slices.Sort(cut)
		d.warnings = append(d.warnings, fmt.Sprintf("bridge %s is removed while %s are its ports: what is behind them loses its network", bridge, strings.Join(cut, ", ")))
	}
}

// roomPhase is when an unwanted link goes: last, or first where a new VTEP has
// the same VNI and port, of which the kernel allows one.
func (d *differ) roomPhase(have Link) phase {
	for _, want := range d.want.Links {
		if d.blocked[want.Name] {
			continue
		}
		if there := d.have.Links[want.Name]; there.VXLAN != want.VXLAN && sameTunnel(want, have) {
			return phaseMakeRoom
		}
	}
	return phaseLooseLinks
}

// sameTunnel says that the kernel would refuse to have both VTEPs
// (vxlan_core.c, vxlan_vni_in_use).
func sameTunnel(a, b Link) bool {
	return a.Type == TypeVXLAN && b.Type == TypeVXLAN &&
		a.VXLAN.VNI == b.VXLAN.VNI && a.VXLAN.Port == b.VXLAN.Port &&
		a.VXLAN.Local.Is6() == b.VXLAN.Local.Is6() // without one it is IPv4
}

func (d *differ) link(want Link) {
	have, there := d.have.Links[want.Name]
	other, taken := d.externalTunnel(want)
	switch {
	case taken && !have.Up:
		d.block(want, fmt.Sprintf("UDP port %d is taken by %s, which is external: packets of every VNI go to it", want.VXLAN.Port, other.Name),
			fmt.Sprintf("choose another port in the backend, on all nodes, or have whoever made %s use another; `ip link delete %s` frees this one", other.Name, other.Name))
	case !there:
		if other, taken := d.foreignTunnel(want); taken {
			d.block(want, fmt.Sprintf("VNI %d on UDP port %d is taken by %s, which is not polder's", want.VXLAN.VNI, want.VXLAN.Port, other.Name),
				fmt.Sprintf("adopt it by its name in the backend's device, remove it with `ip link delete %s`, or choose another vni", other.Name))
			return
		}
		d.add(phaseLinks, put(change.Create, want, nil, ""))
	case !have.Marked():
		d.foreignLink(want, have)
	case have.Type != want.Type || have.VXLAN != want.VXLAN:
		d.gone[want.Name], d.leaving[want.Name] = true, true
		gone := remove(have, "")
		gone.Hidden = true
		d.add(phaseMakeRoom, gone)
		d.add(phaseLinks, put(change.Replace, want, have, ""))
	case have != want:
		d.flushed[want.Name] = have.MAC != want.MAC
		d.add(phaseLinks, put(change.Update, want, have, ""))
	}
}

// foreignTunnel is a VTEP of somebody else where one of ours should be.
func (d *differ) foreignTunnel(want Link) (Link, bool) {
	for _, name := range slices.Sorted(maps.Keys(d.have.Links)) {
		if have := d.have.Links[name]; sameTunnel(want, have) && !have.Marked() {
			return have, true
		}
	}
	return Link{}, false
}

// externalTunnel is a device of somebody else that has our UDP port to itself,
// for both families: Cilium's, for one. No other device on that port can be set
// up beside it (vxlan_core.c, vxlan_find_sock: they share no socket).
func (d *differ) externalTunnel(want Link) (Link, bool) {
	for _, name := range slices.Sorted(maps.Keys(d.have.Links)) {
		if have := d.have.Links[name]; want.Type == TypeVXLAN && name != want.Name && have.VXLAN.External && have.Up &&
			have.VXLAN.Port == want.VXLAN.Port && !have.Marked() {
			return have, true
		}
	}
	return Link{}, false
}

// foreignLink adopts an unmarked link of exactly the wanted shape, and reports
// one of any other. A link that is down carries nobody's traffic, so it is
// adopted and set up: that is also how far a killed apply may have come.
func (d *differ) foreignLink(want, have Link) {
	shape := have
	shape.Alias, shape.Up = want.Alias, want.Up
	if shape == want {
		d.add(phaseLinks, put(change.Adopt, want, have, ""))
		return
	}
	differing, _ := differences(shape.attrs(), want.attrs())
	var texts []string
	for _, a := range differing {
		texts = append(texts, fmt.Sprintf("%s is %s, not %s", a.Name, orNone(a.Before), orNone(a.After)))
	}
	remedy := fmt.Sprintf("make the link or the spec match so that polder can adopt it, name another one, or remove it with `ip link delete %s`", want.Name)
	if have.Type == want.Type && have.MTU != want.MTU {
		// The bridge of flannel's nodes with both families, for one, whose MTU
		// is what fits in VXLAN over IPv4.
		remedy = fmt.Sprintf("set the MTU with `ip link set dev %s mtu %d`; or %s", want.Name, want.MTU, remedy)
	}
	if want.Type == TypeVXLAN && have.Type == TypeVXLAN && have.MAC != want.MAC {
		remedy = fmt.Sprintf("write the MAC that the peers know into the node: `vtep_mac = { %s = %q }`; or %s", family(want), have.MAC, remedy)
	}
	d.block(want, "a link of this name is there and is not polder's: "+strings.Join(texts, ", "), remedy)
}

// family is the underlay family of a VTEP.
func family(l Link) string {
	if l.VXLAN.Local.Is4() {
		return "ipv4"
	}
	return "ipv6"
}

func (d *differ) block(want Link, reason, remedy string) {
	d.blocked[want.Name] = true
	d.conflicts = append(d.conflicts, change.Conflict{Kind: "link", Name: want.Name, Reason: reason, Remedy: remedy})
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
