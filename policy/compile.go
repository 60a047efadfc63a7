package policy

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/policy/drop"
	"github.com/poldernet/polder/spec"
)

// Host is what the rules need to know of the node, beside the model.
type Host struct {
	Node *spec.Node
	// Bridge is the interface by which pods' packets come in: to the inet
	// family a packet that crosses a bridge comes in by the bridge, and leaves by it.
	Bridge string
	// Links are further interfaces that lead to pods: the VTEPs, and those of pods that
	// are not on the bridge.
	Links []string
	// Tunnel lets VXLAN pass between nodes: the guard decides about it.
	Tunnel [][]nft.Statement
	// Refused are the policies, by ID, whose rules the kernel does not take.
	// What they select is closed, and all else goes on.
	Refused map[string]bool
}

// refused says that among the policies is one that the kernel does not take.
func (h Host) refused(stages []stage) bool {
	return len(h.Refused) > 0 && slices.ContainsFunc(stages, func(s stage) bool {
		return slices.ContainsFunc(s.policies, func(p *spec.Policy) bool { return h.Refused[p.ID()] })
	})
}

// Compiled is what the policies come to on one node.
type Compiled struct {
	// Table is a fragment of `inet polder`; it is empty where no policy selects
	// anything on the node.
	Table nft.Table
	// Via are tables to go through on the way there from what is in force.
	Via []nft.Table
	// Counters says what the table's named counters count, by name.
	Counters func() map[string]Counter
	// Isolated are the addresses of this node's endpoints that a policy selects
	// for any direction.
	Isolated spec.PerFamily[[]netip.Addr]
}

// compiler is a fragment being compiled. It makes the parts that have changed
// since the index was compiled before.
type compiler struct {
	x      *Index
	m      *Model
	host   Host
	suffix map[string]string // of living sets, by their name without it
	piece  *piece            // that is being made

	// What the pieces come to.
	pieces   []*piece
	chains   stock[nft.Chain]
	sets     stock[nft.Set]    // with a name of their content
	living   stock[*livingSet] // by name without suffix
	counters stock[*namedCounter]
	table    nft.Table
	round    uint64

	isolated spec.PerFamily[[]netip.Addr]
}

// side is the end of a connection whose policies a chain holds.
type side struct {
	spec.Direction
	family spec.Family
	host   bool // a host endpoint's
}

// allowed is the verdict on what the side allows. An endpoint's ingress is
// judged last. What its egress allows goes on to the ingress of the other end,
// and what a host endpoint allows to the end of the base chain.
func (s side) allowed() nft.Verdict {
	if s.Direction == spec.Ingress && !s.host {
		return nft.Accept
	}
	return nft.Return
}

// prefix begins the names of a side's chains and maps.
func (s side) prefix() string {
	kind := ""
	if s.host {
		kind = "host_"
	}
	return kind + string(s.Direction) + number(s.family)
}

// number tells the families apart in names.
func number(f spec.Family) string {
	if f == spec.IPv4 {
		return "4"
	}
	return "6"
}

// stage is a tier with those of its policies that select one endpoint.
type stage struct {
	tier     *spec.Tier
	policies []*spec.Policy
}

// newCompiler compiles what an index holds, with the suffixes that it has for
// the living sets' names.
func newCompiler(x *Index) *compiler {
	x.round++
	return &compiler{x: x, m: x.m, host: x.host, suffix: x.suffix, piece: &piece{}, round: x.round}
}

// nothing is what has no pieces.
func nothing() *compiler {
	return &compiler{
		chains: stock[nft.Chain]{chainKind, nil, map[string]int{}}, sets: stock[nft.Set]{setKind, nil, map[string]int{}},
		living: stock[*livingSet]{livingKind, nil, map[string]int{}}, counters: stock[*namedCounter]{counterKind, nil, map[string]int{}},
	}
}

// dispatch is a verdict map from the addresses of this node's endpoints to what
// judges them; "" where it would be empty.
func (c *compiler) dispatch(s side) (name string, isolated []nft.Element) {
	verdicts := make([]nft.Element, 0, len(c.x.own))
	judged := make(map[netip.Addr]bool, len(c.x.own))
	for _, e := range c.x.own {
		var judge nft.Verdict
		for _, a := range e.Addresses {
			// An address is one endpoint's. If two have it for a while, it is that
			// of the first that is isolated.
			if spec.FamilyOf(a) != s.family || judged[a] {
				continue
			}
			if judge == (nft.Verdict{}) {
				stages := c.m.stages(s.Direction, e.identity.subjects)
				if len(stages) == 0 {
					break
				}
				judge = c.judge(s, stages)
			}
			judged[a] = true
			verdicts = append(verdicts, nft.Addr(a).Maps(judge))
		}
	}
	if len(verdicts) == 0 {
		return "", nil
	}
	slices.SortFunc(verdicts, compareKeys)
	isolated = make([]nft.Element, len(verdicts))
	for i, e := range verdicts {
		isolated[i] = nft.Exact(e.Key)
	}
	return c.content(s.prefix(), nft.Set{Key: []nft.Type{nft.AddrType(s.family)}, Verdicts: true, Elements: verdicts}), isolated
}

// judge is the verdict of a dispatching map: to go through the stages.
func (c *compiler) judge(s side, stages []stage) nft.Verdict {
	if c.host.refused(stages) {
		// The zero Verdict is drop, too, and stands for none.
		return nft.Jump(c.named(s.prefix(), []nft.Rule{nft.NewRule("closed: the kernel refuses a policy", c.drop(drop.Refused))}))
	}
	return nft.Jump(c.chain(s, stages, len(stages) <= mostTiersToLookUp))
}

// content makes a set or map under a name that is a hash of what it holds, and
// is therefore never changed: who switches to other content switches names.
func (c *compiler) content(prefix string, s nft.Set) string {
	slices.SortFunc(s.Elements, compareKeys)
	s.Name = contentName(prefix, s)
	c.piece.sets = append(c.piece.sets, s)
	return s.Name
}

// contentName is a name by what a set or map holds.
func contentName(prefix string, s nft.Set) string {
	b := make([]byte, 0, 64*(1+len(s.Elements)))
	add := func(text string) { b = append(binary.AppendUvarint(b, uint64(len(text))), text...) }
	b = binary.AppendUvarint(b, uint64(len(s.Key)))
	for _, t := range s.Key {
		add(string(t))
	}
	add(fmt.Sprint(s.Interval, s.Verdicts))
	for _, e := range s.Elements {
		add(string(e.Key))
		add(string(e.To))
		b = binary.AppendVarint(b, int64(e.Verdict.Kind))
		add(e.Verdict.Chain)
	}
	return prefix + "-" + hash(string(b))
}

// hash is short, and long enough: two of a million names collide with a
// probability of one in a thousand million.
func hash(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:10])
}

// chain makes the chain that judges by the stages, and returns its name. Like a
// set's it is a hash of the content: endpoints with the same policies share
// chains, and one with other policies is switched to another chain. lookUp says
// that there may be a look-up of the service in the last tier. It is there that
// most rules are; and when the kernel checks for loops, it goes through a chain as
// often as there are ways to it, of which each look-up in front would make many.
func (c *compiler) chain(s side, stages []stage, lookUp bool) string {
	return c.once(pieceKey{side: s, policies: c.x.key(stages), lookUp: lookUp}, func(made *piece) {
		next := s.allowed()
		if len(stages) > 1 {
			next = nft.Goto(c.chain(s, stages[1:], lookUp))
		}
		var list []judgement
		for _, p := range stages[0].policies {
			list = append(list, c.policy(s, p, next)...)
		}
		behind := c.otherwise(s, stages[0], next)
		if lookUp && len(stages) == 1 {
			made.name = c.named(s.prefix(), c.lookUp(s, list, behind))
			return
		}
		all := append(rules(list), behind...)
		if len(stages) > 1 && !slices.ContainsFunc(all, func(r nft.Rule) bool { return slices.Contains(r.Exprs, nft.Expr(next)) }) {
			made.needs = made.needs[1:] // nobody comes to the next tier
		}
		made.name = c.named(s.prefix(), all)
	}).name
}

// named makes a chain under a name that is a hash of its rules.
func (c *compiler) named(prefix string, rules []nft.Rule) string {
	name := chainName(prefix, rules)
	c.add(nft.Chain{Name: name, Rules: rules})
	return name
}

// chainName is a name by the rules of a chain.
func chainName(prefix string, rules []nft.Rule) string {
	var text strings.Builder
	for _, r := range rules {
		fmt.Fprintf(&text, "%q %q\n", r.Comment, r.Exprs)
	}
	return prefix + "-" + hash(text.String())
}

func (c *compiler) add(chain nft.Chain) { c.piece.chains = append(c.piece.chains, chain) }

// otherwise are the rules for what no policy of a tier decided.
func (c *compiler) otherwise(s side, g stage, next nft.Verdict) []nft.Rule {
	t := g.tier
	name := c.counter(DefaultCounter(t, s.Direction))
	comment := lastOf(g)
	if t.DefaultAction == spec.Pass {
		return []nft.Rule{nft.NewRule(comment, nft.Do(nft.CounterRef{Name: name}, next))}
	}
	var rules []nft.Rule
	if c.m.spec.Enforcement.LogDrops {
		rules = append(rules, nft.NewRule(comment, nft.Do(nft.Jump(c.logs(DefaultCounter(t, s.Direction), false)))))
	}
	return append(rules, nft.NewRule(comment, nft.Do(nft.CounterRef{Name: name}, nft.Drop)))
}

// logs makes the chain that reports packets under the name of a counter, but not
// all of a flood. It is the same one for all who come by the counter, so that
// they have one limit.
func (c *compiler) logs(n Counter, counts bool) string {
	var exprs []nft.Expr
	if counts {
		exprs = append(exprs, nft.CounterRef{Name: c.counter(n)})
	}
	exprs = append(exprs, c.limit(), nft.Goto(c.report(n)))
	return c.named("log", []nft.Rule{nft.NewRule(logComment(n), nft.Do(exprs...))})
}

// limit is how many packets a rule reports.
func (c *compiler) limit() nft.Limit {
	rate := c.m.spec.Enforcement.LogRate
	return nft.Limit{Rate: uint64(rate), Unit: nft.PerSecond, Burst: uint32(rate)}
}

// report makes the chain that reports whatever comes to it.
func (c *compiler) report(n Counter) string {
	log := func(prefix string) nft.Log {
		return nft.Log{Group: c.m.spec.Enforcement.LogGroup, Prefix: prefix, Snaplen: logSnaplen}
	}
	return c.named("log", []nft.Rule{
		nft.NewRule(logComment(n), nft.CTDirection(nft.Reply), nft.Do(log(n.Name()+replySuffix), nft.Return)),
		nft.NewRule(logComment(n), nft.Do(log(n.Name()))),
	})
}

func logComment(n Counter) string { return nft.Comment(n.Subject() + " logs") }

// denies counts packets and drops them. Where drops are logged, it does so in a
// chain that reports them first. That leads no deeper than logs does: how deep
// chains may be is limited (see mostTiersToLookUp).
func (c *compiler) denies(n Counter) nft.Statement {
	deny := nft.Do(nft.CounterRef{Name: c.counter(n)}, nft.Drop)
	if !c.m.spec.Enforcement.LogDrops {
		return deny
	}
	return nft.Do(nft.Goto(c.named("log", []nft.Rule{
		nft.NewRule(logComment(n), nft.Do(c.limit(), nft.Jump(c.report(n)))),
		nft.NewRule(logComment(n), deny),
	})))
}

// replySuffix is behind the counter's name in what is logged of packets that go
// from a connection's server to its client. A packet does not say so itself.
const replySuffix = " reply"

// Logged reads the prefix of what the rules log: the name of a counter, and
// whether the packet goes from its connection's server to the client.
func Logged(prefix string) (counter string, reply bool) {
	return strings.CutSuffix(prefix, replySuffix)
}

// logSnaplen is how much of a packet is reported, in bytes: the headers, with
// room for options and extension headers.
const logSnaplen = 128

// policy are the rules of a policy on one side.
func (c *compiler) policy(s side, p *spec.Policy, next nft.Verdict) []judgement {
	return c.once(pieceKey{side: s, policy: p, next: next}, func(made *piece) {
		made.judgements = c.judgements(s, p, next)
	}).judgements
}

func (c *compiler) judgements(s side, p *spec.Policy, next nft.Verdict) []judgement {
	var list []judgement
	counters := Counters(p, s.Direction)
	for i := range p.Rules(s.Direction) {
		r := &p.Rules(s.Direction)[i]
		without := *c.piece
		peers, services := c.peers(s, p, r), c.services(s, r)
		if len(peers) == 0 || len(services) == 0 {
			// Nothing of this family can match, and no set is needed for it. The
			// counter is there for what can match in the other one.
			*c.piece = without
			continue
		}
		comment := comment(p, s.Direction, i+1, Describe(r, s.Direction))
		if r.Action == spec.Log {
			list = append(list, c.logged(comment, counters[i], peers, services))
			continue
		}
		counter := c.counter(counters[i])
		var do nft.Statement
		switch r.Action {
		case spec.Allow:
			do = nft.Do(nft.CounterRef{Name: counter}, s.allowed())
		case spec.Pass:
			do = nft.Do(nft.CounterRef{Name: counter}, next)
		case spec.Deny, spec.Log:
			do = c.denies(counters[i])
		}
		for _, peer := range peers {
			c.use(peer.set, s, r.Action)
			for _, service := range services {
				c.use(service.set, s, r.Action)
				list = append(list, judgement{comment, service, peer, do, false})
			}
		}
	}
	return list
}

// logged is what logs. A packet that matches in several ways is logged, and
// counted, once: they are in a chain that it leaves by the first.
func (c *compiler) logged(comment string, n Counter, peers, services []match) judgement {
	log := c.logs(n, true)
	if len(peers)*len(services) == 1 {
		return judgement{comment, services[0], peers[0], nft.Do(nft.Jump(log)), true}
	}
	var rules []nft.Rule
	for _, peer := range peers {
		for _, service := range services {
			rules = append(rules, nft.NewRule(comment, append(slices.Concat(service.statements, peer.statements), nft.Do(nft.Goto(log)))...))
		}
	}
	return judgement{comment, match{}, match{}, nft.Do(nft.Jump(c.named("log", rules))), true}
}

// counter notes a counter and returns its name.
func (c *compiler) counter(n Counter) string {
	name := n.Name()
	c.piece.counters = append(c.piece.counters, &namedCounter{name, n})
	return name
}

// drop counts a packet that no policy decided about, and drops it.
func (c *compiler) drop(r drop.Reason) nft.Statement {
	c.counter(Counter{Drop: r})
	return r.Do()
}
