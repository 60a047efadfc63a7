package reconcile

import (
	"context"
	"iter"
	"sync"
	"time"
)

// journalSize is the number of events that are kept for those who come late.
const journalSize = 1024

// Journal keeps the latest events and hands them to any number of readers. A
// slow reader holds up nobody: it skips what has been dropped meanwhile, and
// sees that from the sequence numbers.
type Journal struct {
	mu     sync.Mutex
	events []Event       // a ring; event n stands at n % journalSize
	last   uint64        // sequence number of the latest, 0: none
	more   chan struct{} // closed when there is another
	each   func(Event)   // nil: nobody has to have all
}

// newJournal makes an empty journal.
func newJournal() *Journal {
	return &Journal{events: make([]Event, journalSize), more: make(chan struct{})}
}

// Each has f called with every event from now on, in order. Where thousands of
// objects fail there are more events at once than are kept: this is for those
// who must have all. The daemon waits for f, which must not use the journal.
func (j *Journal) Each(f func(Event)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.each = f
}

func (j *Journal) add(e Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.last++
	e.Seq, e.Time = j.last, time.Now()
	j.events[e.Seq%journalSize] = e
	if j.each != nil {
		j.each(e)
	}
	close(j.more)
	j.more = make(chan struct{})
}

// Last is the sequence number of the latest event, 0 before the first.
func (j *Journal) Last() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.last
}

// After yields the events that follow one of that sequence number, and then
// new ones as they come, until ctx ends.
func (j *Journal) After(ctx context.Context, seq uint64) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		for {
			ended := ctx.Err() != nil // what came before that is still told
			events, more := j.since(seq)
			for _, e := range events {
				if !yield(e) {
					return
				}
				seq = e.Seq
			}
			if len(events) > 0 {
				continue
			}
			if ended {
				return
			}
			select {
			case <-more:
			case <-ctx.Done():
			}
		}
	}
}

// since copies what is kept of the events after seq.
func (j *Journal) since(seq uint64) (events []Event, more <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.last > journalSize {
		seq = max(seq, j.last-journalSize)
	}
	for n := seq + 1; n <= j.last; n++ {
		events = append(events, j.events[n%journalSize])
	}
	return events, j.more
}
