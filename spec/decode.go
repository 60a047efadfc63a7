package spec

import (
	"fmt"
	"math"
	"math/big"
	"strconv"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// place is where in a file something was said, for messages about it.
type place struct {
	rng  hcl.Range
	expr hcl.Expression   // nil for labels and blocks
	ctx  *hcl.EvalContext // in which expr was evaluated
}

// problem is an error that points at the place.
func (p place) problem(summary, format string, args ...any) *hcl.Diagnostic {
	diag := &hcl.Diagnostic{
		Severity:    hcl.DiagError,
		Summary:     summary,
		Detail:      fmt.Sprintf(format, args...),
		Expression:  p.expr,
		EvalContext: p.ctx,
	}
	if p.inFile() {
		diag.Subject = p.rng.Ptr()
	}
	return diag
}

// inFile is false for what no file said: defaults, and the command line.
func (p place) inFile() bool { return p.rng.Filename != "" }

func (p place) String() string { return FileLine(p.rng) }

// FileLine is where a range begins, as "file:line", which terminals and editors
// open. hcl.Range's own String is not that form. What is named and has no lines, as an
// object of Kubernetes, stands alone.
func FileLine(r hcl.Range) string {
	if r.Start.Line == 0 {
		return r.Filename
	}
	return fmt.Sprintf("%s:%d", r.Filename, r.Start.Line)
}

// state says what is known of an attribute. An unknown one was given, but a
// mistake that is reported already hides its value: nothing may be concluded
// from it, least of all that it is missing.
type state int

const (
	absent state = iota
	unknown
	known
)

// value is the value of an expression. The zero value, which has no type,
// stands for none.
type value struct {
	cty.Value
	place
}

// decoder collects diagnostics, so that decoding goes on after the first
// mistake: a user who has ten wants to hear of ten.
type decoder struct {
	diags  hcl.Diagnostics
	path   string // that the user gave
	base   string // folder from which names of files are taken
	reader *reader
	files  map[string]*hcl.File // by name, for messages
	ctx    *hcl.EvalContext     // of the file: variables, locals, functions
	// mentions are the names of blocks by which others refer to them.
	mentions []mention
}

func (d *decoder) report(diag *hcl.Diagnostic) { d.diags = append(d.diags, diag) }

// section is the content of one block.
type section struct {
	*decoder
	place  // of the block's header
	schema *block
	ctx    *hcl.EvalContext
	attrs  hcl.Attributes
	blocks map[string]hcl.Blocks
	// garbled is true where something is in the block that does not belong
	// there: what is missing may be there, misspelt.
	garbled bool
}

// open reads a block's body by its schema, and reports what does not belong
// there and what is missing.
func (d *decoder) open(schema *block, body hcl.Body, header hcl.Range, ctx *hcl.EvalContext) *section {
	content, diags := body.Content(schema.hcl)
	d.diags = append(d.diags, diags...)
	s := &section{decoder: d, place: place{rng: header}, schema: schema, ctx: ctx, garbled: diags.HasErrors()}
	if content == nil { // a JSON body that is no object, and reported as such
		return s
	}
	s.attrs = content.Attributes
	if len(content.Blocks) > 0 {
		s.blocks = make(map[string]hcl.Blocks, len(schema.blocks))
		for _, b := range content.Blocks {
			s.blocks[b.Type] = append(s.blocks[b.Type], b)
		}
	}
	if s.garbled {
		return s
	}
	for i := range schema.attrs {
		if a := &schema.attrs[i]; a.required && s.attrs[a.name] == nil {
			in := ""
			if !s.inFile() { // at the top, there is no line to point at
				in = fmt.Sprintf(" in %q", d.path)
			}
			d.report(s.problem("Missing attribute", "%q is required%s. %s", a.name, in, a.wanted()))
		}
	}
	return s
}

// only is the one block of a kind that may occur once, or nil.
func (s *section) only(name string) *hcl.Block {
	blocks := s.blocks[name]
	if len(blocks) == 0 {
		return nil
	}
	for _, b := range blocks[1:] {
		s.report(place{rng: b.DefRange}.problem("Duplicate "+name+" block",
			"There can be one %s block here. The first one is at %s.", name, place{rng: blocks[0].DefRange}))
	}
	return blocks[0]
}

// get evaluates an attribute and converts it to the type of the schema. As
// with Terraform, null is as good as absent.
func (s *section) get(name string) (value, state) {
	given := s.attrs[name]
	if given == nil {
		return value{}, absent
	}
	v := value{place: place{given.Expr.Range(), given.Expr, s.ctx}}
	var ok bool
	if v.Value, ok = s.evaluate(given.Expr, s.ctx); !ok {
		return v, unknown
	}
	attr := s.schema.attr(name)
	if v.IsNull() {
		if attr.required {
			s.report(v.problem("Missing attribute", "%q is required, and null is none. %s", name, attr.wanted()))
			return v, unknown
		}
		return v, absent
	}
	converted, err := convert.Convert(v.Value, attr.typ)
	if err != nil {
		s.report(v.problem("Unsuitable value", "%q must be a %s: %s. %s", name, attr.kind, err, attr.wanted()))
		return v, unknown
	}
	v.Value = converted
	// Variables and locals without a usable value are unknown values, which
	// make whatever is computed from them unknown.
	if !v.IsWhollyKnown() {
		return v, unknown
	}
	return v, known
}

// text is an attribute of type string, or its default.
func (s *section) text(name, def string) (string, place, state) {
	v, st := s.get(name)
	if st != known {
		return def, v.place, st
	}
	return v.AsString(), v.place, known
}

// boolean is an attribute of type bool, or its default.
func (s *section) boolean(name string, def bool) bool {
	v, st := s.get(name)
	if st != known {
		return def
	}
	return v.True()
}

// number is an attribute that is a whole number from lo to hi, or its default.
func (s *section) number(name string, lo, hi, def int) (int, place) {
	v, st := s.get(name)
	if st != known {
		return def, v.place
	}
	n, ok := wholeNumber(v.Value)
	if !ok || n < lo || n > hi {
		s.report(v.problem("Number out of range", "%q must be a whole number from %d to %d, and this is %s.",
			name, lo, hi, numberText(v.Value)))
		return def, v.place
	}
	return n, v.place
}

// oneOf is an attribute that is one of some words, or its default.
func oneOf[T ~string](s *section, name string, def T, words ...T) (T, place, state) {
	text, at, st := s.text(name, "")
	if st != known {
		return def, at, st
	}
	if word, ok := word(s, name, text, at, words); ok {
		return word, at, known
	}
	return def, at, unknown
}

// word is the one of some words that a text is.
func word[T ~string](s *section, name, text string, at place, words []T) (T, bool) {
	var known []string
	for _, w := range words {
		if string(w) == text {
			return w, true
		}
		known = append(known, strconv.Quote(string(w)))
	}
	s.report(at.problem("Unsuitable value", "%q is %s, and this is %q.%s", name, alternatives(known), text, didYouMean(text, texts(words))))
	return "", false
}

// wholeNumber is a number as an int, or false if it is none. HCL's numbers are
// binary floats of 512 bits, so that 1.5 and 1e400 come this far.
func wholeNumber(v cty.Value) (int, bool) {
	n, accuracy := v.AsBigFloat().Int64()
	return int(n), accuracy == big.Exact && n >= math.MinInt && n <= math.MaxInt
}

func numberText(v cty.Value) string { return v.AsBigFloat().Text('f', -1) }

// strings are the elements of a list of strings, each with its own place
// where the list is written out. Null elements are reported and left out,
// which makes the result unknown but usable.
func (s *section) strings(name string) ([]value, place, state) {
	v, st := s.get(name)
	if st != known {
		return nil, v.place, st
	}
	list, complete := s.elements(name, v)
	if !complete {
		return list, v.place, unknown
	}
	return list, v.place, known
}

// elements are the elements of a list, set or tuple. HCL gives the expressions
// of those that are written out, in both syntaxes; a set may have fewer
// elements than were written.
func (s *section) elements(name string, v value) (list []value, complete bool) {
	written, diags := hcl.ExprList(v.expr)
	if diags.HasErrors() || len(written) != v.LengthInt() {
		written = nil // computed: all elements share the expression's place
	}
	complete = true
	i := 0
	for it := v.ElementIterator(); it.Next(); i++ {
		_, element := it.Element()
		at := v.place
		if written != nil {
			at.expr, at.rng = written[i], written[i].Range()
		}
		if element.IsNull() {
			s.report(at.problem("Unsuitable value", "An element of %q is null.", name))
			complete = false
			continue
		}
		list = append(list, value{element, at})
	}
	return list, complete
}

// families is an attribute that is an object with the keys ipv4 and ipv6, its
// values converted to typ. The value of a family that is not given has no
// type.
func (s *section) families(name string, typ cty.Type) (PerFamily[value], state) {
	var out PerFamily[value]
	v, st := s.get(name)
	if st != known {
		return out, st
	}
	attr := s.schema.attr(name)
	if t := v.Type(); !t.IsObjectType() && !t.IsMapType() {
		s.report(v.problem("Unsuitable value", "%q must be an object with the keys ipv4 and ipv6. %s", name, attr.wanted()))
		return out, unknown
	}
	places := s.keyPlaces(v)
	for it := v.ElementIterator(); it.Next(); {
		key, element := it.Element()
		at, ok := places[key.AsString()]
		if !ok {
			at = v.place
		}
		family, ok := familyNamed(key.AsString())
		if !ok {
			s.report(at.problem("Unknown family", "%q has no key %q: the families are ipv4 and ipv6.%s",
				name, key.AsString(), didYouMean(key.AsString(), []string{"ipv4", "ipv6"})))
			st = unknown
			continue
		}
		if element.IsNull() {
			continue
		}
		converted, err := convert.Convert(element, typ)
		if err != nil {
			s.report(at.problem("Unsuitable value", "%s.%s: %s. %s", name, family, err, attr.wanted()))
			st = unknown
			continue
		}
		out.Set(family, value{converted, at})
	}
	return out, st
}

// keyPlaces finds where the values of an object or map are written.
func (s *section) keyPlaces(v value) map[string]place {
	pairs, diags := hcl.ExprMap(v.expr)
	if diags.HasErrors() {
		return nil
	}
	places := make(map[string]place, len(pairs))
	for _, pair := range pairs {
		key, diags := pair.Key.Value(v.ctx)
		if diags.HasErrors() {
			continue
		}
		if key, err := convert.Convert(key, cty.String); err == nil && key.IsKnown() && !key.IsNull() {
			places[key.AsString()] = place{pair.Value.Range(), pair.Value, v.ctx}
		}
	}
	return places
}

// familyNamed is the family that a key of the spec names.
func familyNamed(s string) (Family, bool) {
	for _, f := range Families {
		if f.String() == s {
			return f, true
		}
	}
	return 0, false
}
