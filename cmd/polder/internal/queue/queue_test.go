package queue

import (
	"slices"
	"testing"
)

// Everything that was put comes out, in order, also what was put last.
func TestQueue(t *testing.T) {
	const n = 10_000
	q := New[int]()
	go func() {
		for i := range n {
			q.Put(i)
		}
		q.Close()
	}()
	var got []int
	for batch := range q.Batches() {
		got = append(got, batch...)
	}
	if len(got) != n || !slices.IsSorted(got) || got[n-1] != n-1 {
		t.Errorf("%d of %d came out", len(got), n)
	}
}

// Who puts does not wait for a reader, and a reader may begin at the end.
func TestQueueWithoutReader(t *testing.T) {
	q := New[int]()
	for i := range 1000 {
		q.Put(i)
	}
	q.Close()
	if q.Len() != 1000 {
		t.Errorf("%d wait", q.Len())
	}
	for batch := range q.Batches() {
		if len(batch) != 1000 {
			t.Errorf("a batch of %d", len(batch))
		}
	}
}
