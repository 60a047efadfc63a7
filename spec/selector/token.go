package selector

import (
	"strings"
	"unicode/utf8"
)

type tokenKind uint8

const (
	tokenEnd      tokenKind = iota
	tokenWord               // a label, or what is spelled like one: in, has
	tokenString             // with its quotes
	tokenSymbol             // a bracket, a comma, an operator or what resembles one
	tokenUnclosed           // a string without an end
	tokenUnknown            // one character
)

// token is a piece of the text.
type token struct {
	kind  tokenKind
	start int
	text  string
}

func (t token) end() int { return t.start + len(t.text) }

// is says that the token is a certain symbol.
func (t token) is(symbol string) bool { return t.kind == tokenSymbol && t.text == symbol }

// value is what a string token stands for.
func (t token) value() string { return t.text[1 : len(t.text)-1] }

// lex is the first token of text at or after an offset. Each byte is in one
// token at most, so that a text is read in linear time.
func lex(text string, at int) token {
	for at < len(text) && (text[at] == ' ' || text[at] == '\t') {
		at++
	}
	rest := text[at:]
	if rest == "" {
		return token{tokenEnd, at, ""}
	}
	switch c := rest[0]; {
	case isWord(c):
		return token{tokenWord, at, rest[:span(rest, 0, isWord)]}
	case c == '"' || c == '\'':
		if i := strings.IndexByte(rest[1:], c); i >= 0 {
			return token{tokenString, at, rest[:i+2]}
		}
		return token{tokenUnclosed, at, rest}
	case isOperator(c):
		return token{tokenSymbol, at, rest[:span(rest, 0, isOperator)]}
	case c == '!':
		// "!" stands alone before a selector, as in "&& !!has(a)".
		if len(rest) > 1 && (rest[1] == '=' || rest[1] == '~') {
			return token{tokenSymbol, at, rest[:span(rest, 1, isOperator)]}
		}
		return token{tokenSymbol, at, rest[:1]}
	case strings.IndexByte("(){}[],", c) >= 0:
		return token{tokenSymbol, at, rest[:1]}
	}
	_, size := utf8.DecodeRuneInString(rest)
	return token{tokenUnknown, at, rest[:size]}
}

// span is how far characters of a class go.
func span(text string, from int, class func(byte) bool) int {
	for from < len(text) && class(text[from]) {
		from++
	}
	return from
}

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_./-", c) >= 0
}

// isOperator is for characters of operators, those of other languages too, so
// that a message can be about all of "=~".
func isOperator(c byte) bool { return strings.IndexByte("=<>~&|:", c) >= 0 }
