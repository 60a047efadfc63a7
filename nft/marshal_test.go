package nft

import (
	"bytes"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func marshalled(t rapid.TB, rs Ruleset) []byte {
	t.Helper()
	b, err := Marshal(rs)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestMarshalGolden: a file of an earlier polder holds every kind of expression,
// and is still read as what it was.
func TestMarshalGolden(t *testing.T) {
	rs := Ruleset{sample()}
	golden(t, "sample-ruleset.json", string(marshalled(t, rs)))
	b, err := os.ReadFile("testdata/sample-ruleset.json")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Unmarshal(b)
	if err != nil {
		t.Fatal(err)
	}
	if !equalRulesets(got, rs) {
		t.Errorf("it was read as\n%s", got)
	}
	kinds := map[string]bool{}
	for _, c := range rs[0].Chains {
		for _, r := range c.Rules {
			for _, e := range r.Exprs {
				kinds[exprNames[reflect.TypeOf(e)]] = true
			}
		}
	}
	if len(kinds) != len(exprKinds) {
		t.Errorf("the sample has only the expressions %v", kinds)
	}
}

func TestMarshalRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rs := Ruleset{drawTable(t, "inet")}
		if rapid.Bool().Draw(t, "two tables") {
			second := drawTable(t, "bridge")
			second.Family = Bridge
			rs = append(Ruleset{second}, rs...)
		}
		b := marshalled(t, rs)
		got, err := Unmarshal(b)
		if err != nil {
			t.Fatal(err)
		}
		if !Diff(rs, got).Empty() || !Diff(got, rs).Empty() {
			t.Fatalf("%s\nbecame\n%s", rs, got)
		}
		slices.Reverse(rs) // the order means nothing
		for _, table := range rs {
			slices.Reverse(table.Chains)
			slices.Reverse(table.Sets)
			slices.Reverse(table.Counters)
		}
		if !bytes.Equal(marshalled(t, rs), b) || !bytes.Equal(marshalled(t, got), b) {
			t.Fatal("equal rulesets give other bytes")
		}
	})
}

// TestUnmarshalDamage: of a file that lacks its end, or in which one bit is
// another, no part is taken for a ruleset.
func TestUnmarshalDamage(t *testing.T) {
	rs := Ruleset{sample()}
	whole := marshalled(t, rs)
	rapid.Check(t, func(t *rapid.T) {
		b := bytes.Clone(whole)
		at := rapid.IntRange(0, len(b)-2).Draw(t, "at") // behind the last but one only a newline is missing
		if rapid.Bool().Draw(t, "cut") {
			b = b[:at]
		} else {
			b[at] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		}
		// One bit makes "Type" of "type", which means the same to encoding/json.
		if got, err := Unmarshal(b); err == nil && !equalRulesets(got, rs) {
			t.Fatalf("nothing is wrong with\n%s", b)
		}
	})
}

func TestUnmarshalErrors(t *testing.T) {
	table := func(inside string) string { return `[{"Family":"inet","Name":"polder",` + inside + `}]` }
	sealed := func(tables string) []byte {
		b, err := seal([]byte(tables))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, test := range []struct {
		name string
		file []byte
		want string
	}{
		{"empty", nil, "does not begin as a ruleset"},
		{"not ours", []byte("{}\n[]\n"), "does not begin as a ruleset"},
		{"newer", []byte(`{"type":"polder ruleset","version":2,"extra":1}` + "\nwhatever\n"), "is of version 2, and this polder knows version 1"},
		{"other tables", bytes.Replace(sealed("[]"), []byte("[]"), []byte("[ ]"), 1), "checksum"},
		{"unknown field", sealed(table(`"Flags":1`)), "unknown field"},
		{"unknown expression", sealed(table(`"Chains":[{"Name":"c","Rules":[{"Exprs":[{"quota":{}}]}]}]`)), `no expression "quota"`},
		{"unknown operand", sealed(table(`"Chains":[{"Name":"c","Rules":[{"Exprs":[{"counter":{"Limit":1}}]}]}]`)), "unknown field"},
		{"two kinds", sealed(table(`"Chains":[{"Name":"c","Rules":[{"Exprs":[{"counter":{},"notrack":{}}]}]}]`)), "2 kinds"},
		{"no such chain", sealed(table(`"Chains":[{"Name":"c","Rules":[{"Exprs":[{"verdict":{"Kind":-3,"Chain":"x"}}]}]}]`)), "no such regular chain x"},
		{"a chain twice", sealed(table(`"Chains":[{"Name":"c"},{"Name":"c"}]`)), "the chain exists"},
		{"a table twice", sealed(`[{"Family":"inet","Name":"polder"},{"Family":"inet","Name":"polder"}]`), "something twice"},
		{"dormant", sealed(table(`"Dormant":true`)), "never written"},
		{"two values", sealed("[] []"), "behind the end"},
		{"data", sealed(table(`"Sets":[{"Name":"s","Key":["mark"],"Elements":[{"Key":"0g"}]}]`)), "invalid byte"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if rs, err := Unmarshal(test.file); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, %v; want an error with %q", rs, err, test.want)
			}
		})
	}
}

func TestMarshalRefusesTheUnknown(t *testing.T) {
	rs := Ruleset{{Family: INet, Name: TableName, Chains: []Chain{{Name: "c", Rules: []Rule{{Exprs: []Expr{Unknown{Name: "quota"}}}}}}}}
	if b, err := Marshal(rs); err == nil {
		t.Errorf("it became %s", b)
	}
}

// FuzzUnmarshal: what is accepted is what would be written, and can be shown and
// compared. The head is right, or nothing would be looked at.
func FuzzUnmarshal(f *testing.F) {
	// Seeds are small: the fuzzer makes whatever it likes of them smaller still.
	f.Add([]byte(`[{"Family":"inet","Name":"polder","Chains":[{"Name":"c","Base":{"Type":"filter","Hook":"input","Priority":0,"Policy":"drop"},"Rules":[{"Exprs":[{"ct":{"Key":0,"Dir":0,"Reg":0}},{"verdict":{"Kind":1}}]}]}],"Counters":["hits"]}]`))
	f.Add([]byte(`[{"Family":"bridge","Name":"polder","Chains":[{"Name":"c","Rules":[{"Exprs":[{"cmp":{"Data":"0a"}}],"Comment":"x"}]}],"Sets":[{"Name":"s","Key":["ipv4_addr"],"Interval":true,"Elements":[{"Key":"0a000000","To":"0a0000ff"}]}]}]`))
	f.Fuzz(func(t *testing.T, tables []byte) {
		if _, err := Unmarshal(tables); err == nil && len(tables) < 64 {
			t.Fatal("there is no head")
		}
		b, err := seal(tables)
		if err != nil {
			t.Fatal(err)
		}
		rs, err := Unmarshal(b)
		if err != nil {
			return
		}
		if len(rs) > 0 && rs.String() == "" || !Diff(rs, rs).Empty() {
			t.Errorf("it differs from itself:\n%s", rs)
		}
		again, err := Unmarshal(marshalled(t, rs))
		if err != nil || !equalRulesets(again, rs) {
			t.Errorf("%s\nbecame\n%s %v", rs, again, err)
		}
	})
}
