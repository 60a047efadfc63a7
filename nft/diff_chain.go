package nft

import "github.com/poldernet/polder/internal/change"

// diffChain plans what makes a chain of an existing one, or of none. Rules of
// new regular chains are filled in beforehand (fill), unless they refer to
// something that only the switch makes.
func (d *tableDiff) diffChain(want, have Chain, there bool, fill *[]step) {
	switch {
	case !there && want.Base == nil:
		d.add(&d.prepare, addChain{name: want.Name})
		if d.replaced.touches(want) {
			d.swapRules(want)
		} else {
			for _, r := range want.Rules {
				*fill = append(*fill, step{d.id, addRule{want.Name, r}})
			}
		}
	case !there:
		d.swapIn(swapCreate, addChain{want.Name, want.Base})
		d.swapRules(want)
	case d.replaced.chains[want.Name]:
		d.swapIn(swapFlush, flushChain{want.Name})
		d.swapIn(swapDelete, delChain{want.Name})
		d.swapIn(swapCreate, addChain{want.Name, want.Base})
		d.swapRules(want)
	default:
		if !equalBase(want.Base, have.Base) {
			d.swapIn(swapCreate, setPolicy{want.Name, *want.Base})
		}
		if !equalRules(want.Rules, have.Rules) || d.replaced.touches(want) || d.replaced.touches(have) {
			d.swapIn(swapFlush, flushChain{want.Name})
			d.swapRules(want)
		}
	}
	if !there || !equalBase(want.Base, have.Base) || !shared(want.Rules, have.Rules) {
		d.tell(func() []change.Change { return d.chainChange(want, have, there) })
	}
}

func (d *tableDiff) swapRules(c Chain) {
	for _, r := range c.Rules {
		d.swapIn(swapRules, addRule{c.Name, r})
	}
}

// removeChain takes a base chain off its hook in the switch, and leaves a
// regular chain, which by then nothing refers to, for later. Its rules go
// before the sets that they use, the chain itself after the maps that point to
// it (last).
func (d *tableDiff) removeChain(c Chain, last *[]step) {
	d.tell(func() []change.Change { return []change.Change{d.removedChain(c)} })
	if c.Base != nil {
		d.swapIn(swapFlush, flushChain{c.Name})
		d.swapIn(swapDelete, delChain{c.Name})
		return
	}
	if d.replaced.touches(c) {
		d.swapIn(swapFlush, flushChain{c.Name})
	}
	d.add(&d.retire, flushChain{c.Name})
	*last = append(*last, step{d.id, delChain{c.Name}})
}
