package selector_test

import (
	"slices"
	"strings"
	"testing"
	"unicode"

	"pgregory.net/rapid"

	"github.com/poldernet/polder/spec/selector"
)

// TestPropertyMeaning: what is parsed, printed and parsed again, or built by the
// constructors, means what the description of the language says.
func TestPropertyMeaning(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := genExpr(4).Draw(t, "expression")
		text := e.text(t)
		s := parse(t, text)
		again := parse(t, s.String())
		if again.String() != s.String() {
			t.Fatalf("%s\nis printed as\n%s\nand that as\n%s", text, s, again)
		}
		built := e.build(t)
		if built.String() != s.String() {
			t.Fatalf("%s\nis, parsed,\n%s\nand, built,\n%s", text, s, built)
		}
		negated := selector.Not(s)
		if back := selector.Not(negated); back.String() != s.String() {
			t.Fatalf("%s, twice negated, is\n%s", s, back)
		}
		for range 20 {
			l := genLabels().Draw(t, "labels")
			want := e.holds(l)
			for what, s := range map[string]*selector.Selector{text: s, s.String(): again, "built": built} {
				if s.Matches(l) != want {
					t.Fatalf("%s\n(%s)\nmatches %v: %v, want %v", what, s, l, !want, want)
				}
			}
			if negated.Matches(l) == want {
				t.Fatalf("%s\nand its negation\n%s\nboth match %v: %v", s, negated, l, want)
			}
			if s.IsAll() && !want {
				t.Fatalf("%s is all(), but does not match %v", text, l)
			}
		}
	})
}

// TestPropertyIdentity: neither order nor repetition makes another selector.
func TestPropertyIdentity(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := genExpr(3).Draw(t, "expression")
		a, b := parse(t, e.text(t)), parse(t, e.shuffled(t).text(t))
		if a.String() != b.String() {
			t.Fatalf("shuffled,\n%s\nis\n%s", a, b)
		}
	})
}

// TestPropertyBrackets: without any pair of brackets, canonical text is another.
func TestPropertyBrackets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := parse(t, genExpr(4).Draw(t, "expression").text(t)).String()
		var open []int
		quote := byte(0)
		for i := range len(s) {
			switch c := s[i]; {
			case quote != 0:
				if c == quote {
					quote = 0
				}
			case c == '"' || c == '\'':
				quote = c
			case c == '(':
				open = append(open, i)
			case c == ')':
				from := open[len(open)-1]
				open = open[:len(open)-1]
				less, err := selector.Parse(s[:from] + " " + s[from+1:i] + " " + s[i+1:])
				if err == nil && less.String() == s {
					t.Fatalf("in %s the brackets from %d to %d are for nothing", s, from, i)
				}
			}
		}
	})
}

// TestPropertyRestrictions: labels that match meet the restrictions.
func TestPropertyRestrictions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := parse(t, genExpr(4).Draw(t, "expression").text(t))
		list := s.Restrictions()
		for i, r := range list {
			if i > 0 && list[i-1].Key >= r.Key || !slices.IsSorted(r.Values) || len(slices.Compact(slices.Clone(r.Values))) != len(r.Values) {
				t.Fatalf("%s has %v, which is not in order", s, list)
			}
		}
		for range 20 {
			l := genLabels().Draw(t, "labels")
			if !s.Matches(l) {
				continue
			}
			for _, r := range list {
				value, present := l[r.Key]
				if !present || r.Values != nil && !slices.Contains(r.Values, value) {
					t.Fatalf("%s matches %v in spite of %v", s, l, r)
				}
			}
		}
	})
}

// TestPropertyErrors: a text with a piece cut out, doubled or put in is read,
// or refused at a place within it.
func TestPropertyErrors(t *testing.T) {
	pieces := []string{"(", ")", "!", "&&", "||", "==", "{", "}", ",", `"`, "'", "in", "not", "has", "=", " ", "a", "é", "\n"}
	rapid.Check(t, func(t *rapid.T) {
		text := genExpr(2).Draw(t, "expression").text(t)
		for range rapid.IntRange(1, 3).Draw(t, "edits") {
			from := rapid.IntRange(0, len(text)).Draw(t, "from")
			to := rapid.IntRange(from, min(from+3, len(text))).Draw(t, "to")
			text = text[:from] + rapid.SampledFrom(pieces).Draw(t, "piece") + text[to:]
		}
		checkParse(t, text)
	})
}

// checkParse checks what holds of whatever text.
func checkParse(t fataler, text string) {
	t.Helper()
	s, err := selector.Parse(text)
	if err != nil {
		e := refused(t, text)
		misformatted := strings.Contains(e.Msg, "%!") && !strings.Contains(text, "%!")
		if e.Msg == "" || strings.ContainsFunc(e.Msg, func(r rune) bool { return !unicode.IsPrint(r) }) || misformatted {
			t.Fatalf("%q: message %q", text, e.Msg)
		}
		return
	}
	again, err := selector.Parse(s.String())
	if err != nil || again.String() != s.String() {
		t.Fatalf("%q is printed as %q, and that as %q, error %v", text, s, again, err)
	}
	l := selector.Labels{"a": "b", "in": "", "k": "x"}
	if s.Matches(l) != again.Matches(l) || s.Matches(nil) != again.Matches(nil) || s.IsAll() && !s.Matches(nil) {
		t.Fatalf("%q does not mean what is printed, %q", text, s)
	}
	if selector.Not(s).Matches(l) == s.Matches(l) {
		t.Fatalf("%q: its negation is %q", text, selector.Not(s))
	}
	for _, r := range s.Restrictions() {
		value, present := l[r.Key]
		if s.Matches(l) && (!present || r.Values != nil && !slices.Contains(r.Values, value)) {
			t.Fatalf("%q matches %v in spite of %v", text, l, r)
		}
	}
}

func FuzzParse(f *testing.F) {
	_, texts := refusals(f)
	for _, text := range texts {
		f.Add(text)
	}
	for _, text := range []string{
		"", "all()", `a == "b" && !(c in {"d", 'e',} || k not in {}) || has(in)`, `a starts with '"' && a endswith ''`,
		`!!(a contains "b" && ((k != "x")))`, "has(\xff)", `a == "\`, strings.Repeat("!(", 600),
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) { checkParse(t, text) })
}
