package spec

import (
	"fmt"
	"slices"
)

// checkPolicies checks what is about policies: names, and what refers to them.
func (v *validator) checkPolicies() {
	unique(v, namespaceBlock, v.namespaces, func(n *namespaceDecl) (string, place) { return n.Name, n.place })
	unique(v, policyBlock, v.policies, func(p *policyDecl) (string, place) { return p.Name, p.place })
	unique(v, checkBlock, v.checks, func(c *checkDecl) (string, place) { return c.Name, c.place })
	unique(v, hostEndpointBlock, v.hostEndpoints, func(h *hostEndpointDecl) (string, place) { return h.Name, h.place })
	tiers := unique(v, tierBlock, v.tiers, func(t *tierDecl) (string, place) { return t.Name, t.place })
	sets := unique(v, networkSetBlock, v.networkSets, func(n *networkSetDecl) (string, place) { return n.Name, n.place })
	endpoints := make(map[string]*endpointDecl, len(v.endpoints))
	for _, e := range v.endpoints {
		if endpoints[e.Name] == nil { // duplicates are reported already
			endpoints[e.Name] = e
		}
	}
	declared(v, nodeBlock, v.byName)
	declared(v, endpointBlock, endpoints)
	declared(v, tierBlock, tiers)
	declared(v, networkSetBlock, sets)
	v.checkHostEndpoints()
	v.countTiers()
	if at := v.enforcement.bridgeAt; v.network != nil && at.inFile() {
		v.report(at.problem("Two bridges", "The network block says which bridge endpoints are attached to (%q); bridge is for a pod network that something else makes.", v.network.Bridge.Name))
	}
	for _, c := range v.checks {
		v.checkEnds(c, endpoints)
	}
}

// maxTiers is how many tiers there can be, the default one included. Each is a
// chain behind the other, of which the kernel follows 16 (NFT_JUMP_STACK_SIZE),
// and what leads to the first and logs in the last needs some.
const maxTiers = 10

func (v *validator) countTiers() {
	others := 1
	for _, t := range v.tiers {
		if t.Name == DefaultTier {
			continue
		}
		if others++; others > maxTiers {
			v.report(t.problem("Too many tiers", "There can be %d tiers, the one named %q among them.", maxTiers, DefaultTier))
			return
		}
	}
}

// unique checks that the names of a kind of block are given once. The first of
// a name is the one that others refer to.
func unique[T any](v *validator, kind *block, list []T, named func(T) (string, place)) map[string]T {
	first := make(map[string]T, len(list))
	for _, d := range list {
		name, at := named(d)
		if before, ok := first[name]; ok {
			_, beforeAt := named(before)
			v.report(at.problem("Duplicate "+kind.noun(), "The %s %q is declared at %s already.", kind.noun(), name, beforeAt))
			continue
		}
		first[name] = d
	}
	return first
}

// declared checks that what is referred to is there, unless a mistake may hide
// it.
func declared[T any](v *validator, kind *block, there map[string]T) {
	if v.hidden[kind] {
		return
	}
	var names []string // when they are needed
	for _, ref := range v.mentions {
		if _, ok := there[ref.name]; ok || ref.to != kind {
			continue
		}
		if names == nil {
			for name := range there {
				names = append(names, name)
			}
			slices.Sort(names)
		}
		v.report(ref.problem("No such "+kind.noun(), "There is no %s named %q.%s", kind.noun(), ref.name, didYouMean(ref.name, names)))
	}
}

// checkHostEndpoints checks that each interface of a node has one host endpoint,
// and is not one of the pod network.
func (v *validator) checkHostEndpoints() {
	made := make(map[string]string)
	if v.network != nil {
		made[v.network.Bridge.Name] = "the bridge"
		if v.network.Backend.Type == VXLAN {
			for _, f := range Families {
				made[v.network.Backend.Device.Get(f)] = fmt.Sprintf("the VTEP over %s", f.proper())
			}
		}
	}
	ports := make(map[onNode[string]]*endpointDecl, len(v.endpoints))
	for _, e := range v.endpoints {
		if e.Interface != "" {
			ports[onNode[string]{e.Node, e.Interface}] = e
		}
	}
	owners := make(map[onNode[string]]*hostEndpointDecl, len(v.hostEndpoints))
	for _, h := range v.hostEndpoints {
		key := onNode[string]{h.Node, h.Interface}
		if h.Node == "" || h.Interface == "" {
			continue // reported
		}
		const summary = "Unsuitable interface"
		if what, ok := made[h.Interface]; ok {
			v.report(h.interfaceAt.problem(summary, "%q is %s, which leads to pods: policies for these select endpoints.", h.Interface, what))
			continue
		}
		if e, ok := ports[key]; ok {
			v.report(h.interfaceAt.problem(summary, "%q leads to endpoint %s (%s): policies for it select the endpoint.", h.Interface, e.Name, e.interfaceAt))
			continue
		}
		if first, ok := owners[key]; ok {
			v.report(h.interfaceAt.problem("Duplicate interface", "On node %s, %s is the one of host endpoint %s already (%s).", h.Node, h.Interface, first.Name, first.place))
			continue
		}
		owners[key] = h
	}
}
