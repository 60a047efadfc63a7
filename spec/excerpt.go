package spec

import (
	"bytes"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// Excerpt is the line of a file in which a range begins.
type Excerpt struct {
	Context string // the block that it is in: policy "db"; "" if that is not known
	Line    string
	// Mark is what to print below the line, so that "^" stands under each
	// character of the range. A range over several lines is marked to the end of
	// the first: a whole block would bury what is said about it.
	Mark string
}

// Excerpt shows a range of one of the spec's files. It returns false where that
// is no file of the spec.
func (c *Config) Excerpt(r hcl.Range) (Excerpt, bool) { return excerpt(c.files[r.Filename], r) }

func excerpt(file *hcl.File, r hcl.Range) (Excerpt, bool) {
	if file == nil || r.Start.Byte > len(file.Bytes) {
		return Excerpt{}, false
	}
	var e Excerpt
	if nav, ok := file.Nav.(interface{ ContextString(offset int) string }); ok {
		e.Context = nav.ContextString(r.Start.Byte)
	}
	src := file.Bytes
	start := bytes.LastIndexByte(src[:r.Start.Byte], '\n') + 1
	end := len(src)
	if i := bytes.IndexByte(src[r.Start.Byte:], '\n'); i >= 0 {
		end = r.Start.Byte + i
	}
	// A carriage return would overwrite the line on a terminal.
	e.Line = strings.TrimRight(string(src[start:end]), "\r")
	from := min(r.Start.Byte-start, len(e.Line))
	to := max(from, min(r.End.Byte-start, len(e.Line)))
	// Tabs stay, so that the mark stands under what it marks.
	e.Mark = blank(e.Line[:from]) + strings.Repeat("^", max(1, len([]rune(e.Line[from:to]))))
	return e, true
}

// blank is a text with nothing but space in it, as wide as it was.
func blank(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' {
			return r
		}
		return ' '
	}, s)
}
