package spec

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// icmpTypes are the types of messages of a family, by nft's names for them.
type icmpTypes struct {
	protocol uint8
	names    map[string]uint8
	// begin are the types that begin a conversation. Connection tracking takes
	// any other for an answer, for an error about another connection, or for
	// invalid (valid_new in net/netfilter/nf_conntrack_proto_icmp.c, and the
	// file for ICMPv6 beside it).
	begin   []uint8
	errors  []uint8
	answers []uint8
	// link are those of router and neighbour discovery and of multicast
	// listeners, which are about the link and always pass.
	link []uint8
}

var icmpFamilies = [...]icmpTypes{
	{
		protocol: ProtocolICMP,
		names: map[string]uint8{
			"echo-reply": 0, "destination-unreachable": 3, "source-quench": 4, "redirect": 5, "echo-request": 8,
			"router-advertisement": 9, "router-solicitation": 10, "time-exceeded": 11, "parameter-problem": 12,
			"timestamp-request": 13, "timestamp-reply": 14, "info-request": 15, "info-reply": 16,
			"address-mask-request": 17, "address-mask-reply": 18,
		},
		begin:   []uint8{8, 13, 15, 17},
		errors:  []uint8{3, 4, 5, 11, 12},
		answers: []uint8{0, 14, 16, 18},
	},
	{
		protocol: ProtocolICMPv6,
		names: map[string]uint8{
			"destination-unreachable": 1, "packet-too-big": 2, "time-exceeded": 3, "parameter-problem": 4,
			"echo-request": 128, "echo-reply": 129,
			"mld-listener-query": 130, "mld-listener-report": 131, "mld-listener-done": 132,
			"nd-router-solicit": 133, "nd-router-advert": 134, "nd-neighbor-solicit": 135, "nd-neighbor-advert": 136, "nd-redirect": 137, //nolint:misspell // nft's names
			"router-renumbering": 138, "ind-neighbor-solicit": 141, "ind-neighbor-advert": 142, "mld2-listener-report": 143, //nolint:misspell // nft's names
		},
		begin:   []uint8{128, 139}, // 139: a node information query (RFC 4620)
		errors:  []uint8{1, 2, 3, 4},
		answers: []uint8{129, 140},
		link:    []uint8{130, 131, 132, 133, 134, 135, 136, 137, 143},
	},
}

// icmpOf is the family whose messages are of that protocol.
func icmpOf(protocol uint8) *icmpTypes {
	for i := range icmpFamilies {
		if icmpFamilies[i].protocol == protocol {
			return &icmpFamilies[i]
		}
	}
	return nil
}

// name is the name of a type, or its number where it has none.
func (t *icmpTypes) name(number uint8) string {
	for name, n := range t.names {
		if n == number {
			return name
		}
	}
	return strconv.Itoa(int(number))
}

// beginning are the types that begin a conversation, as in a spec.
func (t *icmpTypes) beginning() string {
	list := make([]string, len(t.begin))
	for i, n := range t.begin {
		list[i] = Service{Protocol: t.protocol, ICMP: &ICMP{Type: n}}.String()
	}
	return enumerate(list)
}

// text is the type and the code, as in a spec.
func (i *ICMP) text(protocol uint8) string {
	text := strconv.Itoa(int(i.Type))
	if t := icmpOf(protocol); t != nil {
		text = t.name(i.Type)
	}
	if i.Code != nil {
		text += ":" + strconv.Itoa(int(*i.Code))
	}
	return text
}

// parseICMP reads "echo-request", which is of each family that has the type,
// and "echo-request/icmp", "139:1/icmpv6", which are of one. Behind the colon is
// the code.
func parseICMP(s string) ([]Service, error) {
	text, protocol, of := strings.Cut(s, "/")
	text, codeText, withCode := strings.Cut(text, ":")
	var code *uint8
	if withCode {
		n, err := strconv.ParseUint(codeText, 10, 8)
		if err != nil {
			return nil, errors.New("an ICMP code is a number from 0 to 255")
		}
		c := uint8(n)
		code = &c
	}
	if of {
		t := icmpOf(protocols[protocol])
		if t == nil {
			return nil, errors.New("the protocol must be icmp or icmpv6")
		}
		number, err := t.parse(text)
		if err != nil {
			return nil, err
		}
		if err := t.begins(number); err != nil {
			return nil, err
		}
		return []Service{{Protocol: t.protocol, ICMP: &ICMP{number, code}}}, nil
	}
	if text != "" && strings.Trim(text, digits) == "" {
		return nil, fmt.Errorf("types of ICMP and of ICMPv6 have different numbers; write %s/icmp or %s/icmpv6", s, s)
	}
	var out []Service
	var wrong error
	for i := range icmpFamilies {
		t := &icmpFamilies[i]
		number, ok := t.names[text]
		if !ok {
			continue
		}
		if wrong = t.begins(number); wrong == nil {
			out = append(out, Service{Protocol: t.protocol, ICMP: &ICMP{number, code}})
		}
	}
	switch {
	case len(out) > 0:
		return out, nil
	case wrong != nil:
		return nil, wrong
	}
	return nil, fmt.Errorf("it is no name of an ICMP type, as nft has them. Conversations begin with %s; and with %s", icmpFamilies[0].beginning(), icmpFamilies[1].beginning())
}

// parse reads a type.
func (t *icmpTypes) parse(s string) (uint8, error) {
	if number, ok := t.names[s]; ok {
		return number, nil
	}
	number, err := strconv.ParseUint(s, 10, 8)
	if err != nil {
		return 0, fmt.Errorf("a type of %s is a number from 0 to 255, or a name as nft has it. Conversations begin with %s", protocolName(t.protocol), t.beginning())
	}
	return uint8(number), nil
}

// begins says why no conversation begins with a type.
func (t *icmpTypes) begins(number uint8) error {
	why := "connection tracking takes it for invalid"
	switch {
	case slices.Contains(t.begin, number):
		return nil
	case slices.Contains(t.errors, number):
		why = "an error belongs to the connection that it is about, and passes with it"
	case slices.Contains(t.answers, number):
		why = "an answer belongs to the conversation that the request began, and passes with it"
	case slices.Contains(t.link, number):
		why = "discovery and multicast listeners always pass, since the link does not work without them"
	}
	return fmt.Errorf("no conversation begins with it: %s. Conversations begin with %s", why, t.beginning())
}
