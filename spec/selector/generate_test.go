package selector_test

import (
	"slices"
	"strings"

	"pgregory.net/rapid"

	"github.com/poldernet/polder/spec/selector"
)

// expr is an expression in the words of the language's description, one
// operator for each of them. It knows nothing of canonical forms.
type expr struct {
	op     string // "&&", "||", "!", "(", "all", "has", or an operator of tests
	key    string
	values []string
	parts  []expr
}

var (
	keys   = []string{"a", "b", "in", "not", "has", "app.kubernetes.io/name"}
	values = []string{"", "x", "y", "xy", "yx", "xyx", "it's", `say "x"`, `\`, "in", "é", "&& !"}
)

func genLabels() *rapid.Generator[selector.Labels] {
	return rapid.Custom(func(t *rapid.T) selector.Labels {
		return rapid.MapOfN(rapid.SampledFrom(keys), rapid.SampledFrom(values), 0, len(keys)).Draw(t, "labels")
	})
}

func genExpr(depth int) *rapid.Generator[expr] {
	test := rapid.Custom(func(t *rapid.T) expr {
		e := expr{
			op: rapid.SampledFrom([]string{
				"all", "has", "has", "==", "==", "!=", "in", "in", "not in", "contains", "starts with", "ends with",
			}).Draw(t, "test"),
			key: rapid.SampledFrom(keys).Draw(t, "key"),
		}
		n := 1
		if e.op == "in" || e.op == "not in" {
			n = rapid.IntRange(0, 4).Draw(t, "size")
		}
		e.values = rapid.SliceOfN(rapid.SampledFrom(values), n, n).Draw(t, "values")
		return e
	})
	if depth == 0 {
		return test
	}
	deeper := rapid.Custom(func(t *rapid.T) expr {
		op := rapid.SampledFrom([]string{"&&", "||", "&&", "||", "!", "("}).Draw(t, "operator")
		n := 1
		if op == "&&" || op == "||" {
			n = rapid.IntRange(2, 4).Draw(t, "operands")
		}
		return expr{op: op, parts: rapid.SliceOfN(genExpr(depth-1), n, n).Draw(t, "parts")}
	})
	return rapid.OneOf(deeper, deeper, test)
}

// holds is the description's meaning.
func (e expr) holds(l selector.Labels) bool {
	value, present := l[e.key]
	switch e.op {
	case "all":
		return true
	case "has":
		return present
	case "==":
		return present && value == e.values[0]
	case "!=":
		return !present || value != e.values[0]
	case "in":
		return present && slices.Contains(e.values, value)
	case "not in":
		return !present || !slices.Contains(e.values, value)
	case "contains":
		return present && len(strings.Split(value, e.values[0])) > 1 || present && e.values[0] == ""
	case "starts with":
		return present && strings.Index(value+"\x00", e.values[0]) == 0
	case "ends with":
		return present && len(value) >= len(e.values[0]) && value[len(value)-len(e.values[0]):] == e.values[0]
	case "!":
		return !e.parts[0].holds(l)
	case "(":
		return e.parts[0].holds(l)
	}
	trues := 0
	for _, p := range e.parts {
		if p.holds(l) {
			trues++
		}
	}
	return e.op == "&&" && trues == len(e.parts) || e.op == "||" && trues > 0
}

// strength orders operators, for the brackets that text needs.
var strength = map[string]int{"||": 1, "&&": 2, "!": 3}

func (e expr) strength() int {
	if s, ok := strength[e.op]; ok {
		return s
	}
	return 4
}

// text writes an expression in one of the many ways.
func (e expr) text(t *rapid.T) string {
	space := func(least int) string {
		return strings.Repeat(rapid.SampledFrom([]string{" ", "\t"}).Draw(t, "blank"), rapid.IntRange(least, 2).Draw(t, "blanks"))
	}
	quoted := func(value string) string {
		quotes := []string{`"`, "'"}
		quotes = slices.DeleteFunc(quotes, func(q string) bool { return strings.Contains(value, q) })
		q := rapid.SampledFrom(quotes).Draw(t, "quote")
		return q + value + q
	}
	switch e.op {
	case "all":
		return "all" + "(" + space(0) + ")"
	case "has":
		return "has(" + space(0) + e.key + space(0) + ")"
	case "(":
		return "(" + space(0) + e.parts[0].text(t) + space(0) + ")"
	case "!":
		return "!" + space(0) + e.operand(t, e.parts[0])
	case "&&", "||":
		var b strings.Builder
		for i, p := range e.parts {
			if i > 0 {
				b.WriteString(space(0) + e.op + space(0))
			}
			b.WriteString(e.operand(t, p))
		}
		return b.String()
	case "==", "!=":
		return e.key + space(0) + e.op + space(0) + quoted(e.values[0])
	case "in", "not in":
		op := e.op
		if op == "not in" {
			op = "not" + space(0) + "in"
		}
		list := make([]string, len(e.values))
		for i, v := range e.values {
			list[i] = space(0) + quoted(v) + space(0)
		}
		set := strings.Join(list, ",")
		if len(list) > 0 && rapid.Bool().Draw(t, "trailing comma") {
			set += ","
		}
		return e.key + space(1) + op + space(0) + "{" + set + space(0) + "}"
	}
	op := e.op
	if first, second, ok := strings.Cut(op, " "); ok {
		op = first + space(0) + second
	}
	return e.key + space(1) + op + space(0) + quoted(e.values[0])
}

// operand writes a part of e, in brackets where it must be.
func (e expr) operand(t *rapid.T, part expr) string {
	text := part.text(t)
	if part.strength() <= e.strength() && !(part.op == "!" && e.op == "!") {
		return "(" + text + ")"
	}
	return text
}

// build makes the expression by the constructors, where there are some.
func (e expr) build(t *rapid.T) *selector.Selector {
	switch e.op {
	case "all":
		return selector.All()
	case "has":
		return selector.Has(e.key)
	case "==":
		return selector.Equals(e.key, e.values[0])
	case "in":
		return selector.In(e.key, e.values...)
	case "!=", "not in":
		return selector.NotIn(e.key, e.values...)
	case "!":
		return selector.Not(e.parts[0].build(t))
	case "(":
		return e.parts[0].build(t)
	case "&&", "||":
		parts := make([]*selector.Selector, len(e.parts))
		for i, p := range e.parts {
			if parts[i] = p.build(t); e.op == "||" {
				parts[i] = selector.Not(parts[i])
			}
		}
		if e.op == "||" {
			return selector.Not(selector.And(parts...))
		}
		return selector.And(parts...)
	}
	return parse(t, e.text(t))
}

// shuffled is the expression with operands and values in another order, some of
// them twice.
func (e expr) shuffled(t *rapid.T) expr {
	again := rapid.IntRange(0, 1).Draw(t, "again")
	if len(e.parts) > 1 {
		e.parts = rapid.Permutation(append(e.parts[:again:again], e.parts...)).Draw(t, "operands")
	}
	if (e.op == "in" || e.op == "not in") && len(e.values) > 0 {
		e.values = rapid.Permutation(append(e.values[:again:again], e.values...)).Draw(t, "values")
	}
	e.parts = slices.Clone(e.parts)
	for i := range e.parts {
		e.parts[i] = e.parts[i].shuffled(t)
	}
	return e
}
