package spec

import (
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// evaluate is the value of an expression, or false if it has none or is
// marked by a mistake elsewhere.
func (d *decoder) evaluate(expr hcl.Expression, ctx *hcl.EvalContext) (cty.Value, bool) {
	val, diags := expr.Value(ctx)
	if !diags.HasErrors() {
		d.diags = append(d.diags, diags...)
		return val, true
	}
	// Only now, since most expressions have no mistake and no references.
	if explained := explainReferences(expr, ctx); explained.HasErrors() {
		diags = explained
	}
	d.diags = append(d.diags, diags...)
	return cty.DynamicVal, false
}

// explainReferences says in the spec's terms which references of an expression
// lead nowhere. HCL's own words are about objects without an attribute.
func explainReferences(expr hcl.Expression, ctx *hcl.EvalContext) hcl.Diagnostics {
	var diags hcl.Diagnostics
	for _, traversal := range expr.Variables() {
		at := place{rng: traversal.SourceRange()}
		root := traversal.RootName()
		scope, ok := scopeOf(root, ctx)
		if !ok {
			switch root {
			case "var", "local":
				diags = append(diags, at.problem("Not a place for references", "Variables and local values cannot be referred to here."))
			case "each":
				diags = append(diags, at.problem("No each here", "each.key and each.value are there in blocks with for_each only."))
			default:
				diags = append(diags, at.problem("Unknown reference", "There is no %q. Values are var.NAME, local.NAME, and in blocks with for_each each.key and each.value; text stands in double quotes.", root))
			}
			continue
		}
		if len(traversal) < 2 || !scope.Type().IsObjectType() {
			continue
		}
		name, ok := stepName(traversal[1])
		if !ok || scope.Type().HasAttribute(name) {
			continue
		}
		what := map[string]string{"var": "variable", "local": "local value", "each": "part of each"}[root]
		names := slices.Sorted(maps.Keys(scope.Type().AttributeTypes()))
		diags = append(diags, undeclared(traversal, what, name, names))
	}
	return diags
}

// undeclared reports a reference to a name that is not there.
func undeclared(traversal hcl.Traversal, what, name string, names []string) *hcl.Diagnostic {
	return place{rng: traversal.SourceRange()}.problem("Undeclared "+what, "There is no %s named %q.%s", what, name, didYouMean(name, names))
}

// scopeOf is the value that a root name stands for, from the innermost context
// outwards.
func scopeOf(root string, ctx *hcl.EvalContext) (cty.Value, bool) {
	for ; ctx != nil; ctx = ctx.Parent() {
		if v, ok := ctx.Variables[root]; ok {
			return v, true
		}
	}
	return cty.NilVal, false
}

// stepName is the name that a step of a traversal selects: x of .x or ["x"].
func stepName(step hcl.Traverser) (string, bool) {
	switch step := step.(type) {
	case hcl.TraverseAttr:
		return step.Name, true
	case hcl.TraverseIndex:
		if step.Key.Type() == cty.String && step.Key.IsKnown() && !step.Key.IsNull() {
			return step.Key.AsString(), true
		}
	}
	return "", false
}

// instance is one of those that for_each makes of a block: the only one
// without it.
type instance struct {
	ctx    *hcl.EvalContext
	suffix string // "-KEY", "" without for_each
	each   bool
}

// instances lists a block's instances, in the order of the keys. It returns
// false if that cannot be told.
func (s *section) instances() ([]instance, bool) {
	v, st := s.get("for_each")
	if s.attrs["for_each"] == nil {
		return []instance{{ctx: s.ctx}}, true
	}
	const hint = "for_each takes a map, or a set of strings; toset([...]) makes a set of a list."
	switch {
	case st == unknown:
		return nil, false
	case st == absent:
		s.report(v.problem("Unsuitable for_each", "It is null. %s", hint))
		return nil, false
	}
	t := v.Type()
	// The empty set has no type of elements.
	isSet := t.IsSetType() && (t.ElementType() == cty.String || v.LengthInt() == 0)
	if !isSet && !t.IsMapType() && !t.IsObjectType() {
		s.report(v.problem("Unsuitable for_each", "It is a %s. %s", strings.ReplaceAll(t.FriendlyName(), "tuple", "list"), hint))
		return nil, false
	}
	var out []instance
	for it := v.ElementIterator(); it.Next(); {
		key, element := it.Element()
		// As with Terraform, key and value of a set's element are the same.
		if isSet {
			key = element
		}
		if key.IsNull() {
			s.report(v.problem("Unsuitable for_each", "An element is null. %s", hint))
			return nil, false
		}
		ctx := scope(s.ctx, "each", map[string]cty.Value{"key": key, "value": element})
		out = append(out, instance{ctx, "-" + key.AsString(), true})
	}
	return out, true
}

// scope is a context in which one more name can be referred to.
func scope(parent *hcl.EvalContext, name string, vals map[string]cty.Value) *hcl.EvalContext {
	ctx := parent.NewChild()
	ctx.Variables = map[string]cty.Value{name: cty.ObjectVal(vals)}
	ctx.Functions = parent.Functions // HCL suggests those of the innermost context only
	return ctx
}
