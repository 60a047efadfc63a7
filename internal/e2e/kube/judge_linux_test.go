package kube

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/poldernet/polder/internal/lab/station"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

// check sends packets between pods, nodes and the outside, and expects of each what
// the evaluator says, and that it arrives only where a path leads.
func (c *churn) check() {
	c.Helper()
	var err error
	c.now, err = c.belief.opinion()
	c.must(err)
	c.apart = map[string]opinion{}
	for name, own := range c.absent {
		c.apart[name], err = c.belief.opinion(own)
		c.must(err)
	}
	const sample = 96
	var list []probe
	for range sample {
		if p, ok := c.probe(); ok {
			c.judge(&p)
			list = append(list, p)
		}
	}
	wrong, err := c.try(list)
	c.must(err)
	for _, text := range wrong {
		c.Errorf("after %d actions, %s", len(c.log), text)
	}
	if len(wrong) > 0 {
		c.FailNow()
	}
}

// judge says whether a packet must arrive: it is from whom it says to be from, no
// node at either end denies it, and a path leads there.
func (c *churn) judge(p *probe) {
	allowed := true
	for i, at := range [...]end{p.from, p.to} {
		o, has := c.opinion(at.node)
		allowed = allowed && !(has && o.Evaluate(p.Flow).Sides[i].Verdict == spec.Deny)
	}
	leads := c.leads(p.from, p.to, p.From, p.To)
	p.want, p.back = allowed && leads && !p.forged, c.leads(p.to, p.from, p.To, p.From)
	switch {
	case p.forged:
		c.judged["are forged"]++
	case p.want:
		c.judged["must arrive"]++
	case leads:
		c.judged["are denied"]++
	case allowed:
		c.judged["have no path"]++
	default:
		c.judged["are denied and have no path"]++
	}
}

// end is somebody who sends or gets packets.
type end struct {
	name, node string // "": outside
	*machine
	addresses []netip.Addr
	sandboxed bool // it is attached by CNI plugins
}

// probe draws a packet. Of two ends, one is a pod of a node with a daemon.
func (c *churn) probe() (p probe, ok bool) {
	var pods, others []end
	for _, p := range c.live() {
		e := end{p.key(), p.node, p.machine, p.addresses, p.node != foreignNode}
		if p.node == foreignNode {
			others = append(others, e)
		} else {
			pods = append(pods, e)
		}
	}
	for _, subnet := range []int{3, otherSubnet} {
		vacant := c.vacant(subnet)
		if len(vacant) > 0 {
			others = append(others, end{"nobody", foreignNode, c.machines[foreignNode], of(c.dice, vacant...), false})
		}
		for _, key := range slices.Sorted(maps.Keys(c.pods)) {
			had := c.pods[key].addresses
			if slices.ContainsFunc(vacant, func(addresses []netip.Addr) bool { return slices.Equal(addresses, had) }) {
				others = append(others, end{"who was " + key, foreignNode, c.machines[foreignNode], had, false})
			}
		}
	}
	for _, m := range []struct {
		name, node string
		last       int
	}{{"n1", "n1", 11}, {"n2", "n2", 12}, {foreignNode, foreignNode, 13}, {"outside", "", 99}} {
		others = append(others, end{m.name, m.node, c.machines[m.name], []netip.Addr{
			netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", m.last)), netip.MustParseAddr(fmt.Sprintf("2001:db8:2::%d", m.last)),
		}, false})
	}
	if len(pods) < 2 {
		return p, false
	}
	from, to := of(c.dice, pods...), of(c.dice, pods...)
	switch c.IntN(4) {
	case 0:
		from = of(c.dice, others...)
	case 1:
		to = of(c.dice, others...)
	}
	if from.machine == to.machine {
		return p, false
	}
	f := of(c.dice, spec.Families[:]...)
	i := slices.Index(spec.Families[:], f)
	p = probe{from: from, to: to}
	p.Flow = policy.Flow{From: from.addresses[i], To: to.addresses[i], Port: uint16(of(c.dice, portNumbers...))}
	p.Protocol = of[uint8](c.dice, spec.ProtocolTCP, spec.ProtocolTCP, spec.ProtocolUDP, spec.ProtocolSCTP, station.ICMP(f))
	if p.Protocol == station.ICMP(f) {
		p.Port, p.Type = 0, 8
		if f == spec.IPv6 {
			p.Type = 128
		}
	}
	if victim := of(c.dice, pods...); from.sandboxed && victim.machine != from.machine && c.chance(10) {
		p.From, p.forged = victim.addresses[i], true
	}
	return p, true
}
