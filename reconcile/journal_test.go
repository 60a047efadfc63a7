package reconcile

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/spec"
)

func TestJournalFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJournal()
		for range 3 {
			j.add(Event{})
		}
		ctx, cancel := context.WithCancel(t.Context())
		var seen []uint64
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for e := range j.After(ctx, 1) {
				seen = append(seen, e.Seq)
			}
		}()
		synctest.Wait()
		j.add(Event{})
		synctest.Wait()
		if want := []uint64{2, 3, 4}; !slices.Equal(seen, want) {
			t.Errorf("a reader that had seen event 1 saw %v, want %v", seen, want)
		}
		cancel()
		<-ended
	})
}

// endless is a context that ends when somebody begins to wait for its end.
type endless struct {
	context.Context
	end func()
}

func (c endless) Done() <-chan struct{} {
	c.end()
	return c.Context.Done()
}

// TestJournalTellsTheLastWord: what was added before ctx ended is told.
func TestJournalTellsTheLastWord(t *testing.T) {
	for range 50 { // a select takes either of two cases
		j := newJournal()
		ctx, cancel := context.WithCancel(t.Context())
		var seen int
		for range j.After(endless{ctx, func() { j.add(Event{}); cancel() }}, 0) {
			seen++
		}
		if seen == 0 {
			t.Fatal("the last event was not told")
		}
	}
}

// TestJournalForgetsTheOldest: a reader that was away for too long skips what
// is gone, and can tell.
func TestJournalForgetsTheOldest(t *testing.T) {
	j := newJournal()
	all := 0
	j.Each(func(Event) { all++ })
	for range journalSize + 10 {
		j.add(Event{})
	}
	if all != journalSize+10 {
		t.Errorf("who is to have all events had %d", all)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var seen []uint64
	for e := range j.After(ctx, 3) {
		if seen = append(seen, e.Seq); e.Seq == j.Last() {
			break
		}
	}
	if len(seen) != journalSize || seen[0] != 11 || seen[len(seen)-1] != journalSize+10 {
		t.Errorf("saw %d events, %d to %d; want the last %d", len(seen), seen[0], seen[len(seen)-1], journalSize)
	}
}

// TestManyChangesAreCounted: what is beyond the first hundred objects of a round is told
// by its number, before what the round came to; and the next round begins anew.
func TestManyChangesAreCounted(t *testing.T) {
	onFakeHost(t, 80, func(t *testing.T, h *fakeHost) {
		changed, ready := h.events(0, EventChanged), h.events(0, EventReady)[0].Seq
		of := map[string]int{}
		for _, e := range changed {
			of[e.Change.Kind]++
		}
		for _, e := range h.events(0, EventChangedMore) {
			if of[e.Change.Kind] += e.Count; e.Change.Action != change.Create || e.Cause != CauseStart || e.Took == 0 || e.Seq > ready {
				t.Errorf("%+v of %+v", e, e.Change)
			}
		}
		if len(changed) != mostChanged || of["neighbour"] != 79 || of["fdb"] != 79 || of["nexthop"] != 79 || of["route"] != 79 {
			t.Errorf("%d are told of, in all %v:\n%s", len(changed), of, h.story(0))
		}
		from := h.journal.Last()
		h.damage("ip route del 10.244.4.0/24")
		h.settle()
		if again := h.events(from, EventChanged, EventChangedMore); len(again) != 1 || again[0].Change.Name != "10.244.4.0/24" {
			t.Errorf("of a repair is told:\n%s", h.story(from))
		}
		from = h.journal.Last()
		h.command(ModeDestroy)
		if more := h.events(from, EventChangedMore); len(more) == 0 || more[0].Change.Action != change.Delete {
			t.Errorf("of a destroy is told:\n%s", h.story(from))
		}
	})
}

// TestManyNodesAreCounted: so it is with nodes that a cluster tells of at once.
func TestManyNodesAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost(t, nodes(0)+followed)
		cluster := make(fakeCluster)
		h.run(DaemonOptions{Cluster: cluster.open})
		defer h.end()
		cluster <- Update{Nodes: are(member(1), member(2)), Complete: true}
		h.settle()
		from, of := h.journal.Last(), map[string]int{}
		var all []spec.Candidate
		for i := 3; i < 60; i++ {
			all = append(all, member(i))
		}
		cluster <- Update{Nodes: are(all...)}
		h.settle()
		changed := h.events(from, EventChanged)
		for _, e := range changed {
			of[e.Change.Kind]++
		}
		for _, e := range h.events(from, EventChangedMore) {
			of[e.Change.Kind] += e.Count
		}
		if len(changed) != mostChanged || of["neighbour"] != 57 || of["fdb"] != 57 || of["nexthop"] != 57 || of["route"] != 57 {
			t.Errorf("%d are told of, in all %v:\n%s", len(changed), of, h.story(from))
		}
	})
}
