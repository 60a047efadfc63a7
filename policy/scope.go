package policy

import (
	"slices"
	"strings"

	"github.com/poldernet/polder/spec"
	"github.com/poldernet/polder/spec/selector"
)

// scope says who is meant: endpoints, by their labels, those of their
// namespaces, and their ports. The zero scope means all.
type scope struct {
	namespace  string             // in this one; "": in any
	namespaces *selector.Selector // by their labels; nil: in any
	labels     *selector.Selector // nil: any
	port       string             // with a port of this name; "": any
	protocol   uint8              // of the port
}

// subjectScope is whom a policy with a selector is about.
func subjectScope(p *spec.Policy) scope {
	return scope{namespace: p.Namespace, namespaces: p.NamespaceSelector, labels: p.Selector}
}

// peerScope is whom a selector of a policy's rules means.
func peerScope(p *spec.Policy, s *spec.PeerSelector) scope {
	if s.Namespaces != nil {
		return scope{namespaces: s.Namespaces, labels: s.Selector}
	}
	return scope{namespace: p.Namespace, labels: s.Selector}
}

// within says that an endpoint is meant by a scope.
func (m *Model) within(s scope, e *spec.Endpoint) bool {
	if s.namespace != "" && s.namespace != e.Namespace || s.labels != nil && !s.labels.Matches(e.Labels) {
		return false
	}
	if s.namespaces != nil && !s.namespaces.Matches(m.namespaces[e.Namespace]) {
		return false
	}
	if s.port == "" {
		return true
	}
	p, ok := e.Ports[s.port]
	return ok && protocolNumber(p.Protocol) == s.protocol
}

// text identifies a scope of labels and namespaces: equal texts mean the same
// of all inventories.
func (s scope) text() string {
	var parts []string
	switch {
	case s.namespaces != nil:
		parts = append(parts, "namespaces", s.namespaces.String())
	case s.namespace != "":
		parts = append(parts, "namespace", s.namespace)
	}
	if s.labels != nil && !s.labels.IsAll() {
		parts = append(parts, "endpoints", s.labels.String())
	}
	return strings.Join(parts, "\x00")
}

// token is something that an endpoint has and that a scope may ask for: a label
// with its value, or with any value; with the namespace where that is one.
type token struct {
	kind       tokenKind
	namespace  string // "": any
	key, value string
}

type tokenKind uint8

const (
	tokenPlace          tokenKind = iota // to be in the namespace
	tokenValue                           // to have the label, with the value
	tokenKey                             // to have the label
	tokenNamespaceValue                  // to be in a namespace that has it
	tokenNamespaceKey
	tokenPort
)

// tokens are such that whoever is in the scope has at least one of them. They
// are as rare as can be told from the selectors.
func (s scope) tokens() []token {
	if s.port != "" {
		return []token{{kind: tokenPort, key: s.port}}
	}
	places, placed := s.places()
	place := ""
	if len(places) == 1 {
		place = places[0]
	}
	if r, ok := rarest(s.labels); ok {
		if r.Values == nil {
			return []token{{tokenKey, place, r.Key, ""}}
		}
		list := make([]token, len(r.Values))
		for i, v := range r.Values {
			list[i] = token{tokenValue, place, r.Key, v}
		}
		return list
	}
	if placed {
		list := make([]token, len(places))
		for i, name := range places {
			list[i] = token{kind: tokenPlace, namespace: name}
		}
		return list
	}
	if r, ok := rarest(s.namespaces); ok {
		if r.Values == nil {
			return []token{{kind: tokenNamespaceKey, key: r.Key}}
		}
		list := make([]token, len(r.Values))
		for i, v := range r.Values {
			list[i] = token{kind: tokenNamespaceValue, key: r.Key, value: v}
		}
		return list
	}
	return []token{{}}
}

// places are the only namespaces that the scope can mean, and false if it can
// mean any.
func (s scope) places() ([]string, bool) {
	if s.namespace != "" {
		return []string{s.namespace}, true
	}
	for _, r := range s.namespaces.Restrictions() {
		if r.Key == spec.NamespaceLabel && r.Values != nil {
			return r.Values, true
		}
	}
	return nil, false
}

// rarest is the restriction of labels that is most likely to be rare: one of
// few values rather than of any.
func rarest(s *selector.Selector) (selector.Restriction, bool) {
	list := s.Restrictions()
	if len(list) == 0 {
		return selector.Restriction{}, false
	}
	return slices.MinFunc(list, func(a, b selector.Restriction) int {
		if (a.Values == nil) != (b.Values == nil) {
			if b.Values == nil {
				return -1
			}
			return 1
		}
		return len(a.Values) - len(b.Values)
	}), true
}

// held are the tokens that an endpoint has.
func (m *Model) held(e *spec.Endpoint, yield func(token)) {
	for _, place := range []string{"", e.Namespace} {
		yield(token{kind: tokenPlace, namespace: place})
		for k, v := range e.Labels {
			yield(token{tokenValue, place, k, v})
			yield(token{tokenKey, place, k, ""})
		}
	}
	for k, v := range m.namespaces[e.Namespace] {
		yield(token{kind: tokenNamespaceValue, key: k, value: v})
		yield(token{kind: tokenNamespaceKey, key: k})
	}
	for name := range e.Ports {
		yield(token{kind: tokenPort, key: name})
	}
}

// register finds those whose scopes an endpoint may be in, by its tokens.
type register[T comparable] map[token][]T

func (r register[T]) add(v T, scopes ...scope) {
	for t := range wanted(scopes) {
		r[t] = append(r[t], v)
	}
}

func (r register[T]) remove(v T, scopes ...scope) {
	for t := range wanted(scopes) {
		list := r[t]
		i := slices.Index(list, v)
		last := len(list) - 1
		list[i] = list[last]
		clear(list[last:])
		if r[t] = list[:last]; last == 0 {
			delete(r, t)
		}
	}
}

// candidates gives some of them twice.
func (r register[T]) candidates(m *Model, e *spec.Endpoint, yield func(T)) {
	m.held(e, func(t token) {
		for _, v := range r[t] {
			yield(v)
		}
	})
}

// wanted are the tokens of scopes, each once.
func wanted(scopes []scope) map[token]bool {
	found := make(map[token]bool, len(scopes))
	for _, s := range scopes {
		for _, t := range s.tokens() {
			found[t] = true
		}
	}
	return found
}
