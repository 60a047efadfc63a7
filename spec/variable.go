package spec

import (
	"maps"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// variables decodes the variable blocks and gives each its value. A variable
// whose value is wrong becomes unknown, which hides what depends on it.
func (d *decoder) variables(blocks hcl.Blocks, in Inputs, files map[string]*hcl.File) map[string]cty.Value {
	givens, diags := in.values(d.reader, files)
	d.diags = append(d.diags, diags...)

	// Every declared variable gets an entry, if only an unknown one: a
	// reference to it is right, whatever its own block has wrong.
	vals := make(map[string]cty.Value, len(blocks))
	first := make(map[string]place, len(blocks))
	var validations []validation
	for _, b := range blocks {
		name, at := b.Labels[0], place{rng: b.LabelRanges[0]}
		if before, ok := first[name]; ok {
			d.report(at.problem("Duplicate variable", "The variable %q is declared at %s already.", name, before))
			continue
		}
		first[name] = at
		s := d.open(variableBlock, b.Body, b.DefRange, d.ctx)
		s.text("description", "") // for people; its type is checked
		for _, b := range s.blocks[validationBlock.name] {
			validations = append(validations, validation{name, at, b})
		}
		g, ok := givens[name]
		vals[name] = s.variable(name, at, g, ok, files)
	}
	names := slices.Sorted(maps.Keys(vals))
	for _, name := range slices.Sorted(maps.Keys(givens)) {
		g := givens[name]
		if _, ok := vals[name]; ok || !g.must {
			continue
		}
		d.report(g.problem("Undeclared variable", "%s gives a value to the variable %q, and the spec has no variable block of that name.%s",
			g.origin, name, didYouMean(name, names)))
	}
	ctx := scope(d.ctx, "var", vals)
	// After all values are there: a rule may compare variables.
	for _, v := range validations {
		d.checkVariable(v, ctx)
	}
	return vals
}

// variable is the value of one variable: the given one, else the default. The
// default is checked also where it is not used.
func (s *section) variable(name string, at place, g given, isGiven bool, files map[string]*hcl.File) cty.Value {
	// The type is an expression in a language of its own, and is not evaluated.
	typ, defaults, typed := cty.DynamicPseudoType, (*typeexpr.Defaults)(nil), false
	if attr := s.attrs["type"]; attr != nil {
		var diags hcl.Diagnostics
		if typ, defaults, diags = typeexpr.TypeConstraintWithDefaults(attr.Expr); diags.HasErrors() {
			s.diags = append(s.diags, diags...)
			return cty.DynamicVal
		}
		typed = true
	}
	// conform converts to the variable's type. Optional attributes get their
	// defaults before, since conversion would make them null.
	conform := func(v value, what string) cty.Value {
		if defaults != nil && !v.IsNull() {
			v.Value = defaults.Apply(v.Value)
		}
		converted, err := convert.Convert(v.Value, typ)
		if err != nil {
			diag := v.problem("Unsuitable value for variable", "The variable %q is a %s, and %s is not: %s.", name, typeexpr.TypeString(typ), what, err)
			// What the command line gives is shown beside the variable.
			if !v.inFile() {
				diag.Subject = at.rng.Ptr()
			}
			s.report(diag)
			return cty.DynamicVal
		}
		return converted
	}
	def, st := s.get("default")
	if s.attrs["default"] != nil && st == absent {
		def.Value, st = cty.NullVal(typ), known // a default of null is one
	}
	if st == known {
		def.Value = conform(def, "its default")
	}
	switch {
	case isGiven:
		val, diags := g.value(typ, typed, files)
		s.diags = append(s.diags, diags...)
		if diags.HasErrors() {
			return cty.DynamicVal
		}
		return conform(value{val, g.place}, "the value given by "+g.origin)
	case st == known:
		return def.Value
	case st == absent:
		s.report(at.problem("Variable without a value",
			"The variable %q has no default, and no value was given. Give one by --var %s=VALUE, by a file named with --var-file, or by the environment variable %s%s.",
			name, name, envPrefix, name))
	}
	return cty.DynamicVal
}

// validation is a validation block and the variable that it is of.
type validation struct {
	variable string
	at       place
	block    *hcl.Block
}

// checkVariable evaluates a validation block. A condition that depends on a
// variable without a value is unknown, and says nothing.
func (d *decoder) checkVariable(v validation, ctx *hcl.EvalContext) {
	s := d.open(validationBlock, v.block.Body, v.block.DefRange, ctx)
	condition, st := s.get("condition")
	message, _, textState := s.text("error_message", "")
	if st != known || textState != known || condition.True() {
		return
	}
	diag := v.at.problem("Unsuitable value for variable", "%s\nThe rule is the validation block at %s.", message, s.place)
	diag.Expression, diag.EvalContext = condition.expr, ctx
	d.report(diag)
}
