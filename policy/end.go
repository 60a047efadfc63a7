package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/poldernet/polder/spec"
)

// Question is what somebody wants to know: whether From reaches To by a service.
type Question struct {
	From, To spec.End
	// Services has more than one only where each is of another family: one ICMP
	// message has two protocols.
	Services []spec.Service
	// FromInterface and ToInterface are as in Flow.
	FromInterface, ToInterface string
}

// Service is what is asked for, as Ask reads it.
func (q Question) Service() string {
	switch len(q.Services) {
	case 0:
		return "nothing"
	case 1:
		return q.Services[0].String()
	}
	return "icmp" // no other message that begins a conversation is in both families
}

// Ask reads a question: ends as in a check, or only the name of an endpoint or
// node; and a service as in a check. Names of ports are those of To.
func (m *Model) Ask(from, to, service string) (Question, error) {
	var q Question
	var err error
	if q.From, err = m.parseEnd(from); err != nil {
		return q, err
	}
	if q.To, err = m.parseEnd(to); err != nil {
		return q, err
	}
	if q.Services, err = spec.ParseServices(service); err != nil {
		return q, fmt.Errorf("%q is nothing to ask for: %w", service, err)
	}
	if name := q.Services[0].Name; name != "" {
		port, ok := m.portsOf(q.To)[name]
		switch {
		case !ok:
			return q, fmt.Errorf("%s has no port named %q", q.To, name)
		case q.Services[0].Protocol != 0 && q.Services[0].Protocol != port.ProtocolNumber():
			return q, fmt.Errorf("the port %q of %s is %s", name, q.To, port)
		}
		q.Services = []spec.Service{{Protocol: port.ProtocolNumber(), Ports: spec.PortRange{First: port.Number, Last: port.Number}}}
	}
	return q, nil
}

// parseEnd reads an end that must be there.
func (m *Model) parseEnd(text string) (spec.End, error) {
	end, err := spec.ParseEnd(text)
	if err == nil {
		if (end.Kind == spec.EndEndpoint && m.endpointNamed(end.Name) == nil) || (end.Kind == spec.EndNode && m.spec.Node(end.Name) == nil) {
			return end, m.suggest(end.Kind, end.Name, text, fmt.Errorf("there is no %s named %q", end.Kind, end.Name))
		}
		return end, nil
	}
	isEndpoint, isNode := m.endpointNamed(text) != nil, m.spec.Node(text) != nil
	switch {
	case isEndpoint && isNode:
		return end, fmt.Errorf("there are both endpoint.%s and node.%s", text, text)
	case isEndpoint:
		return spec.End{Kind: spec.EndEndpoint, Name: text}, nil
	case isNode:
		return spec.End{Kind: spec.EndNode, Name: text}, nil
	}
	return end, m.suggest(spec.EndEndpoint, text, text, fmt.Errorf("there is no endpoint and no node named %q, and %w", text, err))
}

// suggest adds to an error about an end's name which one may have been meant.
func (m *Model) suggest(kind spec.EndKind, name, text string, err error) error {
	if pods := m.podsNamed(name); kind == spec.EndEndpoint && len(pods) > 0 {
		const most = 5
		more := ""
		if n := len(pods) - most; n > 0 {
			pods, more = pods[:most], fmt.Sprintf(", or one of %d more", n)
		}
		return fmt.Errorf("%w; did you mean %s%s?", err, strings.Join(pods, " or "), more)
	}
	var names []string
	add := func(kind spec.EndKind, name string) {
		names = append(names, name, spec.End{Kind: kind, Name: name}.String())
	}
	for _, e := range m.spec.Endpoints {
		add(spec.EndEndpoint, e.Name)
	}
	for _, n := range m.spec.Nodes {
		add(spec.EndNode, n.Name)
	}
	if near := spec.Nearest(text, names); near != "" {
		return fmt.Errorf("%w; did you mean %s?", err, near)
	}
	if kind == spec.EndEndpoint && m.spec.Kubernetes != nil && strings.Contains(name, "/") {
		return fmt.Errorf("%w; a pod in the network of its node counts as that node, and one that has ended as nothing", err)
	}
	return err
}

// podsNamed are the pods of that name, of all namespaces.
func (m *Model) podsNamed(name string) (pods []string) {
	for _, e := range m.spec.Endpoints {
		if strings.HasSuffix(e.Name, "/"+name) {
			pods = append(pods, e.Name)
		}
	}
	slices.Sort(pods)
	return pods
}

func (m *Model) endpointNamed(name string) *spec.Endpoint {
	for _, e := range m.spec.Endpoints {
		if e.Name == name {
			return e
		}
	}
	return nil
}

// portsOf are the named ports of an end. A node has those of its host endpoints.
func (m *Model) portsOf(end spec.End) map[string]spec.Port {
	ports := make(map[string]spec.Port)
	switch end.Kind {
	case spec.EndEndpoint:
		return m.endpointNamed(end.Name).Ports
	case spec.EndNode:
		for _, h := range m.spec.HostEndpoints {
			for name, port := range h.Ports {
				if h.Node == end.Name {
					ports[name] = port
				}
			}
		}
	case spec.EndAddress, spec.EndOutside:
	}
	return ports
}

// Answer judges the flows that a question is about: those between any addresses
// of both ends, in each family that both have.
func (m *Model) Answer(q Question) ([]Decision, error) {
	var out []Decision
	for _, f := range spec.Families {
		for _, from := range m.addresses(q.From, f) {
			for _, to := range m.addresses(q.To, f) {
				for _, s := range q.Services {
					if isOtherFamily(s.Protocol, f) {
						continue
					}
					flow := Flow{From: from, To: to, Protocol: s.Protocol, Port: s.Ports.First, FromInterface: q.FromInterface, ToInterface: q.ToInterface}
					if s.ICMP != nil {
						flow.Type = s.ICMP.Type
						if s.ICMP.Code != nil {
							flow.Code = *s.ICMP.Code
						}
					}
					out = append(out, m.Evaluate(flow))
				}
			}
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s and %s have no addresses of one family in which there is %s", q.From, q.To, q.Service())
	}
	return out, nil
}

// isOtherFamily says that a protocol is only for the family that is not f.
func isOtherFamily(protocol uint8, f spec.Family) bool { return protocol == icmpOf(f.Other()) }

// addresses are those of an end in a family.
func (m *Model) addresses(end spec.End, f spec.Family) []netip.Addr {
	var list []netip.Addr
	switch end.Kind {
	case spec.EndEndpoint:
		if e := m.endpointNamed(end.Name); e != nil {
			list = slices.Clone(e.Addresses)
		}
	case spec.EndNode:
		if n := m.spec.Node(end.Name); n != nil {
			list = NodeAddresses(n)
		}
	case spec.EndAddress:
		list = []netip.Addr{end.Address}
	case spec.EndOutside:
		list = []netip.Addr{m.Outside(f)}
	}
	return slices.DeleteFunc(list, func(a netip.Addr) bool { return !a.IsValid() || spec.FamilyOf(a) != f })
}
