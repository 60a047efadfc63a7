package overlay

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/poldernet/polder/spec"
)

func TestMarkRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := Mark{Cluster: rapid.StringMatching(`[a-z0-9][a-z0-9.-]{0,62}`).Draw(t, "cluster")}
		copy(m.MAC[:], rapid.SliceOfN(rapid.Byte(), len(m.MAC), len(m.MAC)).Draw(t, "mac"))
		if got, ok := parseMark(m.String()); !ok || got != m {
			t.Fatalf("%q is read as %+v, %t", m, got, ok)
		}
	})
}

func TestParseMark(t *testing.T) {
	mac := spec.MAC{2, 0, 0, 0, 0, 1}
	for alias, want := range map[string]Mark{
		"polder cluster=edge":                        {Cluster: "edge"},
		"polder cluster=edge mac=02:00:00:00:00:01":  {Cluster: "edge", MAC: mac},
		"polder mac=02:00:00:00:00:01 cluster=e v=2": {Cluster: "e", MAC: mac},
		"polder cluster=edge mac=nonsense":           {Cluster: "edge"},
	} {
		if got, ok := parseMark(alias); !ok || got != want {
			t.Errorf("%q is read as %+v, %t", alias, got, ok)
		}
	}
	for _, alias := range []string{
		"", "  ", "polder", "polders", "polder-x cluster=edge", "uplink polder", "Polder cluster=edge",
		"polder uplink of mine", "polder cluster", "polder cluster=", "polder mac=02:00:00:00:00:01", "polder cluster=edge cluster=",
	} {
		if got, ok := parseMark(alias); ok || got != (Mark{}) {
			t.Errorf("%q is taken for ours: %+v", alias, got)
		}
	}
}

// TestMarkOnOtherLinks: a link of a type that polder never makes is not its, and
// is neither removed nor released, however its alias reads. One in the place of
// a link of ours is in the way.
func TestMarkOnOtherLinks(t *testing.T) {
	sp := cluster{nodes: 2, families: onlyIPv4, underlay: onlyIPv4, backend: vxlan()}
	desired, err := Compile(sp.spec(), sp.spec().Nodes[0], sp.facts())
	if err != nil {
		t.Fatal(err)
	}
	alias := Mark{Cluster: "test"}.String()
	for kind, ours := range map[LinkType]bool{TypeBridge: true, TypeVXLAN: true, "veth": false, "dummy": false, "": false} {
		state := NewState(0)
		state.Links["cni0"] = Link{Name: "cni0", Type: kind, Alias: alias}
		for what, plan := range map[string]Plan{"destroy": Diff(&Desired{State: NewState(0)}, state), "release": Release(state)} {
			if (len(plan.Ops) > 0) != ours {
				t.Errorf("%s of a link of type %q:\n%s", what, kind, plan.text())
			}
		}
		if kind == TypeVXLAN {
			continue
		}
		if plan := Diff(desired, state); (len(plan.Conflicts) == 0) != ours {
			t.Errorf("a link of type %q in the bridge's place: conflicts %+v", kind, plan.Conflicts)
		}
	}
}

// FuzzParseMark: an alias is whatever somebody wrote. What is read from it is
// read from what is written of that, too.
func FuzzParseMark(f *testing.F) {
	for _, seed := range []string{"", "polder", "polder cluster=edge mac=02:00:00:00:00:01", "polder cluster= mac==", "polder uplink of mine", "polder\tcluster=a cluster=b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, alias string) {
		m, ok := parseMark(alias)
		if !ok {
			return
		}
		if !strings.HasPrefix(strings.TrimSpace(alias), markWord) || m.Cluster == "" {
			t.Fatalf("%q is taken for ours", alias)
		}
		if again, ok := parseMark(m.String()); !ok || again != m {
			t.Fatalf("%q is read as %+v, and %q as %+v", alias, m, m, again)
		}
	})
}
