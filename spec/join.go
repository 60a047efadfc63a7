package spec

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// Candidate is a node as a cluster tells of it: what it is given there, and what
// it says of itself, in the words of polder and in those of flannel. Two can be
// compared by ==.
type Candidate struct {
	Name string
	// Created is when, in seconds of Unix. Of two that claim one thing, the older
	// has it: who comes later takes nothing away.
	Created   int64
	Addresses PerFamily[netip.Addr]
	Subnets   PerFamily[netip.Prefix]
	Polder    Published
	Flannel   Published
}

// Published is what a node says of itself for its peers.
type Published struct {
	Backend   BackendType // "": it says nothing
	Addresses PerFamily[netip.Addr]
	MACs      PerFamily[MAC]        // of its VTEPs
	Garbled   PerFamily[string]     // what cannot be read of that, and why
	Chosen    PerFamily[netip.Addr] // which of its own addresses it is to take for itself
}

// LeftOut is a node without a part in the pod network, or without one of a family.
type LeftOut struct {
	Node   string
	Family Family // 0: of both
	Reason Reason
	Text   string
}

// String is "n3: IPv6: it has no address".
func (l LeftOut) String() string {
	if l.Family == 0 {
		return l.Node + ": " + l.Text
	}
	return l.Node + ": " + l.Family.proper() + ": " + l.Text
}

// Compare is the order of nodes and their families.
func (l LeftOut) Compare(o LeftOut) int {
	return cmp.Or(cmp.Compare(l.Node, o.Node), cmp.Compare(l.Family, o.Family))
}

// Reason is why a node is left out, in one word for programs.
type Reason string

// The reasons.
const (
	NoPodCIDR        Reason = "NoPodCIDR"
	OutsidePodCIDRs  Reason = "OutsidePodCIDRs"
	OverlappingCIDR  Reason = "OverlappingPodCIDR"
	NoAddress        Reason = "NoAddress"
	UnsuitedAddress  Reason = "UnsuitableAddress"
	DuplicateAddress Reason = "DuplicateAddress"
	DuplicateMAC     Reason = "DuplicateMAC"
	NotPublished     Reason = "NotPublished"
	OtherBackend     Reason = "OtherBackend"
	GarbledData      Reason = "GarbledData"
	NoPath           Reason = "NoPath" // from this node to that one
)

// Join finds which nodes there are: those of the spec's files and, of the
// candidates, those that can have a part in the pod network. One that cannot, or
// not with each family, is named; the others go on as if it were not there. A node
// of the files is whole as the files say, but for MACs of which they say nothing.
// Where polder makes no pod network, each candidate is a node.
//
// Every node comes to the same, but that own, the node that asks, is not asked for
// what it has yet to publish.
func (s *Spec) Join(candidates []Candidate, own string) ([]*Node, []LeftOut) {
	j := newJoiner(s, own)
	told := make(map[string]*Candidate, len(candidates))
	for i := range candidates {
		told[candidates[i].Name] = &candidates[i]
	}
	for _, n := range s.Nodes {
		j.file(n, told[n.Name])
		delete(told, n.Name)
	}
	inOrder := slices.SortedFunc(func(yield func(*Candidate) bool) {
		for _, c := range told {
			if !yield(c) {
				return
			}
		}
	}, func(a, b *Candidate) int {
		return cmp.Or(cmp.Compare(a.Created, b.Created), cmp.Compare(a.Name, b.Name))
	})
	for _, c := range inOrder {
		j.take(c)
	}
	slices.SortFunc(j.nodes, func(a, b *Node) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(j.out, LeftOut.Compare)
	return j.nodes, j.out
}

// node is a candidate as it is.
func (c *Candidate) node() *Node {
	n := &Node{Name: c.Name}
	for _, f := range Families {
		if a := c.Addresses.Get(f); a.IsValid() {
			n.Addresses = append(n.Addresses, NodeAddress{Addr: a})
		}
		if p := c.Subnets.Get(f); p.IsValid() {
			n.Subnets = append(n.Subnets, p)
		}
	}
	return n
}

// joiner knows what is taken, and by which node.
type joiner struct {
	spec      *Spec
	own       string
	addresses map[netip.Addr]string
	macs      PerFamily[map[MAC]string]
	subnets   []takenSubnet // in order; none overlaps another
	nodes     []*Node
	out       []LeftOut
}

type takenSubnet struct {
	netip.Prefix
	node string
}

func newJoiner(s *Spec, own string) joiner {
	j := joiner{spec: s, own: own, addresses: map[netip.Addr]string{}}
	for _, f := range Families {
		j.macs.Set(f, map[MAC]string{})
	}
	return j
}

func (j *joiner) published(c *Candidate) Published {
	if j.spec.Network.Compat == CompatFlannel {
		return c.Flannel
	}
	return c.Polder
}

// vtep says that nodes have VTEPs.
func (j *joiner) vtep() bool { return j.spec.Network.Backend.Type == VXLAN }

// file takes a node of the files in. They are right by themselves.
func (j *joiner) file(n *Node, told *Candidate) {
	if j.spec.Network != nil && told != nil && j.vtep() {
		given := n.VTEPMAC
		for _, f := range Families {
			if mac := j.published(told).MACs.Get(f); given.Get(f).IsZero() && mac.IsUnicast() && j.macs.Get(f)[mac] == "" {
				given.Set(f, mac)
			}
		}
		if given != n.VTEPMAC {
			with := *n
			with.VTEPMAC = given
			n = &with
		}
	}
	j.nodes = append(j.nodes, n)
	for _, a := range n.Addresses {
		j.addresses[a.Addr] = n.Name
	}
	for _, p := range n.Subnets {
		j.taken(p, n.Name)
	}
	if j.spec.Network != nil && j.vtep() {
		for _, f := range Families {
			j.macs.Get(f)[j.spec.VTEPMAC(n, f)] = n.Name
		}
	}
}

// take takes a candidate in.
func (j *joiner) take(c *Candidate) {
	if j.spec.Network == nil {
		j.nodes = append(j.nodes, c.node())
		return
	}
	j.candidate(c)
}

// candidate takes a candidate in, as far as that goes.
func (j *joiner) candidate(c *Candidate) {
	says := j.published(c)
	refuse := func(f Family, reason Reason, format string, args ...any) {
		j.out = append(j.out, LeftOut{c.Name, f, reason, fmt.Sprintf(format, args...)})
	}
	switch network := j.spec.Network; {
	case c.Subnets == PerFamily[netip.Prefix]{}:
		refuse(0, NoPodCIDR, "it has no pod CIDR yet")
		return
	case network.Compat != CompatFlannel || c.Name == j.own:
	case says.Backend == "":
		refuse(0, NotPublished, "it has no annotations of flannel's yet")
		return
	case says.Backend != network.Backend.Type:
		refuse(0, OtherBackend, "its backend is %q, and not %q", says.Backend, network.Backend.Type)
		return
	}
	n := &Node{Name: c.Name}
	var macs PerFamily[MAC]
	for _, f := range Families {
		address := j.address(c, says, f)
		if _, of := j.spec.Network.PodRange(f); of {
			mac, reason, why := j.family(c, says, f, address)
			if reason == "" {
				n.Subnets = append(n.Subnets, c.Subnets.Get(f))
				macs.Set(f, mac)
				if mac == says.MACs.Get(f) {
					n.VTEPMAC.Set(f, mac)
				}
			} else {
				refuse(f, reason, "%s", why)
			}
		}
		// It has its address also where its pods have none.
		if suits(address) && j.addresses[address] == "" && !j.inside(address).IsValid() {
			n.Addresses = append(n.Addresses, NodeAddress{Addr: address})
		}
	}
	if len(n.Subnets) == 0 {
		return
	}
	j.nodes = append(j.nodes, n)
	for _, a := range n.Addresses {
		j.addresses[a.Addr] = n.Name
	}
	for _, p := range n.Subnets {
		j.taken(p, n.Name)
		if f := FamilyOf(p.Addr()); !macs.Get(f).IsZero() {
			j.macs.Get(f)[macs.Get(f)] = n.Name
		}
	}
}

// address is the one at which the peers of a candidate reach it.
func (j *joiner) address(c *Candidate, says Published, f Family) netip.Addr {
	switch {
	case c.Name == j.own:
		if a := says.Chosen.Get(f); a.IsValid() {
			return a
		}
		return c.Addresses.Get(f)
	case j.spec.Network.Compat == CompatFlannel:
		return says.Addresses.Get(f)
	}
	if a := says.Addresses.Get(f); a.IsValid() {
		return a
	}
	return c.Addresses.Get(f)
}

// family says whether a candidate can have a part in the network of a family, with
// which MAC of its VTEP as far as that is known, or else why not.
func (j *joiner) family(c *Candidate, says Published, f Family, address netip.Addr) (mac MAC, reason Reason, why string) {
	pods, _ := j.spec.Network.PodRange(f)
	subnet := c.Subnets.Get(f)
	own := c.Name == j.own
	longest := 30 // four addresses, as of the files' subnets
	if f == IPv6 {
		longest = 126
	}
	switch garbled := says.Garbled.Get(f); {
	case !subnet.IsValid():
		return mac, NoPodCIDR, "it has no pod CIDR of this family"
	case !pods.holds(subnet):
		return mac, OutsidePodCIDRs, fmt.Sprintf("its pod CIDR %s is not in pod_cidrs, %s", subnet, pods.CIDR)
	case subnet.Bits() > longest:
		return mac, OutsidePodCIDRs, fmt.Sprintf("its pod CIDR %s has no room for pods", subnet)
	case garbled != "" && !own:
		return mac, GarbledData, garbled
	case !address.IsValid():
		return mac, NoAddress, "it has no address of this family"
	case !suits(address):
		return mac, UnsuitedAddress, fmt.Sprintf("nobody can be reached at its address %s", address)
	case j.inside(address).IsValid():
		return mac, UnsuitedAddress, fmt.Sprintf("its address %s is one of pods, in %s", address, j.inside(address))
	case j.addresses[address] != "":
		return mac, DuplicateAddress, fmt.Sprintf("its address %s is that of node %s", address, j.addresses[address])
	}
	if other, overlap := j.overlaps(subnet); overlap {
		return mac, OverlappingCIDR, fmt.Sprintf("its pod CIDR %s overlaps %s of node %s", subnet, other.Prefix, other.node)
	}
	if !j.vtep() {
		return mac, "", ""
	}
	if mac = j.mac(c, says, f); mac.IsZero() {
		if own {
			return mac, "", "" // it is found on the host
		}
		return mac, NotPublished, "it has not published the MAC of its VTEP"
	}
	if other := j.macs.Get(f)[mac]; other != "" {
		return mac, DuplicateMAC, "its VTEP has the MAC of that of node " + other
	}
	return mac, "", ""
}

// mac is the MAC of a candidate's VTEP, zero where that is not known.
func (j *joiner) mac(c *Candidate, says Published, f Family) MAC {
	if mac := says.MACs.Get(f); mac.IsUnicast() {
		return mac
	}
	if j.spec.Network.Compat == CompatFlannel {
		return MAC{}
	}
	return j.spec.VTEPMAC(&Node{Name: c.Name}, f)
}

// suits says that a node can be reached at an address.
func suits(a netip.Addr) bool { return a.IsGlobalUnicast() && !a.Is4In6() }

// inside is the pod CIDR that an address is in, or not valid.
func (j *joiner) inside(a netip.Addr) netip.Prefix {
	for _, r := range j.spec.Network.Pods {
		if r.CIDR.Contains(a) {
			return r.CIDR
		}
	}
	return netip.Prefix{}
}

// overlaps finds a subnet that is taken and overlaps another one. As prefixes are
// nested or disjoint, it is one of the two between which that one would stand.
func (j *joiner) overlaps(p netip.Prefix) (takenSubnet, bool) {
	at, _ := slices.BinarySearchFunc(j.subnets, p, compareSubnets)
	for _, i := range []int{at - 1, at} {
		if i >= 0 && i < len(j.subnets) && j.subnets[i].Overlaps(p) {
			return j.subnets[i], true
		}
	}
	return takenSubnet{}, false
}

func (j *joiner) taken(p netip.Prefix, node string) {
	at, _ := slices.BinarySearchFunc(j.subnets, p, compareSubnets)
	j.subnets = slices.Insert(j.subnets, at, takenSubnet{p, node})
}

func compareSubnets(a takenSubnet, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}
