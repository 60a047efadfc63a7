package policy

import (
	"encoding/binary"
	"maps"
	"slices"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/spec"
)

// piece is a part of a fragment with the objects that it needs: the rules of a
// policy on one side, or a chain. A piece depends on nothing but its key, and
// what the index throws all pieces away for. Those that the last compilation
// had no use for are forgotten.
type piece struct {
	name       string      // of the chain
	judgements []judgement // of the policy

	chains   []nft.Chain
	sets     []nft.Set
	living   []*livingSet // of its rules, and of those that are made of them
	lookedUp []*livingSet // by the chains
	counters []*namedCounter
	uses     []use
	needs    []*piece
	round    uint64 // the latest compilation that had a use for it
}

type namedCounter struct {
	name string
	Counter
}

// pieceKey identifies a piece.
type pieceKey struct {
	side     side
	policy   *spec.Policy // of its rules
	next     nft.Verdict  // where they pass to
	policies string       // of a chain: all by which it and those behind it judge
	lookUp   bool         // of a chain: there may be a look-up of the service
}

// key identifies policies in their order, and with them the tiers.
func (x *Index) key(stages []stage) string {
	var b []byte
	for _, s := range stages {
		for _, p := range s.policies {
			b = binary.NativeEndian.AppendUint64(b, x.serials[p])
		}
	}
	return string(b)
}

// once makes a piece, unless it has been made, and notes that the one being
// made needs it.
func (c *compiler) once(key pieceKey, create func(*piece)) *piece {
	p := c.x.pieces[key]
	if p == nil {
		p = &piece{}
		outer := c.piece
		c.piece = p
		create(p)
		c.piece = outer
		c.lookUps(p)
		c.x.pieces[key] = p
	}
	c.piece.needs = append(c.piece.needs, p)
	return p
}

// lookUps notes which living sets the chains of a piece look up. Rules that can
// match nothing are in none of them.
func (c *compiler) lookUps(p *piece) {
	names := map[string]bool{}
	for _, chain := range p.chains {
		for _, r := range chain.Rules {
			for _, e := range r.Exprs {
				if l, ok := e.(nft.Lookup); ok {
					names[l.Set] = true
				}
			}
		}
	}
	if len(names) == 0 {
		return
	}
	for _, rules := range append(slices.Clip(p.needs), p) {
		for _, s := range rules.living {
			if names[s.name+c.suffix[s.name]] {
				p.lookedUp = append(p.lookedUp, s)
			}
		}
	}
}

// together puts together what the piece comes to, with all that it needs. It is what
// was put together last, with the pieces that have come since and without those that
// are gone.
func (c *compiler) together(last *compiler) {
	c.lookUps(c.piece)
	var come, gone []*piece
	var gather func(*piece)
	gather = func(p *piece) {
		if p.round == c.round {
			return
		}
		if p.round != last.round || last.round == 0 {
			come = append(come, p)
		}
		p.round = c.round
		c.pieces = append(c.pieces, p)
		for _, n := range p.needs {
			gather(n)
		}
	}
	c.pieces = make([]*piece, 0, len(last.pieces))
	gather(c.piece)
	for _, p := range last.pieces {
		if p.round != c.round {
			gone = append(gone, p)
		}
	}
	c.chains = last.chains.changed(come, gone, func(p *piece) []nft.Chain { return p.chains })
	c.sets = last.sets.changed(come, gone, func(p *piece) []nft.Set { return p.sets })
	c.living = last.living.changed(come, gone, func(p *piece) []*livingSet { return p.lookedUp })
	c.counters = last.counters.changed(come, gone, func(p *piece) []*namedCounter { return p.counters })
	c.piece = nil
}

// forget forgets the pieces that were not gathered by the last compilation.
func (x *Index) forget() {
	maps.DeleteFunc(x.pieces, func(_ pieceKey, p *piece) bool { return p.round != x.round })
}

// outdate forgets the pieces that look up one of the living sets, and those
// that refer to these.
func (x *Index) outdate(names map[string]bool) {
	old := map[*piece]bool{}
	var visit func(*piece) bool
	visit = func(p *piece) bool {
		is, known := old[p]
		if !known {
			is = slices.ContainsFunc(p.living, func(s *livingSet) bool { return names[s.name] }) || slices.ContainsFunc(p.needs, visit)
			old[p] = is
		}
		return is
	}
	maps.DeleteFunc(x.pieces, func(_ pieceKey, p *piece) bool { return visit(p) })
}

// finished is the table. What has not changed since the table given last is shared
// with it.
func (c *compiler) finished() nft.Table {
	t := nft.Table{
		Family: nft.INet, Name: nft.TableName, Chains: c.chains.list, Counters: make([]string, len(c.counters.list)),
		Sets: make([]nft.Set, 0, len(c.sets.list)+len(c.living.list)),
	}
	for i, n := range c.counters.list {
		t.Counters[i] = n.name
	}
	others := c.sets.list
	for _, s := range c.living.list {
		set := nft.Set{Name: s.name + c.suffix[s.name], Key: s.key}
		if elements := c.x.elements(s); len(elements) > 0 {
			set.Elements = elements
		}
		at, _ := slices.BinarySearchFunc(others, set.Name, c.sets.compare)
		t.Sets, others = append(append(t.Sets, others[:at]...), set), others[at:]
	}
	t.Sets = append(t.Sets, others...)
	return t
}

// counted says what the counters count, by name.
func (c *compiler) counted() map[string]Counter {
	counted := make(map[string]Counter, len(c.counters.list))
	for _, n := range c.counters.list {
		counted[n.name] = n.Counter
	}
	return counted
}
