package spec

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// genService draws a service that a rule can have.
func genService(t *rapid.T) Service {
	ported := rapid.SampledFrom([]uint8{ProtocolTCP, ProtocolUDP, ProtocolSCTP})
	switch rapid.SampledFrom([]string{"ports", "name", "protocol", "icmp"}).Draw(t, "kind") {
	case "ports":
		first := rapid.Uint16Range(1, 65535).Draw(t, "first")
		s := Service{Protocol: ported.Draw(t, "protocol"), Ports: PortRange{first, rapid.Uint16Range(first, 65535).Draw(t, "last")}}
		if rapid.Bool().Draw(t, "all") {
			s.Ports = PortRange{}
		}
		return s
	case "name":
		s := Service{Name: rapid.StringMatching(`[a-z0-9]{0,3}-?[a-z][a-z0-9]{0,3}`).Filter(func(s string) bool { return checkPortName(s) == nil }).Draw(t, "name")}
		if rapid.Bool().Draw(t, "of a protocol") {
			s.Protocol = ported.Draw(t, "protocol")
		}
		return s
	case "icmp":
		family := rapid.SampledFrom(icmpFamilies[:]).Draw(t, "family")
		s := Service{Protocol: family.protocol, ICMP: &ICMP{Type: rapid.SampledFrom(family.begin).Draw(t, "type")}}
		if rapid.Bool().Draw(t, "with code") {
			code := rapid.Uint8().Draw(t, "code")
			s.ICMP.Code = &code
		}
		return s
	default:
		return Service{Protocol: rapid.Uint8().Filter(func(n uint8) bool {
			return !slices.Contains([]uint8{0, 43, 44, 60}, n) && !hasPorts(n)
		}).Draw(t, "protocol")}
	}
}

// parseText reads a service as the attribute does that it is of.
func parseText(s Service, text string) ([]Service, error) {
	switch {
	case s.ICMP != nil:
		return parseICMP(text)
	case s.Name != "" || hasPorts(s.Protocol):
		service, err := parsePorts(text)
		return []Service{service}, err
	default:
		protocol, err := parseProtocol(text)
		return []Service{{Protocol: protocol}}, err
	}
}

// TestPropertyServiceText: the text of a service is one that a spec can have,
// and means it.
func TestPropertyServiceText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := genService(t)
		got, err := parseText(want, want.String())
		if err != nil || !reflect.DeepEqual(got, []Service{want}) {
			t.Fatalf("%s is %+v and read as %+v, %v", want, want, got, err)
		}
	})
}

// TestPropertyServicesAsked: what a check asks for is what a rule would match,
// or is refused for being many.
func TestPropertyServicesAsked(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genService(t)
		got, err := ParseServices(s.String())
		many := s.Name == "" && (hasPorts(s.Protocol) && (s.Ports.IsZero() || s.Ports.First != s.Ports.Last))
		// ICMP is asked for by its types, a protocol by its name.
		bare := s.ICMP == nil && s.Name == "" && !hasPorts(s.Protocol) &&
			(icmpOf(s.Protocol) != nil || strings.Trim(protocolName(s.Protocol), digits) == "")
		_, taken := protocols[s.Name]
		switch {
		case bare || taken && s.Protocol == 0:
		case many != (err != nil):
			t.Fatalf("%s: %v, %v", s, got, err)
		case err == nil && !reflect.DeepEqual(got, []Service{s}):
			t.Fatalf("%s is read as %v", s, got)
		}
	})
}

// checkService checks what holds of every service that was read.
func checkService(t *testing.T, text string, s Service) {
	t.Helper()
	parts := 0
	for _, set := range []bool{!s.Ports.IsZero(), s.Name != "", s.ICMP != nil} {
		if set {
			parts++
		}
	}
	if parts > 1 || s.Protocol == 0 && s.Name == "" || s.Ports.Last < s.Ports.First || s.Ports.First == 0 && s.Ports.Last != 0 {
		t.Errorf("%q is %+v", text, s)
	}
	if again, err := parseText(s, s.String()); err != nil || !reflect.DeepEqual(again, []Service{s}) {
		t.Errorf("%q is %s, and that %v, %v", text, s, again, err)
	}
}

func FuzzServices(f *testing.F) {
	for _, text := range []string{"5432/tcp", "8000-8100/tcp", "*/sctp", "http", "http/udp", "icmp", "echo-request", "13:0/icmp", "139/icmpv6", "gre", "47", "80-80/tcp", "-/tcp", "1-/tcp", ":/icmp"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := parsePorts(text); err == nil {
			checkService(t, text, s)
		}
		if n, err := parseProtocol(text); err == nil {
			checkService(t, text, Service{Protocol: n})
		}
		for _, parse := range []func(string) ([]Service, error){parseICMP, ParseServices} {
			list, err := parse(text)
			if (err == nil) != (len(list) > 0) {
				t.Errorf("%q: %v, %v", text, list, err)
			}
			for _, s := range list {
				if err == nil {
					checkService(t, text, s)
				}
			}
		}
	})
}

func FuzzEnd(f *testing.F) {
	for _, text := range []string{"endpoint.web-1", "node.n1", "192.0.2.1", "2001:db8::1", "outside", "endpoint.", "::ffff:192.0.2.1", "fe80::1%eth0"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		end, err := ParseEnd(text)
		if err != nil {
			return
		}
		if again, err := ParseEnd(end.String()); err != nil || again != end {
			t.Errorf("%q is %+v, and that %+v, %v", text, end, again, err)
		}
	})
}
