package spec

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/fatih/color"
	"github.com/hashicorp/hcl/v2"
	"github.com/mitchellh/go-wordwrap"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// WriteDiagnostics prints diagnostics of the spec, as the function of that name
// does.
func (c *Config) WriteDiagnostics(w io.Writer, diags hcl.Diagnostics, colored bool, width uint) error {
	return WriteDiagnostics(w, c.files, diags, colored, width)
}

// WriteDiagnostics prints diagnostics for people, each with its line of the
// file and the mistake in it underlined. Details are wrapped at width columns,
// 0 for not at all. Without diagnostics it prints nothing.
//
// HCL's own writer underlines by terminal sequences only, which a log or a
// review of a pull request does not show.
func WriteDiagnostics(w io.Writer, files map[string]*hcl.File, diags hcl.Diagnostics, colored bool, width uint) error {
	if len(diags) == 0 {
		return nil
	}
	dw := diagnosticWriter{files: files, width: width, paint: func(_ color.Attribute, s string) string { return s }}
	if colored {
		dw.paint = func(a color.Attribute, s string) string {
			p := color.New(a, color.Bold)
			p.EnableColor()
			return p.Sprint(s)
		}
	}
	for i, diag := range diags {
		if i > 0 {
			dw.out.WriteByte('\n')
		}
		dw.diagnostic(diag)
	}
	_, err := w.Write(dw.out.Bytes())
	return err
}

// diagnosticWriter renders into memory, where writing cannot fail.
type diagnosticWriter struct {
	out   bytes.Buffer
	files map[string]*hcl.File
	width uint
	paint func(color.Attribute, string) string
}

func (w *diagnosticWriter) diagnostic(diag *hcl.Diagnostic) {
	hue, severity := color.FgRed, "Error"
	if diag.Severity == hcl.DiagWarning {
		hue, severity = color.FgYellow, "Warning"
	}
	fmt.Fprintf(&w.out, "%s: %s\n", w.paint(hue, severity), diag.Summary)
	if diag.Subject != nil {
		w.snippet(hue, *diag.Subject)
	}
	if diag.Expression != nil && diag.EvalContext != nil {
		w.values(diag.Expression, diag.EvalContext)
	}
	for line := range strings.Lines(diag.Detail) {
		line = strings.TrimSuffix(line, "\n")
		// What is indented is to be copied: commands, parts of a spec.
		if w.width > 0 && !strings.HasPrefix(line, " ") {
			line = wordwrap.WrapString(line, w.width)
		}
		fmt.Fprintf(&w.out, "%s\n", line)
	}
}

// snippet shows the line in which the subject begins.
func (w *diagnosticWriter) snippet(hue color.Attribute, subject hcl.Range) {
	fmt.Fprintf(&w.out, "  on %s line %d", subject.Filename, subject.Start.Line)
	e, ok := excerpt(w.files[subject.Filename], subject)
	if !ok {
		w.out.WriteString("\n")
		return
	}
	if e.Context != "" {
		fmt.Fprintf(&w.out, ", in %s", e.Context)
	}
	number := fmt.Sprintf("%4d: ", subject.Start.Line)
	mark := strings.TrimLeft(e.Mark, " \t")
	fmt.Fprintf(&w.out, ":\n%s%s\n", number, e.Line)
	fmt.Fprintf(&w.out, "%s%s%s\n", blank(number), e.Mark[:len(e.Mark)-len(mark)], w.paint(hue, mark))
}

// values tells what the variables in an expression stood for: in a block with
// for_each it is evaluated many times.
func (w *diagnosticWriter) values(expr hcl.Expression, ctx *hcl.EvalContext) {
	var said []string
	for _, traversal := range expr.Variables() {
		v, diags := traversal.TraverseAbs(ctx)
		// Lists and objects are too long to show.
		if diags.HasErrors() || !v.IsKnown() || v.IsNull() || !v.Type().IsPrimitiveType() {
			continue
		}
		text, err := convert.Convert(v, cty.String)
		if err != nil {
			continue
		}
		shown := text.AsString()
		if v.Type() == cty.String {
			shown = fmt.Sprintf("%q", shown)
		}
		said = append(said, fmt.Sprintf("%s is %s", traversalText(traversal), shown))
	}
	slices.Sort(said)
	if said = slices.Compact(said); len(said) > 0 {
		fmt.Fprintf(&w.out, "  where %s\n", strings.Join(said, ", "))
	}
}

// traversalText is a reference as it is written: var.nodes["n1"].
func traversalText(t hcl.Traversal) string {
	var b strings.Builder
	for _, step := range t {
		switch step := step.(type) {
		case hcl.TraverseRoot:
			b.WriteString(step.Name)
		case hcl.TraverseAttr:
			b.WriteString("." + step.Name)
		case hcl.TraverseIndex:
			if key, err := convert.Convert(step.Key, cty.String); err == nil && key.IsKnown() && !key.IsNull() {
				fmt.Fprintf(&b, "[%q]", key.AsString())
			}
		}
	}
	return b.String()
}
