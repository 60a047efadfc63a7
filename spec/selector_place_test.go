package spec

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"

	"github.com/poldernet/polder/spec/selector"
)

// TestSelectorPlaces: a mistake in a selector is marked in the file where the
// file shows the text as it is, and else in the message. BAD is what is marked.
func TestSelectorPlaces(t *testing.T) {
	for _, c := range []struct{ file, text, want string }{
		{"a.hcl", `x = "app == BAD"`, "marked"},
		{"a.hcl", `x = "BAD == 'ä'"`, "marked"},
		{"a.hcl", "x = \t\"'äöü' == BAD\"", "marked"},
		{"a.hcl", `x = "$BAD % %%"`, "marked"},
		{"a.hcl", `x = "\"BAD\" == a"`, "said"},
		{"a.hcl", `x = "${"BAD"} == a"`, "said"},
		{"a.hcl", `x = upper("bad")`, "said"},
		{"a.hcl", "x = <<EOT\na &&\n\tBAD == c\nEOT\n", "said"},
		{"a.hcl.json", `{"x": "a == BAD"}`, "marked"},
		{"a.hcl.json", `{"x": "a == \"BAD\""}`, "said"},
	} {
		source := source{c.file, []byte(c.text)}
		file, diags := source.parse()
		if diags.HasErrors() {
			t.Fatalf("%s: %v", c.text, diags)
		}
		file.Bytes = source.text
		d := &decoder{files: map[string]*hcl.File{c.file: file}}
		attrs, _ := file.Body.JustAttributes()
		expr := attrs["x"].Expr
		value, diags := expr.Value(testContext())
		if diags.HasErrors() {
			t.Fatalf("%s: %v", c.text, diags)
		}
		text := value.AsString()
		start := strings.Index(text, "BAD")
		diag := d.wrongSelector("x", text, place{rng: expr.Range(), expr: expr}, &selector.SyntaxError{Start: start, End: start + 3, Msg: "bad"})

		var b bytes.Buffer
		if err := WriteDiagnostics(&b, d.files, hcl.Diagnostics{diag}, false, 0); err != nil {
			t.Fatal(err)
		}
		subject := string(source.text[diag.Subject.Start.Byte:diag.Subject.End.Byte])
		if marked := subject == "BAD"; marked != (c.want == "marked") {
			t.Errorf("%s: marked is %q, want BAD to be %s", c.text, subject, c.want)
		}
		// The mark stands under what is wrong, in the file or in the message.
		lines := strings.Split(b.String(), "\n")
		under := func() bool {
			for i, line := range lines[:len(lines)-1] {
				at := strings.Index(line, "BAD")
				if at >= 0 && strings.TrimLeft(lines[i+1], " \t") == "^^^" && len([]rune(line[:at])) == len([]rune(lines[i+1]))-3 {
					return true
				}
			}
			return false
		}
		if !under() {
			t.Errorf("%s: BAD is not underlined in\n%s", c.text, b.String())
		}
		// Columns are those of HCL.
		if c.want == "marked" {
			before, _, _ := strings.Cut(c.text, "BAD")
			if got, want := diag.Subject.Start.Column, 1+len([]rune(before)); got != want {
				t.Errorf("%s: column %d, want %d", c.text, got, want)
			}
		}
	}
}

// TestSelectorPlacesAnywhere: no offset is too wild for a message.
func TestSelectorPlacesAnywhere(t *testing.T) {
	for _, text := range []string{"", "a", "ä\nb", "\n\n"} {
		for start := -1; start < len(text)+2; start++ {
			for end := -1; end < len(text)+2; end++ {
				diag := (&decoder{}).wrongSelector("x", text, place{}, &selector.SyntaxError{Start: start, End: end, Msg: "bad"})
				if !strings.Contains(diag.Detail, "^") {
					t.Error(fmt.Sprint(text, start, end), diag)
				}
			}
		}
	}
}
