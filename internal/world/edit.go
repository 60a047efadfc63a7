package world

import (
	"net/netip"
	"slices"

	"pgregory.net/rapid"

	"github.com/poldernet/polder/spec"
)

// Edit draws a world that another becomes by a change of an endpoint, or by a few
// changes at once: of labels, ports, endpoints, namespaces, network sets, tiers,
// policies and rules.
func Edit(t *rapid.T, from *spec.Spec) *spec.Spec {
	sp := clone(from)
	if often.Draw(t, "one endpoint") {
		edits[edit.Draw(t, "edit")%ofEndpoints](t, sp)
		return sp
	}
	for range 1 + upToThree.Draw(t, "edits") {
		edits[edit.Draw(t, "edit")](t, sp)
	}
	return sp
}

var (
	edits = []func(*rapid.T, *spec.Spec){
		relabel, renumber, appear, vanish, // of one endpoint
		relabel, relabel, move, renameSpace, editSet, editTier, editRule, editRule, addRule, addPolicy, dropPolicy, reorder, reselect,
	}
	ofEndpoints = 4
	edit        = rapid.IntRange(0, len(edits)-1)
)

// pick chooses one of a list, if there is any.
func pick[T any](t *rapid.T, list []T) (v T, ok bool) {
	if len(list) == 0 {
		return v, false
	}
	return list[index.Draw(t, "which")%len(list)], true
}

func relabel(t *rapid.T, sp *spec.Spec) {
	if e, ok := pick(t, sp.Endpoints); ok {
		e.Labels = drawLabels(t)
	}
}

func renumber(t *rapid.T, sp *spec.Spec) {
	if e, ok := pick(t, sp.Endpoints); ok {
		e.Ports = drawPorts(t)
	}
}

// move has an endpoint's addresses taken over by others, or another namespace.
func move(t *rapid.T, sp *spec.Spec) {
	a, ok := pick(t, sp.Endpoints)
	if !ok {
		return
	}
	b, _ := pick(t, sp.Endpoints)
	if a.Node == b.Node {
		a.Addresses, b.Addresses = b.Addresses, a.Addresses
	}
	a.Namespace = namespace.Draw(t, "namespace")
}

func appear(t *rapid.T, sp *spec.Spec) {
	names, taken := map[string]bool{}, map[netip.Addr]bool{}
	for _, e := range sp.Endpoints {
		names[e.Name] = true
		for _, a := range e.Addresses {
			taken[a] = true
		}
	}
	for i := range mostEndpoints {
		if names[endpointName(i)] {
			continue
		}
		e := drawEndpoint(t, i)
		e.Addresses = slices.DeleteFunc(e.Addresses, func(a netip.Addr) bool { return taken[a] })
		sp.Endpoints = append(sp.Endpoints, e)
		byName(sp.Endpoints, func(e *spec.Endpoint) string { return e.Name })
		return
	}
}

func vanish(t *rapid.T, sp *spec.Spec) {
	if e, ok := pick(t, sp.Endpoints); ok {
		sp.Endpoints = slices.DeleteFunc(sp.Endpoints, func(o *spec.Endpoint) bool { return o == e })
	}
}

func renameSpace(t *rapid.T, sp *spec.Spec) {
	if n, ok := pick(t, sp.Namespaces); ok {
		n.Labels = drawLabels(t)
	}
}

func editSet(t *rapid.T, sp *spec.Spec) {
	if s, ok := pick(t, sp.NetworkSets); ok {
		*s = spec.NetworkSet{Name: s.Name, Labels: drawLabels(t), CIDRs: with(s.CIDRs, drawPrefix(t, family.Draw(t, "family")))}
	}
}

func editTier(t *rapid.T, sp *spec.Spec) {
	if tier, ok := pick(t, sp.Tiers); ok {
		tier.Order = order.Draw(t, "order")
		if often.Draw(t, "pass") {
			tier.DefaultAction = spec.Pass
		}
		sortTiers(sp)
	}
}

func editRule(t *rapid.T, sp *spec.Spec) {
	p, ok := pick(t, sp.Policies)
	if !ok {
		return
	}
	list := *rules(p, p.Types[len(p.Types)-1])
	if len(list) == 0 {
		return
	}
	r := &list[index.Draw(t, "rule")%len(list)]
	switch upToTwo.Draw(t, "part") {
	case 0:
		r.Action = action.Draw(t, "action")
	case 1:
		r.Peers = drawRule(t, sp).Peers
	default:
		r.Services = drawServices(t)
	}
}

func addRule(t *rapid.T, sp *spec.Spec) {
	if p, ok := pick(t, sp.Policies); ok {
		to := rules(p, p.Types[0])
		*to = slices.Insert(*to, index.Draw(t, "at")%(len(*to)+1), drawRule(t, sp))
	}
}

func addPolicy(t *rapid.T, sp *spec.Spec) {
	for _, name := range policyNames {
		if !slices.ContainsFunc(sp.Policies, func(p *spec.Policy) bool { return p.Name == name }) {
			sp.Policies = append(sp.Policies, drawPolicy(t, sp, name))
			byName(sp.Policies, func(p *spec.Policy) string { return p.Name })
			return
		}
	}
}

func dropPolicy(t *rapid.T, sp *spec.Spec) {
	if p, ok := pick(t, sp.Policies); ok {
		sp.Policies = slices.DeleteFunc(sp.Policies, func(o *spec.Policy) bool { return o == p })
	}
}

func reorder(t *rapid.T, sp *spec.Spec) {
	if p, ok := pick(t, sp.Policies); ok {
		o := order.Draw(t, "order")
		p.Order = &o
	}
}

func reselect(t *rapid.T, sp *spec.Spec) {
	if p, ok := pick(t, sp.Policies); ok && p.Selector != nil {
		p.Selector = drawSelector(t, labelNames)
	}
}
