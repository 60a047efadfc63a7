package nft

// DiffPart is Diff for who knows what differs, so that what does not need not be
// looked at: both rulesets leave it out, whole chains and sets, and elements of
// sets that stay. The tables themselves are there. whole gives all of what is
// observed; it is asked for only if something comes in the way, so that this has
// to be compared with what is in the kernel.
func DiffPart(desired, observed Ruleset, whole func() Ruleset) *Plan {
	p := Diff(desired, observed)
	p.whole = whole
	return p
}

// End is the generation that begins with the end of a plan that is carried out
// in generation gen, if nobody else commits meanwhile.
func (p *Plan) End(gen Generation) Generation {
	for _, s := range p.stages() {
		for range s.transactions {
			gen = gen.next()
		}
	}
	return gen
}
