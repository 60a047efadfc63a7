package verdict

import (
	"fmt"

	"github.com/poldernet/polder/nft"
)

// History is a table as it is after each of a sequence of commits, and what a
// packet sees that is on its way while they happen.
//
// A packet in flight does not see one ruleset. The kernel keeps two versions of
// each chain's rules, for generations of even and odd numbers, and a packet takes
// those of the parity that it began with (nft_do_chain: genbit), so that a commit
// is not seen. A second commit however overwrites the version that the packet
// takes. Sets are looked up as they are (nft_set_elem_active takes the
// generation of the moment). Elements of a map that is deleted are no longer
// found, those of a set that is deleted still are: of the two, only maps are
// deactivated element by element (nft_map_deactivate).
type History struct {
	states []*Rules
	tables []*table
}

// LoadHistory prepares the states of a table, in their order.
func LoadHistory(states []nft.Table) (*History, error) {
	h := &History{}
	for i, t := range states {
		r := &Rules{hooks: map[string][]*chain{}}
		loaded, err := r.load(t)
		if err != nil {
			return nil, fmt.Errorf("state %d: %w", i, err)
		}
		if i > 0 {
			if err := loaded.inherit(h.tables[i-1]); err != nil {
				return nil, fmt.Errorf("state %d: %w", i, err)
			}
		}
		h.states, h.tables = append(h.states, r), append(h.tables, loaded)
	}
	return h, nil
}

// inherit keeps what old rules still refer to after it is deleted, and takes
// over what does not change.
func (t *table) inherit(before *table) error {
	for name, old := range before.sets {
		s, there := t.sets[name]
		switch {
		case !there && old.Verdicts:
			t.sets[name] = old.empty()
		case !there:
			t.sets[name] = old
		case s.Verdicts != old.Verdicts || s.Interval != old.Interval || s.length != old.length:
			return fmt.Errorf("set %s becomes another under its name", name)
		case s.Set.Equal(old.Set):
			t.sets[name] = old
		}
	}
	for name, old := range before.chains {
		if c, there := t.chains[name]; there && c.Equal(old.Chain) {
			c.Rules = old.Rules
		}
	}
	return nil
}

// Outcomes are the fates that packets in flight can meet.
type Outcomes struct {
	Accepted bool
	Dropped  []Place // by which rules
}

// flight is the search for all that a packet can meet.
type flight struct {
	history  *History
	began    int
	last     int
	outcomes Outcomes
	err      error
}

// Judge runs the base chain of a hook on a packet that enters it in one state
// and leaves it in none later than last, with every choice of how far the
// commits have come at each look.
func (h *History) Judge(hook string, p *Packet, began, last int) (Outcomes, error) {
	chains := h.states[began].hooks[hook]
	if len(chains) == 0 {
		return Outcomes{Accepted: true}, nil
	}
	if len(chains) > 1 {
		return Outcomes{}, fmt.Errorf("%d base chains at %s", len(chains), hook)
	}
	f := &flight{history: h, began: began, last: last}
	f.run(machine{packet: p, mark: p.Mark, base: chains[0].Base, chain: chains[0], flight: f, state: began})
	return f.outcomes, f.err
}

// Len is the number of states.
func (h *History) Len() int { return len(h.states) }

// run follows one way to its end.
func (f *flight) run(m machine) {
	v, err := m.run()
	switch {
	case err != nil:
		f.err = err
	case v.Accepted:
		f.outcomes.Accepted = true
	default:
		f.outcomes.Dropped = append(f.outcomes.Dropped, v.Dropped)
	}
}

// find looks up in the state of the moment. Where a later state has another
// answer, another packet gets that one. The first state with an answer stands for
// all: from there every later one can still be reached.
func (f *flight) find(m *machine, s *set, key []byte) (nft.Verdict, bool) {
	v, found := f.set(m.state, s.Name).find(key)
	for state := m.state + 1; state <= f.last; state++ {
		if f.set(state, s.Name) == f.set(state-1, s.Name) {
			continue
		}
		if w, other := f.set(state, s.Name).find(key); other != found || w != v {
			later := *m
			later.expr-- // the same expression again
			later.state = state
			f.run(later)
			break
		}
	}
	return v, found
}

// set is a set in a state. Rules refer to none that has never been there.
func (f *flight) set(state int, name string) *set { return f.history.tables[state].sets[name] }

// enter finds a chain's rules of the packet's parity. A chain that was not
// there then has none.
func (f *flight) enter(m *machine, v nft.Verdict) *chain {
	c := f.chain(m.state, v.Chain)
	for state := m.state + 1; state <= f.last; state++ {
		if !c.same(f.chain(state, v.Chain)) {
			later := *m
			later.pending, later.state = &v, state
			f.run(later)
			break
		}
	}
	if c == nil {
		c = &chain{Chain: nft.Chain{Name: v.Chain}, table: m.chain.table}
	}
	return c
}

// chain is a chain as a packet finds it in a state; nil: it is empty.
func (f *flight) chain(state int, name string) *chain {
	version := state - (state-f.began)%2
	return f.history.tables[version].chains[name]
}

// same says that both hold the same rules.
func (c *chain) same(o *chain) bool {
	if c == nil || o == nil {
		return c == o
	}
	if len(c.Rules) == 0 || len(o.Rules) == 0 {
		return len(c.Rules) == len(o.Rules)
	}
	return &c.Rules[0] == &o.Rules[0]
}
