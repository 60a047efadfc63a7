package nft

// Through is the plan that makes of the observed ruleset the first of the stops,
// of that the second, and so on. The last one is what is desired; what the plan
// says that changes is the difference to that.
func Through(observed Ruleset, stops ...Ruleset) *Plan {
	first := Diff(stops[0], observed)
	last := first
	for i, next := range stops[1:] {
		last.then = Diff(next, stops[i])
		last = last.then
	}
	if len(stops) > 1 {
		first.tell = Diff(stops[len(stops)-1], observed).tell
	}
	return first
}

// Settled is Through, with a wait behind the first stop until no packet runs the
// rules from before it any more.
func Settled(observed, first Ruleset, stops ...Ruleset) *Plan {
	p := Through(observed, append([]Ruleset{first}, stops...)...)
	p.then.settled = true
	return p
}
