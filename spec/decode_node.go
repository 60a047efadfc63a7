package spec

import (
	"net/netip"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// node decodes a node block into one node for each of its instances. It
// returns false if a mistake hides which nodes there are.
func (decl *declarations) node(d *decoder, b *hcl.Block) bool {
	return d.instantiate(nodeBlock, b, func(s *section, id identity) {
		n := &nodeDecl{place: id.place, block: b, each: id.each}
		n.Name, n.Range = id.name, b.DefRange
		s.nodeAddresses(n)
		s.nodeSubnets(n)
		s.vtepMACs(n)
		n.Underlay, n.underlayAt = s.underlay()
		if id.known {
			decl.nodes = append(decl.nodes, n)
		}
	})
}

// nodeAddresses decodes a node's addresses into the order of families.
func (s *section) nodeAddresses(n *nodeDecl) {
	list, at, st := s.strings("addresses")
	n.addressesKnown = st == known
	if n.addressesKnown && len(list) == 0 {
		s.report(at.problem("Node without an address", "The other nodes reach a node at an address of at least one family. For example: addresses = %s", s.schema.attr("addresses").example))
		n.addressesKnown = false
	}
	for _, v := range list {
		text := v.AsString()
		a, err := parseNodeAddress(text)
		if err != nil {
			s.report(v.problem("Unsuitable address", "%q cannot be a node's address: %s.", text, err))
			n.addressesKnown = false
			continue
		}
		family := FamilyOf(a.Addr)
		if before, ok := n.Address(family); ok {
			s.report(v.problem("Two addresses of one family", "A node has one address of each family, and %s is the one of %s already.", before.Addr, family.proper()))
			continue
		}
		// IPv4 first.
		if family == IPv4 {
			n.Addresses = append([]NodeAddress{a}, n.Addresses...)
			n.addressesAt = append([]place{v.place}, n.addressesAt...)
		} else {
			n.Addresses = append(n.Addresses, a)
			n.addressesAt = append(n.addressesAt, v.place)
		}
	}
}

// nodeSubnets decodes a node's subnets into the order of families. Whether
// they fit the network is compared later (validate_subnets.go).
func (s *section) nodeSubnets(n *nodeDecl) {
	list, at, st := s.strings("subnets")
	n.subnetsKnown = st != unknown
	n.subnetsExpr = at.expr
	for _, v := range list {
		text := v.AsString()
		p, err := parseCIDR(text)
		if err != nil {
			s.report(v.problem("Unsuitable subnet", "%q cannot be a node's subnet: %s.", text, err))
			n.subnetsKnown = false
			continue
		}
		// Dual stack is one subnet of each family (the kernel could do more,
		// Kubernetes and flannel cannot).
		family := FamilyOf(p.Addr())
		if before, ok := n.Subnet(family); ok {
			s.report(v.problem("Two subnets of one family", "A node has one subnet of each family, and %s is the one of %s already.", before, family.proper()))
			continue
		}
		if family == IPv4 {
			n.Subnets = append([]netip.Prefix{p}, n.Subnets...)
			n.subnetsAt = append([]place{v.place}, n.subnetsAt...)
		} else {
			n.Subnets = append(n.Subnets, p)
			n.subnetsAt = append(n.subnetsAt, v.place)
		}
	}
}

// vtepMACs decodes the MACs that a node's VTEPs are given. A node that is
// taken over from flannel keeps the MACs that its peers know.
func (s *section) vtepMACs(n *nodeDecl) {
	given, _ := s.families("vtep_mac", cty.String)
	for _, family := range Families {
		v := given.Get(family)
		if v.Type() == cty.NilType {
			continue
		}
		if mac, ok := s.mac(v); ok {
			n.VTEPMAC.Set(family, mac)
			n.vtepMAC.Set(family, v.place)
		}
	}
}

// mac reads the MAC of one interface. The kernel refuses others with
// EADDRNOTAVAIL (is_valid_ether_addr in linux/etherdevice.h).
func (s *section) mac(v value) (MAC, bool) {
	mac, err := ParseMAC(v.AsString())
	switch {
	case err != nil:
		s.report(v.problem("Unsuitable MAC", "%q is not six bytes, as in 0a:58:0a:f4:01:05.", v.AsString()))
	case mac.IsZero():
		s.report(v.problem("Unsuitable MAC", "An interface cannot have the MAC %s.", mac))
	case !mac.IsUnicast():
		s.report(v.problem("Unsuitable MAC", "%s is a group address: the lowest bit of its first byte is set. One interface's address has it clear.", mac))
	default:
		return mac, true
	}
	return MAC{}, false
}

// endpoint decodes an endpoint block into its instances.
func (decl *declarations) endpoint(d *decoder, b *hcl.Block) bool {
	return d.instantiate(endpointBlock, b, func(s *section, id identity) {
		e := &endpointDecl{place: id.place}
		e.Name, e.Range = id.name, b.DefRange
		s.endpointFields(e)
		if id.known {
			decl.endpoints = append(decl.endpoints, e)
		}
	})
}

// endpointFields decodes the attributes of an endpoint.
func (s *section) endpointFields(e *endpointDecl) {
	e.Node, e.nodeAt, _ = s.text("node", "")
	var at place
	var st state
	if e.Namespace, at, st = s.text("namespace", "default"); st == known {
		if err := checkDNSLabel(e.Namespace); err != nil {
			s.report(at.problem("Unsuitable namespace", "%q is no name for a namespace: %s.", e.Namespace, err))
		}
	}
	e.Interface, e.interfaceAt = s.ifName("interface", "")
	if v, st := s.get("mac"); st == known {
		e.MAC, _ = s.mac(v)
		e.macAt = v.place
	}
	// The order is kept: the first address of a family is the one to show.
	addresses, _, st := s.strings("addresses")
	e.whole = st != unknown
	for _, v := range addresses {
		a, err := parseHost(v.AsString())
		if err != nil {
			s.report(v.problem("Unsuitable address", "%q cannot be an endpoint's address: %s.", v.AsString(), err))
			e.whole = false
			continue
		}
		e.Addresses = append(e.Addresses, a)
		e.addressesAt = append(e.addressesAt, v.place)
	}
	e.Labels = s.labels()
	var understood bool
	e.Ports, understood = s.ports()
	e.whole = e.whole && understood
}

// labels decodes labels. Values are free; names are what a selector can write
// without quotes.
func (s *section) labels() map[string]string {
	v, st := s.get("labels")
	if st != known || v.LengthInt() == 0 {
		return nil
	}
	labels := make(map[string]string, v.LengthInt())
	places := s.keyPlaces(v)
	for it := v.ElementIterator(); it.Next(); {
		key, element := it.Element()
		at := placeOf(places, key, v)
		switch {
		case element.IsNull():
			s.report(at.problem("Unsuitable label", "The value of the label %q is null.", key.AsString()))
		case !labelKey.MatchString(key.AsString()):
			s.report(at.problem("Unsuitable label", "%q is no name for a label: letters, digits, -, ., _ and / are wanted, with a letter or digit at either end.", key.AsString()))
		default:
			labels[key.AsString()] = element.AsString()
		}
	}
	return labels
}

// ports decodes named ports. It returns false if a mistake hides some.
func (s *section) ports() (map[string]Port, bool) {
	v, st := s.get("ports")
	if st != known || v.LengthInt() == 0 {
		return nil, st != unknown
	}
	ports := make(map[string]Port, v.LengthInt())
	places := s.keyPlaces(v)
	for it := v.ElementIterator(); it.Next(); {
		key, element := it.Element()
		name, at := key.AsString(), placeOf(places, key, v)
		if err := checkPortName(name); err != nil {
			s.report(at.problem("Unsuitable port", "%q is no name for a port: %s.", name, err))
			continue
		}
		if element.IsNull() {
			s.report(at.problem("Unsuitable port", "The port %q is null.", name))
			continue
		}
		port, err := parsePort(element.AsString())
		if err != nil {
			s.report(at.problem("Unsuitable port", "The port %q cannot be %q: %s.", name, element.AsString(), err))
			continue
		}
		ports[name] = port
	}
	return ports, len(ports) == v.LengthInt()
}

// placeOf is where the value of a key is written, if it is, or else the whole
// map.
func placeOf(places map[string]place, key cty.Value, whole value) place {
	if at, ok := places[key.AsString()]; ok {
		return at
	}
	return whole.place
}
