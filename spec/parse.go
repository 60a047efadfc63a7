package spec

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"unicode"
)

// Texts of the spec to values. Errors complete the sentence "this is wrong:".

// parseAddr reads an address. Forms that Go reads and the kernel takes for
// something else are refused.
func parseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil && strings.Contains(s, "/"):
		return a, errors.New("an address without a prefix length is wanted")
	case err != nil:
		return a, errors.New("it is not an IPv4 or IPv6 address")
	case a.Is4In6(): // ::ffff:192.0.2.1, which sockets know and links do not
		return a, fmt.Errorf("it is an IPv4 address inside IPv6; write %s", a.Unmap())
	case a.Zone() != "":
		return a, fmt.Errorf("a zone has a meaning on one host only; write %s", a.WithZone(""))
	}
	return a, nil
}

// parseHost reads an address that one host can have.
func parseHost(s string) (netip.Addr, error) {
	a, err := parseAddr(s)
	if err != nil {
		return a, err
	}
	switch {
	case a.IsUnspecified():
		return a, errors.New("it is the unspecified address")
	case a.IsLoopback():
		return a, errors.New("it is a loopback address, which no other host can reach")
	case a.IsMulticast():
		return a, errors.New("it is a multicast address")
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return a, errors.New("it is the broadcast address")
	case a.Is6() && a.IsLinkLocalUnicast():
		return a, errors.New("it is a link-local address, which means nothing without an interface")
	}
	return a, nil
}

// parseCIDR reads a prefix whose host bits are zero: where they are not, the
// address was meant, or a longer prefix.
func parseCIDR(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		if a, err := netip.ParseAddr(s); err == nil {
			return p, fmt.Errorf("the prefix length is missing, as in %s/%d", a, a.BitLen())
		}
		return p, errors.New("it is not a CIDR, as in 10.244.0.0/16 or fd00::/48")
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return p, errors.New("it is an IPv4-mapped IPv6 prefix")
		}
		return p, fmt.Errorf("it is an IPv4 prefix inside IPv6; write %s", netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96).Masked())
	}
	if p != p.Masked() {
		return p, fmt.Errorf("it has bits set behind the prefix length; write %s", p.Masked())
	}
	return p, nil
}

// ParsePodCIDR reads a prefix that pods can have addresses of.
func ParsePodCIDR(s string) (netip.Prefix, error) {
	p, err := parseCIDR(s)
	if err != nil {
		return p, err
	}
	for _, special := range notForPods {
		if special.prefix.Overlaps(p) {
			return p, fmt.Errorf("it overlaps %s, %s", special.prefix, special.what)
		}
	}
	return p, nil
}

// notForPods are ranges that the kernel does not forward or delivers by itself.
var notForPods = []struct {
	prefix netip.Prefix
	what   string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "which means this host (RFC 1122)"},
	{netip.MustParsePrefix("127.0.0.0/8"), "the loopback addresses"},
	{netip.MustParsePrefix("169.254.0.0/16"), "the link-local addresses"},
	{netip.MustParsePrefix("224.0.0.0/4"), "the multicast addresses"},
	{netip.MustParsePrefix("240.0.0.0/4"), "which is reserved (RFC 1112)"},
	{netip.MustParsePrefix("::/127"), "the unspecified and the loopback address"},
	{netip.MustParsePrefix("fe80::/10"), "the link-local addresses"},
	{netip.MustParsePrefix("ff00::/8"), "the multicast addresses"},
}

// parseNodeAddress reads "address" or "address/length".
func parseNodeAddress(s string) (NodeAddress, error) {
	// The address is looked at first: its mistakes are the graver ones.
	text, _, withLink := strings.Cut(s, "/")
	a, err := parseHost(text)
	if err != nil || !withLink {
		return NodeAddress{Addr: a}, err
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return NodeAddress{}, fmt.Errorf("the prefix length must be from 0 to %d", a.BitLen())
	}
	link := p.Masked()
	// A link of one or two addresses has neither an address of its own nor a
	// broadcast address (RFC 3021, RFC 6164). In IPv6 the first address of a
	// link is the routers' anycast address (RFC 4291, section 2.6.1).
	switch hostBits := a.BitLen() - p.Bits(); {
	case p.Bits() == 0:
		return NodeAddress{}, errors.New("a link with the prefix length 0 would hold every address")
	case hostBits > 1 && a == link.Addr():
		return NodeAddress{}, fmt.Errorf("it is the address of the link %s itself; a node's address in it is wanted, as in %s/%d", link, a.Next(), p.Bits())
	case hostBits > 1 && a.Is4() && a == lastAddr(link):
		return NodeAddress{}, fmt.Errorf("it is the broadcast address of the link %s", link)
	}
	return NodeAddress{Addr: a, Link: link}, nil
}

// lastAddr is the highest address of a prefix.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// parseBlock reads a CIDR, or an address, which is a block of one.
func parseBlock(s string) (netip.Prefix, error) {
	if strings.Contains(s, "/") {
		return parseCIDR(s)
	}
	a, err := parseAddr(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}

// parsePort reads "8080/tcp".
func parsePort(s string) (Port, error) {
	number, protocol, ok := strings.Cut(s, "/")
	if !ok {
		return Port{}, fmt.Errorf("the protocol is missing, as in %s/tcp", s)
	}
	n, err := parsePortNumber(number)
	if err != nil {
		return Port{}, err
	}
	if !hasPorts(protocols[protocol]) {
		return Port{}, errors.New("the protocol must be tcp, udp or sctp")
	}
	return Port{n, protocol}, nil
}

var (
	dnsLabel = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	// Names of nodes are hostnames, or Kubernetes' names of nodes (RFC 1123
	// subdomains): what both allow, and the underscore that people use.
	objectName = regexp.MustCompile(`^[A-Za-z0-9]([-._A-Za-z0-9]{0,251}[A-Za-z0-9])?$`)
	// RFC 6335, section 5.1, as Kubernetes has it for names of ports.
	portName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?$`)
	labelKey = regexp.MustCompile(`^[A-Za-z0-9]([-._/A-Za-z0-9]{0,315}[A-Za-z0-9])?$`)
)

// checkDNSLabel checks an RFC 1123 label.
func checkDNSLabel(s string) error {
	if !dnsLabel.MatchString(s) {
		return errors.New("at most 63 of a-z, 0-9 and - are wanted, with no - at either end")
	}
	return nil
}

// checkPortName checks the name of a port. One without a letter could be taken
// for a number (RFC 6335, section 5.1).
func checkPortName(s string) error {
	if !portName.MatchString(s) || !strings.ContainsAny(s, "abcdefghijklmnopqrstuvwxyz") {
		return errors.New("at most 15 of a-z, 0-9 and - are wanted, with a letter among them and no - at either end")
	}
	return nil
}

// checkTitle checks a name that people read, and nothing refers to.
func checkTitle(s string) error {
	if strings.TrimSpace(s) == "" || len(s) > 253 || strings.ContainsFunc(s, unicode.IsControl) {
		return errors.New("at most 253 bytes of text in one line are wanted")
	}
	return nil
}

// checkName checks the name of a node or an endpoint.
func checkName(s string) error {
	if !objectName.MatchString(s) {
		return errors.New("at most 253 letters, digits, -, . and _ are wanted, with a letter or digit at either end")
	}
	return nil
}

// maxIfName is IFNAMSIZ less the NUL (linux/if.h).
const maxIfName = 15

// checkIfName refuses what the kernel does (dev_valid_name in net/core/dev.c,
// sysctl_dev_name_is_allowed in include/net/ip.h), and %, which it takes for
// a pattern to number interfaces by.
func checkIfName(s string) error {
	switch {
	case s == "":
		return errors.New("an interface has a name")
	case len(s) > maxIfName:
		return fmt.Errorf("it has %d bytes, and an interface name at most %d", len(s), maxIfName)
	case s == "." || s == ".." || s == "all" || s == "default" || s == "lo":
		return errors.New("the kernel keeps this name for itself")
	}
	for _, c := range s {
		if c <= ' ' || c > '~' || strings.ContainsRune("/:%", c) {
			return fmt.Errorf("an interface name has no %q", c)
		}
	}
	return nil
}
