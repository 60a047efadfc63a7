package kube

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"go.yaml.in/yaml/v3"
)

// source is a file, for places in it.
type source struct {
	name string
	text []byte
	// lines are where the lines begin as editors count them, breaks those that
	// YAML counts: it also breaks lines at CR, NEL, LS and PS.
	lines, breaks []int
	// runes are the numbers of characters before each step of the text: JSON
	// may have all in one line, which is not to be counted for every place.
	runes []int
	// words are what plain scalars mean. Few of them are all there is.
	words map[string]string
}

const runesStep = 256

func newSource(name string, text []byte) *source {
	s := &source{name: name, text: text, lines: []int{0}, breaks: []int{0}, words: make(map[string]string)}
	for i, n := 0, 0; i < len(text); n++ {
		for len(s.runes)*runesStep <= i {
			s.runes = append(s.runes, n)
		}
		r, size := utf8.DecodeRune(text[i:])
		i += size
		switch r {
		case '\n':
			s.lines = append(s.lines, i)
			s.breaks = append(s.breaks, i)
		case '\r':
			if i == len(text) || text[i] != '\n' {
				s.breaks = append(s.breaks, i)
			}
		case '\u0085', '\u2028', '\u2029':
			s.breaks = append(s.breaks, i)
		}
	}
	return s
}

// runesBefore is the number of characters before an offset.
func (s *source) runesBefore(offset int) int {
	step := min(offset/runesStep, len(s.runes)-1)
	if step < 0 {
		return 0
	}
	start := s.stepStart(step)
	return s.runes[step] + utf8.RuneCount(s.text[start:max(start, offset)])
}

// stepStart is where the first character begins of those that a step counts
// from.
func (s *source) stepStart(step int) int {
	at := step * runesStep
	for at < len(s.text) && !utf8.RuneStart(s.text[at]) {
		at++
	}
	return at
}

// runeAt is the offset of a character by its number.
func (s *source) runeAt(n int) int {
	step := sort.Search(len(s.runes), func(i int) bool { return s.runes[i] > n }) - 1
	if step < 0 {
		return 0
	}
	at := s.stepStart(step)
	for range n - s.runes[step] {
		if at >= len(s.text) {
			break
		}
		_, size := utf8.DecodeRune(s.text[at:])
		at += size
	}
	return at
}

// document is a part of a file that YAML reads for itself. A mistake in the
// syntax of one does not hide the others.
type document struct {
	*source
	start, end int
	first      int // its first line, in breaks
	// places are those that were asked for. Aliases ask often.
	places map[*yaml.Node]hcl.Range
}

// documents are the parts between lines that begin with "---". Nothing but a
// marker can begin so: https://yaml.org/spec/1.2.2/#rule-c-forbidden
func (s *source) documents() []document {
	var list []document
	d := document{source: s}
	for i, at := range s.breaks {
		rest, marked := bytes.CutPrefix(s.text[at:], []byte("---"))
		if !marked || len(rest) > 0 && !strings.ContainsRune(" \t\r\n", rune(rest[0])) || !begun(s.text[d.start:at]) {
			continue
		}
		d.end = at
		list = append(list, d)
		d.start, d.first = at, i
	}
	d.end = len(s.text)
	return append(list, d)
}

// begun says that there is more than comments and directives, which belong to
// the document that follows.
func begun(text []byte) bool {
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(bytes.TrimPrefix(line, []byte("\ufeff")))
		if len(line) > 0 && line[0] != '#' && line[0] != '%' {
			return true
		}
	}
	return false
}

// pos is the place of an offset.
func (s *source) pos(offset int) hcl.Pos {
	line := sort.SearchInts(s.lines, offset+1)
	column := s.runesBefore(offset) - s.runesBefore(s.lines[line-1]) + 1
	return hcl.Pos{Line: line, Column: column, Byte: offset}
}

func (s *source) between(start, end int) hcl.Range {
	return hcl.Range{Filename: s.name, Start: s.pos(start), End: s.pos(max(start, end))}
}

// offset is where a node begins. YAML's columns count characters.
func (d *document) offset(n *yaml.Node) int {
	line := min(d.first+max(n.Line, 1)-1, len(d.breaks)-1)
	at := d.breaks[line]
	if at == 0 && bytes.HasPrefix(d.text, []byte("\ufeff")) {
		at = len("\ufeff")
	}
	at = d.runeAt(d.runesBefore(at) + max(n.Column, 1) - 1)
	return min(at, d.end)
}

// place is where a node stands.
func (d *document) place(n *yaml.Node) hcl.Range {
	at, ok := d.places[n]
	if !ok {
		start := d.offset(n)
		at = d.between(start, d.nodeEnd(n, start))
		if d.places == nil {
			d.places = make(map[*yaml.Node]hcl.Range)
		}
		d.places[n] = at
	}
	return at
}

func (d *document) nodeEnd(n *yaml.Node, start int) int {
	switch {
	case n.Kind == yaml.ScalarNode:
		return d.scalarEnd(n, start)
	case n.Kind == yaml.AliasNode:
		return min(start+len("*")+len(n.Value), d.end)
	}
	end := start
	if last := len(n.Content) - 1; last >= 0 {
		end = max(end, d.nodeEnd(n.Content[last], d.offset(n.Content[last])))
	}
	if n.Style&yaml.FlowStyle == 0 {
		return end
	}
	// The bracket that closes a flow collection, where only blanks are before it.
	if len(n.Content) == 0 {
		end = min(end+1, d.end)
	}
	rest := bytes.TrimLeft(d.text[end:d.end], " \t\r\n,")
	if len(rest) > 0 && (rest[0] == '}' || rest[0] == ']') {
		return d.end - len(rest) + 1
	}
	return end
}

// scalarEnd is the end of a scalar or, where it has several lines, a place in
// them: messages show the first line only.
func (d *document) scalarEnd(n *yaml.Node, start int) int {
	text := d.text[start:d.end]
	at := 0
	for at < len(text) && (text[at] == '&' || text[at] == '!') { // an anchor, a tag
		width := bytes.IndexAny(text[at:], " \t\r\n")
		if width < 0 {
			return d.end
		}
		at += width
		at += len(text[at:]) - len(bytes.TrimLeft(text[at:], " \t"))
	}
	switch {
	case n.Style&yaml.DoubleQuotedStyle != 0:
		for i := at + 1; i < len(text); i++ {
			if text[i] == '\\' {
				i++
			} else if text[i] == '"' {
				return start + i + 1
			}
		}
	case n.Style&yaml.SingleQuotedStyle != 0:
		for i := at + 1; i < len(text); i++ {
			if text[i] == '\'' {
				if i+1 == len(text) || text[i+1] != '\'' {
					return start + i + 1
				}
				i++
			}
		}
	case bytes.HasPrefix(text[at:], []byte(n.Value)):
		return start + at + len(n.Value)
	}
	line := text[at:]
	if i := bytes.IndexAny(line, "\r\n"); i >= 0 {
		line = line[:i]
	}
	return start + at + len(line)
}

var syntaxLine = regexp.MustCompile(`^line (\d+): `)

// parse is what the document holds. It can be more than one where it is ended
// by "...".
func (d *document) parse() (list []*yaml.Node, diag *hcl.Diagnostic) {
	decoder := yaml.NewDecoder(bytes.NewReader(d.text[d.start:d.end]))
	for {
		var doc yaml.Node
		err := decoder.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return list, d.syntax(err)
		}
		list = append(list, doc.Content...)
	}
}

func (d *document) syntax(err error) *hcl.Diagnostic {
	message, line := strings.TrimPrefix(err.Error(), "yaml: "), 1
	if m := syntaxLine.FindStringSubmatch(message); m != nil {
		line, _ = strconv.Atoi(m[1])
		message = strings.TrimPrefix(message, m[0])
	}
	start := min(d.breaks[min(d.first+max(line, 1)-1, len(d.breaks)-1)], d.end)
	end := d.end
	if i := bytes.IndexByte(d.text[start:end], '\n'); i >= 0 {
		end = start + i
	}
	start += len(d.text[start:end]) - len(bytes.TrimLeft(d.text[start:end], " \t"))
	return d.mistake("YAML cannot be read", d.between(start, end), "%s.", message)
}
