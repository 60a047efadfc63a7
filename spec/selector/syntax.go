package selector

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// SyntaxError says what is wrong with a text, and where: from byte Start to
// before byte End, which are never the same. Msg says what would be right.
type SyntaxError struct {
	Start, End int
	Msg        string
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("at byte %d: %s", e.Start, e.Msg) }

// fail is an error about a token. What can be no token comes first: it is the
// likelier cause.
func (p *parser) fail(at token, format string, args ...any) error {
	switch p.tok.kind {
	case tokenUnclosed:
		at, format = p.tok, "this string is not closed; %s is missing"
		args = []any{p.tok.text[:1]}
	case tokenUnknown:
		at = p.tok
		format, args = unknown(p.tok.text)
	}
	return &SyntaxError{Start: at.start, End: at.end(), Msg: fmt.Sprintf(format, args...)}
}

// unknown is what to say about a character that begins no token.
func unknown(char string) (format string, args []any) {
	switch char {
	case "\n", "\r", "\v", "\f", "\u00a0":
		return "%q does not separate words; write spaces, on one line", []any{char}
	case "“", "”", "„", "‘", "’", "`", "´", "«", "»":
		return `%s is no quote here; strings are written "…" or '…'`, []any{char}
	}
	return `%q means nothing outside of "…" and '…'`, []any{char}
}

// shown is a piece of the text within a message: what fits there, and can be
// printed.
func shown(text string) string {
	const enough = 40
	var b strings.Builder
	for _, r := range text {
		if b.Len() >= enough {
			b.WriteString("…")
			break
		}
		if !unicode.IsPrint(r) {
			r = utf8.RuneError
		}
		b.WriteRune(r)
	}
	return b.String()
}

// noOperand: neither a test nor a bracket comes where one must.
func (p *parser) noOperand() error {
	ends := p.tok.kind == tokenEnd || p.tok.is(")") || p.tok.is("&&") || p.tok.is("||")
	switch last := p.last; {
	case ends && (last.is("&&") || last.is("||") || last.is("!")):
		return p.fail(last, "a selector must follow %s, as in %[1]s has(a)", last.text)
	case p.tok.is("&&") || p.tok.is("||"):
		return p.fail(p.tok, "a selector must come before %s, as in has(a) %[1]s has(b)", p.tok.text)
	case p.tok.is(")") && last.is("("):
		last.text = p.text[last.start:p.tok.end()]
		return p.fail(last, "a selector must be in these brackets; all() selects everything")
	case p.tok.is(")"):
		return p.fail(p.tok, "no bracket is open that this could close")
	case p.tok.kind == tokenEnd:
		return p.fail(last, "this bracket is not closed; a selector and ) are missing")
	case p.tok.kind == tokenString:
		return p.fail(p.tok, "a selector begins with a label, which is written without quotes")
	case suggested[p.tok.text] != "":
		return p.fail(p.tok, `a label must come before %q, as in a == "b"`, shown(p.tok.text))
	}
	return p.fail(p.tok, `a selector does not begin with %q; it begins with a label, as in a == "b", with has(a) or with (`, shown(p.tok.text))
}

// suggested are operators for what is taken from other languages, in lower case.
var suggested = map[string]string{
	"=": "==", "===": "==", "==": "==", ":": "==", ":=": "==", "is": "==", "eq": "==", "equals": "==",
	"!=": "!=", "!==": "!=", "<>": "!=", "ne": "!=",
	"=~": "contains, starts with or ends with", "~": "contains, starts with or ends with",
	"~=": "contains, starts with or ends with", "matches": "contains, starts with or ends with",
	"like":     "contains, starts with or ends with",
	"!~":       "! before the label, and contains, starts with or ends with",
	"includes": "contains",
	"in":       "in", "notin": "not in", "contains": "contains", "startswith": "starts with", "endswith": "ends with",
	"not": "not in or !=", "!": "not in or !=", "starts": "starts with", "ends": "ends with",
}

// noOperator: no operator follows a label.
func (p *parser) noOperator(label token) error {
	word := strings.ToLower(p.tok.text)
	ends := p.tok.kind == tokenEnd || p.tok.is(")") || p.tok.is("&&") || p.tok.is("||") || connectives[word] != ""
	operand := p.tok.kind == tokenString || p.tok.is("{")
	switch {
	case ends && label.text == "all":
		return p.fail(label, "all is written all()")
	case ends && label.text == "has":
		return p.fail(label, "has needs a label, as in has(a)")
	case ends:
		return p.fail(label, "a label alone is no selector; has(%s) asks whether it is there", shown(label.text))
	case p.tok.kind == tokenWord && strings.EqualFold(label.text, "not"):
		return p.fail(label, "to negate, write ! before what is negated, as in !has(a)")
	case operand && spellings[label.text] != "":
		return p.fail(label, `a label must come before %q, as in a == "b"`, label.text)
	case p.tok.kind == tokenString:
		return p.fail(p.tok, "an operator must come between a label and a value, as in %s == %s", shown(label.text), shown(p.tok.text))
	case operand:
		return p.fail(p.tok, `an operator must come between a label and a set, as in %s in {"b", "c"}`, shown(label.text))
	case suggested[word] != "":
		return p.fail(p.tok, "%q is no operator; use %s", p.tok.text, suggested[word])
	}
	return p.fail(p.tok, "%q is no operator; there are ==, !=, in, not in, contains, starts with and ends with", shown(p.tok.text))
}

// noValue: no string follows an operator.
func (p *parser) noValue(o token, name string) error {
	switch {
	case p.tok.kind == tokenWord:
		return p.fail(p.tok, `values are quoted: "%s"`, shown(p.tok.text))
	case p.tok.is("{"):
		return p.fail(o, `%s takes one value, as in a %[1]s "b"; for a set use in or not in`, name)
	}
	return p.fail(o, `a value must follow %s, as in a %[1]s "b"`, name)
}

// noSet: no set follows in or not in.
func (p *parser) noSet(o token, name string) error {
	switch {
	case p.tok.kind == tokenString:
		return p.fail(p.tok, "%s takes a set in braces: {%s}", name, shown(p.tok.text))
	case p.tok.kind == tokenWord:
		return p.fail(p.tok, `%s takes a set of quoted values in braces: {"%s"}`, name, shown(p.tok.text))
	case p.tok.is("(") || p.tok.is("["):
		return p.fail(p.tok, `a set is written in braces, as in {"b", "c"}`)
	}
	return p.fail(o, `a set must follow %s, as in a %[1]s {"b", "c"}`, name)
}

// badSet: a set goes on neither with a value nor with its end.
func (p *parser) badSet(open token) error {
	switch {
	case p.tok.kind == tokenEnd:
		return p.fail(open, "this set is not closed; } is missing")
	case p.tok.kind == tokenString:
		return p.fail(p.tok, "a comma must come between two values")
	case p.tok.kind == tokenWord:
		return p.fail(p.tok, `values are quoted: "%s"`, shown(p.tok.text))
	case p.tok.is(","):
		return p.fail(p.tok, "a value must come before each comma")
	}
	return p.fail(p.tok, "%q is no value; a set holds quoted values and ends with }", shown(p.tok.text))
}

// noFunction: a bracket follows a word, but not all or has.
func (p *parser) noFunction(name token) error {
	switch strings.ToLower(name.text) {
	case "not":
		return p.fail(name, "to negate, write ! before what is negated, as in !has(a)")
	case "all", "has":
		return p.fail(name, "functions are in lower case: %s", strings.ToLower(name.text))
	case "global":
		return p.fail(name, "there is no global(); the functions are all() and has(a)")
	}
	return p.fail(name, "there is no function %q; the functions are all() and has(a)", shown(name.text))
}

// noLabel: has( is not followed by a label.
func (p *parser) noLabel(function token) error {
	switch {
	case p.tok.kind == tokenString:
		return p.fail(p.tok, "labels are written without quotes, as in has(a)")
	case p.tok.kind == tokenEnd || p.tok.is(")"):
		function.text = p.text[function.start:p.last.end()]
		if p.tok.is(")") {
			function.text = p.text[function.start:p.tok.end()]
		}
		return p.fail(function, "has needs a label, as in has(a)")
	}
	return p.fail(p.tok, "%q is no label; has takes one, as in has(a)", shown(p.tok.text))
}

// notClosed: ) does not end all() or has(label).
func (p *parser) notClosed(function, open token) error {
	switch {
	case p.tok.kind == tokenEnd:
		return p.fail(open, "this bracket is not closed; ) is missing")
	case function.text == "all":
		return p.fail(p.tok, "nothing is between the brackets of all()")
	}
	return p.fail(p.tok, "has takes one label and no more, as in has(a)")
}

// connectives are && and || in other languages.
var connectives = map[string]string{
	"and": "&&", "&": "&&", "&&&": "&&", ",": "&&",
	"or": "||", "|": "||", "|||": "||",
}

// trailing: what follows a selector does not continue it.
func (p *parser) trailing() error {
	word := strings.ToLower(p.tok.text)
	switch {
	case p.tok.is(")"):
		return p.fail(p.tok, "no bracket is open that this could close")
	case connectives[word] != "":
		return p.fail(p.tok, "selectors are joined by && or ||; use %s", connectives[word])
	case p.last.kind == tokenString && strings.HasSuffix(p.last.value(), `\`):
		return p.fail(p.last, `strings have no escapes: \ is a character, and the next quote ends the string; a value with " is written '…'`)
	case p.tok.kind == tokenSymbol && !p.tok.is("(") && !p.tok.is("!"):
		return p.fail(p.tok, "%q does not continue a selector; && and || do", shown(p.tok.text))
	}
	return p.fail(p.tok, "&& or || must come between two selectors")
}
