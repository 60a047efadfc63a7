package verdict

import (
	"testing"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/spec"
)

// What was measured of packets in flight while rules changed, each way of making
// a change with a packet that both rulesets deny, or both allow.
func TestFlight(t *testing.T) {
	saddr := nft.Saddr(spec.IPv4)
	v4 := []nft.Type{nft.TypeIPv4Addr}
	sources := func(name string, members ...nft.Element) func(*nft.Table) {
		return setOf(nft.Set{Name: name, Key: v4, Elements: members})
	}
	to := func(name, chain string) func(*nft.Table) {
		return setOf(nft.Set{Name: name, Key: v4, Verdicts: true, Elements: []nft.Element{nft.Addr(client).Maps(nft.Jump(chain))}})
	}
	member := nft.Exact(nft.Addr(client))
	dispatch := func(name string) []nft.Rule { return list(rule(saddr.VMap(name))) }
	denyA, denyB := chainOf("a", rule(drop)), chainOf("b", rule(drop))
	denySet, allowSet := list(rule(saddr.In("s"), drop), rule(accept)), list(rule(saddr.In("s"), accept), rule(drop))
	for _, c := range []struct {
		name   string
		states []nft.Ruleset
		began  int
		mixed  bool // the packet can meet another fate than it does in either state
	}{
		{"an element that points to a chain of the same commit", []nft.Ruleset{
			forward(nft.PolicyAccept, dispatch("m"), to("m", "a"), denyA),
			forward(nft.PolicyAccept, dispatch("m"), to("m", "b"), denyB),
		}, 0, true},
		{"an element that points to a chain of an earlier commit", []nft.Ruleset{
			forward(nft.PolicyAccept, dispatch("m"), to("m", "a"), denyA),
			forward(nft.PolicyAccept, dispatch("m"), to("m", "a"), denyA, denyB),
			forward(nft.PolicyAccept, dispatch("m"), to("m", "b"), denyA, denyB),
		}, 0, false},
		{"rules and the set that they use", []nft.Ruleset{
			forward(nft.PolicyAccept, denySet, sources("s", member)),
			forward(nft.PolicyAccept, allowSet, sources("s")),
		}, 0, true},
		{"rules and another set", []nft.Ruleset{
			forward(nft.PolicyAccept, denySet, sources("s", member), sources("z")),
			forward(nft.PolicyAccept, list(rule(saddr.In("z"), accept), rule(drop)), sources("s", member), sources("z")),
			forward(nft.PolicyAccept, list(rule(saddr.In("z"), accept), rule(drop)), sources("z")),
		}, 0, false},
		{"a set that is deleted with the rules", []nft.Ruleset{
			forward(nft.PolicyAccept, denySet, sources("s", member)),
			forward(nft.PolicyDrop, nil),
		}, 0, false},
		{"a map that is deleted with the rules", []nft.Ruleset{
			forward(nft.PolicyAccept, dispatch("m"), to("m", "a"), denyA),
			forward(nft.PolicyAccept, list(rule(drop)), denyA),
		}, 0, true},
		{"a chain that is refilled", []nft.Ruleset{
			forward(nft.PolicyAccept, list(rule(nft.Do(nft.Jump("a")))), denyA),
			forward(nft.PolicyAccept, list(rule(nft.Do(nft.Jump("a")))), chainOf("a", rule(nft.Do(nft.Counter{})), rule(drop))),
		}, 0, false},
		{"a chain that is emptied one commit after it was abandoned", []nft.Ruleset{
			forward(nft.PolicyAccept, list(rule(nft.Do(nft.Jump("a")))), denyA),
			forward(nft.PolicyAccept, list(rule(drop)), denyA),
			forward(nft.PolicyAccept, list(rule(drop))),
		}, 0, true},
		{"the same, of a packet that came after it was abandoned", []nft.Ruleset{
			forward(nft.PolicyAccept, list(rule(nft.Do(nft.Jump("a")))), denyA),
			forward(nft.PolicyAccept, list(rule(drop)), denyA),
			forward(nft.PolicyAccept, list(rule(drop))),
		}, 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var tables []nft.Table
			for _, s := range c.states {
				tables = append(tables, s[0])
			}
			h, err := LoadHistory(tables)
			if err != nil {
				t.Fatal(err)
			}
			p := packet()
			for state := range h.Len() {
				if o, err := h.Judge("forward", &p, state, state); err != nil || o.Accepted {
					t.Fatalf("in state %d it is let pass (%v)", state, err)
				}
			}
			o, err := h.Judge("forward", &p, c.began, h.Len()-1)
			if err != nil || o.Accepted != c.mixed {
				t.Errorf("%+v, %v", o, err)
			}
		})
	}
}
