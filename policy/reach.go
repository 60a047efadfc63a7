package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/poldernet/polder/spec"
)

// Span is a range of what can be asked for: of the ports of a protocol, or of
// ICMP's types and codes, a type being 256 numbers. Other protocols are one
// number, 0. Protocol 0 stands for all that are not told apart.
type Span struct {
	Protocol    uint8
	First, Last uint16
}

// String is the span as a rule has it.
func (s Span) String() string {
	whole := s == wholeOf(s.Protocol)
	switch {
	case s.Protocol == 0:
		return "other protocols"
	case !isICMP(s.Protocol):
		p := spec.PortRange{First: s.First, Last: s.Last}
		if whole {
			p = spec.PortRange{}
		}
		return spec.Service{Protocol: s.Protocol, Ports: p}.String()
	case whole:
		return spec.Service{Protocol: s.Protocol}.String()
	}
	first, last := message(s.Protocol, s.First), message(s.Protocol, s.Last)
	switch {
	case s.First == s.Last:
		return first.String()
	case s.First&0xff == 0 && s.Last == s.First|0xff:
		first.ICMP.Code = nil
		return first.String()
	}
	return fmt.Sprintf("%s to %s", first, last)
}

// message is the ICMP message of a number.
func message(protocol uint8, n uint16) spec.Service {
	code := uint8(n)
	return spec.Service{Protocol: protocol, ICMP: &spec.ICMP{Type: uint8(n >> 8), Code: &code}}
}

func isICMP(protocol uint8) bool {
	return protocol == spec.ProtocolICMP || protocol == spec.ProtocolICMPv6
}

// wholeOf is the span of all that a protocol has.
func wholeOf(protocol uint8) Span {
	switch protocol {
	case spec.ProtocolTCP, spec.ProtocolUDP, spec.ProtocolSCTP:
		return Span{protocol, 1, 65535}
	case spec.ProtocolICMP, spec.ProtocolICMPv6:
		return Span{protocol, 0, 65535}
	}
	return Span{Protocol: protocol}
}

// spanOf is what a service, which has no name, is about.
func spanOf(s spec.Service) Span {
	whole := wholeOf(s.Protocol)
	switch {
	case s.ICMP != nil && s.ICMP.Code != nil:
		n := uint16(s.ICMP.Type)<<8 | uint16(*s.ICMP.Code)
		return Span{s.Protocol, n, n}
	case s.ICMP != nil:
		n := uint16(s.ICMP.Type) << 8
		return Span{s.Protocol, n, n | 0xff}
	case !s.Ports.IsZero():
		return Span{s.Protocol, s.Ports.First, s.Ports.Last}
	}
	return whole
}

// Reach is what passes between two ends in a family, exactly.
type Reach struct {
	Allowed, Denied []Span
}

// String lists what is allowed, or what is not, whichever is shorter: "all",
// "-", "5432/tcp", "all but 22/tcp".
func (r Reach) String() string {
	switch {
	case len(r.Denied) == 0:
		return "all"
	case len(r.Allowed) == 0:
		return "-"
	case len(r.Allowed) <= len(r.Denied):
		return spansText(r.Allowed)
	}
	return "all but " + spansText(r.Denied)
}

func spansText(list []Span) string {
	texts := make([]string, len(list))
	for i, s := range list {
		texts[i] = s.String()
	}
	return enumerate(texts)
}

// ServicesText lists services as a rule has them.
func ServicesText(services []spec.Service) string {
	texts := make([]string, len(services))
	for i, s := range services {
		texts[i] = s.String()
	}
	return enumerate(texts)
}

// enumerate lists services. A message of both families is one word there, too.
func enumerate(texts []string) string {
	var out []string
	for _, text := range texts {
		if message, ok := strings.CutSuffix(text, "/icmp"); ok && slices.Contains(texts, text+"v6") {
			text = message
		} else if of4, ok := strings.CutSuffix(text, "v6"); ok && strings.HasSuffix(of4, "/icmp") && slices.Contains(texts, of4) {
			continue
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

// unite is what passes in one of two families. It returns false where they
// differ in more than ICMP, which is another protocol in each.
func unite(a, b Reach) (Reach, bool) {
	icmp := func(s Span) bool { return isICMP(s.Protocol) }
	rest := func(list []Span) []Span { return slices.DeleteFunc(slices.Clone(list), icmp) }
	if !slices.Equal(rest(a.Allowed), rest(b.Allowed)) || !slices.Equal(rest(a.Denied), rest(b.Denied)) {
		return Reach{}, false
	}
	both := func(a, b []Span) []Span {
		list := append(slices.Clone(a), slices.DeleteFunc(slices.Clone(b), func(s Span) bool { return !icmp(s) })...)
		slices.SortStableFunc(list, compareSpans)
		return list
	}
	return Reach{both(a.Allowed, b.Allowed), both(a.Denied, b.Denied)}, true
}

// compareSpans is the order in which spans are listed: by protocol, and what is
// not told apart last.
func compareSpans(a, b Span) int {
	order := func(s Span) int {
		if i := slices.Index([]uint8{spec.ProtocolTCP, spec.ProtocolUDP, spec.ProtocolSCTP, spec.ProtocolICMP, spec.ProtocolICMPv6}, s.Protocol); i >= 0 {
			return i
		}
		return 5 + int(s.Protocol-1) // 0 becomes the greatest
	}
	if n := order(a) - order(b); n != 0 {
		return n
	}
	return int(a.First) - int(b.First)
}

// parts divides all that can be asked for in a family into spans in which
// nothing differs for any of the given ones.
func parts(f spec.Family, critical []Span) []Span {
	starts := make(map[uint8][]uint16)
	for _, p := range []uint8{spec.ProtocolTCP, spec.ProtocolUDP, spec.ProtocolSCTP, icmpOf(f), 0} {
		starts[p] = []uint16{wholeOf(p).First}
	}
	for _, s := range critical {
		if isOtherFamily(s.Protocol, f) {
			continue
		}
		whole := wholeOf(s.Protocol)
		starts[s.Protocol] = append(starts[s.Protocol], s.First)
		if s.Last < whole.Last {
			starts[s.Protocol] = append(starts[s.Protocol], s.Last+1)
		}
	}
	var out []Span
	for p, list := range starts {
		slices.Sort(list)
		list = slices.Compact(list)
		for i, first := range list {
			last := wholeOf(p).Last
			if i+1 < len(list) {
				last = list[i+1] - 1
			}
			out = append(out, Span{p, first, last})
		}
	}
	slices.SortFunc(out, compareSpans)
	return out
}

// appendSpan appends a span to those before it, and joins it with the last one
// where nothing is between them.
func appendSpan(list []Span, s Span) []Span {
	if n := len(list); n > 0 && list[n-1].Protocol == s.Protocol && list[n-1].Last+1 == s.First {
		list[n-1].Last = s.Last
		return list
	}
	return append(list, s)
}

// withoutLike drops protocols without ports where all that are not told apart
// are in the list, too.
func withoutLike(list []Span) []Span {
	if n := len(list); n == 0 || list[n-1].Protocol != 0 {
		return list
	}
	return slices.DeleteFunc(list, func(s Span) bool { return s.Protocol != 0 && s == Span{Protocol: s.Protocol} })
}

// flow is one of the flows of a span. Of the protocols that are not told apart
// it takes one that none of the parts is of.
func (s Span) flow(parts []Span) Flow {
	f := Flow{Protocol: s.Protocol}
	switch {
	case s.Protocol == 0:
		for f.Protocol = 254; slices.ContainsFunc(parts, func(o Span) bool { return o.Protocol == f.Protocol }); f.Protocol-- {
			continue
		}
	case isICMP(s.Protocol):
		f.Type, f.Code = uint8(s.First>>8), uint8(s.First)
	default:
		f.Port = s.First
	}
	return f
}
