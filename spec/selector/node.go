package selector

import (
	"cmp"
	"slices"
	"strings"
)

// node is an expression in canonical form: only tests are negated, by De
// Morgan's laws; the operands of && and || are sorted, distinct, and neither
// constants nor of the same operator; and a test that asks for what another
// operator says, too, is written with that one (in and has).
type node struct {
	op       op
	negated  bool // of a test; not of && and ||
	key      string
	values   []string // of in: sorted, distinct, not empty; of others: one
	operands []node   // of && and ||: at least two
}

type op uint8

const (
	opAll op = iota
	opHas
	opIn // and ==, with one value
	opContains
	opStartsWith
	opEndsWith
	opAnd
	opOr
)

var everything = node{op: opAll}

func has(key string) node { return node{op: opHas, key: key} }

func in(key string, values []string) node {
	if len(values) == 0 {
		return everything.negation()
	}
	values = slices.Clone(values)
	slices.Sort(values)
	return node{op: opIn, key: key, values: slices.Compact(values)}
}

// part is a test for a part of a value. Each value has the empty part.
func part(op op, key, value string) node {
	if value == "" {
		return has(key)
	}
	return node{op: op, key: key, values: []string{value}}
}

// combine joins expressions by && or ||.
func combine(op op, operands []node) node {
	neutral := node{op: opAll, negated: op == opOr}
	flat := make([]node, 0, len(operands))
	for _, n := range operands {
		switch {
		case n.op == op:
			flat = append(flat, n.operands...)
		case n.op != opAll:
			flat = append(flat, n)
		case n.negated != neutral.negated:
			return n
		}
	}
	slices.SortFunc(flat, node.compare)
	flat = slices.CompactFunc(flat, func(a, b node) bool { return a.compare(b) == 0 })
	switch len(flat) {
	case 0:
		return neutral
	case 1:
		return flat[0]
	}
	return node{op: op, operands: flat}
}

// negation is the expression that is true where n is false.
func (n node) negation() node {
	if n.op != opAnd && n.op != opOr {
		n.negated = !n.negated
		return n
	}
	operands := make([]node, len(n.operands))
	for i, o := range n.operands {
		operands[i] = o.negation()
	}
	return combine(n.op.dual(), operands)
}

// dual is the operator that De Morgan's laws put for && and ||.
func (o op) dual() op {
	if o == opAnd {
		return opOr
	}
	return opAnd
}

// compare is an order: tests by key, then what is in brackets.
func (n node) compare(o node) int {
	if n.isTest() != o.isTest() {
		return truth(o.isTest()) - truth(n.isTest())
	}
	if order := cmp.Or(strings.Compare(n.key, o.key), cmp.Compare(n.op, o.op)); order != 0 {
		return order
	}
	if order := slices.Compare(n.values, o.values); order != 0 {
		return order
	}
	if n.negated != o.negated {
		return truth(n.negated) - truth(o.negated)
	}
	return slices.CompareFunc(n.operands, o.operands, node.compare)
}

func (n node) isTest() bool { return n.op < opAnd }

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (n *node) matches(labels Labels) bool {
	switch n.op {
	case opAll:
		return !n.negated
	case opAnd:
		for i := range n.operands {
			if !n.operands[i].matches(labels) {
				return false
			}
		}
		return true
	case opOr:
		for i := range n.operands {
			if n.operands[i].matches(labels) {
				return true
			}
		}
		return false
	}
	value, present := labels[n.key]
	return (present && n.holds(value)) != n.negated
}

// holds says that a value passes the test, were it not negated.
func (n *node) holds(value string) bool {
	switch n.op {
	case opIn:
		if len(n.values) == 1 {
			return n.values[0] == value
		}
		_, found := slices.BinarySearch(n.values, value)
		return found
	case opContains:
		return strings.Contains(value, n.values[0])
	case opStartsWith:
		return strings.HasPrefix(value, n.values[0])
	case opEndsWith:
		return strings.HasSuffix(value, n.values[0])
	}
	return true // has
}

// restrictions are those that each way to satisfy n has in common, by key.
func (n *node) restrictions() map[string][]string {
	switch n.op {
	case opAnd:
		found := make(map[string][]string)
		for i := range n.operands {
			for key, values := range n.operands[i].restrictions() {
				if known, ok := found[key]; ok {
					values = intersection(known, values)
				}
				found[key] = values
			}
		}
		return found
	case opOr:
		return n.common()
	case opAll:
		return nil
	}
	switch {
	case n.negated:
		return nil
	case n.op == opIn:
		return map[string][]string{n.key: n.values}
	}
	return map[string][]string{n.key: nil}
}

// common are the restrictions of ||: of the keys that each operand restricts,
// all the values.
func (n *node) common() map[string][]string {
	type union struct {
		operands int
		any      bool
		values   []string
	}
	unions := make(map[string]*union)
	for i := range n.operands {
		for key, values := range n.operands[i].restrictions() {
			u := unions[key]
			if u == nil {
				u = &union{values: []string{}}
				unions[key] = u
			}
			u.operands++
			u.any = u.any || values == nil
			u.values = append(u.values, values...)
		}
	}
	found := make(map[string][]string)
	for key, u := range unions {
		if u.operands < len(n.operands) {
			continue
		}
		if u.any {
			u.values = nil
		}
		slices.Sort(u.values)
		found[key] = slices.Compact(u.values)
	}
	return found
}

// intersection is of sorted sets, where nil is the set of everything.
func intersection(a, b []string) []string {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	both := []string{}
	for len(a) > 0 && len(b) > 0 {
		switch order := strings.Compare(a[0], b[0]); {
		case order < 0:
			a = a[1:]
		case order > 0:
			b = b[1:]
		default:
			both = append(both, a[0])
			a, b = a[1:], b[1:]
		}
	}
	return both
}
