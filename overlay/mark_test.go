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
		if got, ok := ParseMark(m.String()); !ok || got != m {
			t.Fatalf("%q is read as %+v, %t", m, got, ok)
		}
	})
}

func TestParseMark(t *testing.T) {
	mac := spec.MAC{2, 0, 0, 0, 0, 1}
	for alias, want := range map[string]Mark{
		"polder":              {},
		"polder cluster=edge": {Cluster: "edge"},
		"polder cluster=edge mac=02:00:00:00:00:01":  {Cluster: "edge", MAC: mac},
		"polder mac=02:00:00:00:00:01 cluster=e v=2": {Cluster: "e", MAC: mac},
		"polder cluster=edge mac=nonsense":           {Cluster: "edge"},
	} {
		if got, ok := ParseMark(alias); !ok || got != want {
			t.Errorf("%q is read as %+v, %t", alias, got, ok)
		}
	}
	for _, alias := range []string{"", "  ", "polders", "polder-x cluster=edge", "uplink polder", "Polder cluster=edge"} {
		if got, ok := ParseMark(alias); ok || got != (Mark{}) {
			t.Errorf("%q is taken for ours: %+v", alias, got)
		}
	}
}

// FuzzParseMark: an alias is whatever somebody wrote. What is read from it is
// read from what is written of that, too.
func FuzzParseMark(f *testing.F) {
	for _, seed := range []string{"", "polder", "polder cluster=edge mac=02:00:00:00:00:01", "polder cluster= mac==", "polder\tcluster=a cluster=b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, alias string) {
		m, ok := ParseMark(alias)
		if !ok {
			return
		}
		if !strings.HasPrefix(strings.TrimSpace(alias), markWord) {
			t.Fatalf("%q is taken for ours", alias)
		}
		if again, ok := ParseMark(m.String()); !ok || again != m {
			t.Fatalf("%q is read as %+v, and %q as %+v", alias, m, m, again)
		}
	})
}
