package nft

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
)

// iptables runs the program that writes nftables.
func (k *kernel) iptables(args string) {
	k.t.Helper()
	if out, err := k.Command(context.Background(), "sh", "-c", "iptables-nft "+args).CombinedOutput(); err != nil {
		k.t.Fatalf("iptables %s: %v\n%s", args, err, out)
	}
}

// What iptables writes is read with its comments, targets and handles, and what is
// taken away is that and nothing else.
func TestRemove(t *testing.T) {
	k := newKernel(t)
	k.apply(sample())
	for _, args := range []string{
		"-N THEIRS", "-N THEIRS-2", "-N OTHER", "-N THIRD",
		"-A THEIRS -j THEIRS-2", "-A THEIRS-2 -g OTHER",
		`-A FORWARD -m comment --comment "theirs: 1" -m comment --comment second -j THEIRS`,
		"-A FORWARD -s 192.0.2.1 -j ACCEPT", "-A FORWARD -j OTHER", "-A OTHER -j THIRD",
	} {
		k.iptables(args)
	}
	k.nft("add table ip gone; add chain ip gone c; add rule ip gone c drop; add table ip6 stays; add chain ip6 stays c")
	before := k.nft("list ruleset")
	filter := TableID{IP, "filter"}
	found, gen, err := k.w.reader.Foreign(t.Context(), func(id TableID) bool { return id.Family == IP || id == inetPolder })
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != 2 || len(found[TableID{IP, "gone"}]) != 1 {
		t.Errorf("found %v", found)
	}
	var list []Removal
	for _, c := range found[filter] {
		if strings.HasPrefix(c.Name, "THEIRS") {
			list = append(list, Removal{Table: filter, Chain: c.Name})
		}
		if c.Name != "FORWARD" {
			continue
		}
		if c.Base == nil || c.Base.Hook != "forward" || len(c.Rules) != 3 {
			t.Fatalf("FORWARD is %+v", c)
		}
		r := c.Rules[0]
		if !slices.Equal(r.Comments(), []string{"theirs: 1", "second"}) || r.Target() != "THEIRS" || c.Rules[1].Target() != "" {
			t.Errorf("comments %q, target %q; the next one's %q", r.Comments(), r.Target(), c.Rules[1].Target())
		}
		list = append(list, Removal{filter, c.Name, r.Handle})
	}
	list = append(list, Removal{Table: TableID{IP, "gone"}})

	// Somebody was faster: nothing is done.
	k.nft("add rule ip6 stays c accept")
	if err := k.w.Remove(t.Context(), list, gen); !errors.Is(err, ErrStale) {
		t.Errorf("error %v, want %v", err, ErrStale)
	}
	k.nft("flush chain ip6 stays c")
	if now := k.nft("list ruleset"); now != before {
		t.Errorf("before\n%s\nafter\n%s", before, now)
	}
	// A chain that is still jumped to stays, and all else with it.
	if gen, err = k.w.reader.Generation(); err != nil {
		t.Fatal(err)
	}
	if err := k.w.Remove(t.Context(), append(slices.Clone(list), Removal{Table: filter, Chain: "THIRD"}), gen); err == nil {
		t.Error("a chain was removed that a rule jumps to")
	}
	if now := k.nft("list ruleset"); now != before {
		t.Errorf("before\n%s\nafter\n%s", before, now)
	}
	if err := k.w.Remove(t.Context(), list, gen); err != nil {
		t.Fatal(err)
	}
	after := k.nft("list ruleset")
	for _, text := range []string{"THEIRS", "table ip gone"} {
		if strings.Contains(after, text) {
			t.Errorf("there is still %q in\n%s", text, after)
		}
	}
	for _, text := range []string{"ip saddr 192.0.2.1", "jump OTHER", "table ip6 stays", "table inet polder"} {
		if !strings.Contains(after, text) {
			t.Errorf("there is no %q in\n%s", text, after)
		}
	}
}
