package reconcile

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/policy/spoof"
	"github.com/poldernet/polder/spec"
)

// TestMarkedBeforeDropped: on no step of the way from one ruleset to another does
// the bridge drop what is not marked while nothing marks it. Only from a table
// that is not there the way is one step.
func TestMarkedBeforeDropped(t *testing.T) {
	a := netip.MustParseAddr("10.244.1.5")
	node := &spec.Node{Name: "n1"}
	endpoints := &spec.Spec{Enforcement: spec.Enforcement{Bridge: "br0"}, Endpoints: []*spec.Endpoint{{Name: "a", Node: "n1", Interface: "veth1", Addresses: []netip.Addr{a}}}}
	// Something of `inet polder` that has to do with none of this.
	other := nft.Table{Family: nft.INet, Name: nft.TableName, Counters: []string{"other"}}
	ruleset := func(sp *spec.Spec, isolated ...netip.Addr) nft.Ruleset {
		rs := nft.Ruleset{nft.Merge(other, spoof.CompileINet(sp, node))}
		if bridge := spoof.Compile(sp, node, spoof.Host{Isolated: spec.PerFamily[[]netip.Addr]{IPv4: isolated}}); !bridge.Empty() {
			rs = append(rs, bridge)
		}
		return rs
	}
	isolating := ruleset(endpoints, a)
	unmarked := nft.Ruleset{other, isolating[1]} // as older polders leave it, which mark elsewhere
	states := map[string]nft.Ruleset{"nothing": ruleset(&spec.Spec{}), "free": ruleset(endpoints), "isolated": isolating}
	for from, before := range states {
		for to, after := range states {
			if from == to {
				continue
			}
			t.Run(fmt.Sprintf("%s to %s", from, to), func(t *testing.T) {
				plan := through(before, after)
				steps, err := plan.Steps()
				if err != nil || len(steps) == 0 {
					t.Fatal(err, steps)
				}
				for i, s := range steps {
					_, of := spoof.Isolated(s.Ruleset)
					if _, marks := spoof.Seen(s.Ruleset); len(of) > 0 && !marks && hangs(s.Ruleset) {
						t.Errorf("step %d (%s) of\n%s\nleaves\n%s", i+1, s.Stage, plan, s.Ruleset)
					}
				}
				if last := steps[len(steps)-1].Ruleset; !nft.Diff(after, last).Empty() {
					t.Errorf("it ends as\n%s", last)
				}
			})
		}
	}
	steps, err := through(unmarked, isolating).Steps()
	if err != nil {
		t.Fatal(err)
	}
	if _, marks := spoof.Seen(steps[0].Ruleset); !marks {
		t.Errorf("it begins with\n%s", steps[0].Ruleset)
	}
	if steps, err = through(nil, isolating).Steps(); err != nil || !nft.Diff(isolating, steps[len(steps)-1].Ruleset).Empty() {
		t.Errorf("from nothing: %v", err)
	}
	if _, marks := spoof.Seen(steps[0].Ruleset); marks && !hangs(steps[0].Ruleset) {
		t.Errorf("from nothing it begins with\n%s", steps[0].Ruleset)
	}
}

// hangs says that the bridge's chains are on their hooks.
func hangs(rs nft.Ruleset) bool {
	bridge, _ := rs.Table(spoof.Table)
	for _, c := range bridge.Chains {
		if c.Base != nil {
			return true
		}
	}
	return false
}
