package spec

import (
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// Inputs are the values given for variables from outside the spec. Where a
// variable has several, a later kind overrules an earlier one, in the order of
// the fields.
type Inputs struct {
	// Environ is the environment, as from os.Environ. POLDER_VAR_NAME sets
	// the variable NAME; what names no variable of the spec is ignored.
	Environ []string
	// VarFiles are files of assignments, in HCL or, where the name ends in
	// .json, JSON. Later ones overrule earlier ones.
	VarFiles []string
	// Vars are assignments NAME=VALUE. Later ones overrule earlier ones.
	Vars []string
}

const envPrefix = "POLDER_VAR_"

// given is a value from outside the spec. Text is converted when the type of
// the variable is known.
type given struct {
	place            // without a file for command line and environment
	val    cty.Value // from a file
	text   string    // from the command line or the environment
	isText bool
	origin string // for messages: "--var", "POLDER_VAR_x", the name of a file
	must   bool   // the variable must be declared
}

// values gathers what is given, by name of variable. Files read on the way
// are added to files.
func (in Inputs) values(r *reader, files map[string]*hcl.File) (map[string]given, hcl.Diagnostics) {
	out := make(map[string]given)
	var diags hcl.Diagnostics
	for _, entry := range in.Environ {
		name, text, ok := strings.Cut(entry, "=")
		if name, isVar := strings.CutPrefix(name, envPrefix); ok && isVar {
			out[name] = given{text: text, isText: true, origin: envPrefix + name}
		}
	}
	for _, file := range in.VarFiles {
		diags = append(diags, readVarFile(file, r, files, out)...)
	}
	for _, assignment := range in.Vars {
		name, text, ok := strings.Cut(assignment, "=")
		if !ok || !hclsyntax.ValidIdentifier(name) {
			diags = append(diags, &hcl.Diagnostic{
				Severity: hcl.DiagError,
				Summary:  "Unsuitable --var",
				Detail:   "--var takes NAME=VALUE, and was given \"" + assignment + "\".",
			})
			continue
		}
		out[name] = given{text: text, isText: true, origin: "--var " + name, must: true}
	}
	return out, diags
}

// readVarFile adds the assignments of a file to out. A value that cannot be
// evaluated becomes unknown, not absent: the variable was given one.
func readVarFile(name string, r *reader, files map[string]*hcl.File, out map[string]given) hcl.Diagnostics {
	text, err := r.read(name)
	if err != nil {
		return failed("Variable file not readable", err)
	}
	file, diags := source{name, text}.parse()
	if diags.HasErrors() {
		files[name] = &hcl.File{Bytes: text}
		return diags
	}
	files[name] = file
	attrs, more := file.Body.JustAttributes()
	diags = append(diags, more...)
	for _, attr := range attrs {
		// Without variables and functions, as with Terraform.
		val, more := attr.Expr.Value(nil)
		diags = append(diags, more...)
		if more.HasErrors() {
			val = cty.DynamicVal
		}
		out[attr.Name] = given{place: place{rng: attr.Expr.Range()}, val: val, origin: name, must: true}
	}
	return diags
}

// value converts a given value. Text is taken as it is for a variable of a
// primitive type or of none, and as an HCL expression for all others.
func (g given) value(typ cty.Type, typed bool, files map[string]*hcl.File) (cty.Value, hcl.Diagnostics) {
	switch {
	case !g.isText:
		return g.val, nil
	case !typed || typ.IsPrimitiveType():
		return cty.StringVal(g.text), nil
	}
	name := "<" + g.origin + ">"
	expr, diags := parseExpression(g.text, name)
	if !diags.HasErrors() {
		var val cty.Value
		if val, diags = expr.Value(nil); !diags.HasErrors() {
			return val, nil
		}
	}
	files[name] = &hcl.File{Bytes: []byte(g.text)}
	return cty.DynamicVal, diags
}

func parseExpression(text, name string) (hcl.Expression, hcl.Diagnostics) {
	tokens, _ := hclsyntax.LexExpression([]byte(text), name, hcl.InitialPos)
	if deep := tooDeep(tokens); deep != nil {
		return nil, hcl.Diagnostics{deep}
	}
	return hclsyntax.ParseExpression([]byte(text), name, hcl.InitialPos)
}
