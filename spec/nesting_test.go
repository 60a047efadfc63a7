package spec

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
)

// deeper repeats a piece of text between what leads to it and what follows.
type deeper struct{ before, piece, middle, end, after string }

func (d deeper) text(times int) []byte {
	return []byte(d.before + strings.Repeat(d.piece, times) + d.middle + strings.Repeat(d.end, times) + d.after)
}

// deep is every way to have HCL call itself.
var deep = map[string]struct {
	deeper
	isJSON bool
}{
	"lists":                 {deeper{"cluster = ", "[", "1", "]", "\n"}, false},
	"lists without an end":  {deeper{"cluster = ", "[", "", "", ""}, false},
	"lists over lines":      {deeper{"cluster = ", "[\n", "1", "]", "\n"}, false},
	"mistaken ends":         {deeper{"cluster = ", "[[}", "", "", ""}, false},
	"objects":               {deeper{"cluster = ", "{ a = ", "1", "}", "\n"}, false},
	"brackets":              {deeper{"cluster = ", "(", "1", ")", "\n"}, false},
	"blocks":                {deeper{"", "a {\n", "", "}\n", ""}, false},
	"blocks without an end": {deeper{"", "a {\n", "", "", ""}, false},
	"calls":                 {deeper{"cluster = ", "abs(", "1", ")", "\n"}, false},
	"templates":             {deeper{"cluster = ", `"${`, "1", `}"`, "\n"}, false},
	"directives":            {deeper{`cluster = "`, "%{ if true }", "a", "%{ endif }", "\"\n"}, false},
	"directives, heredoc":   {deeper{"cluster = <<E\n", "%{ if true }\n", "a", "%{ endif }\n", "E\n"}, false},
	"negations":             {deeper{"cluster = ", "!", "true", "", "\n"}, false},
	"signs":                 {deeper{"cluster = ", "-", "1", "", "\n"}, false},
	"signs over lines":      {deeper{"cluster = (", "-\n", "1", "", ")\n"}, false},
	"signs in a for":        {deeper{"cluster = {\n for a in [1] : a => ", "-# c\n", "1", "", "}\n"}, false},
	"sums":                  {deeper{"cluster = 1", " + 1", "", "", "\n"}, false},
	"comparisons":           {deeper{"cluster = 1", " == 1", "", "", "\n"}, false},
	"conditions":            {deeper{"cluster = ", "true ? 1 : ", "1", "", "\n"}, false},
	"indices":               {deeper{"cluster = local.a", "[local.b]", "", "", "\n"}, false},
	"splats":                {deeper{"cluster = local.a", ".*", "", "", "\n"}, false},
	"JSON lists":            {deeper{`{"cluster": `, "[", "1", "]", "}"}, true},
	"JSON objects":          {deeper{`{"cluster": `, `{"a":`, "1", "}", "}"}, true},
	"JSON without an end":   {deeper{`{"cluster": `, "[\n", "", "", ""}, true},
	"JSON template":         {deeper{`{"cluster": "${`, "[", "1", "]", `}"}`}, true},
	"JSON template, hidden": {deeper{`{"cluster": "\u0024{`, "-", "1", "", `}"}`}, true},
}

func isTooDeep(diags hcl.Diagnostics) bool {
	return slices.ContainsFunc(diags, func(d *hcl.Diagnostic) bool { return d.Summary == "Nested too deeply" })
}

func TestNestedTooDeeply(t *testing.T) {
	for name, d := range deep {
		t.Run(name, func(t *testing.T) {
			file := "polder.hcl"
			if d.isJSON {
				file += ".json"
			}
			for _, times := range []int{maxNesting + 1, 20 * maxNesting} {
				text := d.text(times)
				c, diags := build(file, Inputs{}, []source{{file, text}}, newReader(), demandSubnets)
				if len(diags) != 1 || diags[0].Summary != "Nested too deeply" || diags[0].Subject == nil {
					t.Fatalf("%d times: %v", times, diags)
				}
				if at := diags[0].Subject; at.Start.Byte >= len(text) || at.End.Byte > len(text) {
					t.Errorf("%d times: it points to %v", times, at)
				}
				checkLoaded(t, c, diags)
			}
			if _, diags := build(file, Inputs{}, []source{{file, d.text(maxNesting / 3)}}, newReader(), demandSubnets); isTooDeep(diags) {
				t.Errorf("%d times: %v", maxNesting/3, diags)
			}
		})
	}
}

// TestNestedTooDeeplyElsewhere: variables and fmt read HCL, too.
func TestNestedTooDeeplyElsewhere(t *testing.T) {
	text := string(deep["lists"].text(100_000)) // the stack holds fewer
	if _, _, diags := Format("polder.hcl", []byte(text)); len(diags) != 1 || diags[0].Summary != "Nested too deeply" {
		t.Errorf("formatting: %v", diags)
	}
	spec := []source{{"polder.hcl", []byte("variable \"v\" {\n  type = list(string)\n}\ncluster = \"e\"\n")}}
	value := strings.TrimPrefix(strings.TrimSpace(text), "cluster = ")
	for what, in := range map[string]Inputs{
		"--var":       {Vars: []string{"v=" + value}},
		"environment": {Environ: []string{"POLDER_VAR_v=" + value}},
	} {
		c, diags := build("polder.hcl", in, spec, newReader(), demandSubnets)
		if len(diags) != 1 || diags[0].Summary != "Nested too deeply" {
			t.Errorf("%s: %v", what, diags)
		}
		checkLoaded(t, c, diags)
	}
}

// TestDeepValues: depth that only evaluation meets.
func TestDeepValues(t *testing.T) {
	var chain strings.Builder
	for i := range 2 * maxTrail {
		fmt.Fprintf(&chain, "a%d = local.a%d\n", i, i+1)
	}
	for name, test := range map[string]struct{ text, summary, detail string }{
		"JSON": {
			"cluster = jsondecode(local.a)\nlocals {\n  a = \"" + string(deeper{"", "[", "", "]", ""}.text(20_000)) + "\"\n}\n",
			"Invalid function argument", "exceeded max depth",
		},
		"local values": {
			fmt.Sprintf("cluster = local.a0\nlocals {\n%sa%d = \"x\"\n}\n", chain.String(), 2*maxTrail),
			"Local values refer to each other too long", "",
		},
	} {
		c, diags := build("polder.hcl", Inputs{}, []source{{"polder.hcl", []byte(test.text)}}, newReader(), demandSubnets)
		if len(diags) != 1 || diags[0].Summary != test.summary || !strings.Contains(diags[0].Detail, test.detail) {
			t.Errorf("%s: %.300v", name, diags)
		}
		checkLoaded(t, c, diags)
	}
}

// TestLongIsNotDeep: what is only long is no deeper than its parts.
func TestLongIsNotDeep(t *testing.T) {
	for name, d := range map[string]deeper{
		"list":        {"local = [", "!true, -1, a[b], \"${c}-${d}\",\n", "", "", "]\n"},
		"object":      {"local = {", "a = -1\nb = !true # c\nc = [1][0], d = -1\n", "", "", "}\n"},
		"for":         {"local = [", "{for k, v in w : k => -v}, ", "", "", "]\n"},
		"attributes":  {"", "a = -1 + 1\nb = c[d] // e\n", "", "", ""},
		"blocks":      {"", "a \"b\" {\n c = !true\n}\n", "", "", ""},
		"template":    {"a = \"", "${-1}", "", "", "\"\n"},
		"heredoc":     {"a = <<E\n", "a ${b[0]} $${ %%{\n", "", "", "E\n"},
		"single line": {"", "a { b = -1 }\n", "", "", ""},
	} {
		if _, diags := (source{"polder.hcl", d.text(10 * maxNesting)}).parse(); isTooDeep(diags) {
			t.Errorf("%s: %v", name, diags)
		}
	}
	d := deeper{`{"a": [`, `{"b": "${c[-1]} \" ${d}"},` + "\n", "", "", "1]}"}
	if _, diags := (source{filepath.Join("a", "polder.hcl.json"), d.text(10 * maxNesting)}).parse(); diags.HasErrors() {
		t.Errorf("JSON: %v", diags)
	}
}
