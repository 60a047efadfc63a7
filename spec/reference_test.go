package spec

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/mitchellh/go-wordwrap"
	"github.com/rogpeppe/go-internal/diff"
	"github.com/zclconf/go-cty/cty"
)

const referenceFile = "../docs/spec-reference.md"

// TestReference holds docs/spec-reference.md to the schema. With -update it
// writes the file.
func TestReference(t *testing.T) {
	want := reference()
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.WriteFile(referenceFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(referenceFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("stale; run go test ./spec -update\n%s", diff.Diff(referenceFile, got, "schema", want))
	}
}

// TestExamplesOfSchema evaluates the example of every attribute: those that
// messages and the reference show must be right themselves.
func TestExamplesOfSchema(t *testing.T) {
	walk(rootBlock, "", func(b *block, title string) {
		d := &decoder{ctx: testContext()}
		var body strings.Builder
		for _, a := range b.attrs {
			if _, diags := hclsyntax.ParseExpression([]byte(a.example), a.name, hcl.InitialPos); diags.HasErrors() {
				t.Errorf("%s %s: %v", title, a.name, diags)
			}
			if a.doc == "" || a.kind == "" || !strings.HasSuffix(a.doc, ".") {
				t.Errorf("%s %s: the manual has no sentence about it", title, a.name)
			}
			if b != variableBlock || a.name != "type" {
				fmt.Fprintf(&body, "%s = %s\n", a.name, a.example)
			}
		}
		file, diags := hclsyntax.ParseConfig([]byte(body.String()), title, hcl.InitialPos)
		if diags.HasErrors() {
			t.Fatalf("%s: %v", title, diags)
		}
		s := d.open(b, file.Body, hcl.Range{Filename: title}, d.ctx)
		for _, a := range b.attrs {
			if b == variableBlock && a.name == "type" {
				continue
			}
			if _, st := s.get(a.name); st != known {
				t.Errorf("%s: the example of %s is not a %s", title, a.name, a.kind)
			}
		}
		if len(d.diags) > 0 {
			t.Errorf("%s: %v", title, d.diags)
		}
	})
}

// walk visits blocks, each before those inside.
func walk(b *block, outer string, visit func(b *block, title string)) {
	title := b.name
	switch {
	case b.is != "":
		title += fmt.Sprintf(" %q", b.is)
	case b.label != "":
		title += " " + strings.ToUpper(b.label)
	}
	if outer != "" {
		title = outer + " / " + title
	}
	if b == rootBlock {
		title = ""
	}
	visit(b, title)
	for _, child := range b.blocks {
		walk(child, title, visit)
	}
}

// reference renders the schema.
func reference() []byte {
	var b bytes.Buffer
	b.WriteString(`<!-- Written by "go test ./spec -update" from the table in spec/schema.go. -->

# Spec reference

A spec is one file, or a folder of which all ` + "`*.hcl` and `*.hcl.json`" + ` files but
` + "`*.lab.hcl`" + ` are read as one. It is written in [HCL's native syntax](https://github.com/hashicorp/hcl/blob/main/hclsyntax/spec.md)
or in [its JSON form](https://github.com/hashicorp/hcl/blob/main/json/spec.md),
and is the same on every node.

A null value is as good as none. Blocks of which there may be any number are
marked as such; there is at most one of each other.
`)
	walk(rootBlock, "", func(block *block, title string) {
		if title == "" {
			b.WriteString("\n## At the top of a file\n\n")
		} else {
			fmt.Fprintf(&b, "\n## %s\n\n%s%s\n\n", title, block.doc, map[bool]string{true: " Any number."}[block.many])
		}
		if len(block.attrs) > 0 {
			b.WriteString("| Attribute | Type | Default | Range or unit | Description |\n|---|---|---|---|---|\n")
		}
		var example strings.Builder
		for _, a := range block.attrs {
			def := a.def
			switch {
			case a.required:
				def = "required"
			case def == "":
				def = "none"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", a.name, a.kind, def, a.unit, a.doc)
			fmt.Fprintf(&example, "%s = %s\n", a.name, a.example)
		}
		if example.Len() > 0 {
			fmt.Fprintf(&b, "\nExamples:\n\n```hcl\n%s```\n", hclwrite.Format([]byte(example.String())))
		}
		if block.free {
			b.WriteString("Any attribute; its name is the value's.\n")
		}
	})
	b.WriteString("\n## Functions\n\nThose of Terraform, with the same names and meaning, except that\n`coalesce` takes an empty string for a value and `lookup` needs a default:\n\n")
	b.WriteString(functionNames())
	b.WriteString(".\n")
	return b.Bytes()
}

func functionNames() string {
	names := slices.Sorted(maps.Keys(functions(".", readRegular)))
	return wordwrap.WrapString("`"+strings.Join(names, "`, `")+"`", 80)
}

// testContext is what the examples of the schema refer to.
func testContext() *hcl.EvalContext {
	ctx := scope(&hcl.EvalContext{Functions: functions(".", readRegular)}, "var", map[string]cty.Value{"vni": cty.NumberIntVal(1)})
	return scope(ctx, "each", map[string]cty.Value{"key": cty.StringVal("n1"), "value": cty.NullVal(cty.String)})
}
