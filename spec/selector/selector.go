// Package selector reads and evaluates label selectors in Calico's language:
//
//	app == "web" && tier in {"front", "back"} || !has(canary)
//
// The tests are has(k), k == "v", k != "v", k in {…}, k not in {…},
// k contains "v", k starts with "v", k ends with "v" and all(). A label that is
// absent fails every test but != and not in, which are the negations of == and
// in. Operators by strength are !, && and ||. Calico's global() is left out: it
// is a marker for its compiler, not a test of labels.
//
// An expression is kept in one canonical form, in which it is evaluated,
// printed and compared (node.go).
package selector

import (
	"maps"
	"slices"
	"strings"
)

// Labels are what a Selector is held against.
type Labels map[string]string

// Selector is an expression over labels. It does not change, and may be shared.
// A nil *Selector and the zero Selector are all().
type Selector struct {
	root node
	text string
}

func newSelector(root node) *Selector {
	var b strings.Builder
	root.write(&b)
	return &Selector{root: root, text: b.String()}
}

// tree is the expression, all() for a nil Selector.
func (s *Selector) tree() *node {
	if s == nil {
		return &everything
	}
	return &s.root
}

// String is the canonical text. Selectors with the same text mean the same, so
// that it serves as their identity. Parse reads it back, unless And and Not
// made an expression that is nested more deeply than Parse allows.
func (s *Selector) String() string {
	if s == nil || s.text == "" {
		return "all()"
	}
	return s.text
}

// IsAll says that the Selector is all(), perhaps in other words. It does not
// prove theorems: has(a) || !has(a) is not found out.
func (s *Selector) IsAll() bool {
	n := s.tree()
	return n.op == opAll && !n.negated
}

// Matches says whether labels satisfy the Selector.
func (s *Selector) Matches(labels Labels) bool { return s.tree().matches(labels) }

// The constructors below are for keys and values that were validated as those of
// Kubernetes labels are: a key with other characters than Parse accepts, or a
// value that holds both kinds of quotes, has no text that Parse could read.

// All matches whatever labels.
func All() *Selector { return newSelector(everything) }

// Has matches labels that have the key.
func Has(key string) *Selector { return newSelector(has(key)) }

// Equals matches labels in which key has the value.
func Equals(key, value string) *Selector { return In(key, value) }

// In matches labels in which key has one of the values.
func In(key string, values ...string) *Selector { return newSelector(in(key, values)) }

// NotIn matches labels in which key has none of the values, or is absent.
func NotIn(key string, values ...string) *Selector { return newSelector(in(key, values).negation()) }

// Not matches what s does not match.
func Not(s *Selector) *Selector { return newSelector(s.tree().negation()) }

// And matches what each Selector of the list matches; without any that is
// everything.
func And(list ...*Selector) *Selector {
	operands := make([]node, len(list))
	for i, s := range list {
		operands[i] = *s.tree()
	}
	return newSelector(combine(opAnd, operands))
}

// Restriction is a condition that labels must meet to match a Selector: they
// have the key, with one of the values. Values are sorted; nil allows any value,
// and an empty list that is not nil allows none.
type Restriction struct {
	Key    string
	Values []string
}

// Restrictions are conditions that all labels meet which match, at most one for
// each key, sorted by key. Labels that meet them need not match.
func (s *Selector) Restrictions() []Restriction {
	found := s.tree().restrictions()
	list := make([]Restriction, 0, len(found))
	for _, key := range slices.Sorted(maps.Keys(found)) {
		list = append(list, Restriction{Key: key, Values: slices.Clone(found[key])})
	}
	return list
}
