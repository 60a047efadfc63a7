package flannel

import (
	"bytes"
	"net/netip"
	"strconv"
	"strings"

	"github.com/poldernet/polder/spec"
)

// EnvFile is where flannel writes which subnet a node has, for its CNI plugin.
const EnvFile = "/run/flannel/subnet.env"

// env is a subnet.env (WriteSubnetFile in pkg/subnet/subnet.go).
type env struct {
	network    spec.PerFamily[netip.Prefix]
	subnet     spec.PerFamily[netip.Prefix]
	mtu        int
	masquerade bool
}

// env reads the document as a subnet.env. It is of use where there are no
// diagnostics.
func (d *document) env() env {
	var e env
	offset := 0
	for line := range bytes.Lines(d.text) {
		at := d.between(offset, offset+len(bytes.TrimRight(line, "\r\n")))
		offset += len(line)
		key, text, _ := strings.Cut(strings.TrimSpace(string(line)), "=")
		family, what := spec.IPv4, strings.TrimPrefix(key, "FLANNEL_")
		if rest, v6 := strings.CutPrefix(what, "IPV6_"); v6 {
			family, what = spec.IPv6, rest
		}
		switch {
		case what == key: // of somebody else
		case what == "NETWORK" || what == "SUBNET":
			p, err := netip.ParsePrefix(text)
			switch {
			case strings.Contains(text, ","):
				d.fail(at, "Several networks", "%s has several CIDRs, and a spec has one for each family.", key)
			case err != nil || spec.FamilyOf(p.Addr()) != family || p.Addr().Is4In6():
				d.fail(at, "Unsuitable CIDR", "%s: %q is no %s CIDR.", key, text, familyName(family))
			case what == "NETWORK":
				if _, err := spec.ParsePodCIDR(p.Masked().String()); err != nil {
					d.fail(at, "Unsuitable pod network", "%s: %s is not for pods: %s.", key, p.Masked(), err)
				}
				e.network.Set(family, p.Masked())
			default:
				e.subnet.Set(family, p.Masked())
			}
		case what == "MTU":
			n, err := strconv.Atoi(text)
			if err != nil || n < 68 || n > 65535 {
				d.fail(at, "Unsuitable MTU", "%s: %q is no MTU.", key, text)
				continue
			}
			e.mtu = n
		case what == "IPMASQ":
			on, err := strconv.ParseBool(text)
			if err != nil {
				d.fail(at, "Unsuitable value", "%s is true or false, and not %q.", key, text)
			}
			e.masquerade = on
		}
	}
	d.complete(e)
	return e
}

// complete reports what is not in a subnet.env, or does not fit together.
func (d *document) complete(e env) {
	if d.diags.HasErrors() {
		return
	}
	none := true
	for _, f := range spec.Families {
		network, subnet := e.network.Get(f), e.subnet.Get(f)
		switch {
		case network.IsValid() != subnet.IsValid():
			d.fail(d.between(0, 0), "Incomplete subnet.env", "Of FLANNEL_NETWORK and FLANNEL_SUBNET, with IPv6 FLANNEL_IPV6_NETWORK and FLANNEL_IPV6_SUBNET, there is one without the other.")
		case subnet.IsValid() && (!network.Contains(subnet.Addr()) || subnet.Bits() < network.Bits()+2 || subnet.Bits() > f.Bits()-2):
			d.fail(d.between(0, 0), "Unsuitable subnet", "The subnet %s is none of at least four in %s, with at least four addresses.", subnet, network)
		case subnet.IsValid():
			none = false
		}
	}
	if none && !d.diags.HasErrors() {
		d.fail(d.between(0, 0), "Incomplete subnet.env", "There is no FLANNEL_NETWORK here.")
	}
}
