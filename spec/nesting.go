package spec

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// maxNesting is how deeply the expressions and blocks of a file may be nested.
// HCL's parsers and its evaluation call themselves at each level, and a hundred
// thousand levels exhaust Go's stack, which no caller survives.
const maxNesting = 500

// tooDeep is the diagnostic for the first place that is nested more deeply, or
// nil.
func tooDeep(tokens hclsyntax.Tokens) *hcl.Diagnostic {
	n := nesting{open: []bracket{{closer: hclsyntax.TokenEOF}}}
	for _, t := range tokens {
		if n.take(t); n.depth > maxNesting {
			return nestedTooDeeply(t.Range)
		}
	}
	return nil
}

func nestedTooDeeply(at hcl.Range) *hcl.Diagnostic {
	return place{rng: at}.problem("Nested too deeply",
		"Blocks and expressions can be nested %d deep, where each bracket and each operator of an expression counts.", maxNesting)
}

// nesting bounds from above how deep the parser is, and how deep what it makes:
// the brackets that are open, and in each of them the operators of the item.
type nesting struct {
	open  []bracket // the first is the file itself
	depth int
}

type bracket struct {
	closer    hclsyntax.TokenType
	operators int  // since the last separator
	begun     bool // something has come after the opener
	isFor     bool // newlines separate nothing
}

// closers are the tokens that open something, with those that close it.
var closers = map[hclsyntax.TokenType]hclsyntax.TokenType{
	hclsyntax.TokenOBrace:          hclsyntax.TokenCBrace,
	hclsyntax.TokenOBrack:          hclsyntax.TokenCBrack,
	hclsyntax.TokenOParen:          hclsyntax.TokenCParen,
	hclsyntax.TokenOQuote:          hclsyntax.TokenCQuote,
	hclsyntax.TokenOHeredoc:        hclsyntax.TokenCHeredoc,
	hclsyntax.TokenTemplateInterp:  hclsyntax.TokenTemplateSeqEnd,
	hclsyntax.TokenTemplateControl: hclsyntax.TokenTemplateSeqEnd,
}

// deepening are tokens behind which an expression is one deeper: operators; and
// the ends of what may be an index, or a directive in a template, after which it
// goes on.
var deepening = []hclsyntax.TokenType{
	hclsyntax.TokenBang, hclsyntax.TokenMinus, hclsyntax.TokenQuestion,
	hclsyntax.TokenPlus, hclsyntax.TokenStar, hclsyntax.TokenSlash, hclsyntax.TokenPercent,
	hclsyntax.TokenEqualOp, hclsyntax.TokenNotEqual, hclsyntax.TokenAnd, hclsyntax.TokenOr,
	hclsyntax.TokenLessThan, hclsyntax.TokenLessThanEq, hclsyntax.TokenGreaterThan, hclsyntax.TokenGreaterThanEq,
	hclsyntax.TokenTemplateControl, hclsyntax.TokenCBrack,
}

func (n *nesting) take(t hclsyntax.Token) {
	newline := t.Type == hclsyntax.TokenNewline || t.Type == hclsyntax.TokenComment && bytes.HasSuffix(t.Bytes, []byte("\n"))
	in := &n.open[len(n.open)-1]
	if t.Type == in.closer && len(n.open) > 1 {
		n.depth -= 1 + in.operators
		n.open = n.open[:len(n.open)-1]
		in = &n.open[len(n.open)-1]
	}
	if slices.Contains(deepening, t.Type) {
		in.operators++
		n.depth++
	}
	lines := !in.isFor && (in.closer == hclsyntax.TokenCBrace || in.closer == hclsyntax.TokenEOF)
	if t.Type == hclsyntax.TokenComma || newline && lines {
		n.depth -= in.operators
		in.operators = 0
	}
	if !in.begun && !newline {
		in.begun = true
		in.isFor = t.Type == hclsyntax.TokenIdent && string(t.Bytes) == "for"
	}
	if closer, opens := closers[t.Type]; opens {
		n.depth++
		n.open = append(n.open, bracket{closer: closer})
	}
}

// tooDeepJSON is tooDeep for HCL's JSON form, whose strings are templates.
func tooDeepJSON(s source) *hcl.Diagnostic {
	depth, at := 0, hcl.InitialPos
	for at.Byte < len(s.text) {
		length := 1
		switch s.text[at.Byte] {
		case '\n':
			at.Line++
		case '[', '{':
			depth++
		case ']', '}':
			depth = max(depth-1, 0)
		case '"':
			length = stringLength(s.text[at.Byte:])
			var template string
			if json.Unmarshal(s.text[at.Byte:at.Byte+length], &template) != nil {
				break // which the parser reports
			}
			tokens, _ := hclsyntax.LexTemplate([]byte(template), s.name, at)
			if tooDeep(tokens) != nil {
				depth = maxNesting + 1
			}
		}
		end := hcl.Pos{Line: at.Line, Column: 1 + length, Byte: at.Byte + length}
		if depth > maxNesting {
			return nestedTooDeeply(hcl.Range{Filename: s.name, Start: at, End: end})
		}
		at.Byte = end.Byte
	}
	return nil
}

// stringLength is that of the quoted string that b begins with, in bytes.
func stringLength(b []byte) int {
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(b)
}
