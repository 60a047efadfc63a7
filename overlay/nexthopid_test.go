package overlay

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/poldernet/polder/spec"
)

// idSpec is a cluster of named nodes, sorted as spec sorts them.
func idSpec(cluster string, names []string) *spec.Spec {
	sp := &spec.Spec{Cluster: cluster}
	for _, name := range slices.Sorted(slices.Values(names)) {
		sp.Nodes = append(sp.Nodes, &spec.Node{Name: name})
	}
	return sp
}

// nextHopIDs are those of all nodes and families.
func nextHopIDs(sp *spec.Spec) map[nextHopOwner]uint32 {
	ids, taken := map[nextHopOwner]uint32{}, map[uint32]bool{}
	for _, node := range sp.Nodes {
		for _, family := range spec.Families {
			owner := nextHopOwner{node.Name, family}
			ids[owner] = nextHopID(sp.Cluster, owner, taken)
			taken[ids[owner]] = true
		}
	}
	return ids
}

// TestNextHopIDsStay: whoever comes and goes, the others keep their IDs. Two
// hashes that meet are the exception, and too rare for this test.
func TestNextHopIDsStay(t *testing.T) {
	names := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z][a-z0-9-]{0,12}`), 1, 40, rapid.ID[string])
	rapid.Check(t, func(t *rapid.T) {
		all := names.Draw(t, "nodes")
		some := slices.Clone(all)
		some = slices.DeleteFunc(some, func(string) bool { return rapid.Bool().Draw(t, "gone") })
		before, after := nextHopIDs(idSpec("edge", all)), nextHopIDs(idSpec("edge", some))
		if len(after) != len(spec.Families)*len(some) {
			t.Fatalf("%d IDs for %d nodes", len(after), len(some))
		}
		for owner, id := range after {
			if before[owner] != id {
				t.Fatalf("%v: %d among %q, %d among %q", owner, before[owner], all, id, some)
			}
		}
	})
}

// TestNextHopIDsDiffer: no two objects have one ID, also where two hashes
// meet, and none is in the range that people and routing daemons use.
func TestNextHopIDsDiffer(t *testing.T) {
	const nodes = 40000 // of 80,000 hashes of 30 bits, three meet
	names := make([]string, nodes)
	for i := range names {
		names[i] = fmt.Sprintf("n%d", i)
	}
	sp := idSpec("edge", names)
	owners := map[uint32]nextHopOwner{}
	met := 0
	for owner, id := range nextHopIDs(sp) {
		if other, taken := owners[id]; taken {
			t.Fatalf("%v and %v have ID %d", owner, other, id)
		}
		owners[id] = owner
		if id < nextHopBase || id >= 2*nextHopBase {
			t.Fatalf("%v has ID %d", owner, id)
		}
		if id != hashNextHop(sp.Cluster, owner) {
			met++
		}
	}
	if len(owners) != nodes*len(spec.Families) || met == 0 {
		t.Errorf("%d IDs, of which %d were moved: want some", len(owners), met)
	}
}

// TestNextHopIDsAreKnown: the IDs are in kernels, so another version of polder
// has to compute the same.
func TestNextHopIDsAreKnown(t *testing.T) {
	ids := nextHopIDs(idSpec("test", []string{"n2"}))
	want := map[nextHopOwner]uint32{{"n2", spec.IPv4}: 1101077128, {"n2", spec.IPv6}: 1134632366}
	for owner, id := range want {
		if ids[owner] != id {
			t.Errorf("%v has ID %d, and had %d", owner, ids[owner], id)
		}
	}
}
