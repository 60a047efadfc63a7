package overlay

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/hashicorp/hcl/v2"

	"github.com/poldernet/polder/spec"
)

// TestVTEPOfFlannel: in a network that is shared with flannel, a VTEP that is there
// keeps its MAC, unless the node has published one. Elsewhere it gets polder's.
func TestVTEPOfFlannel(t *testing.T) {
	drawn, published := spec.MAC{2, 8, 8, 8, 8, 8}, spec.MAC{2, 7, 7, 7, 7, 7}
	c := cluster{nodes: 2, families: onlyIPv4, underlay: onlyIPv4, backend: vxlan()}
	sp := c.spec()
	derived := sp.VTEPMAC(sp.Nodes[0], spec.IPv4)
	for _, test := range []struct {
		compat          spec.Compat
		there           bool
		published, want spec.MAC
	}{
		{spec.CompatFlannel, true, spec.MAC{}, drawn},
		{spec.CompatFlannel, true, published, published},
		{spec.CompatFlannel, false, spec.MAC{}, derived},
		{"", true, spec.MAC{}, derived},
	} {
		facts, sp := c.facts(), c.spec()
		if test.there {
			facts.Links["polder.1"] = HostLink{Link: Link{Name: "polder.1", Type: TypeVXLAN, MAC: drawn}}
		}
		sp.Network.Compat, sp.Nodes[0].VTEPMAC.IPv4 = test.compat, test.published
		d, err := Compile(sp, sp.Nodes[0], facts)
		if err != nil {
			t.Fatal(err)
		}
		if got := d.Links["polder.1"].MAC; got != test.want {
			t.Errorf("%+v: the MAC is %s", test, got)
		}
	}
}

// TestOneFamily: a node of the cluster that has pods of one family needs nothing of
// the other, neither of its own nor of its peers; and peers need nothing of that.
func TestOneFamily(t *testing.T) {
	for _, lacking := range spec.Families {
		for _, backend := range []spec.Backend{vxlan(), direct(), hostGW()} {
			c := cluster{nodes: 3, families: dual, underlay: dual, backend: backend}
			sp, facts := c.spec(), c.facts()
			sp.Kubernetes = &spec.Kubernetes{}
			one := sp.Nodes[0]
			has := lacking.Other()
			one.Addresses = slices.DeleteFunc(one.Addresses, func(a spec.NodeAddress) bool { return spec.FamilyOf(a.Addr) == lacking })
			one.Subnets = slices.DeleteFunc(one.Subnets, func(p netip.Prefix) bool { return spec.FamilyOf(p.Addr()) == lacking })
			d, err := Compile(sp, one, facts)
			if err != nil {
				t.Fatal(err)
			}
			if len(d.Peers) != 2 || len(d.Findings) > 0 || d.Underlay.Get(lacking) != "" || d.Underlay.Get(has) != "eth0" {
				t.Errorf("without %s: peers %v, findings %v, underlay %v", lacking, d.Peers, d.Findings, d.Underlay)
			}
			for key := range d.Addresses {
				if spec.FamilyOf(key.Prefix.Addr()) == lacking {
					t.Errorf("it gets %s", key.Prefix)
				}
			}
			if _, there := d.Sysctls[ForwardingSwitch(lacking)]; there {
				t.Errorf("it forwards %s", lacking)
			}

			facts = c.facts()
			l := facts.Links["eth0"] // n2's
			l.Addresses = nil
			for _, a := range sp.Nodes[1].Addresses {
				l.Addresses = append(l.Addresses, netip.PrefixFrom(a.Addr, a.Link.Bits()))
			}
			facts.Links["eth0"] = l
			for _, a := range one.Addresses {
				facts.Paths[a.Addr] = HostPath{Link: "eth0"}
			}
			d, err = Compile(sp, sp.Nodes[1], facts)
			if err != nil {
				t.Fatal(err)
			}
			if len(d.Peers) != 3 || len(d.Findings) > 0 {
				t.Errorf("a peer of one without %s: %v, %v", lacking, d.Peers, d.Findings)
			}
		}
	}
}

// TestPeerOffTheLink: a node of the cluster to which host-gw cannot lead is named, and
// the others are reached. One of the files is in conflict.
func TestPeerOffTheLink(t *testing.T) {
	c := cluster{nodes: 3, families: dual, underlay: dual, backend: hostGW()}
	sp, facts := c.spec(), c.facts()
	facts.Paths[nodeAddress(spec.IPv4, 3)] = HostPath{Link: "eth0", Gateway: nodeAddress(spec.IPv4, 9)}
	d, err := Compile(sp, sp.Nodes[0], facts)
	if err != nil || len(d.Findings) != 1 || len(d.LeftOut) != 1 {
		t.Fatalf("%v: findings %v, left out %v", err, d.Findings, d.LeftOut)
	}
	sp.Kubernetes, sp.Nodes[2].Range = &spec.Kubernetes{}, hcl.Range{}
	d, err = Compile(sp, sp.Nodes[0], facts)
	if err != nil || len(d.Findings) > 0 || len(d.LeftOut) != 1 || len(d.Peers) != 3 {
		t.Fatalf("%v: findings %v, left out %v, peers %v", err, d.Findings, d.LeftOut, d.Peers)
	}
	if got := d.LeftOut[0].String(); got != "n3: IPv4: node n3 at 192.0.2.13 is behind the gateway 192.0.2.19, and host-gw works only between nodes on one link" {
		t.Error(got)
	}
}

// TestLeads: the way to a peer is there if all of it is, and what the node itself has
// is there if all of that is.
func TestLeads(t *testing.T) {
	c := cluster{nodes: 2, families: dual, underlay: dual, backend: vxlan()}
	sp := c.spec()
	d, err := Compile(sp, sp.Nodes[0], c.facts())
	if err != nil {
		t.Fatal(err)
	}
	observed := func() State {
		s := d.State
		s.Links, s.Addresses = maps.Clone(s.Links), maps.Clone(s.Addresses)
		s.Neighbours, s.FDB, s.NextHops, s.Routes = maps.Clone(s.Neighbours), maps.Clone(s.FDB), maps.Clone(s.NextHops), maps.Clone(s.Routes)
		return s
	}
	p := d.Peers[0]
	for name, test := range map[string]struct {
		damage        func(s State)
		leads, stands bool
	}{
		"nothing":    {func(State) {}, true, true},
		"route":      {func(s State) { clear(s.Routes) }, false, true},
		"next hop":   {func(s State) { clear(s.NextHops) }, false, true},
		"neighbours": {func(s State) { clear(s.Neighbours) }, false, true},
		"FDB":        {func(s State) { clear(s.FDB) }, false, true},
		"addresses":  {func(s State) { clear(s.Addresses) }, true, false},
		"link":       {func(s State) { delete(s.Links, "polder-v6.1") }, true, false},
		"MAC":        {func(s State) { l := s.Links["polder.1"]; l.MAC[5]++; s.Links["polder.1"] = l }, true, false},
	} {
		s := observed()
		test.damage(s)
		if leads, stands := d.Leads(s, p), d.Stands(s); leads != test.leads || stands != test.stands {
			t.Errorf("without %s: leads %t, stands %t", name, leads, stands)
		}
	}
}

// TestOnlyLeads: what leads to other nodes alone is told from the node's own part by kind
// and name.
func TestOnlyLeads(t *testing.T) {
	d := &Desired{State: NewState(1), VTEPs: spec.PerFamily[string]{IPv4: "flannel.1"}}
	d.Addresses[AddressKey{"cni0", netip.MustParsePrefix("10.244.1.1/24")}] = Address{}
	d.Addresses[AddressKey{"flannel.1", netip.MustParsePrefix("10.244.1.0/32")}] = Address{}
	for _, o := range []struct {
		kind, name string
		want       bool
	}{
		{"nexthop", "id 7", true},
		{"fdb", "02:00:00:00:00:01 dev flannel.1 dst 192.0.2.12", true},
		{"neighbour", "10.244.2.0 dev flannel.1", true},
		{"neighbour", "10.244.1.5 dev cni0", false},
		{"neighbour", "10.244.1.5", false},
		{"proxy", "10.244.1.5 dev cni0", false},
		{"route", "10.244.2.0/24", true},
		{"route", "fd00:10:244:2::/64 metric 5", true},
		{"route", "10.244.1.0/24", false},
		{"route", "10.244.1.0/24 metric 5", false},
		{"route", "10.244.1.128/25", false},
		{"route", "10.244.0.0/16", false},
		{"route", "what", false},
		{"link", "flannel.1", false},
		{"address", "10.244.1.0/32 dev flannel.1", false},
		{"port", "veth1", false},
		{"sysctl", "net.ipv4.ip_forward", false},
		{"policy", "db", false},
		{"", "", false},
	} {
		if got := d.OnlyLeads(o.kind, o.name); got != o.want {
			t.Errorf("%s %s: %t", o.kind, o.name, got)
		}
	}
}
