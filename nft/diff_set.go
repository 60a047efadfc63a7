package nft

import (
	"slices"

	"github.com/poldernet/polder/internal/change"
)

// fillSet adds all elements to a new set. Those of a verdict map come after
// the chains that they point to.
func (d *tableDiff) fillSet(fill, verdicts *[]step, s Set) {
	d.tell(func() []change.Change { return []change.Change{d.createdSet(s)} })
	if len(s.Elements) == 0 {
		return
	}
	s2 := step{d.id, addElements{s, s.Elements}}
	switch {
	case !s.Verdicts:
		*fill = append(*fill, s2)
	case slices.ContainsFunc(s.Elements, func(e Element) bool { return d.replaced.chains[e.Verdict.Chain] }):
		d.swapIn(swapVerdicts, s2.op)
	default:
		*verdicts = append(*verdicts, s2)
	}
}

// replaceSet makes a set anew under its name. The rules that use it are
// rewritten in the same transaction, see replaced.touches.
func (d *tableDiff) replaceSet(want, have Set) {
	d.tell(func() []change.Change { return []change.Change{d.replacedSet(want, have)} })
	d.swapIn(swapDelete, delSet{have})
	d.swapIn(swapCreate, addSet{want})
	if len(want.Elements) == 0 {
		return
	}
	phase := swapFill
	if want.Verdicts {
		phase = swapVerdicts
	}
	d.swapIn(phase, addElements{want, want.Elements})
}

// removeSet deletes a set in the last stage. Its elements go earlier where
// they point to a chain that is replaced.
func (d *tableDiff) removeSet(s Set) {
	d.tell(func() []change.Change { return []change.Change{d.removedSet(s)} })
	var early []Element
	for _, e := range s.Elements {
		if d.replaced.chains[e.Verdict.Chain] {
			early = append(early, e)
		}
	}
	if len(early) > 0 {
		d.swapIn(swapUnmap, delElements{s, early})
	}
	d.add(&d.retire, delSet{s})
}

// diffElements plans the change of a living set's members. Additions come
// before removals, in transactions of their own. Elements that cannot stand
// beside each other, and those of a verdict map, change in one transaction.
func (d *tableDiff) diffElements(want, have Set) {
	if shared(want.Elements, have.Elements) {
		return
	}
	added, removed := elementDiff(want.Elements, have.Elements)
	if len(added) == 0 && len(removed) == 0 {
		return
	}
	d.tell(func() []change.Change { return []change.Change{d.updatedSet(want, added, removed)} })
	if want.Verdicts {
		d.swapElements(swapUnmap, delElements{want, removed})
		d.swapElements(swapVerdicts, addElements{want, added})
		return
	}
	addNow, add, delNow, del := splitConflicts(want, added, removed)
	d.swapElements(swapUnmap, delElements{want, delNow})
	d.swapElements(swapFill, addElements{want, addNow})
	if len(add) > 0 {
		d.add(&d.extend, addElements{want, add})
	}
	if len(del) > 0 {
		d.add(&d.retire, delElements{want, del})
	}
}

// swapElements is swapIn for operations on elements, if there are any.
func (d *tableDiff) swapElements(phase swapPhase, o op) {
	switch o := o.(type) {
	case addElements:
		if len(o.elements) == 0 {
			return
		}
	case delElements:
		if len(o.elements) == 0 {
			return
		}
	}
	d.swapIn(phase, o)
}

// elementDiff compares two canonical lists of elements.
func elementDiff(want, have []Element) (added, removed []Element) {
	for len(want) > 0 && len(have) > 0 {
		switch c := compareElements(want[0], have[0]); {
		case c == 0:
			want, have = want[1:], have[1:]
		case c < 0:
			added, want = append(added, want[0]), want[1:]
		default:
			removed, have = append(removed, have[0]), have[1:]
		}
	}
	return append(added, want...), append(removed, have...)
}

// splitConflicts finds the additions that overlap a removal: the kernel takes
// them only once the removed element is gone.
func splitConflicts(s Set, added, removed []Element) (addNow, add, delNow, del []Element) {
	conflict := make([]bool, len(removed))
	for _, a := range added {
		clash := false
		for i := firstCandidate(s, removed, a); i < len(removed); i++ {
			r := removed[i]
			if len(s.Key) == 1 && r.Key > a.last() {
				break
			}
			if s.conflict(a, r) {
				conflict[i], clash = true, true
			}
		}
		if clash {
			addNow = append(addNow, a)
		} else {
			add = append(add, a)
		}
	}
	for i, r := range removed {
		if conflict[i] {
			delNow = append(delNow, r)
		} else {
			del = append(del, r)
		}
	}
	return addNow, add, delNow, del
}

// firstCandidate is where in a sorted list of removals a conflict with an
// element can begin. Elements of a single-field set do not overlap each other,
// so their ends are sorted as well.
func firstCandidate(s Set, removed []Element, a Element) int {
	if len(s.Key) != 1 {
		return 0
	}
	i, _ := slices.BinarySearchFunc(removed, a.Key, func(r Element, key Data) int {
		if r.last() < key {
			return -1
		}
		return 1
	})
	return i
}

// conflict says that two elements cannot both be in the set.
func (s Set) conflict(a, b Element) bool {
	if len(s.Key) == 1 || !s.Interval {
		return a.overlaps(b)
	}
	aKey, aTo, bKey, bTo := a.Key, a.last(), b.Key, b.last()
	if n := keyLength(s.Key); len(aKey) != n || len(aTo) != n || len(bKey) != n || len(bTo) != n {
		return true
	}
	for _, t := range s.Key {
		n := padded(typeInfos[t].length)
		if aKey[:n] > bTo[:n] || bKey[:n] > aTo[:n] {
			return false
		}
		aKey, aTo, bKey, bTo = aKey[n:], aTo[n:], bKey[n:], bTo[n:]
	}
	return true
}
