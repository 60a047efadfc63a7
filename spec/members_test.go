package spec_test

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/poldernet/polder/spec"
)

// TestMembers: candidates that come, change and go come to what Join finds of all that
// are there, whatever they claim of each other. Nodes that are as they were are the
// same values, and lists that were given stay as they were.
func TestMembers(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		more, after := "", ""
		shared := rapid.Bool().Draw(rt, "shared")
		switch {
		case shared:
			more = `compat = "flannel"`
		case rapid.Bool().Draw(rt, "host-gw"):
			more = `backend "host-gw" {}`
		}
		if rapid.IntRange(0, 4).Draw(rt, "file") == 0 {
			after = "node \"n7\" {\n  addresses = [\"192.0.2.2\", \"2001:db8::2\"]\n  subnets   = [\"10.244.2.0/24\", \"fd00:10:244:2::/64\"]\n}\n"
		}
		specs := []*spec.Spec{clustered(t, more, after), clustered(t, `mtu = 1400`, "")}
		if rapid.IntRange(0, 4).Draw(rt, "policies only") == 0 {
			without := *specs[1]
			without.Network = nil
			specs[1] = &without
		}
		sp := specs[0]
		var members spec.Members
		there := map[string]spec.Candidate{}
		var given, copies [][]*spec.Node
		var givenOut, copiesOut [][]spec.LeftOut
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			changes := map[string]*spec.Candidate{}
			for range rapid.IntRange(0, 3).Draw(rt, "changes") {
				c := claiming(rt, rapid.IntRange(0, 8).Draw(rt, "who"), shared)
				if rapid.IntRange(0, 2).Draw(rt, "fresh") == 0 { // it claims what nobody else does
					c.Subnets, c.Addresses = candidate(int(10+c.Created)).Subnets, candidate(int(10+c.Created)).Addresses
				}
				changes[c.Name] = &c
				if rapid.IntRange(0, 2).Draw(rt, "goes") == 0 {
					changes[c.Name] = nil
				}
			}
			before := sp
			if rapid.IntRange(0, 6).Draw(rt, "another spec") == 0 {
				sp = specs[rapid.IntRange(0, 1).Draw(rt, "spec")]
			}
			for name, c := range changes {
				if delete(there, name); c != nil {
					there[name] = *c
				}
			}
			members.Set(changes)
			nodes, out := members.Join(sp, "n9")
			want, wantOut := sp.Join(slices.Collect(maps.Values(there)), "n9")
			if !slices.EqualFunc(nodes, want, func(a, b *spec.Node) bool { return reflect.DeepEqual(a, b) }) {
				rt.Fatalf("they are %s, and from the beginning %s", summary(nodes), summary(want))
			}
			if !slices.Equal(out, wantOut) {
				rt.Fatalf("left out are\n%s\nand from the beginning\n%s", texts(out), texts(wantOut))
			}
			if len(given) > 0 && sp == before {
				for _, n := range nodes {
					for _, o := range given[len(given)-1] {
						if n != o && reflect.DeepEqual(n, o) {
							rt.Fatalf("%s is another value, and has not changed", n.Name)
						}
					}
				}
			}
			given, copies = append(given, nodes), append(copies, slices.Clone(nodes))
			givenOut, copiesOut = append(givenOut, out), append(copiesOut, slices.Clone(out))
			for i := range given {
				if !slices.Equal(given[i], copies[i]) || !slices.Equal(givenOut[i], copiesOut[i]) {
					rt.Fatal("a list that was given has changed")
				}
			}
		}
	})
}

// BenchmarkMember is one of 5,000 candidates that comes and goes.
func BenchmarkMember(b *testing.B) {
	sp, list := clustered(b, "", ""), largest()
	changes := map[string]*spec.Candidate{}
	for i := range list {
		changes[list[i].Name] = &list[i]
	}
	var members spec.Members
	members.Set(changes)
	more := candidate(1)
	more.Name, more.Addresses, more.Subnets = "more", list[0].Addresses, list[0].Subnets
	members.Set(map[string]*spec.Candidate{list[0].Name: nil})
	members.Join(sp, "node-0001")
	for b.Loop() {
		for _, c := range []*spec.Candidate{&more, nil} {
			members.Set(map[string]*spec.Candidate{more.Name: c})
			members.Join(sp, "node-0001")
		}
	}
	if nodes, out := members.Join(sp, "node-0001"); len(nodes) != 4999 {
		b.Fatal(fmt.Sprint(len(nodes)), texts(out))
	}
}
