package nft

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/poldernet/polder/internal/change"
)

// text shows changes as a plan does.
func text(changes []change.Change) string {
	var b strings.Builder
	for _, c := range changes {
		fmt.Fprintf(&b, "%s %s %s", c.Action, c.Kind, c.Name)
		if c.Unchanged > 0 {
			fmt.Fprintf(&b, " (%d unchanged)", c.Unchanged)
		}
		b.WriteByte('\n')
		for _, a := range c.Attrs {
			fmt.Fprintf(&b, "    %s: %q -> %q", a.Name, a.Before, a.After)
			if a.ForcesReplace {
				b.WriteString(" # forces replacement")
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// edited is the sample after somebody has been at everything.
func edited() Table {
	t := sample()
	edit := func(name string, f func(*Chain)) { f(&t.Chains[index(t.Chains, name)]) }
	edit("early", func(c *Chain) {
		rules := append([]Rule{}, c.Rules...)
		rules[1].Exprs = append([]Expr{}, rules[1].Exprs...)
		rules[1].Exprs[3] = Cmp{Op: Neq, Data: "\x0a\xf4"}
		rules[5] = Rule{Exprs: append([]Expr{Unknown{Name: "teapot"}}, rules[5].Exprs...), Comment: rules[5].Comment}
		c.Rules = append(rules[:7:7], rules[8:]...)                // one is gone
		c.Rules = append(c.Rules, rules[0], NewRule("", Do(Drop))) // a duplicate, and one more
	})
	edit("forward", func(c *Chain) { c.Base = &Base{"filter", "forward", PriorityFilter, PolicyAccept} })
	edit("odd", func(c *Chain) { c.Base = &Base{"filter", "output", 78, PolicyAccept} })
	edit("work", func(c *Chain) { c.Name = "foreign" })
	at := func(name string) *Set { return &t.Sets[index(t.Sets, name)] }
	at("prefixes4").Elements = append(manyAddresses(20), PrefixElement(netip.MustParsePrefix("10.0.2.0/23")))
	at("dispatch6").Elements = at("dispatch6").Elements[1:]
	at("empty").Other = "size 3"
	at("macs").Name = "extra"
	t.Counters = append(t.Counters, "extra")
	t.Objects = []Object{{"q", 2}}
	t.Dormant = true
	return t.canonical()
}

func TestChangesGolden(t *testing.T) {
	golden(t, "created.txt", text(Diff(Ruleset{sample()}, nil).Changes()))
	golden(t, "repaired.txt", text(Diff(Ruleset{sample()}, Ruleset{edited()}).Changes()))
	golden(t, "destroyed.txt", text(Diff(nil, Ruleset{sample()}).Changes()))
	golden(t, "repaired-plan.nft", Diff(Ruleset{sample()}, Ruleset{edited()}).String())
}

// Every difference shows: an attribute that reads the same before and after
// would tell nothing.
func TestChangesShowTheDifference(t *testing.T) {
	for _, c := range Diff(Ruleset{sample()}, Ruleset{edited()}).Changes() {
		for _, a := range c.Attrs {
			if a.Before == a.After {
				t.Errorf("%s %s: %s is %q before and after", c.Action, c.Name, a.Name, a.Before)
			}
		}
		if _, err := json.Marshal(c); err != nil {
			t.Error(err)
		}
	}
}

func index[T named](list []T, name string) int {
	return slices.IndexFunc(list, func(v T) bool { return v.key() == name })
}
