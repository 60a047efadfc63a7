package spec

import (
	"fmt"
	"net/netip"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// The defaults of the network, flannel's where it has one.
const (
	defaultVNI    = 1
	defaultPort   = 8472 // of Linux; IANA assigned 4789
	defaultBridge = "cni0"

	maxVNI = 1<<24 - 1
	minMTU = 68 // RFC 791
	maxMTU = 65535
)

// decodeNetwork decodes the network block.
func (d *decoder) decodeNetwork(b *hcl.Block) *networkDecl {
	s := d.open(networkBlock, b.Body, b.DefRange, d.ctx)
	n := &networkDecl{place: s.place}
	n.Range = b.DefRange
	s.podRanges(n)
	n.MTU, n.mtu = s.number("mtu", minMTU, maxMTU, 0)
	s.bridge(n)
	s.compat(n)
	s.backend(n)
	if b := s.only(masqueradeBlock.name); b != nil {
		n.Masquerade = d.masquerade(b)
	}
	n.Underlay, n.underlay = s.underlay()
	return n
}

// podRanges decodes the pod CIDRs with their bounds for subnets. A family of
// which anything is not understood is left out of Network.Pods, and ranges is
// false: nothing is said of its subnets then.
func (s *section) podRanges(n *networkDecl) {
	list, at, st := s.strings("pod_cidrs")
	if st == absent {
		return // reported with the section
	}
	n.ranges = st == known
	if n.ranges && len(list) == 0 {
		s.report(at.problem("No pod CIDR", "A pod network has a CIDR of at least one family. %s", s.schema.attr("pod_cidrs").wanted()))
		n.ranges = false
	}
	var cidrs PerFamily[netip.Prefix]
	for _, v := range list {
		cidr, err := ParsePodCIDR(v.AsString())
		if err != nil {
			s.report(v.problem("Unsuitable pod CIDR", "%q is no CIDR for pods: %s.", v.AsString(), err))
			n.ranges = false
			continue
		}
		family := FamilyOf(cidr.Addr())
		if before := cidrs.Get(family); before.IsValid() {
			s.report(v.problem("Two pod CIDRs of one family", "Pods have one CIDR of each family, and %s is the one of %s already.", before, family.proper()))
			n.ranges = false
			continue
		}
		cidrs.Set(family, cidr)
		n.podCIDRs.Set(family, v.place)
	}
	// The other attributes are decoded whatever became of the CIDRs, to find
	// their own mistakes in the same run.
	lens, lensState := s.families("subnet_len", cty.Number)
	mins := s.perFamilyAddresses("subnet_min", cidrs, n.ranges)
	maxs := s.perFamilyAddresses("subnet_max", cidrs, n.ranges)
	for _, family := range Families {
		cidr, length := cidrs.Get(family), lens.Get(family)
		if !cidr.IsValid() {
			// The CIDR may be one of those that were not understood.
			if n.ranges && length.Type() != cty.NilType {
				s.report(length.problem("No such pod family", "subnet_len.%s is set, and pod_cidrs has no %s CIDR.", family, family.proper()))
			}
			continue
		}
		r := PodRange{CIDR: cidr}
		if !s.subnetLen(&r, length, lensState, n.podCIDRs.Get(family)) {
			n.ranges = false
			continue
		}
		if !s.subnetBounds(&r, mins.Get(family), maxs.Get(family)) {
			// Whichever bounds were meant, they lie in the CIDR: that is what
			// subnets and nodes can be held to.
			r.SubnetMin, r.SubnetMax = cidr.Addr(), netip.PrefixFrom(lastAddr(cidr), r.SubnetLen).Masked().Addr()
		}
		n.Pods = append(n.Pods, r)
	}
}

// subnetLen sets the length of a node's subnet, by flannel's rules
// (pkg/subnet/config.go): a pod CIDR holds at least four subnets, of which the
// first is skipped by default. A subnet holds at least four addresses: the
// VTEP's, the gateway's, one pod's and with IPv4 the broadcast address.
func (s *section) subnetLen(r *PodRange, given value, st state, cidrAt place) bool {
	family := r.Family()
	// flannel allows up to /30 and /126, and takes /24 and /64 where the CIDR
	// has room for four of them.
	usual, longest := 24, 30
	if family == IPv6 {
		usual, longest = 64, 126
	}
	shortest := r.CIDR.Bits() + 2
	if shortest > longest {
		s.report(cidrAt.problem("Pod CIDR too small", "%s has no room for the subnets of four nodes. The longest prefix that does is /%d.", r.CIDR, longest-2))
		return false
	}
	switch {
	case given.Type() != cty.NilType:
		n, ok := wholeNumber(given.Value)
		if !ok || n < shortest || n > longest {
			s.report(given.problem("Unsuitable subnet length",
				"subnet_len.%s must be from %d to %d: at least four subnets must fit into %s, and four addresses into a subnet. This is %s.",
				family, shortest, longest, r.CIDR, numberText(given.Value)))
			return false
		}
		r.SubnetLen = n
	case st == unknown:
		return false // it may have been given, in a way that is not understood
	default:
		r.SubnetLen = max(usual, shortest)
	}
	return true
}

// subnetBounds sets the first and the last subnet of nodes. The default skips
// the first subnet of the CIDR, as flannel does: its base is the address of
// the whole CIDR, which some software takes for the network itself.
func (s *section) subnetBounds(r *PodRange, first, last bound) bool {
	whole := netip.PrefixFrom(r.CIDR.Addr(), r.SubnetLen)
	r.SubnetMin = lastAddr(whole).Next()
	r.SubnetMax = netip.PrefixFrom(lastAddr(r.CIDR), r.SubnetLen).Masked().Addr()
	ok := s.subnetBound(r, "subnet_min", first, &r.SubnetMin)
	ok = s.subnetBound(r, "subnet_max", last, &r.SubnetMax) && ok
	if ok && r.SubnetMin.Compare(r.SubnetMax) > 0 {
		// Point at one that is written. Both may be, then at the first.
		at := first.place
		if first.state == absent {
			at = last.place
		}
		s.report(at.problem("No subnets", "subnet_min %s is after subnet_max %s, which leaves no subnet for a node.", r.SubnetMin, r.SubnetMax))
		return false
	}
	return ok
}

// subnetBound checks one bound that was given, and sets it. flannel takes a
// bound inside of a subnet by masking it; here it is a mistake, since another
// subnet was likely meant.
func (s *section) subnetBound(r *PodRange, name string, given bound, out *netip.Addr) bool {
	if given.state != known {
		return given.state == absent
	}
	subnet := netip.PrefixFrom(given.addr, r.SubnetLen).Masked()
	switch {
	case !r.CIDR.Contains(given.addr):
		s.report(given.problem("Subnet outside the pod CIDR", "%s %s is not in the pod CIDR %s.", name, given.addr, r.CIDR))
		return false
	case subnet.Addr() != given.addr:
		s.report(given.problem("Misaligned subnet", "%s must be where a subnet of /%d begins. %s is inside of %s; write %s.", name, r.SubnetLen, given.addr, subnet, subnet.Addr()))
		return false
	}
	*out = given.addr
	return true
}

// bound is an address that was given as the first or the last subnet.
type bound struct {
	addr netip.Addr
	state
	place
}

// perFamilyAddresses is an attribute that is one address, or a list with at
// most one for each family of pods.
func (s *section) perFamilyAddresses(name string, pods PerFamily[netip.Prefix], podsKnown bool) PerFamily[bound] {
	var out PerFamily[bound]
	// hide makes bounds that are not known yet unknown instead of absent: the
	// text that was not understood may have been theirs.
	hide := func() {
		for _, f := range Families {
			if b := out.Get(f); b.state == absent {
				b.state = unknown
				out.Set(f, b)
			}
		}
	}
	v, st := s.get(name)
	if st != known {
		if st == unknown {
			hide()
		}
		return out
	}
	attr := s.schema.attr(name)
	// One address is a list of one.
	list := []value{v}
	if v.Type() != cty.String {
		if !v.CanIterateElements() || v.Type().IsMapType() || v.Type().IsObjectType() {
			s.report(v.problem("Unsuitable value", "%q must be an %s. %s", name, attr.kind, attr.wanted()))
			hide()
			return out
		}
		var complete bool
		if list, complete = s.elements(name, v); !complete {
			defer hide()
		}
	}
	for _, v := range list {
		if v.Type() != cty.String {
			s.report(v.problem("Unsuitable value", "%q must be an %s. %s", name, attr.kind, attr.wanted()))
			hide()
			continue
		}
		addr, err := parseAddr(v.AsString())
		if err != nil {
			s.report(v.problem("Unsuitable address", "%s %q: %s.", name, v.AsString(), err))
			hide()
			continue
		}
		family := FamilyOf(addr)
		switch {
		case out.Get(family).state == known:
			s.report(v.problem("Two addresses of one family", "%s has one address of each family, and %s is the one of %s already.", name, out.Get(family).addr, family.proper()))
		case podsKnown && !pods.Get(family).IsValid():
			s.report(v.problem("No such pod family", "%s %s is of %s, and pod_cidrs has no %s CIDR.", name, addr, family.proper(), family.proper()))
		}
		out.Set(family, bound{addr, known, v.place})
	}
	return out
}

// bridge decodes the bridge block. Without one the bridge is as the CNI
// configuration that flannel ships makes it.
func (s *section) bridge(n *networkDecl) {
	n.Bridge = Bridge{Name: defaultBridge, HairpinMode: true}
	b := s.only(bridgeBlock.name)
	if b == nil {
		return
	}
	bs := s.open(bridgeBlock, b.Body, b.DefRange, s.ctx)
	n.Bridge.Name, _ = bs.ifName("name", defaultBridge)
	n.Bridge.HairpinMode = bs.boolean("hairpin_mode", true)
}

// ifName is an attribute that names an interface.
func (s *section) ifName(name, def string) (string, place) {
	text, at, st := s.text(name, def)
	if st != known {
		return def, at
	}
	if err := checkIfName(text); err != nil {
		s.report(at.problem("Unsuitable interface name", "%s %q: %s.", name, text, err))
		return def, at
	}
	return text, at
}

// backend decodes the backend block. A network without one gets VXLAN.
func (s *section) backend(n *networkDecl) {
	// Messages about a default point at the network that has it.
	n.backend = n.place
	n.Backend = Backend{Type: VXLAN, VNI: defaultVNI, Port: defaultPort}
	b := s.only("backend")
	if b != nil {
		n.backend = place{rng: b.LabelRanges[0]}
		switch label := b.Labels[0]; label {
		case hostGWBlock.is:
			s.open(hostGWBlock, b.Body, b.DefRange, s.ctx)
			n.Backend = Backend{Type: HostGW}
			return
		case vxlanBlock.is:
			s.vxlan(n, s.open(vxlanBlock, b.Body, b.DefRange, s.ctx))
			return
		default:
			s.report(n.backend.problem("Unknown backend", "%q is no backend; there are \"vxlan\" and \"host-gw\".%s", label, didYouMean(label, []string{"vxlan", "host-gw"})))
			n.Backend.Type = "" // so that no backend's rules are applied
			return
		}
	}
	n.Backend.Device = n.defaultDevices(defaultVNI)
}

// compat decodes with whom the network is shared.
func (s *section) compat(n *networkDecl) {
	text, at, st := s.text("compat", "")
	n.compat = at
	switch {
	case st != known:
	case text != string(CompatFlannel):
		s.report(at.problem("Unknown compat", "%q is nothing that polder can share a network with; there is \"flannel\".", text))
	default:
		n.Compat = CompatFlannel
	}
}

// defaultDevices are the names of the VTEPs where none are given. Those of
// flannel would suggest that flannel made them, unless nodes are to be as flannel
// makes them.
func (n *networkDecl) defaultDevices(vni uint32) PerFamily[string] {
	maker := "polder"
	if n.Compat == CompatFlannel {
		maker = "flannel"
	}
	return PerFamily[string]{IPv4: fmt.Sprintf("%s.%d", maker, vni), IPv6: fmt.Sprintf("%s-v6.%d", maker, vni)}
}

// vxlan decodes the content of a backend block with the label "vxlan".
func (s *section) vxlan(n *networkDecl, b *section) {
	vni, _ := b.number("vni", 1, maxVNI, defaultVNI)
	port, _ := b.number("port", 1, 65535, defaultPort)
	n.Backend.VNI, n.Backend.Port = uint32(vni), uint16(port)
	b.direct(n)
	n.Backend.Device = n.defaultDevices(n.Backend.VNI)
	// That a default fits into an interface name is checked when it is known
	// which underlays are used (validate.go): the long one often is not.
	given, _ := b.families("device", cty.String)
	for _, family := range Families {
		v := given.Get(family)
		if v.Type() == cty.NilType {
			continue
		}
		if err := checkIfName(v.AsString()); err != nil {
			s.report(v.problem("Unsuitable interface name", "device.%s %q: %s.", family, v.AsString(), err))
			continue
		}
		n.Backend.Device.Set(family, v.AsString())
		n.device.Set(family, v.place)
	}
}

// direct decodes how packets without encapsulation are treated. A node that
// sends them must accept them, or it would drop what a peer of the same spec
// sends.
func (s *section) direct(n *networkDecl) {
	n.Backend.DirectRouting = s.boolean("direct_routing", false)
	n.Backend.AcceptDirect = s.boolean("accept_direct", n.Backend.DirectRouting)
	if n.Backend.DirectRouting && !n.Backend.AcceptDirect {
		v, _ := s.get("accept_direct")
		s.report(v.problem("Direct routing without accepting it", "With direct_routing the peers send directly, too: accept_direct cannot be false. Leave it out."))
		n.Backend.AcceptDirect = true
	}
}

// masquerade decodes the masquerade block. Exceptions may be of families that
// pods have not: one list then serves several clusters.
func (d *decoder) masquerade(b *hcl.Block) *Masquerade {
	s := d.open(masqueradeBlock, b.Body, b.DefRange, d.ctx)
	m := &Masquerade{RandomFully: s.boolean("random_fully", true)}
	list, _, _ := s.strings("except")
	for _, v := range list {
		cidr, err := parseCIDR(v.AsString())
		if err != nil {
			s.report(v.problem("Unsuitable CIDR", "%q is no destination to except: %s.", v.AsString(), err))
			continue
		}
		m.Except = append(m.Except, cidr)
	}
	return m
}

// underlay decodes the underlay block of a network or a node.
func (s *section) underlay() (Underlay, place) {
	b := s.only(underlayBlock.name)
	if b == nil {
		return Underlay{}, place{}
	}
	us := s.open(underlayBlock, b.Body, b.DefRange, s.ctx)
	// Of several attributes the last is where other messages point; which one
	// counts does not matter, since that is an error.
	var u Underlay
	var at place
	set := 0
	for _, attr := range underlayBlock.attrs {
		text, textAt, st := us.text(attr.name, "")
		if st == absent {
			continue
		}
		set++
		at = textAt
		if st == unknown {
			continue
		}
		var err error
		switch attr.name {
		case "interface":
			u.Interface, err = text, checkIfName(text)
		case "address":
			u.Address, err = parseHost(text)
		case "route_to":
			u.RouteTo, err = parseHost(text)
		}
		if err != nil {
			s.report(at.problem("Unsuitable underlay", "%s %q: %s.", attr.name, text, err))
		}
	}
	// An attribute that was misspelt may have been the one.
	if set > 1 || set == 0 && !us.garbled {
		s.report(us.problem("Unsuitable underlay", "An underlay is chosen by exactly one of interface, address and route_to, and this block has %d of them.", set))
	}
	return u, at
}
