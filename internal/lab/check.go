package lab

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/hashicorp/hcl/v2"

	"github.com/poldernet/polder/spec"
)

// The MTU of a veth, in bytes: at least what IPv6 demands of a link (RFC 8200,
// section 5), at most ETH_MAX_MTU (linux/if_ether.h).
const (
	minMTU = 1280
	maxMTU = 65535
)

func mistake(at hcl.Range, summary, detail string, args ...any) *hcl.Diagnostic {
	return &hcl.Diagnostic{
		Severity: hcl.DiagError,
		Summary:  summary,
		Detail:   fmt.Sprintf(detail, args...),
		Subject:  at.Ptr(),
	}
}

// check finds the mistakes that the syntax does not.
func (t *Topology) check() hcl.Diagnostics {
	var diags hcl.Diagnostics
	links := map[string]bool{}
	for _, l := range t.Links {
		if links[l.Name] {
			diags = append(diags, mistake(l.Range, "Duplicate link", "There is another link %q above.", l.Name))
		}
		links[l.Name] = true
		if l.MTU < minMTU || l.MTU > maxMTU {
			diags = append(diags, mistake(l.Range, "MTU out of range",
				"Link %q has an MTU of %d bytes; it must be between %d, which IPv6 demands of every link, and %d.",
				l.Name, l.MTU, minMTU, maxMTU))
		}
	}
	names, taken := map[string]bool{}, map[netip.Addr]string{}
	for _, m := range t.Machines {
		if names[m.Name] {
			diags = append(diags, mistake(m.Range, "Duplicate name", "There is another machine %q above.", m.Name))
		}
		names[m.Name] = true
		if !hostname.MatchString(m.Name) || len(m.Name) > maxHostname {
			diags = append(diags, mistake(m.Range, "Invalid name",
				"%q is used as a hostname: letters a to z, digits, dots and dashes, at most %d of them.", m.Name, maxHostname))
		}
		if len(m.Interfaces) == 0 {
			diags = append(diags, mistake(m.Range, "Machine without a link",
				"The %s %q is on no link. Add a block: link \"NAME\" { }.", m.Role, m.Name))
		}
		diags = append(diags, m.check(links, taken)...)
	}
	return diags
}

// check finds the mistakes of one machine. taken holds who has an address.
func (m *Machine) check(links map[string]bool, taken map[netip.Addr]string) hcl.Diagnostics {
	var diags hcl.Diagnostics
	on := map[string]bool{}
	for n, i := range m.Interfaces {
		if !links[i.Link] {
			diags = append(diags, mistake(i.Range, "Unknown link", "No link %q is declared in this file.", i.Link))
		}
		if on[i.Link] {
			diags = append(diags, mistake(i.Range, "Duplicate link", "%q has another interface on link %q above.", m.Name, i.Link))
		}
		on[i.Link] = true
		// The spec gives the first interface of a node its addresses.
		fromSpec := m.Role == RoleNode && n == 0
		if len(i.Addresses) == 0 && !fromSpec {
			diags = append(diags, mistake(i.Range, "Interface without an address",
				"The interface of %q on link %q needs addresses = [...].", m.Name, i.Link))
		}
		for _, a := range i.Addresses {
			if other, ok := taken[a.Addr()]; ok {
				diags = append(diags, mistake(i.Range, "Duplicate address", "%q has the address %v already.", other, a.Addr()))
			}
			taken[a.Addr()] = m.Name
		}
		gateways := map[spec.Family]bool{}
		for _, g := range i.Gateways {
			if f := spec.FamilyOf(g); gateways[f] {
				diags = append(diags, mistake(i.Range, "Duplicate gateway", "%q has another %v gateway.", m.Name, f))
			} else {
				gateways[f] = true
			}
			if len(i.Addresses) > 0 && !onLink(i.Addresses, g) {
				diags = append(diags, mistake(i.Range, "Gateway on another link",
					"No address of %q on link %q has a prefix that holds the gateway %v.", m.Name, i.Link, g))
			}
		}
	}
	return diags
}

func onLink(addresses []netip.Prefix, gateway netip.Addr) bool {
	return slices.ContainsFunc(addresses, func(p netip.Prefix) bool { return p.Contains(gateway) })
}
