package overlay

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/poldernet/polder/spec"
)

// TestAttributeDrift: one attribute that is not ours is one operation, which
// names it.
func TestAttributeDrift(t *testing.T) {
	c := cluster{nodes: 2, families: onlyIPv4, underlay: onlyIPv4, backend: vxlan()}
	facts := c.facts()
	for _, name := range []string{"v1", "v2"} {
		facts.Links[name] = HostLink{Link: Link{Name: name, Up: true}, Master: "cni0"}
	}
	sp := c.spec()
	sp.Endpoints = []*spec.Endpoint{{Name: "e", Node: "n1", Interface: "v1"}}
	desired, err := Compile(sp, sp.Nodes[0], facts)
	if err != nil {
		t.Fatal(err)
	}
	gateway := AddressKey{"cni0", netip.MustParsePrefix("10.244.1.1/24")}
	link := func(name string, alter func(*Link)) func(*State) {
		return func(s *State) {
			l := s.Links[name]
			alter(&l)
			s.Links[name] = l
		}
	}
	port := func(l PortLimits) func(*State) {
		return func(s *State) {
			// v2 is a port that the CNI plugin attached, and may have closed.
			for _, name := range []string{"v1", "v2"} {
				p := s.Ports[name]
				p.Limits = l
				s.Ports[name] = p
			}
		}
	}
	for _, test := range []struct {
		alter func(*State)
		want  string
	}{
		{link("cni0", func(l *Link) { l.STP = true }), "update link cni0 stp on"},
		{link("cni0", func(l *Link) { l.VLANFiltering = true }), "update link cni0 vlan_filtering on"},
		{link("polder.1", func(l *Link) { l.TTL = 3 }), "update link polder.1 ttl 3"},
		{link("polder.1", func(l *Link) { l.DF = 1 }), "update link polder.1 df set"},
		{link("polder.1", func(l *Link) { l.VXLAN.Other = true }), "replace link polder.1 features other"},
		{port(PortLimits{Isolated: true}), "update port v1 isolated on"},
		{port(PortLimits{Locked: true}), "update port v1 locked on"},
		{port(PortLimits{NoLearning: true}), "update port v1 no_learning on"},
		{port(PortLimits{NoFlood: true}), "update port v1 no_flood on"},
		{func(s *State) { s.Addresses[gateway] = Address{Protocol: Protocol, Expires: true} }, "update address 10.244.1.1/24 dev cni0 lifetime limited"},
	} {
		state := desired.Clone()
		test.alter(&state)
		var shown []string
		for _, op := range Diff(desired, state).Ops {
			for _, a := range op.Change.Attrs {
				if !op.Hidden && a.After == "" {
					shown = append(shown, fmt.Sprint(op.Change.Action, " ", op.Change.Kind, " ", op.Change.Name, " ", a.Name, " ", a.Before))
				}
			}
		}
		if len(shown) != 1 || shown[0] != test.want {
			t.Errorf("want %q, planned %q", test.want, shown)
		}
	}
}

// TestStrayNeighbours: of those that nobody wants only the permanent are removed,
// and only from links of ours. The kernel makes and drops the others itself.
func TestStrayNeighbours(t *testing.T) {
	sp := cluster{nodes: 2, families: dual, underlay: dual, backend: vxlan()}
	desired, err := Compile(sp.spec(), sp.spec().Nodes[0], sp.facts())
	if err != nil {
		t.Fatal(err)
	}
	state := desired.Clone()
	state.Links["vx9"] = Link{Name: "vx9", Type: TypeVXLAN}
	for i, link := range []string{"polder.1", "polder-v6.1", "vx9"} {
		addr := podSubnet(spec.IPv4, 90+i).Addr()
		state.Neighbours[NeighbourKey{link, addr}] = Neighbour{Permanent: true}
		state.Neighbours[NeighbourKey{link, addr.Next()}] = Neighbour{}
	}
	plan := Diff(desired, state)
	if want := "delete neighbour 10.244.90.0 dev polder.1\ndelete neighbour 10.244.91.0 dev polder-v6.1\n"; shown(plan) != want {
		t.Errorf("planned\n%swant\n%s", shown(plan), want)
	}
}

// shown is a plan's changes without their attributes, sorted.
func shown(plan Plan) string {
	var lines []string
	for _, op := range plan.Ops {
		lines = append(lines, fmt.Sprintln(op.Change.Action, op.Change.Kind, op.Change.Name))
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// TestForeignAttributes: a foreign link with such an attribute is not adopted.
func TestForeignAttributes(t *testing.T) {
	c := cluster{nodes: 2, families: onlyIPv4, underlay: onlyIPv4, backend: vxlan()}
	sp := c.spec()
	desired, err := Compile(sp, sp.Nodes[0], c.facts())
	if err != nil {
		t.Fatal(err)
	}
	state := desired.Clone()
	for name, l := range state.Links {
		l.Alias = ""
		state.Links[name] = l
	}
	if plan := Diff(desired, state); len(plan.Conflicts) > 0 || len(plan.Ops) != 2 {
		t.Fatalf("of exactly our shape they are not adopted:\n%s", plan.text())
	}
	for name, l := range state.Links {
		l.STP, l.DF = l.Type == TypeBridge, uint8(btoi(l.Type == TypeVXLAN))
		state.Links[name] = l
	}
	if plan := Diff(desired, state); len(plan.Conflicts) != 2 {
		t.Errorf("not two conflicts:\n%s", plan.text())
	}
}

// TestExternalTunnel: only a device that is up has the port.
func TestExternalTunnel(t *testing.T) {
	c := cluster{nodes: 2, families: dual, underlay: dual, backend: vxlan()}
	sp := c.spec()
	desired, err := Compile(sp, sp.Nodes[0], c.facts())
	if err != nil {
		t.Fatal(err)
	}
	external := Link{Name: "cilium_vxlan", Type: TypeVXLAN, Up: true, VXLAN: VXLAN{Port: 8472, External: true, Other: true}}
	state := NewState(0)
	state.Links[external.Name] = external
	if plan := Diff(desired, state); len(plan.Conflicts) != 2 {
		t.Errorf("conflicts: %+v", plan.Conflicts)
	}
	whole := desired.Clone()
	whole.Links[external.Name] = external
	if plan := Diff(desired, whole); len(plan.Conflicts)+len(plan.Ops) > 0 {
		t.Errorf("beside VTEPs of ours that are up:\n%s", plan.text())
	}
	for _, alter := range []func(*Link){func(l *Link) { l.Up = false }, func(l *Link) { l.VXLAN.Port = 4789 }} {
		other := external
		alter(&other)
		state.Links[external.Name] = other
		if plan := Diff(desired, state); len(plan.Conflicts) > 0 {
			t.Errorf("%+v: conflicts: %+v", other, plan.Conflicts)
		}
	}
}

func TestPortLimitsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := PortLimits{
			rapid.Bool().Draw(t, "isolated"), rapid.Bool().Draw(t, "locked"),
			rapid.Bool().Draw(t, "no learning"), rapid.Bool().Draw(t, "no flood"),
		}
		ifindex := drawIndex(t)
		got, err := decodePort(encodePort(want, ifindex).body)
		if err != nil || got.Limits != want || got.ifindex != ifindex {
			t.Fatalf("%+v of port %d is read as %+v: %v", want, ifindex, got, err)
		}
	})
}

func TestLinkAttributesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := Link{Type: TypeBridge, STP: rapid.Bool().Draw(t, "stp"), VLANFiltering: rapid.Bool().Draw(t, "vlans")}
		if rapid.Bool().Draw(t, "vxlan") {
			want = Link{Type: TypeVXLAN, TTL: rapid.Byte().Draw(t, "ttl"), DF: rapid.Byte().Draw(t, "df")}
		}
		ifindex := drawIndex(t)
		got, err := decodeLink(encodeLink(Link{Type: want.Type}, want, ifindex).body)
		if err != nil || got.Link != want || got.ifindex != ifindex {
			t.Fatalf("%+v of link %d is read as %+v: %v", want, ifindex, got, err)
		}
	})
}

// TestAddressLifetime: ip(8) cannot set a lifetime and leave our protocol, so
// the kernel does not show the one without the other.
func TestAddressLifetime(t *testing.T) {
	for _, test := range []struct {
		preferred, valid uint32
		expires          bool
	}{
		{lifetimeForever, lifetimeForever, false},
		{400, lifetimeForever, true},
		{400, 500, true},
	} {
		b := []byte{familyInet, 24, 0, 0, 3, 0, 0, 0}
		b = appendAddr(b, ifaLocal, netip.MustParseAddr("10.244.1.1"))
		info := binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, test.preferred), test.valid)
		b = appendAttr(b, ifaCacheinfo, append(info, make([]byte, 8)...))
		if got, err := decodeAddress(b); err != nil || got.Expires != test.expires {
			t.Errorf("%+v is read as %+v: %v", test, got, err)
		}
	}
}
