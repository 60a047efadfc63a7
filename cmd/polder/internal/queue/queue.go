// Package queue holds what one goroutine makes and another one writes
// somewhere, when the former must not wait for the latter.
package queue

import (
	"iter"
	"sync"
)

// Queue is unbounded; who puts decides what is too much.
type Queue[T any] struct {
	mu     sync.Mutex
	items  []T
	closed bool
	more   chan struct{} // of capacity 1
}

// New makes an empty queue.
func New[T any]() *Queue[T] { return &Queue[T]{more: make(chan struct{}, 1)} }

// Put adds an item. It never waits.
func (q *Queue[T]) Put(item T) {
	q.mu.Lock()
	q.items = append(q.items, item)
	q.mu.Unlock()
	q.wake()
}

// Close says that no more items come.
func (q *Queue[T]) Close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.wake()
}

// Len is how many items wait.
func (q *Queue[T]) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items)
}

func (q *Queue[T]) wake() {
	select {
	case q.more <- struct{}{}:
	default:
	}
}

// Batches yields the items as they come, as many at once as there are, until
// the queue is closed and empty. It is for one reader.
func (q *Queue[T]) Batches() iter.Seq[[]T] {
	return func(yield func([]T) bool) {
		for range q.more {
			q.mu.Lock()
			items, closed := q.items, q.closed
			q.items = nil
			q.mu.Unlock()
			if len(items) > 0 && !yield(items) || closed {
				return
			}
		}
	}
}
