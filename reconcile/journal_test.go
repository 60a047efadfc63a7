package reconcile

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
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
