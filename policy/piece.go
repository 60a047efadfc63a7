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
	living   []*livingSet
	counters []namedCounter
	uses     []use
	needs    []*piece
	round    uint64 // the compilation that gathered it last
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
		c.x.pieces[key] = p
	}
	c.piece.needs = append(c.piece.needs, p)
	return p
}

// gather puts together what a piece comes to, with all that it needs.
func (c *compiler) gather(p *piece) {
	if p.round == c.x.round {
		return
	}
	p.round = c.x.round
	for _, chain := range p.chains {
		c.chains[chain.Name] = chain
	}
	for _, s := range p.sets {
		c.sets[s.Name] = s
	}
	for _, s := range p.living {
		c.living[s.name] = s
	}
	for _, n := range p.counters {
		c.out[n.name] = n.Counter
	}
	c.uses = append(c.uses, p.uses...)
	for _, n := range p.needs {
		c.gather(n)
	}
}

// dropUnused drops the living sets that no rule looks up: those of rules that can
// match nothing.
func (c *compiler) dropUnused() {
	used := make(map[string]bool, len(c.living))
	for _, u := range c.uses {
		used[u.set] = true
	}
	unsure := false
	for name := range c.living {
		unsure = unsure || !used[name]
	}
	if !unsure {
		return
	}
	clear(used)
	for _, chain := range c.chains {
		for _, r := range chain.Rules {
			for _, e := range r.Exprs {
				if l, ok := e.(nft.Lookup); ok {
					used[l.Set] = true
				}
			}
		}
	}
	maps.DeleteFunc(c.living, func(name string, _ *livingSet) bool { return !used[name+c.suffix[name]] })
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
	t := nft.Table{Family: nft.INet, Name: nft.TableName, Counters: slices.Sorted(maps.Keys(c.out))}
	for _, name := range slices.Sorted(maps.Keys(c.chains)) {
		t.Chains = append(t.Chains, c.chains[name])
	}
	sets := make(map[string]nft.Set, len(c.sets)+len(c.living))
	maps.Copy(sets, c.sets)
	for name, s := range c.living {
		full := name + c.suffix[name]
		set := nft.Set{Name: full, Key: s.key}
		if elements := c.x.elements(s); len(elements) > 0 {
			set.Elements = elements
		}
		sets[full] = set
	}
	for _, name := range slices.Sorted(maps.Keys(sets)) {
		t.Sets = append(t.Sets, sets[name])
	}
	return t
}
