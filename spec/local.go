package spec

import (
	"maps"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// locals evaluates the locals blocks, each value after those that it refers
// to.
func (d *decoder) locals(blocks hcl.Blocks) map[string]cty.Value {
	l := localValues{decoder: d, attrs: make(map[string]*hcl.Attribute), vals: make(map[string]cty.Value)}
	for _, b := range blocks {
		attrs, diags := b.Body.JustAttributes()
		d.diags = append(d.diags, diags...)
		for _, name := range slices.Sorted(maps.Keys(attrs)) {
			attr := attrs[name]
			if before, ok := l.attrs[name]; ok {
				d.report(place{rng: attr.NameRange}.problem("Duplicate local value", "The local value %q is set at %s already.", name, place{rng: before.NameRange}))
				continue
			}
			l.attrs[name] = attr
		}
	}
	for _, name := range slices.Sorted(maps.Keys(l.attrs)) {
		l.resolve(name)
	}
	return l.vals
}

// localValues resolves local values depth first. What has a mistake becomes
// unknown, which hides what depends on it.
type localValues struct {
	*decoder
	attrs map[string]*hcl.Attribute
	vals  map[string]cty.Value
	trail []string // being resolved, each for the one before
}

// maxTrail keeps resolve, which calls itself, from exhausting the stack.
const maxTrail = 10_000

// resolve evaluates a local value after what it refers to.
func (l *localValues) resolve(name string) {
	if _, done := l.vals[name]; done {
		return
	}
	attr := l.attrs[name]
	if i := slices.Index(l.trail, name); i >= 0 {
		chain := ""
		for _, step := range l.trail[i:] {
			chain += "local." + step + " -> "
		}
		l.report(place{rng: attr.NameRange}.problem("Local values refer to each other in a circle", "%slocal.%s", chain, name))
		l.vals[name] = cty.DynamicVal
		return
	}
	if len(l.trail) == maxTrail {
		l.report(place{rng: attr.NameRange}.problem("Local values refer to each other too long", "A local value can depend on %d others, one through the other.", maxTrail))
		l.vals[name] = cty.DynamicVal
		return
	}
	l.trail = append(l.trail, name)
	defer func() { l.trail = l.trail[:len(l.trail)-1] }()

	// Only what the expression refers to is put into its context: a context
	// with all values for each of them would be quadratic.
	needs := make(map[string]cty.Value)
	for _, traversal := range attr.Expr.Variables() {
		if traversal.RootName() != "local" {
			continue
		}
		if len(traversal) < 2 {
			l.report(place{rng: traversal.SourceRange()}.problem("No name after local", "A local value is referred to as local.NAME."))
			l.vals[name] = cty.DynamicVal
			return
		}
		other, ok := stepName(traversal[1])
		if !ok {
			continue // evaluating says what is wrong
		}
		if l.attrs[other] == nil {
			l.report(undeclared(traversal, "local value", other, slices.Sorted(maps.Keys(l.attrs))))
			l.vals[name] = cty.DynamicVal
			return
		}
		l.resolve(other)
		needs[other] = l.vals[other]
	}
	if _, done := l.vals[name]; done {
		return // the circle went through here
	}
	val, _ := l.evaluate(attr.Expr, scope(l.ctx, "local", needs))
	l.vals[name] = val
}
