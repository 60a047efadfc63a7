package reconcile

import (
	"slices"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/policy/spoof"
)

// through is the plan that goes from what is observed to the last of the stops by
// way of the others. The bridge drops of isolated endpoints what `inet polder` has
// not marked: where the rule that marks is to come, it comes before all else, and
// when no packet is on its way without; where it is to go, it goes last.
//
// Where there is no table yet, or none any more, nothing is waited for: what is
// denied is denied sooner.
func through(observed nft.Ruleset, stops ...nft.Ruleset) *nft.Plan {
	last := stops[len(stops)-1]
	before, had := spoof.Seen(observed)
	after, has := spoof.Seen(last)
	isolates := func(rs nft.Ruleset) bool { _, of := spoof.Isolated(rs); return len(of) > 0 }
	if had && !has && isolates(observed) && len(last) > 0 {
		stops = slices.Insert(slices.Clone(stops), len(stops)-1, marking(last, before))
	}
	if _, table := observed.Table(tables[0]); table && !had && has && isolates(last) {
		return nft.Settled(observed, marking(observed, after), stops...)
	}
	return nft.Through(observed, stops...)
}

// marking is a ruleset with a chain more in `inet polder`.
func marking(rs nft.Ruleset, c nft.Chain) nft.Ruleset {
	rs = slices.Clone(rs)
	for i, t := range rs {
		if t.ID() == tables[0] {
			rs[i].Chains = append(slices.Clip(t.Chains), c)
			return rs
		}
	}
	return append(rs, nft.Table{Family: nft.INet, Name: nft.TableName, Chains: []nft.Chain{c}})
}
