package spoof

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/spec"
)

// Only sets change with the claims: refilling a chain would be slower, and its
// rules and the sets' members would be switched at different times.
func TestRulesDoNotDependOnClaims(t *testing.T) {
	s, unclaimed := oneNode(), oneNode()
	unclaimed.Endpoints = nil
	before, after := Compile(unclaimed, s.Nodes[0], Host{}), Compile(s, s.Nodes[0], isolation())
	if !slices.EqualFunc(before.Chains, after.Chains, nft.Chain.Equal) {
		t.Errorf("without claims\n%s\nwith claims\n%s", before, after)
	}
}

// isolation isolates db.
func isolation() Host {
	db := oneNode().Endpoints[0]
	return Host{Isolated: spec.PerFamily[[]netip.Addr]{IPv4: db.Addresses[:1], IPv6: db.Addresses[1:]}}
}

// Of a change of claims, everything that is added is added before anything is
// taken away.
func TestAdditionsComeFirst(t *testing.T) {
	s, moved := oneNode(), oneNode()
	moved.Endpoints[0].Interface, moved.Endpoints[3].Interface = s.Endpoints[3].Interface, s.Endpoints[0].Interface
	moved.Endpoints[1].MAC = spec.MAC{2, 0, 0, 0, 0, 9}
	plan := nft.Diff(nft.Ruleset{Compile(moved, s.Nodes[0], Host{})}, nft.Ruleset{Compile(s, s.Nodes[0], Host{})}).String()
	added, removed := strings.LastIndex(plan, "add element"), strings.Index(plan, "delete element")
	if added < 0 || removed < 0 || added > removed {
		t.Errorf("the plan is\n%s", plan)
	}
}

// view is what the sets say.
type view map[string]map[nft.Data]bool

func viewOf(table nft.Table) view {
	v := view{}
	for _, s := range table.Sets {
		v[s.Name] = map[nft.Data]bool{}
		for _, e := range s.Elements {
			v[s.Name][e.Key] = true
		}
	}
	return v
}

// mixed is what a packet can find while a view becomes another: anything of
// what is added, or anything of what is yet to be taken away.
func mixed(t *rapid.T, before, after view) view {
	base, more := before, after
	if rapid.Bool().Draw(t, "all is added") {
		base, more = after, before
	}
	v := view{}
	for _, name := range []string{setPorts, setUnbound, setMACs, setBound, setClaimed.IPv4, setAddresses.IPv4} {
		v[name] = map[nft.Data]bool{}
		for e := range base[name] {
			v[name][e] = true
		}
		for _, e := range sorted(more[name]) {
			if rapid.Bool().Draw(t, "member") {
				v[name][e] = true
			}
		}
	}
	return v
}

func sorted(set map[nft.Data]bool) []nft.Data {
	var list []nft.Data
	for e := range set {
		list = append(list, e)
	}
	slices.Sort(list)
	return list
}

// lets says that the rules let a port send a frame.
func (v view) lets(port string, m spec.MAC, a netip.Addr) bool {
	p := nft.IfName(port)
	mac, claimed := nft.MAC(m), v[setPorts][p]
	switch {
	case v[setBound][nft.Tuple(p, mac)], claimed && v[setUnbound][p] && !v[setMACs][mac]:
		return v[setAddresses.IPv4][nft.Tuple(p, nft.Addr(a))]
	}
	return !claimed && !v[setMACs][mac] && !v[setClaimed.IPv4][nft.Addr(a)]
}

// saysMAC and says are that a port can use a MAC with some address, or an
// address with some MAC.
func (v view) saysMAC(port string, m spec.MAC) bool {
	return slices.ContainsFunc(testAddresses, func(a netip.Addr) bool { return v.lets(port, m, a) })
}

func (v view) says(port string, a netip.Addr) bool {
	return slices.ContainsFunc(testMACs, func(m spec.MAC) bool { return v.lets(port, m, a) })
}

// Five of each, of which four endpoints have four, and nobody has the last.
var testAddresses, testMACs = func() (addresses []netip.Addr, macs []spec.MAC) {
	for i := range byte(5) {
		addresses, macs = append(addresses, netip.AddrFrom4([4]byte{10, 244, 1, 5 + i})), append(macs, spec.MAC{2, 0, 0, 0, 0, 5 + i})
	}
	return addresses, macs
}()

// While claims change, whatever is claimed before and after is said by none but
// who claims it before or after; and whose claim stays may say it all the time.
func TestNoWindowWhileClaimsChange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ports := []string{"a", "b", "c", "d"}
		// claims draws who has which address and MAC. A port may have none.
		claims := func(label string) (*spec.Spec, map[string]*spec.Endpoint) {
			s, by := oneNode(), map[string]*spec.Endpoint{}
			s.Endpoints = nil
			order := rapid.Permutation(testAddresses[:4]).Draw(t, label+" addresses")
			hw := rapid.Permutation(testMACs[:4]).Draw(t, label+" MACs")
			for i, p := range ports {
				if !rapid.Bool().Draw(t, label+" claims "+p) {
					continue
				}
				e := &spec.Endpoint{Name: fmt.Sprint("e", i), Node: "n1", Interface: p, Addresses: order[i : i+1]}
				if rapid.Bool().Draw(t, label+" binds "+p) {
					e.MAC = hw[i]
				}
				s.Endpoints, by[p] = append(s.Endpoints, e), e
			}
			return s, by
		}
		s1, old := claims("before")
		s2, now := claims("after")
		before, after := viewOf(Compile(s1, s1.Nodes[0], Host{})), viewOf(Compile(s2, s2.Nodes[0], Host{}))
		v := mixed(t, before, after)
		for _, p := range ports {
			for i, a := range testAddresses {
				m := testMACs[i]
				claimed := before[setClaimed.IPv4][nft.Addr(a)] && after[setClaimed.IPv4][nft.Addr(a)]
				if claimed && v.says(p, a) && !before.says(p, a) && !after.says(p, a) {
					t.Fatalf("%s says %s", p, a)
				}
				claimed = before[setMACs][nft.MAC(m)] && after[setMACs][nft.MAC(m)]
				if claimed && v.saysMAC(p, m) && !before.saysMAC(p, m) && !after.saysMAC(p, m) {
					t.Fatalf("%s says %s", p, m)
				}
			}
			if e1, e2 := old[p], now[p]; e1 != nil && e2 != nil {
				a, m := e1.Addresses[0], e1.MAC
				if a == e2.Addresses[0] && m == e2.MAC && !m.IsZero() && !v.lets(p, m, a) {
					t.Fatalf("%s may not say %s with %s", p, a, m)
				}
			}
		}
		own := netip.MustParseAddr("10.244.1.1")
		for _, p := range ports {
			if v.says(p, own) {
				t.Fatalf("%s says the gateway's address", p)
			}
		}
	})
}
