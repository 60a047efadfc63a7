package kube

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

// check sends packets between pods, nodes and the outside, and expects of each what
// the evaluator says.
func (c *churn) check() {
	c.Helper()
	model, err := c.model()
	c.must(err)
	const sample = 48
	var list []probe
	for range sample {
		if p, ok := c.probe(); ok {
			p.want = true
			for i, side := range model.Evaluate(p.Flow).Sides {
				if at := [...]*machine{p.from, p.to}[i]; at != c.machines[foreignNode] && side.Verdict == spec.Deny {
					p.want = false // which the foreign node would not know
				}
			}
			c.judged[p.want]++
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

// end is somebody who sends or gets packets.
type end struct {
	name string
	*machine
	addresses []netip.Addr
}

// probe draws a packet. Of two ends, one is a pod of a node with a daemon.
func (c *churn) probe() (p probe, ok bool) {
	var pods, others []end
	for _, p := range c.live() {
		e := end{p.key(), p.machine, p.addresses}
		if p.node == foreignNode {
			others = append(others, e)
		} else {
			pods = append(pods, e)
		}
	}
	for name, last := range map[string]int{"n1": 11, "n2": 12, "n3": 13, "outside": 99} {
		others = append(others, end{name, c.machines[name], []netip.Addr{
			netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", last)), netip.MustParseAddr(fmt.Sprintf("2001:db8:2::%d", last)),
		}})
	}
	slices.SortFunc(others, func(a, b end) int { return strings.Compare(a.name, b.name) })
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
	p = probe{from: from.machine, to: to.machine, names: [2]string{from.name, to.name}}
	p.Flow = policy.Flow{From: from.addresses[i], To: to.addresses[i], Port: uint16(of(c.dice, portNumbers...))}
	p.Protocol = of[uint8](c.dice, spec.ProtocolTCP, spec.ProtocolTCP, spec.ProtocolUDP, spec.ProtocolSCTP, icmpOf(f))
	if p.Protocol == icmpOf(f) {
		p.Port, p.Type = 0, 8
		if f == spec.IPv6 {
			p.Type = 128
		}
	}
	return p, true
}
