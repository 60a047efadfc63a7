package kube

import (
	"fmt"
	"net/netip"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"github.com/poldernet/polder/spec"
)

func (c *converter) block(b *networkingv1.IPBlock, path *field.Path) *spec.Block {
	if b.CIDR == "" {
		c.fail(field.Required(path.Child("cidr"), "must be given, such as 10.9.8.0/24 or 2001:db8::/64"))
		return nil
	}
	cidr, ok := c.cidr(b.CIDR, path.Child("cidr"))
	out := &spec.Block{CIDR: cidr}
	for i, text := range b.Except {
		path := path.Child("except").Index(i)
		except, known := c.cidr(text, path)
		if !ok || !known {
			continue
		}
		if except.Bits() <= cidr.Bits() || !cidr.Contains(except.Addr()) {
			c.fail(field.Invalid(path, text, fmt.Sprintf("must be a strict subset of `cidr`, which is %s", cidr)))
		}
		out.Except = append(out.Except, except)
	}
	return out
}

// cidr is what Kubernetes takes a CIDR for, without host bits. It may be known
// although there is something wrong about it.
func (c *converter) cidr(text string, path *field.Path) (prefix netip.Prefix, known bool) {
	prefix, known = sloppy(text)
	if !known {
		detail := "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
		if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
			detail = fmt.Sprintf("must have a prefix length: the address alone is %s/%d", a, a.BitLen())
		}
		c.fail(field.Invalid(path, text, detail))
		return prefix, false
	}
	if c.strict {
		for _, err := range validation.IsValidCIDRForLegacyField(path, text, true, nil) {
			err.Detail = fmt.Sprintf("%s: it would be read as %s", err.Detail, prefix)
			c.fail(err)
		}
	}
	return prefix, true
}

// sloppy parses CIDRs that API servers took before 1.36. Numbers of IPv4 are
// decimal whatever they begin with, and an IPv4 CIDR may be written in IPv6.
func sloppy(text string) (netip.Prefix, bool) {
	_, ipNet, err := netutils.ParseCIDRSloppy(text)
	if err != nil {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(ipNet.IP)
	bits, _ := ipNet.Mask.Size()
	if mapped := 128 - 32; addr.Is4In6() && bits >= mapped {
		addr, bits = addr.Unmap(), bits-mapped
	}
	return netip.PrefixFrom(addr, bits), ok
}
