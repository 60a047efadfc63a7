package spec

import (
	"bufio"
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/poldernet/polder/spec/selector"
)

// selector is an attribute that selects by labels, or nil.
func (s *section) selector(name string) (*selector.Selector, place, state) {
	text, at, st := s.text(name, "")
	if st != known {
		return nil, at, st
	}
	parsed, err := selector.Parse(text)
	if err != nil {
		s.report(s.wrongSelector(name, text, at, err))
		return nil, at, unknown
	}
	return parsed, at, known
}

// wrongSelector points at the mistake in a selector: in the file, where the
// text is written there as it is; else in the message.
func (d *decoder) wrongSelector(name, text string, at place, err error) *hcl.Diagnostic {
	const summary = "Unsuitable selector"
	var syntax *selector.SyntaxError
	if !errors.As(err, &syntax) {
		return at.problem(summary, "%s: %s.", name, err)
	}
	start := min(max(syntax.Start, 0), len(text))
	end := min(max(syntax.End, start), len(text))
	if within, ok := d.within(at.rng, text, start, end); ok {
		diag := at.problem(summary, "%s: %s.", name, syntax.Msg)
		diag.Subject = &within
		return diag
	}
	return at.problem(summary, "%s: %s.\n\n%s", name, syntax.Msg, underlined(text, start, end))
}

// within is the range of a part of a text whose expression has the range whole.
// It is false where the file does not show the text as it is, between quotes.
func (d *decoder) within(whole hcl.Range, text string, start, end int) (hcl.Range, bool) {
	file := d.files[whole.Filename]
	if file == nil || whole.Start.Byte < 0 || whole.End.Byte > len(file.Bytes) || whole.Start.Byte > whole.End.Byte {
		return hcl.Range{}, false
	}
	// There is no line break: only a heredoc has one, and it has no quotes.
	if string(file.Bytes[whole.Start.Byte:whole.End.Byte]) != `"`+text+`"` {
		return hcl.Range{}, false
	}
	position := func(offset int) hcl.Pos {
		return hcl.Pos{
			Line:   whole.Start.Line,
			Column: whole.Start.Column + 1 + columns(text[:offset]),
			Byte:   whole.Start.Byte + 1 + offset,
		}
	}
	return hcl.Range{Filename: whole.Filename, Start: position(start), End: position(end)}, true
}

// columns counts a line's columns as HCL does.
func columns(text string) int {
	all := func(data []byte, _ bool) (int, []byte, error) { return len(data), data, nil }
	scanner := hcl.NewRangeScanner([]byte(text), "", bufio.SplitFunc(all))
	if !scanner.Scan() {
		return 0
	}
	return scanner.Range().End.Column - 1
}

// underlined is the line of a text in which a part begins, with the part marked.
func underlined(text string, start, end int) string {
	from := strings.LastIndexByte(text[:start], '\n') + 1
	line, _, _ := strings.Cut(text[from:], "\n")
	start, end = start-from, min(end-from, len(line))
	indent := strings.Map(func(r rune) rune {
		if r == '\t' {
			return r
		}
		return ' '
	}, line[:start])
	mark := strings.Repeat("^", max(1, len([]rune(line[start:max(start, end)]))))
	// What is indented is not wrapped.
	return fmt.Sprintf("  %s\n  %s%s", line, indent, mark)
}
