package selector_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/poldernet/polder/spec/selector"
)

var update = flag.Bool("update", false, "write golden files anew")

const errorsFile = "testdata/errors.txtar"

// refusals are the texts of errorsFile.
func refusals(t testing.TB) (*txtar.Archive, []string) {
	t.Helper()
	archive, err := txtar.ParseFile(errorsFile)
	if err != nil || len(archive.Files) != 2 {
		t.Fatalf("%s has not two parts: %v", errorsFile, err)
	}
	return archive, strings.Split(strings.TrimSpace(string(archive.Files[0].Data)), "\n")
}

// refused is the error that Parse must give.
func refused(t fataler, text string) *selector.SyntaxError {
	t.Helper()
	s, err := selector.Parse(text)
	var syntax *selector.SyntaxError
	if s != nil || !errors.As(err, &syntax) {
		t.Fatalf("%q: read as %s, error %v", text, s, err)
	}
	if syntax.Start < 0 || syntax.End <= syntax.Start || len(text) < syntax.End {
		t.Fatalf("%q: %+v is not within the text", text, syntax)
	}
	return syntax
}

func TestSyntaxErrors(t *testing.T) {
	archive, texts := refusals(t)
	var got bytes.Buffer
	for _, text := range texts {
		e := refused(t, text)
		fmt.Fprintf(&got, "%s\n%s%s\n    %s\n", text,
			strings.Repeat(" ", utf8.RuneCountInString(text[:e.Start])),
			strings.Repeat("^", utf8.RuneCountInString(text[e.Start:e.End])), e.Msg)
	}
	if *update {
		archive.Files[1].Data = got.Bytes()
		if err := os.WriteFile(errorsFile, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want := archive.Files[1].Data; !bytes.Equal(got.Bytes(), want) {
		t.Errorf("not as in %s:\n%s", errorsFile, diff.Diff("want", want, "got", got.Bytes()))
	}
}

// TestSyntaxErrorsUnprintable has texts that a line of a file cannot hold.
func TestSyntaxErrorsUnprintable(t *testing.T) {
	long := strings.Repeat("é", 50)
	for _, test := range []struct{ before, at, after, msg string }{
		{"has(a)", "\n", "&& has(b)", `"\n" does not separate words; write spaces, on one line`},
		{"", "\r", "", `"\r" does not separate words; write spaces, on one line`},
		{"a", "\u00a0", `== "b"`, `"\u00a0" does not separate words; write spaces, on one line`},
		{"a == ", "\xff", "", `"\xff" means nothing outside of "…" and '…'`},
		{"a == ", "\x00", "b", `"\x00" means nothing outside of "…" and '…'`},
		{"a == ", "\"b\n", "", `this string is not closed; " is missing`},
		{"", strings.Repeat("a", 513), ` == "b"`, "the name of a label has at most 512 characters; this has 513"},
		{"has(", strings.Repeat("a", 600), ")", "the name of a label has at most 512 characters; this has 600"},
		{"a in ", `"` + long + `"`, "", `in takes a set in braces: {"` + strings.Repeat("é", 20) + `…}`},
		{"a ", "'\n\xff\x1b'", "", "an operator must come between a label and a value, as in a == '\ufffd\ufffd\ufffd'"},
	} {
		e := refused(t, test.before+test.at+test.after)
		if e.Start != len(test.before) || e.End != e.Start+len(test.at) || e.Msg != test.msg {
			t.Errorf("%q at %q: %+v", test.before+test.at+test.after, test.at, e)
		}
	}
	if err := refused(t, "(a)"); err.Error() != "at byte 1: "+err.Msg {
		t.Error(err)
	}
	parse(t, strings.Repeat("a", 512)+" == 'b'")
	parse(t, "a == '\n\xff\x00'")
}
