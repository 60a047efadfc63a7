package spec_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/poldernet/polder/spec"
)

// clustered is the spec of a network whose nodes are a cluster's, with more in the
// network block and after it.
func clustered(t testing.TB, more, after string) *spec.Spec {
	t.Helper()
	config, diags := spec.LoadText("polder.hcl", []byte(`cluster = "edge"
kubernetes {}
network {
  pod_cidrs = ["10.244.0.0/16", "fd00:10:244::/48"]
`+more+"\n}\n"+after))
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return config.Spec
}

// candidate is the i-th of a cluster of both families.
func candidate(i int) spec.Candidate {
	return spec.Candidate{
		Name: fmt.Sprint("n", i), Created: int64(i),
		Addresses: spec.PerFamily[netip.Addr]{IPv4: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), IPv6: netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i))},
		Subnets:   spec.PerFamily[netip.Prefix]{IPv4: netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", i)), IPv6: netip.MustParsePrefix(fmt.Sprintf("fd00:10:244:%x::/64", i))},
	}
}

// flannels makes a candidate say what one of flannel's says.
func flannels(c spec.Candidate) spec.Candidate {
	c.Flannel = spec.Published{Backend: spec.VXLAN, Addresses: c.Addresses}
	c.Flannel.MACs.IPv4, c.Flannel.MACs.IPv6 = spec.MAC{2, 0, 0, 0, 4, byte(c.Created)}, spec.MAC{2, 0, 0, 0, 6, byte(c.Created)}
	return c
}

func texts(list []spec.LeftOut) string {
	var lines []string
	for _, l := range list {
		lines = append(lines, fmt.Sprintf("%s [%s]", l, l.Reason))
	}
	return strings.Join(lines, "\n")
}

func summary(nodes []*spec.Node) string {
	var list []string
	for _, n := range nodes {
		list = append(list, fmt.Sprint(n.Name, n.Subnets))
	}
	return strings.Join(list, " ")
}

// TestJoin: what is wrong with one of three nodes leaves out that one, or a family of
// it, and says so, and the two others stay as they are.
func TestJoin(t *testing.T) {
	const both = " n3[10.244.3.0/24 fd00:10:244:3::/64]"
	for name, c := range map[string]struct {
		flannel bool
		change  func(c *spec.Candidate)
		third   string // of the nodes
		out     string
	}{
		"nothing":           {change: func(*spec.Candidate) {}, third: both},
		"no pod CIDR":       {change: func(c *spec.Candidate) { c.Subnets = spec.PerFamily[netip.Prefix]{} }, out: "n3: it has no pod CIDR yet [NoPodCIDR]"},
		"one pod CIDR":      {change: func(c *spec.Candidate) { c.Subnets.IPv6 = netip.Prefix{} }, third: " n3[10.244.3.0/24]", out: "n3: IPv6: it has no pod CIDR of this family [NoPodCIDR]"},
		"another's subnet":  {change: func(c *spec.Candidate) { c.Subnets.IPv4 = netip.MustParsePrefix("10.244.1.0/24") }, third: " n3[fd00:10:244:3::/64]", out: "n3: IPv4: its pod CIDR 10.244.1.0/24 overlaps 10.244.1.0/24 of node n1 [OverlappingPodCIDR]"},
		"within another's":  {change: func(c *spec.Candidate) { c.Subnets.IPv4 = netip.MustParsePrefix("10.244.1.128/25") }, third: " n3[fd00:10:244:3::/64]", out: "n3: IPv4: its pod CIDR 10.244.1.128/25 overlaps 10.244.1.0/24 of node n1 [OverlappingPodCIDR]"},
		"around others'":    {change: func(c *spec.Candidate) { c.Subnets.IPv4 = netip.MustParsePrefix("10.244.0.0/16") }, third: " n3[fd00:10:244:3::/64]", out: "n3: IPv4: its pod CIDR 10.244.0.0/16 overlaps 10.244.1.0/24 of node n1 [OverlappingPodCIDR]"},
		"another length":    {change: func(c *spec.Candidate) { c.Subnets.IPv4 = netip.MustParsePrefix("10.244.3.0/26") }, third: " n3[10.244.3.0/26 fd00:10:244:3::/64]"},
		"outside":           {change: func(c *spec.Candidate) { c.Subnets.IPv4 = netip.MustParsePrefix("10.99.3.0/24") }, third: " n3[fd00:10:244:3::/64]", out: "n3: IPv4: its pod CIDR 10.99.3.0/24 is not in pod_cidrs, 10.244.0.0/16 [OutsidePodCIDRs]"},
		"wider":             {change: func(c *spec.Candidate) { c.Subnets.IPv4 = netip.MustParsePrefix("10.0.0.0/8") }, third: " n3[fd00:10:244:3::/64]", out: "n3: IPv4: its pod CIDR 10.0.0.0/8 is not in pod_cidrs, 10.244.0.0/16 [OutsidePodCIDRs]"},
		"no address":        {change: func(c *spec.Candidate) { c.Addresses.IPv6 = netip.Addr{} }, third: " n3[10.244.3.0/24]", out: "n3: IPv6: it has no address of this family [NoAddress]"},
		"another's address": {change: func(c *spec.Candidate) { c.Addresses.IPv6 = netip.MustParseAddr("2001:db8::1") }, third: " n3[10.244.3.0/24]", out: "n3: IPv6: its address 2001:db8::1 is that of node n1 [DuplicateAddress]"},
		"a pod's address":   {change: func(c *spec.Candidate) { c.Addresses.IPv4 = netip.MustParseAddr("10.244.3.9") }, third: " n3[fd00:10:244:3::/64]", out: "n3: IPv4: its address 10.244.3.9 is one of pods, in 10.244.0.0/16 [UnsuitableAddress]"},
		"link-local":        {change: func(c *spec.Candidate) { c.Addresses.IPv6 = netip.MustParseAddr("fe80::1") }, third: " n3[10.244.3.0/24]", out: "n3: IPv6: nobody can be reached at its address fe80::1 [UnsuitableAddress]"},
		"garbage":           {change: func(c *spec.Candidate) { c.Polder.Garbled.IPv4 = "it is garbage" }, third: " n3[fd00:10:244:3::/64]", out: "n3: IPv4: it is garbage [GarbledData]"},
		"of flannel":        {flannel: true, change: func(*spec.Candidate) {}, third: both},
		"not yet":           {flannel: true, change: func(c *spec.Candidate) { c.Flannel = spec.Published{} }, out: "n3: it has no annotations of flannel's yet [NotPublished]"},
		"another backend":   {flannel: true, change: func(c *spec.Candidate) { c.Flannel.Backend = "wireguard" }, out: "n3: its backend is \"wireguard\", and not \"vxlan\" [OtherBackend]"},
		"no MAC":            {flannel: true, change: func(c *spec.Candidate) { c.Flannel.MACs.IPv6 = spec.MAC{} }, third: " n3[10.244.3.0/24]", out: "n3: IPv6: it has not published the MAC of its VTEP [NotPublished]"},
		"another's MAC":     {flannel: true, change: func(c *spec.Candidate) { c.Flannel.MACs.IPv4 = spec.MAC{2, 0, 0, 0, 4, 1} }, third: " n3[fd00:10:244:3::/64]", out: "n3: IPv4: its VTEP has the MAC of that of node n1 [DuplicateMAC]"},
		"no public address": {flannel: true, change: func(c *spec.Candidate) { c.Flannel.Addresses.IPv4 = netip.Addr{} }, third: " n3[fd00:10:244:3::/64]", out: "n3: IPv4: it has no address of this family [NoAddress]"},
	} {
		t.Run(name, func(t *testing.T) {
			more, list := "", []spec.Candidate{candidate(2), candidate(3), candidate(1)}
			if c.flannel {
				more = `compat = "flannel"`
				for i := range list {
					list[i] = flannels(list[i])
				}
			}
			c.change(&list[1])
			nodes, out := clustered(t, more, "").Join(list, "n1")
			if got, want := summary(nodes), "n1[10.244.1.0/24 fd00:10:244:1::/64] n2[10.244.2.0/24 fd00:10:244:2::/64]"+c.third; got != want {
				t.Errorf("the nodes are %s\nwant %s", got, want)
			}
			if texts(out) != c.out {
				t.Errorf("left out:\n%s\nwant\n%s", texts(out), c.out)
			}
		})
	}
}

// TestJoinOwn: who asks is not asked for what it has yet to publish, and takes the
// address that its user chose.
func TestJoinOwn(t *testing.T) {
	sp := clustered(t, `compat = "flannel"`, "")
	own := candidate(1)
	own.Flannel.Chosen.IPv4 = netip.MustParseAddr("192.0.2.99")
	nodes, out := sp.Join([]spec.Candidate{own, flannels(candidate(2))}, "n1")
	if len(nodes) != 2 || len(out) > 0 {
		t.Fatalf("%s\n%s", summary(nodes), texts(out))
	}
	if a, _ := nodes[0].Address(spec.IPv4); a.Addr != own.Flannel.Chosen.IPv4 || !nodes[0].VTEPMAC.IPv4.IsZero() {
		t.Errorf("%+v", nodes[0])
	}
	if got := nodes[1].VTEPMAC.IPv6; got != (spec.MAC{2, 0, 0, 0, 6, 2}) {
		t.Errorf("its MAC is %s", got)
	}
	if sp.Network.Backend.Device.IPv6 != "flannel-v6.1" {
		t.Errorf("the device is %s", sp.Network.Backend.Device.IPv6)
	}
}

// TestUnderlayOfCandidates: one node without IPv6 does not move the IPv6 of all others
// to another underlay.
func TestUnderlayOfCandidates(t *testing.T) {
	sp, lacking := *clustered(t, "", ""), candidate(2)
	lacking.Addresses.IPv6 = netip.Addr{}
	sp.Nodes, _ = sp.Join([]spec.Candidate{candidate(1), lacking}, "n1")
	for _, f := range spec.Families {
		if got := sp.UnderlayFamily(f); got != f || len(sp.Nodes) != 2 {
			t.Errorf("pods of %s are carried by %s", f, got)
		}
	}
}

// TestJoinFiles: a node of the files is as they say, whatever the cluster says, but
// for a MAC that it publishes; and nobody takes its place.
func TestJoinFiles(t *testing.T) {
	sp := clustered(t, "", `node "n1" {
  addresses = ["198.51.100.1", "2001:db8:99::1"]
  subnets   = ["10.244.9.0/24", "fd00:10:244:9::/64"]
}
`)
	one, two := candidate(1), candidate(2)
	one.Polder.MACs.IPv4 = spec.MAC{2, 1}
	two.Subnets.IPv4 = netip.MustParsePrefix("10.244.9.0/25")
	two.Created = 0
	nodes, out := sp.Join([]spec.Candidate{one, two}, "n2")
	if got := summary(nodes); got != "n1[10.244.9.0/24 fd00:10:244:9::/64] n2[fd00:10:244:2::/64]" || len(out) != 1 {
		t.Errorf("%s\n%s", got, texts(out))
	}
	if a, _ := nodes[0].Address(spec.IPv4); nodes[0].VTEPMAC.IPv4 != one.Polder.MACs.IPv4 || a.Addr.String() != "198.51.100.1" || !sp.Nodes[0].VTEPMAC.IPv4.IsZero() {
		t.Errorf("%+v", nodes[0])
	}
}

// claiming draws the i-th candidate of a small world, in which candidates claim each
// other's things.
func claiming(rt *rapid.T, i int, shared bool) spec.Candidate {
	number := func(label string) int { return rapid.IntRange(1, 6).Draw(rt, label) }
	c := candidate(i)
	c.Name = fmt.Sprint("n", 9-i)
	c.Subnets, c.Addresses = candidate(number("subnets")).Subnets, candidate(number("addresses")).Addresses
	if rapid.Bool().Draw(rt, "narrow") {
		c.Subnets.IPv4 = netip.PrefixFrom(c.Subnets.IPv4.Addr(), rapid.IntRange(14, 32).Draw(rt, "bits")).Masked()
	}
	if rapid.IntRange(0, 3).Draw(rt, "lacks") == 0 {
		c.Subnets.IPv6, c.Addresses.IPv6 = netip.Prefix{}, netip.Addr{}
	}
	if shared && rapid.IntRange(0, 4).Draw(rt, "publishes") > 0 {
		c = flannels(c)
		c.Flannel.MACs = flannels(candidate(number("MACs"))).Flannel.MACs
	}
	return c
}

// TestJoinAnybody joins candidates of a small world, in which they claim each other's
// things: whatever they say, members share nothing; who is not a member with a
// family is named; all agree who is one; and who comes later takes nothing away.
func TestJoinAnybody(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		more := ""
		shared := rapid.Bool().Draw(rt, "shared")
		if shared {
			more = `compat = "flannel"`
		}
		sp := clustered(t, more, "")
		var list []spec.Candidate
		for i := range rapid.IntRange(1, 8).Draw(rt, "nodes") {
			list = append(list, claiming(rt, i, shared))
		}
		const observer = "nobody"
		nodes, out := sp.Join(list, observer)
		members := map[string]*spec.Node{}
		addresses, macs := map[netip.Addr]string{}, map[spec.MAC]string{}
		var subnets []netip.Prefix
		for _, n := range nodes {
			members[n.Name] = n
			for _, a := range n.Addresses {
				if other := addresses[a.Addr]; other != "" {
					rt.Fatalf("%s is of %s and of %s", a.Addr, n.Name, other)
				}
				addresses[a.Addr] = n.Name
			}
			for _, p := range n.Subnets {
				f := spec.FamilyOf(p.Addr())
				if i := slices.IndexFunc(subnets, p.Overlaps); i >= 0 {
					rt.Fatalf("%s of %s overlaps %s", p, n.Name, subnets[i])
				}
				subnets = append(subnets, p)
				if _, ok := n.Address(f); !ok {
					rt.Fatalf("%s has pods of %s and no address", n.Name, f)
				}
				m := sp.VTEPMAC(n, f)
				if other := macs[m]; other != "" {
					rt.Fatalf("%s is of %s and of %s", m, n.Name, other)
				}
				macs[m] = n.Name
			}
		}
		for _, c := range list {
			for _, f := range spec.Families {
				in := false
				if n := members[c.Name]; n != nil {
					_, in = n.Subnet(f)
				}
				named := slices.ContainsFunc(out, func(l spec.LeftOut) bool { return l.Node == c.Name && (l.Family == 0 || l.Family == f) })
				if in == named {
					rt.Fatalf("%s of %s: a member %t, named %t\n%s", f, c.Name, in, named, texts(out))
				}
			}
		}
		// In another order it is the same, and without the last to come the others are
		// as they were.
		slices.Reverse(list)
		again, _ := sp.Join(list, observer)
		if summary(again) != summary(nodes) {
			rt.Fatalf("%s, and in another order %s", summary(nodes), summary(again))
		}
		fewer, _ := sp.Join(list[1:], observer)
		last := list[0].Name
		if without := summary(slices.DeleteFunc(nodes, func(n *spec.Node) bool { return n.Name == last })); summary(fewer) != without {
			rt.Fatalf("without %s: %s, with it the others are %s", last, summary(fewer), without)
		}
	})
}

// largest are the candidates of a cluster of the largest size.
func largest() (list []spec.Candidate) {
	for i := range 5000 {
		c := candidate(i % 200)
		c.Name = fmt.Sprintf("node-%04d", i)
		c.Addresses.IPv4 = netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)})
		c.Addresses.IPv6 = netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i+1))
		c.Subnets.IPv4 = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(i >> 5), byte(i << 3)}), 29)
		c.Subnets.IPv6 = netip.MustParsePrefix(fmt.Sprintf("fd00:10:244:%x::/64", i))
		list = append(list, c)
	}
	return list
}

func BenchmarkJoin(b *testing.B) {
	sp, list := clustered(b, "", ""), largest()
	for b.Loop() {
		if nodes, out := sp.Join(list, "node-0000"); len(nodes) != 5000 {
			b.Fatal(texts(out[:3]))
		}
	}
}
