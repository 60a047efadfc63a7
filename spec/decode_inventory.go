package spec

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// Failsafes that hold where a host endpoint has none of its own: SSH, DHCP, and
// what a Kubernetes node cannot do without, in the manner of Calico.
var (
	failsafeInbound  = []string{"22/tcp", "179/tcp", "2379-2380/tcp", "6443/tcp", "68/udp", "546/udp"}
	failsafeOutbound = []string{"53/udp", "53/tcp", "67/udp", "547/udp", "179/tcp", "2379-2380/tcp", "6443/tcp"}
)

// codes is a list for the manual.
func codes(list []string) string { return "`" + strings.Join(list, "`, `") + "`" }

// namespace decodes a namespace block into its instances.
func (decl *declarations) namespace(d *decoder, b *hcl.Block) bool {
	return d.instantiate(namespaceBlock, b, func(s *section, id identity) {
		n := &namespaceDecl{place: id.place}
		n.Name, n.Range = id.name, b.DefRange
		n.Labels = s.labels()
		if name, ok := n.Labels[NamespaceLabel]; ok && name != n.Name && id.known {
			v, _ := s.get("labels")
			at := placeOf(s.keyPlaces(v), cty.StringVal(NamespaceLabel), v)
			s.report(at.problem("Unsuitable label", "The label %q of a namespace is its name, %q. Leave it out: every namespace has it.", NamespaceLabel, n.Name))
		}
		if id.known {
			decl.namespaces = append(decl.namespaces, n)
		}
	})
}

// networkSet decodes a network_set block into its instances.
func (decl *declarations) networkSet(d *decoder, b *hcl.Block) bool {
	return d.instantiate(networkSetBlock, b, func(s *section, id identity) {
		n := &networkSetDecl{place: id.place}
		n.Name, n.Range = id.name, b.DefRange
		list, _, _ := s.strings("cidrs")
		for _, v := range list {
			if p, ok := s.block(v); ok {
				n.CIDRs = append(n.CIDRs, p)
			}
		}
		// Neither order nor repetition means anything.
		slices.SortFunc(n.CIDRs, netip.Prefix.Compare)
		n.CIDRs = slices.Compact(n.CIDRs)
		n.Labels = s.labels()
		if id.known {
			decl.networkSets = append(decl.networkSets, n)
		}
	})
}

// block reads a CIDR or an address.
func (s *section) block(v value) (netip.Prefix, bool) {
	p, err := parseBlock(v.AsString())
	if err != nil {
		s.report(v.problem("Unsuitable CIDR", "%q is no block of addresses: %s.", v.AsString(), err))
		return p, false
	}
	return p, true
}

// hostEndpoint decodes a host_endpoint block into its instances.
func (decl *declarations) hostEndpoint(d *decoder, b *hcl.Block) bool {
	return d.instantiate(hostEndpointBlock, b, func(s *section, id identity) {
		h := &hostEndpointDecl{place: id.place}
		h.Name, h.Range = id.name, b.DefRange
		var st state
		if h.Node, h.nodeAt, st = s.text("node", ""); st == known {
			d.refer(nodeBlock, h.Node, h.nodeAt)
		}
		if h.Interface, h.interfaceAt, st = s.text("interface", ""); st == known && h.Interface != AllInterfaces {
			if err := checkIfName(h.Interface); err != nil {
				s.report(h.interfaceAt.problem("Unsuitable interface name", "interface %q: %s.", h.Interface, err))
				h.Interface = ""
			}
		}
		h.Labels = s.labels()
		h.Ports, h.portsKnown = s.ports()
		h.FailsafeInbound = s.failsafes("failsafe_inbound", failsafeInbound)
		h.FailsafeOutbound = s.failsafes("failsafe_outbound", failsafeOutbound)
		if id.known {
			decl.hostEndpoints = append(decl.hostEndpoints, h)
		}
	})
}

// failsafes decodes a list of ports, which may be empty: that is not the
// default.
func (s *section) failsafes(name string, def []string) []Service {
	out := []Service{}
	list, _, st := s.strings(name)
	if st == absent {
		for _, text := range def {
			if service, err := parsePorts(text); err == nil {
				out = append(out, service)
			}
		}
		return out
	}
	for _, v := range list {
		service, err := parsePorts(v.AsString())
		switch {
		case err != nil:
			s.report(v.problem("Unsuitable port", "%s cannot have %q: %s.", name, v.AsString(), err))
		case service.Name != "":
			s.report(v.problem("Unsuitable port", "%s cannot have the name %q: a failsafe is a number, which nothing else can change.", name, v.AsString()))
		default:
			out = append(out, service)
		}
	}
	return out
}
