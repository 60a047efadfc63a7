package nft

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// split takes out of two tables what is the same in both: chains, sets,
// counters, and elements of sets.
func split(want, have Table) (Table, Table) {
	w, h := want.canonical(), have.canonical()
	// What is replaced under its name has the rules that use it replaced with it,
	// and these need not differ.
	for _, s := range w.Sets {
		if o, there := h.Set(s.Name); there && !s.sameSchema(o) {
			return want, have
		}
	}
	for _, c := range w.Chains {
		if o, there := h.Chain(c.Name); there && !sameHook(c.Base, o.Base) {
			return want, have
		}
	}
	a, b := Table{Family: w.Family, Name: w.Name, Counters: without(w.Counters, h.Counters)}, Table{Family: h.Family, Name: h.Name, Counters: without(h.Counters, w.Counters)}
	for _, c := range w.Chains {
		if o, there := h.Chain(c.Name); !there || !c.Equal(o) {
			a.Chains = append(a.Chains, c)
		}
	}
	for _, c := range h.Chains {
		if o, there := w.Chain(c.Name); !there || !c.Equal(o) {
			b.Chains = append(b.Chains, c)
		}
	}
	for _, s := range w.Sets {
		o, there := h.Set(s.Name)
		switch {
		case !there:
			a.Sets = append(a.Sets, s)
		case !s.Equal(o):
			s.Elements, o.Elements = elementDiff(s.Elements, o.Elements)
			a.Sets, b.Sets = append(a.Sets, s), append(b.Sets, o)
		}
	}
	for _, s := range h.Sets {
		if _, there := w.Set(s.Name); !there {
			b.Sets = append(b.Sets, s)
		}
	}
	return a, b
}

func without(list, others []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(others, s) })
}

// A plan of what differs does what a plan of everything does, also where others
// commit in between; and it is refused where they touched the table.
func TestDiffPart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		have, want := drawPair(t)
		have.Dormant, want.Dormant = false, false
		m := NewModel()
		m.Put("polder", have)
		observed, gen := m.Read(TableID{INet, TableName})
		a, b := split(want, have)
		p := DiffPart(Ruleset{a}, Ruleset{b}, func() Ruleset { return observed })
		touched := rapid.IntRange(0, 3).Draw(t, "touched") == 0
		foreign := touched || rapid.Bool().Draw(t, "others commit")
		if touched {
			changed := have
			changed.Counters = append(slices.Clone(have.Counters), "theirs")
			m.Put("somebody", changed)
		} else if foreign {
			m.Put("kube-proxy", Table{Family: IP, Name: "kube-proxy"})
		}
		begun := m.gen
		err := m.Commit(p, gen, func() error { return nil })
		if touched && !p.Empty() {
			if !errors.Is(err, ErrStale) {
				t.Fatalf("committed over another's change: %v", err)
			}
			return
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, p)
		}
		if m.gen != p.End(begun) {
			t.Fatalf("ends in generation %d, not %d", m.gen, p.End(begun))
		}
		got, _ := m.Read(TableID{INet, TableName})
		if !touched && !equalRulesets(got, Ruleset{want.canonical()}) {
			t.Fatalf("%s\nwant\n%s", got, want)
		}
	})
}
