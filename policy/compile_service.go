package policy

import (
	"slices"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/spec"
)

// Where a chain begins with a look-up of the service.
const (
	// With fewer rules a packet would save no more than it costs.
	fewestToLookUp = 4
	// The kernel would have to hold more rules than so many times those that
	// there are.
	mostCopies = 4
	// A rule with more ports is not among those that name them one by one.
	mostPorts = 16
	// It leads one chain deeper, and the kernel allows for 16 of them, those that
	// are gone to included (NFT_JUMP_STACK_SIZE).
	mostTiersToLookUp = 8
)

// judgement is a rule of a policy in its parts.
type judgement struct {
	comment       string
	service, peer match
	do            nft.Statement
	goesOn        bool // to the next rule, also where it matches
}

// rule is the whole of it.
func (j judgement) rule() nft.Rule {
	return nft.NewRule(j.comment, slices.Concat(j.service.statements, j.peer.statements, []nft.Statement{j.do})...)
}

// at is the rule for packets of which the protocol and the server's port are
// known, and whether they come no further.
func (j judgement) at() (r nft.Rule, last bool) {
	match := slices.Concat(j.service.beyond, j.peer.statements)
	return nft.NewRule(j.comment, append(match, j.do)...), len(match) == 0 && !j.goesOn
}

// rules are the rules of judgements.
func rules(list []judgement) []nft.Rule {
	out := make([]nft.Rule, len(list))
	for i, j := range list {
		out[i] = j.rule()
	}
	return out
}

// service is a protocol and the server's ports.
type service struct {
	protocol uint8            // 0: any
	ports    []spec.PortRange // merged; nil: any
}

// port is one port of a protocol.
type port struct {
	protocol uint8
	number   uint16
}

// each are the ports one by one; nil if that is not the way to name them.
func (s service) each() []port {
	var list []port
	for _, r := range s.ports {
		if len(list)+int(r.Last-r.First) >= mostPorts {
			return nil
		}
		for n := range r.Last - r.First + 1 {
			list = append(list, port{s.protocol, r.First + n})
		}
	}
	return list
}

func (s service) has(p port) bool {
	return (s.protocol == 0 || s.protocol == p.protocol) &&
		(s.ports == nil || slices.ContainsFunc(s.ports, func(r spec.PortRange) bool { return r.Contains(p.number) }))
}

// lookUp makes rules of judgements, and of those behind them, which are for every
// service.
//
// If there are many, they begin with a look-up of the packet's protocol and
// server's port among those that are named one by one. For each of these there is
// a chain with the rules that can match there, in their order, which do not ask
// for the service again: a packet passes by the rules of its own service only.
// Behind the look-up are the rules that are for something else as well.
func (c *compiler) lookUp(s side, list []judgement, behind []nft.Rule) []nft.Rule {
	var ports []port
	var elsewhere []judgement
	for _, j := range list {
		each := j.service.each()
		if each == nil {
			elsewhere = append(elsewhere, j)
		}
		for _, p := range each {
			if !slices.Contains(ports, p) {
				ports = append(ports, p)
			}
		}
	}
	if len(ports) == 0 || len(list) < fewestToLookUp {
		return append(rules(list), behind...)
	}
	chains := make([][]nft.Rule, len(ports))
	copies := 0
	for i, p := range ports {
		chains[i] = atPort(p, list, behind)
		if copies += len(chains[i]); copies > mostCopies*len(list) {
			return append(rules(list), behind...)
		}
	}
	var to []nft.Element
	for i, p := range ports {
		chain := c.named(s.prefix(), chains[i])
		to = append(to, nft.Tuple(nft.Proto(p.protocol), nft.Port(p.number)).Maps(nft.Goto(chain)))
	}
	services := c.content(s.prefix()+"_services", nft.Set{
		Key: []nft.Type{nft.TypeInetProto, nft.TypeInetService}, Verdicts: true, Elements: sorted(to),
	})
	first := nft.NewRule("", nft.Concat(nft.L4Proto(), nft.CTReplySport()).VMap(services))
	return slices.Concat([]nft.Rule{first}, rules(elsewhere), behind)
}

// atPort are the rules that can match at a port.
func atPort(p port, list []judgement, behind []nft.Rule) []nft.Rule {
	var out []nft.Rule
	for _, j := range list {
		if !j.service.has(p) {
			continue
		}
		r, last := j.at()
		out = append(out, r)
		if last {
			return out
		}
	}
	return append(out, behind...)
}
