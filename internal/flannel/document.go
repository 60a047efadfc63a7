package flannel

import (
	"fmt"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
)

// document is a file that is read, with what is wrong with it.
type document struct {
	name  string
	text  []byte
	diags hcl.Diagnostics
}

// between is a range of the file, by offsets. Columns count characters.
func (d *document) between(from, to int) hcl.Range {
	from = max(0, min(from, len(d.text)))
	to = max(from, min(to, len(d.text)))
	return hcl.Range{Filename: d.name, Start: d.pos(from), End: d.pos(to)}
}

func (d *document) pos(offset int) hcl.Pos {
	p := hcl.Pos{Line: 1, Column: 1, Byte: offset}
	begin := 0
	for i, c := range d.text[:offset] {
		if c == '\n' {
			p.Line++
			begin = i + 1
		}
	}
	p.Column += utf8.RuneCount(d.text[begin:offset])
	return p
}

func (d *document) fail(at hcl.Range, summary, format string, args ...any) {
	d.diags = append(d.diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: fmt.Sprintf(format, args...), Subject: &at})
}

// part is a text that stands in a document: as a whole, or in a scalar of YAML.
type part struct {
	*document
	text []byte
	// offset is where a byte of the text stands in the document.
	offset func(int) int
}

// whole is a document as a part of itself.
func (d *document) whole() part {
	return part{d, d.text, func(i int) int { return i }}
}

func (p part) place(s span) hcl.Range { return p.between(p.offset(s.from), p.offset(s.to)) }

func (p part) fail(at span, summary, format string, args ...any) {
	p.document.fail(p.place(at), summary, format, args...)
}
