package spec

import (
	"errors"
	"net/netip"
	"strings"
)

// EndKind says what an End is.
type EndKind string

// The kinds.
const (
	EndEndpoint EndKind = "endpoint"
	EndNode     EndKind = "node"
	EndAddress  EndKind = "address"
	EndOutside  EndKind = "outside" // an address that nothing in the spec has
)

// End is an end of a connection that is asked about.
type End struct {
	Kind    EndKind
	Name    string     // of the endpoint or the node
	Address netip.Addr // with EndAddress
}

// ParseEnd reads "endpoint.NAME", "node.NAME", an address, or "outside". That
// there is such an endpoint or node is not looked at.
func ParseEnd(s string) (End, error) {
	if s == string(EndOutside) {
		return End{Kind: EndOutside}, nil
	}
	for _, kind := range []EndKind{EndEndpoint, EndNode} {
		name, ok := strings.CutPrefix(s, string(kind)+".")
		if !ok {
			continue
		}
		if err := checkName(name); err != nil {
			return End{}, err
		}
		return End{Kind: kind, Name: name}, nil
	}
	if _, err := netip.ParseAddr(s); err != nil {
		return End{}, errors.New("it is none of endpoint.NAME, node.NAME, an address, and outside")
	}
	a, err := parseHost(s)
	return End{Kind: EndAddress, Address: a}, err
}

// String is what ParseEnd reads.
func (e End) String() string {
	switch e.Kind {
	case EndEndpoint, EndNode:
		return string(e.Kind) + "." + e.Name
	case EndAddress:
		return e.Address.String()
	default:
		return string(e.Kind)
	}
}
