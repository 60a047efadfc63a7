package nft

import (
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestComment(t *testing.T) {
	for text, want := range map[string]string{
		"":                                  "",
		"policy db, rule 1":                 "policy db, rule 1",
		"say \"no\"\nor\tnot\x00\x7f":       "say 'no' or not  ",
		"bad \xff\xfe bytes":                "bad \ufffd\ufffd bytes",
		"\u202eevil":                        " evil",
		strings.Repeat("x", 200):            strings.Repeat("x", 127),
		strings.Repeat("x", 126) + "\u00e9": strings.Repeat("x", 126),
		strings.Repeat("\u20ac", 50):        strings.Repeat("\u20ac", 42),
	} {
		if got := Comment(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}

func TestCommentFits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := anyText.Draw(t, "text")
		c := Comment(text)
		if len(c) > MaxComment || !utf8.ValidString(c) || strings.ContainsAny(c, "\"\n\x00") || Comment(c) != c {
			t.Fatalf("%q became %q", text, c)
		}
	})
}

// anyText is text of any length and bytes, those of note among them.
var anyText = rapid.Custom(func(t *rapid.T) string {
	part := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"\"", "\n", "\\", "\x00", "\xff", "$x", "*", "#", ";", "}", "\u00e9", "\u20ac"}),
		rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }))
	return strings.Join(rapid.SliceOf(part).Draw(t, "parts"), "")
})
