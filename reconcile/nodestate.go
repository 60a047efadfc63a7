package reconcile

import (
	"cmp"
	"fmt"
	"net/netip"
	"reflect"
	"slices"

	"github.com/poldernet/polder/overlay"
	"github.com/poldernet/polder/spec"
)

// NodeState is what a node has to say of itself to the others of its cluster.
type NodeState struct {
	// Refused are the NetworkPolicies that the kernel does not take, by NAMESPACE/NAME,
	// and why.
	Refused map[string]string
	Network *spec.Network // nil: polder makes none, and there is nothing more to say
	Stands  bool          // the node's own part of it is in the kernel
	Gone    bool          // it has been destroyed, and is not made again until somebody asks
	// What follows is as it is in the kernel, by the family of pods.
	Families  []spec.Family
	Addresses spec.PerFamily[netip.Addr] // that packets to peers come from
	MACs      spec.PerFamily[spec.MAC]   // of the VTEPs; zero: there is none, or not as it should be
	// Self is why the node has no part in the network, or not with each family.
	Self []spec.LeftOut
	// Strays are containers whose addresses are in no subnet of the node's: it had
	// others when they were attached.
	Strays []string
	// Peers are those that are left out, and those to which the path is not in the
	// kernel, in the order of names.
	Peers []spec.LeftOut
}

// joined is which nodes there are.
type joined struct {
	all []*spec.Node
	out []spec.LeftOut
	own *spec.Node // nil: it is not among them
	// missing says that it is not among those that there are by now: own is as it was
	// last, if that is known.
	missing bool
}

// nodes finds which there are, those of the spec and those that a cluster tells of.
func (p *Planner) nodes() *joined {
	if p.joined != nil {
		return p.joined
	}
	sp := p.options.Spec
	j := &joined{all: sp.Nodes}
	if sp.NodesBeside() {
		j.all, j.out = p.members.Join(sp, p.options.Node)
	}
	if i, there := slices.BinarySearchFunc(j.all, p.options.Node, func(n *spec.Node, name string) int { return cmp.Compare(n.Name, name) }); there {
		j.own = j.all[i]
	}
	if j.missing = j.own == nil; sp.NodesBeside() {
		p.standIn(j)
	}
	p.joined = j
	return j
}

// speak tells the cluster how the node stands, where that has changed.
func (d *Daemon) speak() {
	if d.cluster == nil {
		return
	}
	if s := d.nodeState(); !reflect.DeepEqual(s, d.said) {
		d.said = s
		d.cluster.Publish(s)
	}
}

// nodeState is how the node stands, by what is known of the kernel.
func (d *Daemon) nodeState() (s NodeState) {
	a := d.applier
	s.Refused = d.retries.refused()
	if a.options.Spec.Network == nil {
		return s
	}
	s.Network = a.options.Spec.Network
	if d.now.Held == ModeDestroy {
		s.Gone = true
		return s
	}
	for _, l := range a.nodes().out {
		if l.Node == a.options.Node {
			s.Self = append(s.Self, l)
		} else {
			s.Peers = append(s.Peers, l)
		}
	}
	_, own, err := a.own()
	if err != nil || a.nodes().missing {
		return s
	}
	s.Strays = strays(a.Planner, own)
	if d.view == nil || d.view.compiled == nil {
		return s
	}
	v := d.view
	s.Stands = v.compiled.Stands(v.state)
	for _, p := range own.Subnets {
		f := spec.FamilyOf(p.Addr())
		s.Families = append(s.Families, f)
		s.Addresses.Set(f, v.compiled.Local.Get(f))
		want := v.compiled.Links[v.compiled.VTEPs.Get(f)].MAC
		if have := v.state.Links[v.compiled.VTEPs.Get(f)]; have.Type == overlay.TypeVXLAN && have.MAC == want {
			s.MACs.Set(f, want)
			a.macs.Set(f, want)
		}
	}
	s.Peers = append(s.Peers, d.lost()...)
	slices.SortStableFunc(s.Peers, spec.LeftOut.Compare)
	return s
}

// lost are the peers to which the path is not in the kernel.
func (d *Daemon) lost() (list []spec.LeftOut) {
	v := d.view
	if d.now.InSync { // of thousands, none has to be looked at
		return v.compiled.LeftOut
	}
	why := map[string]string{}
	for _, c := range d.now.Conflicts {
		why[c.Name] = ": " + c.Reason
	}
	for _, p := range v.compiled.Peers {
		if !v.compiled.Leads(v.state, p) {
			text := fmt.Sprintf("the path to %s is not in the kernel%s", p.Subnet, why[p.Subnet.String()])
			list = append(list, spec.LeftOut{Node: p.Node, Family: spec.FamilyOf(p.Subnet.Addr()), Reason: spec.NoPath, Text: text})
		}
	}
	return append(list, v.compiled.LeftOut...)
}

// strays are containers that have no address in a subnet of the node's, of a family
// of which they have one.
func strays(p *Planner, own *spec.Node) (list []string) {
	for _, a := range p.attached {
		if slices.ContainsFunc(a.Addresses, func(at netip.Addr) bool {
			subnet, has := own.Subnet(spec.FamilyOf(at))
			return !has || !subnet.Contains(at)
		}) {
			list = append(list, a.On(own.Name).Key())
		}
	}
	slices.Sort(list)
	return list
}
