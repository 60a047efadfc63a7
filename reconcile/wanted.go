package reconcile

import (
	"net/netip"
	"slices"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/nft/nat"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/policy/guard"
	"github.com/poldernet/polder/policy/spoof"
	"github.com/poldernet/polder/spec"
)

// wanted is the ruleset that should be in force. Another one has another
// address: two of one address are the same.
type wanted struct {
	ruleset  nft.Ruleset
	via      []nft.Ruleset // on the way there
	policies nft.Table     // what the policies come to, of the ruleset
}

// want compiles the ruleset. It depends on the one in force: see
// policy.Index.Compile.
func (p *Planner) want(v *view, sp *spec.Spec, node *spec.Node) {
	links := guard.Links{
		Bridge: v.compiled.Bridge, VTEPs: v.compiled.VTEPs, Underlay: v.compiled.Underlay, Local: v.compiled.Local,
		Routed: v.compiled.Routed,
	}
	v.policyHost = v.host(sp, node, links, p.refused)
	policies := p.indexed(v, sp).Compile(v.policiesInForce())
	v.counters = policies.Counters
	w := &wanted{policies: policies.Table}
	v.names = p.index.NameOf
	sp = p.index.Beside(sp)
	gone, come := shifted(v.guarded, sp.Nodes)
	v.peers, v.guarded = v.peers.Exchange(node.Name, gone, come), sp.Nodes
	others := nft.Merge(nat.Compile(sp, node), v.peers.Compile(sp, node, links), spoof.CompileINet(sp, node))
	bridge := spoof.Compile(sp, node, v.bridge(policies.Isolated))
	ruleset := func(p nft.Table) nft.Ruleset {
		var rs nft.Ruleset
		for _, t := range []nft.Table{nft.Merge(others, p), bridge} {
			if !t.Empty() {
				rs = append(rs, t)
			}
		}
		return rs
	}
	w.ruleset = ruleset(policies.Table)
	for _, t := range policies.Via {
		w.via = append(w.via, ruleset(t))
	}
	// One that is the same stays the one that it was, as a value that shares with
	// what the index knows.
	known := v.isWanted()
	same := v.wanted != nil && nft.Diff(w.ruleset, v.wanted.ruleset).Empty()
	if !same || len(w.via)+len(v.wanted.via) > 0 {
		v.wanted = w
	} else {
		*v.wanted = *w
	}
	if known && same || !known && v.inForce() {
		v.rules = v.wanted.ruleset // to compare the one with the other is to see that they are one
	}
}

// indexed is the index of a spec.
func (p *Planner) indexed(v *view, sp *spec.Spec) *policy.Index {
	there := p.index != nil && p.index.Node() == v.policyHost.Node.Name
	if there {
		p.index.SetHost(v.policyHost)
	}
	switch {
	case there && p.current:
	case there:
		model, _ := policy.New(sp) // what is wrong with it was said when the spec was loaded
		p.index.SetModel(model)
		p.version++
	default:
		model, _ := policy.New(sp)
		p.index = policy.NewIndex(model, v.policyHost)
		p.index.Remake = policy.RemakeFew
		p.version++
	}
	v.indexed = p.version
	return p.index
}

// policiesInForce is the table in the kernel as policies are compiled against it.
func (v *view) policiesInForce() nft.Table {
	if v.isWanted() {
		return v.wanted.policies
	}
	return inetTable(v.rules)
}

// isWanted says that the kernel's ruleset is known by the value that was compiled.
func (v *view) isWanted() bool {
	return v.wanted != nil && slices.EqualFunc(v.rules, v.wanted.ruleset, nft.Table.Shares)
}

// host is what the policies' rules need to know of the node.
func (v *view) host(sp *spec.Spec, node *spec.Node, links guard.Links, refused map[string]error) policy.Host {
	h := policy.Host{Node: node, Bridge: sp.Enforcement.Bridge, Tunnel: guard.Tunnel(sp), Refused: make(map[string]bool, len(refused))}
	for id := range refused {
		h.Refused[id] = true
	}
	for _, f := range spec.Families {
		if name := links.VTEPs.Get(f); name != "" {
			h.Links = append(h.Links, name)
		}
	}
	h.Links = append(h.Links, links.Routed...)
	return h
}

// bridge is what the table of the bridge needs to know of the node.
func (v *view) bridge(isolated spec.PerFamily[[]netip.Addr]) spoof.Host {
	h := spoof.Host{Isolated: isolated}
	name := v.policyHost.Bridge
	if link, ok := v.compiled.Links[name]; ok { // adopted, perhaps, with its MAC
		h.MACs = append(h.MACs, link.MAC)
	} else if link, ok := v.facts.Links[name]; ok { // somebody else's
		h.MACs = append(h.MACs, link.MAC)
		for _, p := range link.Addresses {
			h.Addresses = append(h.Addresses, p.Addr())
		}
	}
	// That of a device that flannel made is in no spec.
	for _, f := range spec.Families {
		if vtep, ok := v.compiled.Links[v.compiled.VTEPs.Get(f)]; ok && !slices.Contains(h.MACs, vtep.MAC) {
			h.MACs = append(h.MACs, vtep.MAC)
		}
	}
	return h
}

// plan is the way from what is observed.
func (w *wanted) plan(observed nft.Ruleset) *nft.Plan {
	there := nft.Diff(w.ruleset, observed)
	if there.Empty() {
		return there
	}
	return through(observed, append(slices.Clip(w.via), w.ruleset)...)
}

// inetTable is our table of the inet family, empty if it is not there.
func inetTable(rs nft.Ruleset) nft.Table {
	t, _ := rs.Table(nft.TableID{Family: nft.INet, Name: nft.TableName})
	return t
}
