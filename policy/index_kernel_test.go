package policy

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/poldernet/polder/nft"
)

// Whatever happens, the kernel holds what the model comes to under the names that
// are in force, and members have changed in place only where that is harmless.
func TestIndexInForce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := drawing{t}
		w := newWorld(d.frame())
		x := NewIndex(w.model(), indexHost)
		x.Remake = rapid.SampledFrom([]int{0, 3}).Draw(t, "remake")
		k := nft.NewModel()
		id := nft.TableID{Family: nft.INet, Name: nft.TableName}
		beside := nft.Table{Family: nft.INet, Name: nft.TableName, Chains: []nft.Chain{{Name: "others"}}}
		read := func() (nft.Ruleset, nft.Table) {
			rs, _ := k.Read(id)
			table, _ := rs.Table(id)
			return rs, table
		}
		var known nft.Table // given by the index, and in force
		for range rapid.IntRange(1, 30).Draw(t, "events") {
			d.event(w, x)
			fails := 1000
			switch d.number(12, "beside") {
			case 0, 1, 2:
				continue // two at once
			case 3:
				fails = d.number(6, "fails")
			case 4:
				k.Delete("somebody", id)
				known = nft.Table{}
			}
			observed, before := read()
			live := known
			if live.Name == "" {
				live = before
			}
			c := x.Compile(live)
			stops := []nft.Ruleset{}
			for _, table := range append(slices.Clip(c.Via), c.Table) {
				stops = append(stops, nft.Ruleset{nft.Merge(table, beside)})
			}
			_, gen := k.Read(id)
			plan := nft.Through(observed, stops...)
			_, err := k.Commit(plan, gen, func() error {
				if fails--; fails < 0 {
					return errors.New("the kernel is out of memory")
				}
				return nil
			})
			if err != nil {
				known = nft.Table{}
				continue
			}
			known = c.Table
			_, got := read()
			equalTables(t, "in the kernel", got, stops[len(stops)-1][0])
			suffix, _, _ := suffixes(got)
			plain := NewIndex(w.model(), indexHost)
			plain.suffix = suffix
			p := plain.settle()
			p.table = p.finished()
			equalTables(t, "compiled", got, nft.Merge(p.table, beside))
			if changed := p.changed(before); len(c.Via) == 0 && len(changed) > 0 && !(p.inForce(before) && p.harmless(changed)) {
				t.Fatalf("members change in place: %v", changed)
			}
		}
	})
}
