// Package verdict runs a ruleset on a packet, as the kernel does, and tells the
// packet's fate. It is small and knows nothing of who made the ruleset, so that
// compilers can be held against it; it is itself held against the kernel.
//
// What it does not know is an error, never a guess.
package verdict

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/poldernet/polder/nft"
)

// Verdict is a packet's fate at a hook.
type Verdict struct {
	Accepted bool
	Mark     uint32 // of the packet behind the hook
	// Dropped is the rule that dropped the packet; where a policy did, it has
	// only a chain.
	Dropped Place
}

// Place is a rule, by its chain and its number from 1.
type Place struct {
	Chain string
	Rule  int
}

func (p Place) String() string { return fmt.Sprintf("%s %d", p.Chain, p.Rule) }

// Rules are the rules for packets of IPv4 and IPv6 at the hooks of a network
// namespace. Chains of type nat are left out: what they do to a packet is in its
// header and its connection.
type Rules struct {
	hooks map[string][]*chain
}

// chain is a chain of one table.
type chain struct {
	nft.Chain
	table *table
}

// table is where names are looked up.
type table struct {
	chains map[string]*chain
	sets   map[string]*set
}

// Load prepares a ruleset.
func Load(rs nft.Ruleset) (*Rules, error) {
	r := &Rules{hooks: map[string][]*chain{}}
	for _, t := range rs {
		if t.Family != nft.INet || t.Dormant {
			continue
		}
		if _, err := r.load(t); err != nil {
			return nil, err
		}
	}
	for _, list := range r.hooks {
		slices.SortStableFunc(list, func(a, b *chain) int { return cmp.Compare(a.Base.Priority, b.Base.Priority) })
	}
	return r, nil
}

func (r *Rules) load(t nft.Table) (*table, error) {
	out := &table{chains: make(map[string]*chain, len(t.Chains)), sets: make(map[string]*set, len(t.Sets))}
	for _, s := range t.Sets {
		loaded, err := newSet(s)
		if err != nil {
			return nil, err
		}
		out.sets[s.Name] = loaded
	}
	for _, c := range t.Chains {
		loaded := &chain{c, out}
		out.chains[c.Name] = loaded
		if c.Base != nil && c.Base.Type != "nat" {
			r.hooks[c.Base.Hook] = append(r.hooks[c.Base.Hook], loaded)
		}
	}
	return out, nil
}

// Judge runs the chains of a hook, by their priorities: "input", "forward" or
// "output".
func (r *Rules) Judge(hook string, p *Packet) (Verdict, error) {
	mark := p.Mark
	for _, c := range r.hooks[hook] {
		m := machine{packet: p, mark: mark, base: c.Base, chain: c}
		v, err := m.run()
		if err != nil || !v.Accepted {
			return v, err
		}
		mark = v.Mark
	}
	return Verdict{Accepted: true, Mark: mark}, nil
}

// maxJumps is the depth of jumps that the kernel allows
// (NFT_JUMP_STACK_SIZE, <net/netfilter/nf_tables.h>).
const maxJumps = 16

// machine is a packet on its way through a base chain.
type machine struct {
	packet *Packet
	mark   uint32
	regs   registers
	base   *nft.Base
	chain  *chain
	rule   int // the present one, from 0
	expr   int // the next one
	depth  int
	stack  [maxJumps]frame

	flight *flight // nil: nothing changes on the way
	state  int     // of a flight: the ruleset of the last look
	// pending is a verdict to be followed before anything else.
	pending *nft.Verdict
}

// frame is where to come back to.
type frame struct {
	chain *chain
	rule  int
}

// fate is what an expression does to the packet.
type fate int

const (
	goOn fate = iota
	noMatch
	decided
)

// run runs a base chain to its verdict.
func (m *machine) run() (Verdict, error) {
	for {
		v, done, err := m.step()
		if err != nil {
			return Verdict{}, fmt.Errorf("%s: %w", m.place(), err)
		}
		if done {
			return v, nil
		}
	}
}

func (m *machine) place() Place { return Place{m.chain.Name, m.rule + 1} }

// step runs one expression, or leaves a chain at its end.
func (m *machine) step() (Verdict, bool, error) {
	if v := m.pending; v != nil {
		m.pending = nil
		return m.follow(*v)
	}
	if m.rule >= len(m.chain.Rules) {
		return m.leave()
	}
	rule := m.chain.Rules[m.rule].Exprs
	if m.expr >= len(rule) {
		m.rule, m.expr = m.rule+1, 0
		return Verdict{}, false, nil
	}
	e := rule[m.expr]
	m.expr++
	f, v, err := m.eval(e)
	switch {
	case err != nil:
		return Verdict{}, false, err
	case f == noMatch:
		m.rule, m.expr = m.rule+1, 0
	case f == decided:
		return m.follow(v)
	}
	return Verdict{}, false, nil
}

// leave goes on behind the jump that led here; a base chain ends with its
// policy.
func (m *machine) leave() (Verdict, bool, error) {
	if m.depth == 0 {
		if m.base.Policy == nft.PolicyDrop {
			return Verdict{Mark: m.mark, Dropped: Place{Chain: m.chain.Name}}, true, nil
		}
		return Verdict{Accepted: true, Mark: m.mark}, true, nil
	}
	m.depth--
	back := m.stack[m.depth]
	m.chain, m.rule, m.expr = back.chain, back.rule+1, 0
	return Verdict{}, false, nil
}

// follow does what a verdict says.
func (m *machine) follow(v nft.Verdict) (Verdict, bool, error) {
	switch v.Kind {
	case nft.VerdictAccept:
		return Verdict{Accepted: true, Mark: m.mark}, true, nil
	case nft.VerdictDrop:
		return Verdict{Mark: m.mark, Dropped: m.place()}, true, nil
	case nft.VerdictReturn:
		return m.leave()
	case nft.VerdictJump, nft.VerdictGoto:
	default:
		return Verdict{}, false, fmt.Errorf("unknown verdict %d", v.Kind)
	}
	next, err := m.enter(v)
	if err != nil {
		return Verdict{}, false, err
	}
	if v.Kind == nft.VerdictJump {
		if m.depth == len(m.stack) {
			return Verdict{}, false, fmt.Errorf("more than %d jumps", maxJumps)
		}
		m.stack[m.depth] = frame{m.chain, m.rule}
		m.depth++
	}
	m.chain, m.rule, m.expr = next, 0, 0
	return Verdict{}, false, nil
}

// enter finds the chain that a verdict leads to.
func (m *machine) enter(v nft.Verdict) (*chain, error) {
	name := v.Chain
	if m.flight != nil {
		return m.flight.enter(m, v), nil
	}
	c := m.chain.table.chains[name]
	if c == nil || c.Base != nil {
		return nil, fmt.Errorf("no regular chain %s", name)
	}
	return c, nil
}

// eval runs an expression.
func (m *machine) eval(e nft.Expr) (fate, nft.Verdict, error) {
	var err error
	switch e := e.(type) {
	case nft.Meta:
		err = m.packet.meta(e, m.mark, &m.regs)
	case nft.Payload:
		err = m.packet.payload(e, &m.regs)
	case nft.CT:
		found, err := m.packet.ct(e, &m.regs)
		if err == nil && !found {
			return noMatch, nft.Verdict{}, nil
		}
		return goOn, nft.Verdict{}, err
	case nft.Bitwise:
		err = m.bitwise(e)
	case nft.MetaSet:
		err = m.set(e)
	case nft.Cmp:
		return m.compare(e)
	case nft.Lookup:
		return m.lookup(e)
	case nft.Verdict:
		return decided, e, nil
	case nft.Counter, nft.CounterRef, nft.Log:
	case nft.Limit:
		// A packet that comes alone is within every limit.
	default:
		err = fmt.Errorf("unknown expression %#v", e)
	}
	return goOn, nft.Verdict{}, err
}

// set writes the packet's mark.
func (m *machine) set(e nft.MetaSet) error {
	if e.Key != nft.MetaMark {
		return fmt.Errorf("unknown meta key to set: %d", e.Key)
	}
	b, err := m.regs.load(e.Reg, 4)
	if err != nil {
		return err
	}
	m.mark = binary.NativeEndian.Uint32(b)
	return nil
}

func (m *machine) bitwise(e nft.Bitwise) error {
	b, err := m.regs.load(e.Reg, len(e.Mask))
	if err != nil {
		return err
	}
	if len(e.Xor) != len(e.Mask) {
		return fmt.Errorf("bitwise: a mask of %d bytes, %d to exclude", len(e.Mask), len(e.Xor))
	}
	out := make([]byte, len(b))
	for i := range b {
		out[i] = b[i]&e.Mask[i] ^ e.Xor[i]
	}
	return m.regs.store(e.Dst, out)
}

func (m *machine) compare(e nft.Cmp) (fate, nft.Verdict, error) {
	b, err := m.regs.load(e.Reg, len(e.Data))
	if err != nil {
		return goOn, nft.Verdict{}, err
	}
	c := cmp.Compare(string(b), string(e.Data))
	var match bool
	switch e.Op {
	case nft.Eq:
		match = c == 0
	case nft.Neq:
		match = c != 0
	case nft.Lt:
		match = c < 0
	case nft.Lte:
		match = c <= 0
	case nft.Gt:
		match = c > 0
	case nft.Gte:
		match = c >= 0
	default:
		return goOn, nft.Verdict{}, fmt.Errorf("unknown comparison %d", e.Op)
	}
	if !match {
		return noMatch, nft.Verdict{}, nil
	}
	return goOn, nft.Verdict{}, nil
}

func (m *machine) lookup(e nft.Lookup) (fate, nft.Verdict, error) {
	s := m.chain.table.sets[e.Set]
	if s == nil {
		return goOn, nft.Verdict{}, fmt.Errorf("no set %s", e.Set)
	}
	if s.Verdicts != e.Verdict || e.Verdict && e.Invert {
		return goOn, nft.Verdict{}, fmt.Errorf("set %s is looked up as what it is not", e.Set)
	}
	key, err := m.regs.load(e.Reg, s.length)
	if err != nil {
		return goOn, nft.Verdict{}, err
	}
	v, found := s.find(key)
	if m.flight != nil {
		v, found = m.flight.find(m, s, key)
	}
	switch {
	case found == e.Invert:
		return noMatch, nft.Verdict{}, nil
	case e.Verdict:
		return decided, v, nil
	}
	return goOn, nft.Verdict{}, nil
}
