package selector_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/poldernet/polder/spec/selector"
)

// fataler is what a test and a property have in common.
type fataler interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

func parse(t fataler, text string) *selector.Selector {
	t.Helper()
	s, err := selector.Parse(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return s
}

// labels reads "a=1 b=": a has the value 1, b the empty one.
func labels(text string) selector.Labels {
	l := selector.Labels{}
	for _, f := range strings.Fields(text) {
		key, value, _ := strings.Cut(f, "=")
		l[key] = value
	}
	return l
}

// TestMatches has each rule of the language.
func TestMatches(t *testing.T) {
	for text, test := range map[string]struct{ yes, no []string }{
		"":                  {[]string{"", "a=1"}, nil},
		" \t ":              {[]string{"", "a=1"}, nil},
		"all()":             {[]string{"", "a=1"}, nil},
		"!all()":            {nil, []string{"", "a=1"}},
		"has(a)":            {[]string{"a=1", "a="}, []string{"", "A=1", "b=1"}},
		"!has(a)":           {[]string{"", "b=1"}, []string{"a=", "a=1"}},
		`a == "1"`:          {[]string{"a=1", "a=1 b=2"}, []string{"", "a=", "a=2", "a=11", "b=1"}},
		`a == ""`:           {[]string{"a="}, []string{"", "a=1"}},
		`a != "1"`:          {[]string{"", "a=", "a=2", "b=1"}, []string{"a=1"}},
		`a != ""`:           {[]string{"", "a=1"}, []string{"a="}},
		`has(a) && a != ""`: {[]string{"a=1"}, []string{"", "a="}},

		`a in {"1", "2"}`:     {[]string{"a=1", "a=2"}, []string{"", "a=", "a=3", "a=12"}},
		`a in {"1"}`:          {[]string{"a=1"}, []string{"", "a=2"}},
		`a in {"1", "2",}`:    {[]string{"a=1", "a=2"}, []string{"", "a="}},
		`a in {"3", "2","1"}`: {[]string{"a=1", "a=2", "a=3"}, []string{"", "a=4"}},
		`a in {""}`:           {[]string{"a="}, []string{"", "a=1"}},
		`a in {}`:             {nil, []string{"", "a=", "a=1"}},
		`a not in {"1", "2"}`: {[]string{"", "a=", "a=3"}, []string{"a=1", "a=2"}},
		`a notin {"1", "2"}`:  {[]string{"", "a=", "a=3"}, []string{"a=1", "a=2"}},
		`a not in {""}`:       {[]string{"", "a=1"}, []string{"a="}},
		`a not in {}`:         {[]string{"", "a=", "a=1"}, nil},

		`a contains "b"`:      {[]string{"a=b", "a=abc"}, []string{"", "a=", "a=ac"}},
		`a starts with "b"`:   {[]string{"a=b", "a=bc"}, []string{"", "a=", "a=ab"}},
		`a startswith "b"`:    {[]string{"a=b", "a=bc"}, []string{"", "a=", "a=ab"}},
		"a starts \t with'b'": {[]string{"a=b", "a=bc"}, []string{"", "a=", "a=ab"}},
		`a ends with "b"`:     {[]string{"a=b", "a=ab"}, []string{"", "a=", "a=bc"}},
		`a endswith "b"`:      {[]string{"a=b", "a=ab"}, []string{"", "a=", "a=bc"}},
		`a contains ""`:       {[]string{"a=b", "a="}, []string{""}},
		`a starts with ""`:    {[]string{"a=b", "a="}, []string{""}},
		`a ends with ""`:      {[]string{"a=b", "a="}, []string{""}},
		`!a contains "b"`:     {[]string{"", "a=", "a=ac"}, []string{"a=b"}},

		"has(a) && has(b)":             {[]string{"a= b="}, []string{"", "a=", "b="}},
		"has(a) || has(b)":             {[]string{"a= b=", "a=", "b="}, []string{""}},
		"has(a) || has(b) && has(c)":   {[]string{"a=", "b= c="}, []string{"", "b=", "c="}},
		"(has(a) || has(b)) && has(c)": {[]string{"a= c=", "b= c="}, []string{"a=", "a= b=", "c="}},
		"!has(a) && has(b)":            {[]string{"b="}, []string{"", "a= b="}},
		"!(has(a) && has(b))":          {[]string{"", "a=", "b="}, []string{"a= b="}},
		"!(has(a) || has(b))":          {[]string{"", "c="}, []string{"a=", "b="}},
		"!!has(a)":                     {[]string{"a="}, []string{""}},
		"! ! !has(a)":                  {[]string{""}, []string{"a="}},
		`!a == "1"`:                    {[]string{"", "a=2"}, []string{"a=1"}},
		`!a != "1"`:                    {[]string{"a=1"}, []string{"", "a=2"}},

		// Words are operators only where an operator can be.
		`in in{"in"}`:                     {[]string{"in=in"}, []string{"", "in="}},
		`has == "a"&&all!='b'`:            {[]string{"has=a", "has=a all="}, []string{"", "has=a all=b"}},
		`not not in {"in"}`:               {[]string{"", "not="}, []string{"not=in"}},
		`contains contains'contains'`:     {[]string{"contains=contains"}, []string{""}},
		`-_./9 == "1"`:                    {[]string{"-_./9=1"}, []string{""}},
		`kubernetes.io/os-2_X == 'linux'`: {[]string{"kubernetes.io/os-2_X=linux"}, []string{""}},
		"has( \ta\t )&&all( )":            {[]string{"a="}, []string{""}},
		`a == '"' || a == "'"`:            {[]string{`a="`, "a='"}, []string{"a="}},
		`a == "\"`:                        {[]string{`a=\`}, []string{`a=\\`}},
		`a == "&&)é"`:                     {[]string{"a=&&)é"}, []string{"a=&&)e"}},
	} {
		s := parse(t, text)
		for _, l := range test.yes {
			if !s.Matches(labels(l)) {
				t.Errorf("%s does not match %q", text, l)
			}
		}
		for _, l := range test.no {
			if s.Matches(labels(l)) {
				t.Errorf("%s matches %q", text, l)
			}
		}
		if s.Matches(nil) != s.Matches(selector.Labels{}) {
			t.Errorf("%s: nil is not the empty map", text)
		}
	}
}

// TestString has what the canonical form makes the same.
func TestString(t *testing.T) {
	for text, want := range map[string]string{
		"":                                   "all()",
		"!!all( )":                           "all()",
		"has( a )":                           "has(a)",
		`a=='b'`:                             `a == "b"`,
		`a == '"'`:                           `a == '"'`,
		`a == "'"`:                           `a == "'"`,
		`a in {'b'}`:                         `a == "b"`,
		`a in {"c", 'b', "c",}`:              `a in {"b", "c"}`,
		`a notin {'b', "b"}`:                 `a != "b"`,
		`a notin {'c', "b"}`:                 `a not in {"b", "c"}`,
		`a in {}`:                            "!all()",
		`a not in {}`:                        "all()",
		`!a in {"b", "c"}`:                   `a not in {"b", "c"}`,
		`!(a == "b")`:                        `a != "b"`,
		`!!a != "b"`:                         `a != "b"`,
		`a contains ""`:                      "has(a)",
		`!a endswith ''`:                     "!has(a)",
		`a startswith "b"`:                   `a starts with "b"`,
		`!(a contains "b")`:                  `!a contains "b"`,
		"has(b) && (has(a) && has(b))":       "has(a) && has(b)",
		"(has(c) || has(b)) || has(a)":       "has(a) || has(b) || has(c)",
		"has(a) || (has(b) && has(c))":       "has(a) || has(b) && has(c)",
		"(has(c) || has(b)) && has(a)":       "has(a) && (has(b) || has(c))",
		"!(has(a) && has(b) || !has(c))":     "has(c) && (!has(a) || !has(b))",
		"has(a) && all()":                    "has(a)",
		"has(a) && !all()":                   "!all()",
		"has(a) || all()":                    "all()",
		"has(a) || !all()":                   "has(a)",
		"!(has(a) || !all())":                "!has(a)",
		`(has(a) || b in {}) && c not in {}`: "has(a)",
		`a == "2" && a == "1" && a != "1"`:   `a == "1" && a != "1" && a == "2"`,
		"((((has(a)))))":                     "has(a)",
		"has(a)||!has(a)":                    "has(a) || !has(a)",
		"(has(a)&&has(b)||has(c))&&(has(c)||has(b)&&has(a))": "has(c) || has(a) && has(b)",
	} {
		s := parse(t, text)
		if s.String() != want {
			t.Errorf("%s is %s, want %s", text, s, want)
		}
		if s.IsAll() != (want == "all()") {
			t.Errorf("%s: IsAll is %v", text, s.IsAll())
		}
	}
}

func TestConstructors(t *testing.T) {
	var none *selector.Selector
	a, b := selector.Has("a"), selector.Equals("b", "1")
	for want, s := range map[string]*selector.Selector{
		"all()":               selector.All(),
		"has(a)":              a,
		`b == "1"`:            b,
		`a in {"1", "2"}`:     selector.In("a", "2", "1", "2"),
		`a not in {"1", "2"}`: selector.NotIn("a", "2", "1"),
		`a == "1"`:            selector.In("a", "1"),
		`a != "1"`:            selector.Not(selector.Equals("a", "1")),
		"!all()":              selector.In("a"),
		`has(a) && b == "1"`:  selector.And(b, nil, a, selector.All()),
		`!has(a) || b != "1"`: selector.Not(selector.And(a, b)),
		`!has(a)`:             selector.And(selector.Not(a)),
		`a == '"'`:            selector.Equals("a", `"`),
	} {
		if s.String() != want {
			t.Errorf("%s, want %s", s, want)
		}
		if again := parse(t, want); again.String() != want {
			t.Errorf("%s is read as %s", want, again)
		}
	}
	for name, s := range map[string]*selector.Selector{
		"nil": none, "zero": {}, "And()": selector.And(), "And(nil)": selector.And(none), "NotIn()": selector.NotIn("a"),
	} {
		if !s.IsAll() || s.String() != "all()" || !s.Matches(nil) || len(s.Restrictions()) > 0 {
			t.Errorf("%s is %s", name, s)
		}
	}
	if s := selector.Not(none); s.IsAll() || s.Matches(labels("a=1")) {
		t.Errorf("not everything is %s", s)
	}
	// Values are the caller's.
	values := []string{"2", "1"}
	s := selector.In("a", values...)
	s.Restrictions()[0].Values[0] = "3"
	if values[0] = "4"; s.String() != `a in {"1", "2"}` || !s.Matches(labels("a=1")) || s.Matches(labels("a=3")) {
		t.Errorf("%s changed", s)
	}
}

func TestRestrictions(t *testing.T) {
	for text, want := range map[string]string{
		"all()":                                "",
		"!all()":                               "",
		"has(a)":                               "a",
		"!has(a)":                              "",
		`a == "1"`:                             "a=1",
		`a != "1"`:                             "",
		`a in {"2", "1"}`:                      "a=1,2",
		`a not in {"2", "1"}`:                  "",
		`a contains "1"`:                       "a",
		`a starts with "1"`:                    "a",
		`!a ends with "1"`:                     "",
		`b == "2" && a == "1" && !has(c)`:      "a=1 b=2",
		`has(a) && a == "1"`:                   "a=1",
		`a in {"1", "2"} && a in {"2", "3"}`:   "a=2",
		`a == "1" && a == "2"`:                 "a=",
		`a == "1" || a == "2"`:                 "a=1,2",
		`a == "1" || has(a)`:                   "a",
		`a == "1" || b == "1"`:                 "",
		`a == "1" || a != "2"`:                 "",
		`a == "1" && has(b) || a == "2"`:       "a=1,2",
		`(a == "1" || a == "2") && a in {"2"}`: "a=2",
		`!(a != "1" || !has(b))`:               "a=1 b",
		`a == "1" && (b == "1" || b == "2")`:   "a=1 b=1,2",
		`a == "1" && a == "2" || a == "1" && a == "3"`: "a=",
		`a == "1" && a == "2" || a == "3"`:             "a=3",
		`a == "1" && a == "2" || has(a) && !has(b)`:    "a",
	} {
		var got []string
		for _, r := range parse(t, text).Restrictions() {
			word := r.Key
			if r.Values != nil {
				word += "=" + strings.Join(r.Values, ",")
			}
			got = append(got, word)
		}
		if said := strings.Join(got, " "); said != want {
			t.Errorf("%s: %q, want %q", text, said, want)
		}
	}
}

// TestNesting: depth is bounded where reading calls itself, and nowhere else.
func TestNesting(t *testing.T) {
	const deepest = 500
	nested := func(open string, times int) string {
		return strings.Repeat(open, times) + "has(z)" + strings.Repeat(")", times)
	}
	for _, open := range []string{"(", "!(", "(has(a) && ", "(has(a) || has(b) && !!("} {
		brackets := strings.Count(open, "(") - strings.Count(open, ")")
		text := strings.Repeat(open, deepest/brackets) + "has(z)" + strings.Repeat(")", deepest)
		s := parse(t, text)
		if again := parse(t, s.String()); again.String() != s.String() {
			t.Errorf("%.20s…: it changes when it is read back", text)
		}
	}
	for _, text := range []string{nested("(", deepest+1), nested("!(", 1_000_000), strings.Repeat("(", 1_000_000)} {
		_, err := selector.Parse(text)
		var syntax *selector.SyntaxError
		if !errors.As(err, &syntax) || syntax.Msg != "brackets are nested more than 500 deep" ||
			text[syntax.Start:syntax.End] != "(" || strings.Count(text[:syntax.End], "(") != deepest+1 {
			t.Errorf("%.20s…: %v", text, err)
		}
	}
	for _, text := range []string{
		strings.Repeat("!", 1_000_000) + "has(a)",
		strings.Repeat("has(a) && ", 100_000) + "has(a)",
		strings.Repeat("(has(a)) || ", 100_000) + "has(a)",
	} {
		if s := parse(t, text); s.String() != "has(a)" {
			t.Errorf("%.20s… is %.50s", text, s)
		}
	}
}
