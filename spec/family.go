package spec

import "net/netip"

// Family is an IP address family. Everything that differs between IPv4 and
// IPv6 is a function of it, so that there is one code path for both.
type Family uint8

// The two families, in the order in which polder lists them.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// Families lists both families, IPv4 first.
var Families = [...]Family{IPv4, IPv6}

// FamilyOf is the family of an address. IPv4-mapped IPv6 addresses do not
// occur: the loader refuses them.
func FamilyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// String is "ipv4" or "ipv6", as in the spec's attribute names.
func (f Family) String() string {
	if f == IPv4 {
		return "ipv4"
	}
	return "ipv6"
}

// proper is the family's proper name, for messages.
func (f Family) proper() string {
	if f == IPv4 {
		return "IPv4"
	}
	return "IPv6"
}

// Bits is the length of an address, 32 or 128.
func (f Family) Bits() int {
	if f == IPv4 {
		return 32
	}
	return 128
}

// Other is the other family.
func (f Family) Other() Family {
	if f == IPv4 {
		return IPv6
	}
	return IPv4
}

// PerFamily holds a value for each family, the zero value where there is none.
type PerFamily[T any] struct {
	IPv4 T
	IPv6 T
}

// Get is the family's value.
func (p PerFamily[T]) Get(f Family) T {
	if f == IPv4 {
		return p.IPv4
	}
	return p.IPv6
}

// Set changes the family's value.
func (p *PerFamily[T]) Set(f Family, v T) {
	if f == IPv4 {
		p.IPv4 = v
	} else {
		p.IPv6 = v
	}
}
