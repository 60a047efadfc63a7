package nft

import "errors"

// Generation numbers the states of all tables of a network namespace: every
// commit, whoever's, begins a new one (NFT_MSG_GETGEN).
type Generation uint32

// next is the generation that a commit begins. The kernel leaves 0 out.
func (g Generation) next() Generation {
	if g++; g == 0 {
		g = 1
	}
	return g
}

// ErrStale says that somebody changed our tables after they were read: the
// plan is not valid any more, and nothing of its stage has been done.
var ErrStale = errors.New("the ruleset was changed after it was read")

// errTorn says that a dump does not show one state.
var errTorn = errors.New("the ruleset changed while it was read")

// ForeignDrop is a base chain, not of ours, that drops by default. An accept
// of ours does not overrule it: every base chain of a hook has its say.
type ForeignDrop struct {
	Table  TableID
	Chain  string
	Hook   string
	Reason string // "policy drop", "ends in reject"
}

// foreignDrop says whether a base chain drops what its rules do not accept,
// and why. Chains behind a jump are not looked into.
func foreignDrop(id TableID, c Chain) (ForeignDrop, bool) {
	if c.Base == nil || c.Base.Type != "filter" {
		return ForeignDrop{}, false
	}
	d := ForeignDrop{Table: id, Chain: c.Name, Hook: c.Base.Hook}
	switch {
	case c.Base.Policy == PolicyDrop:
		d.Reason = "policy drop"
	case len(c.Rules) > 0:
		d.Reason = unconditionalDrop(c.Rules[len(c.Rules)-1])
	}
	return d, d.Reason != ""
}

// unconditionalDrop says how a rule drops every packet, or nothing.
func unconditionalDrop(r Rule) string {
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case Counter, CounterRef:
		case Unknown:
			switch e.Name {
			case "log", "counter":
			case "reject":
				return "ends in reject"
			default:
				return ""
			}
		case Verdict:
			if e == Drop {
				return "ends in drop"
			}
			return ""
		default:
			return ""
		}
	}
	return ""
}
