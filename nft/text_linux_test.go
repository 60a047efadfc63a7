package nft

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// What nft(8) prints of any rule is our text: of a few hundred rules in each
// family, in which statements stand one after the other that know nothing of
// each other. The rules are the same each time: in some of those that no packet
// matches, as ARP with a field of IPv6, nft(8) goes on to name bytes that
// nobody asked for.
func TestTextOfAnyRule(t *testing.T) {
	for _, family := range []Family{INet, Bridge} {
		t.Run(string(family), func(t *testing.T) {
			k := newKernel(t)
			table := Table{Family: family, Name: TableName}
			rule := rapid.Custom(func(t *rapid.T) Rule {
				var list []Statement
				for i := range rapid.IntRange(1, 3).Draw(t, "statements") {
					list = append(list, drawStatement(t, fmt.Sprint(i), family))
				}
				return NewRule("", append(list, Do(Return))...)
			})
			c := Chain{Name: "c"}
			for seed := range 400 {
				c.Rules = append(c.Rules, rule.Example(seed))
			}
			table.Chains = []Chain{c}
			k.apply(table)
			got := strings.Split(strings.TrimSpace(k.nft("list chain "+table.ID().String()+" c")), "\n")
			got = slices.DeleteFunc(got, func(s string) bool { return !strings.HasPrefix(s, "\t\t") })
			if len(got) != len(c.Rules) {
				t.Fatalf("nft(8) prints %d rules of %d", len(got), len(c.Rules))
			}
			for i, r := range c.Rules {
				if text := strings.TrimSpace(got[i]); text != r.String() {
					t.Errorf("nft(8) prints\n\t%s\nwe print\n\t%s\nof\n\t%#v", text, r, r.Exprs)
				}
			}
		})
	}
}
