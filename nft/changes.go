package nft

import (
	"fmt"
	"slices"
	"strings"

	"github.com/poldernet/polder/internal/change"
)

// name is an object's name in nft(8)'s words, "inet polder postrouting".
func (d *tableDiff) name(object string) string { return d.id.String() + " " + object }

func (d *tableDiff) tableChange(there bool) []change.Change {
	var changes []change.Change
	switch {
	case !there:
		changes = append(changes, change.Change{Action: change.Create, Kind: "table", Name: d.id.String()})
	case d.have.Dormant:
		changes = append(changes, change.Change{Action: change.Update, Kind: "table", Name: d.id.String(), Attrs: []change.Attr{{Name: "flags", Before: "dormant"}}})
	}
	var gone []change.Change
	inStep(d.want.Counters, d.have.Counters, itself, func(want, have *string) {
		switch {
		case have == nil:
			changes = append(changes, change.Change{Action: change.Create, Kind: "counter", Name: d.name(*want)})
		case want == nil:
			gone = append(gone, change.Change{Action: change.Delete, Kind: "counter", Name: d.name(*have)})
		}
	})
	changes = append(changes, gone...)
	for _, o := range d.have.Objects {
		if !slices.Contains(d.want.Objects, o) {
			changes = append(changes, change.Change{Action: change.Delete, Kind: "object", Name: d.name(o.String())})
		}
	}
	return changes
}

func deletedTable(t Table) change.Change {
	c := change.Change{Action: change.Delete, Kind: "table", Name: t.ID().String()}
	for _, n := range []struct {
		name  string
		count int
	}{{"chains", len(t.Chains)}, {"sets", len(t.Sets)}, {"counters", len(t.Counters)}} {
		if n.count > 0 {
			c.Attrs = append(c.Attrs, change.Attr{Name: n.name, Before: fmt.Sprint(n.count)})
		}
	}
	return c
}

// chainChange describes what becomes of a desired chain, if anything does.
func (d *tableDiff) chainChange(want, have Chain, there bool) []change.Change {
	c := change.Change{Kind: "chain", Name: d.name(want.Name)}
	switch {
	case !there:
		c.Action = change.Create
	case d.replaced.chains[want.Name]:
		c.Action = change.Replace
	default:
		c.Action = change.Update
	}
	base := baseAttrs(want.Base, have.Base)
	rules, same := ruleAttrs(want.Rules, have.Rules)
	c.Attrs = append(base, rules...)
	c.Unchanged = same
	if there && len(c.Attrs) == 0 {
		return nil
	}
	return []change.Change{c}
}

func (d *tableDiff) removedChain(have Chain) change.Change {
	rules, _ := ruleAttrs(nil, have.Rules)
	return change.Change{Action: change.Delete, Kind: "chain", Name: d.name(have.Name), Attrs: append(baseAttrs(nil, have.Base), rules...)}
}

// baseAttrs are the differing properties of base chains.
func baseAttrs(want, have *Base) []change.Attr {
	var attrs []change.Attr
	add := func(name string, of func(*Base) string, replaces bool) {
		var w, h string
		if want != nil {
			w = of(want)
		}
		if have != nil {
			h = of(have)
		}
		if w != h {
			attrs = append(attrs, change.Attr{Name: name, Before: h, After: w, ForcesReplace: replaces && have != nil && want != nil})
		}
	}
	add("type", func(b *Base) string { return b.Type }, true)
	add("hook", func(b *Base) string { return b.Hook }, true)
	add("priority", (*Base).priority, true)
	add("policy", func(b *Base) string { return string(b.Policy) }, false)
	return attrs
}

// ruleAttrs are the differing rules of a chain, by a longest common
// subsequence, and the number of common ones. Where a rule goes and another
// comes at one place, they are shown as one that changed.
func ruleAttrs(want, have []Rule) (attrs []change.Attr, common int) {
	for len(want) > 0 && len(have) > 0 && want[0].Equal(have[0]) {
		want, have, common = want[1:], have[1:], common+1
	}
	for len(want) > 0 && len(have) > 0 && want[len(want)-1].Equal(have[len(have)-1]) {
		want, have, common = want[:len(want)-1], have[:len(have)-1], common+1
	}
	var gone, come []string
	flush := func() {
		for len(gone) > 0 || len(come) > 0 {
			a := change.Attr{Name: "rule"}
			if len(gone) > 0 {
				a.Before, gone = gone[0], gone[1:]
			}
			if len(come) > 0 {
				a.After, come = come[0], come[1:]
			}
			if a.Before == a.After {
				// The text does not show every operand of a foreign hand's work.
				a.Before += " <other operands>"
			}
			attrs = append(attrs, a)
		}
	}
	lcs := commonLengths(want, have)
	for len(want) > 0 || len(have) > 0 {
		switch {
		case len(want) > 0 && len(have) > 0 && want[0].Equal(have[0]):
			flush()
			want, have, common = want[1:], have[1:], common+1
		case len(want) == 0 || len(have) > 0 && lcs[len(want)][len(have)-1] >= lcs[len(want)-1][len(have)]:
			gone, have = append(gone, have[0].String()), have[1:]
		default:
			come, want = append(come, want[0].String()), want[1:]
		}
	}
	flush()
	return attrs, common
}

// commonLengths are the lengths of the longest common subsequences of the last
// i rules of one list and the last j of the other.
func commonLengths(a, b []Rule) [][]int {
	lengths := make([][]int, len(a)+1)
	lengths[0] = make([]int, len(b)+1)
	for i := 1; i <= len(a); i++ {
		lengths[i] = make([]int, len(b)+1)
		for j := 1; j <= len(b); j++ {
			if a[len(a)-i].Equal(b[len(b)-j]) {
				lengths[i][j] = lengths[i-1][j-1] + 1
			} else {
				lengths[i][j] = max(lengths[i-1][j], lengths[i][j-1])
			}
		}
	}
	return lengths
}

func (d *tableDiff) createdSet(s Set) change.Change {
	return change.Change{Action: change.Create, Kind: s.kind(), Name: d.name(s.Name), Attrs: append(schemaAttrs(s, Set{}, false), elementAttrs(s, s.Elements, nil)...)}
}

func (d *tableDiff) removedSet(s Set) change.Change {
	return change.Change{Action: change.Delete, Kind: s.kind(), Name: d.name(s.Name), Attrs: append(schemaAttrs(Set{}, s, false), elementAttrs(s, nil, s.Elements)...)}
}

func (d *tableDiff) replacedSet(want, have Set) change.Change {
	added, removed := elementDiff(want.Elements, have.Elements)
	attrs := schemaAttrs(want, have, true)
	attrs = append(attrs, elementAttrs(have, nil, removed)...)
	return change.Change{Action: change.Replace, Kind: want.kind(), Name: d.name(want.Name), Attrs: append(attrs, elementAttrs(want, added, nil)...)}
}

func (d *tableDiff) updatedSet(s Set, added, removed []Element) change.Change {
	return change.Change{
		Action: change.Update, Kind: s.kind(), Name: d.name(s.Name),
		Attrs: elementAttrs(s, added, removed), Unchanged: len(s.Elements) - len(added),
	}
}

func schemaAttrs(want, have Set, replaces bool) []change.Attr {
	var attrs []change.Attr
	if w, h := schemaText(want), schemaText(have); w != h {
		attrs = append(attrs, change.Attr{Name: "type", Before: h, After: w, ForcesReplace: replaces})
	}
	return attrs
}

func schemaText(s Set) string {
	text := s.keyText()
	if s.Verdicts {
		text += " : verdict"
	}
	if s.Interval {
		text += "; flags interval"
	}
	if s.Other != "" {
		text += "; " + s.Other
	}
	return text
}

// maxShown bounds the elements of a set that a plan spells out.
const maxShown = 8

func elementAttrs(s Set, added, removed []Element) []change.Attr {
	var attrs []change.Attr
	if len(removed) > 0 {
		attrs = append(attrs, change.Attr{Name: "elements", Before: elementList(s, removed)})
	}
	if len(added) > 0 {
		attrs = append(attrs, change.Attr{Name: "elements", After: elementList(s, added)})
	}
	return attrs
}

func elementList(s Set, list []Element) string {
	var texts []string
	for _, e := range list[:min(len(list), maxShown)] {
		texts = append(texts, s.element(e))
	}
	if more := len(list) - maxShown; more > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(texts, ", ")
}
