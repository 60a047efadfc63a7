package spec

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Service is a protocol with, if any, a restriction to ports or an ICMP type.
// At most one of Ports, Name and ICMP is set.
type Service struct {
	Protocol uint8     // IPPROTO_*; 0 with Name: any that the named port has; never 0 otherwise
	Ports    PortRange // of the server; zero: all
	Name     string    // of a port of the server's endpoint
	ICMP     *ICMP     // of ICMP or ICMPv6
}

// PortRange is from First to Last, both included.
type PortRange struct{ First, Last uint16 }

// IsZero says that the range is no restriction.
func (r PortRange) IsZero() bool { return r == PortRange{} }

// Contains says that a port is in the range.
func (r PortRange) Contains(p uint16) bool { return r.IsZero() || r.First <= p && p <= r.Last }

// String is "80" or "8000-8100".
func (r PortRange) String() string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return strconv.Itoa(int(r.First)) + "-" + strconv.Itoa(int(r.Last))
}

// ICMP is a type of ICMP messages, and perhaps a code (RFC 792, RFC 4443).
// Conversations are told by the message that begins them, in practice an echo
// request; their answers, and errors about a connection, belong to it.
type ICMP struct {
	Type uint8
	Code *uint8 // nil: any
}

// String is the service as a spec has it: "5432/tcp", "*/udp", "http",
// "http/tcp", "gre", "echo-request/icmp".
func (s Service) String() string {
	protocol := protocolName(s.Protocol)
	switch {
	case s.Name != "" && s.Protocol == 0:
		return s.Name
	case s.Name != "":
		return s.Name + "/" + protocol
	case s.ICMP != nil:
		return s.ICMP.text(s.Protocol) + "/" + protocol
	case !s.Ports.IsZero():
		return s.Ports.String() + "/" + protocol
	case hasPorts(s.Protocol):
		return "*/" + protocol
	}
	return protocol
}

// Numbers of protocols (IPPROTO_* in <netinet/in.h>).
const (
	ProtocolICMP   = 1
	ProtocolTCP    = 6
	ProtocolUDP    = 17
	ProtocolICMPv6 = 58
	ProtocolSCTP   = 132
)

// protocols are those with names, which are nft's and those of /etc/protocols.
var protocols = map[string]uint8{
	"icmp": ProtocolICMP, "igmp": 2, "ipencap": 4, "tcp": ProtocolTCP, "udp": ProtocolUDP, "dccp": 33,
	"ipv6": 41, "gre": 47, "esp": 50, "ah": 51, "icmpv6": ProtocolICMPv6, "eigrp": 88, "ospf": 89,
	"pim": 103, "vrrp": 112, "l2tp": 115, "sctp": ProtocolSCTP, "udplite": 136,
}

// ProtocolNumber is the number of the protocol of a Port.
func (p Port) ProtocolNumber() uint8 { return protocols[p.Protocol] }

// protocolName is a protocol's name, or its number where it has none.
func protocolName(number uint8) string {
	for name, n := range protocols {
		if n == number {
			return name
		}
	}
	return strconv.Itoa(int(number))
}

// hasPorts says whether the ports of a protocol can be named.
func hasPorts(protocol uint8) bool {
	return protocol == ProtocolTCP || protocol == ProtocolUDP || protocol == ProtocolSCTP
}

// parseProtocol reads a protocol's name or number. IPv6's extension headers
// have numbers of protocols, and are none: the kernel looks behind them
// (ipv6_find_hdr in net/ipv6/exthdrs_core.c).
func parseProtocol(s string) (uint8, error) {
	if s == "ipv6-icmp" { // as /etc/protocols has it
		s = "icmpv6"
	}
	if number, ok := protocols[s]; ok {
		return number, nil
	}
	number, err := strconv.ParseUint(s, 10, 8)
	switch {
	case err != nil && strings.Trim(s, digits) == "" && s != "":
		return 0, errors.New("the number of a protocol is from 1 to 255")
	case err != nil:
		return 0, fmt.Errorf("it is neither the name of a protocol nor a number.%s The names are %s", didYouMean(s, protocolNames()), strings.Join(protocolNames(), ", "))
	case number == 0, number == 43, number == 44, number == 60:
		return 0, errors.New("it is the number of an extension header of IPv6, behind which the protocol is")
	}
	return uint8(number), nil
}

func protocolNames() []string { return slices.Sorted(maps.Keys(protocols)) }

// parsePorts reads "5432/tcp", "8000-8100/tcp", "*/sctp", and the names of
// ports "http" and "http/tcp".
func parsePorts(s string) (Service, error) {
	port, protocol, ok := strings.Cut(s, "/")
	named := checkPortName(port) == nil
	if !ok {
		if named {
			return Service{Name: port}, nil
		}
		if _, err := parsePortRange(port); err != nil {
			return Service{}, err
		}
		return Service{}, fmt.Errorf("the protocol is missing, as in %s/tcp", s)
	}
	service := Service{Protocol: protocols[protocol]}
	if !hasPorts(service.Protocol) {
		return Service{}, errors.New("the protocol must be tcp, udp or sctp")
	}
	if named {
		service.Name = port
		return service, nil
	}
	var err error
	service.Ports, err = parsePortRange(port)
	return service, err
}

// parsePortRange reads "80", "8000-8100" and "*".
func parsePortRange(s string) (PortRange, error) {
	if s == "*" {
		return PortRange{}, nil
	}
	if strings.Trim(s, digits+"-") != "" || s == "" {
		return PortRange{}, errors.New("it is no number, no range as 8000-8100, and no name: at most 15 of a-z, 0-9 and -")
	}
	first, last, isRange := strings.Cut(s, "-")
	if !isRange {
		last = first
	}
	from, err := parsePortNumber(first)
	if err != nil {
		return PortRange{}, err
	}
	to, err := parsePortNumber(last)
	if err != nil {
		return PortRange{}, err
	}
	if to < from {
		return PortRange{}, fmt.Errorf("the range ends before it begins; write %d-%d", to, from)
	}
	return PortRange{from, to}, nil
}

func parsePortNumber(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, errors.New("a port is a number from 1 to 65535")
	}
	return uint16(n), nil
}

// ParseServices reads what one end of a connection is asked for, as in the port
// of a `check`: a port or its name as in a rule; "icmp", an echo request in
// whichever family; an ICMP type as in a rule; another protocol by its name. For
// ICMP the result may have one service for each family.
func ParseServices(s string) ([]Service, error) {
	if s == "icmp" {
		return parseICMP("echo-request")
	}
	before, after, ok := strings.Cut(s, "/")
	if ok && (after == "icmp" || after == "icmpv6") {
		return parseICMP(s)
	}
	protocol, known := protocols[before]
	switch {
	case !ok && known && protocol == ProtocolICMPv6:
		return nil, errors.New("an ICMP type is missing, as in echo-request/icmpv6")
	case !ok && known && hasPorts(protocol):
		return nil, fmt.Errorf("a port is missing, as in 80/%s", s)
	case !ok && known:
		return []Service{{Protocol: protocol}}, nil
	}
	service, err := parsePorts(s)
	switch {
	case err != nil:
		return nil, err
	case service.Name == "" && service.Ports.IsZero():
		return nil, errors.New("one port is wanted")
	case service.Ports.First != service.Ports.Last:
		return nil, errors.New("one port is wanted, and not a range")
	}
	return []Service{service}, nil
}
