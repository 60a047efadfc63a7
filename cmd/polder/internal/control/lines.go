package control

import (
	"net/http"
	"sync"

	"github.com/poldernet/polder/cmd/polder/internal/view"
)

// lines writes a stream of models to a client from a goroutine of its own. Who
// puts a line never waits for the client: that would be the daemon in the
// middle of its work.
type lines struct {
	mu    sync.Mutex
	queue []any
	more  chan struct{} // of capacity 1
	ended chan struct{}
	over  bool
}

func newLines(w http.ResponseWriter) *lines {
	l := &lines{more: make(chan struct{}, 1), ended: make(chan struct{})}
	go l.write(w)
	return l
}

func (l *lines) put(model any) {
	l.mu.Lock()
	l.queue = append(l.queue, model)
	l.mu.Unlock()
	l.wake()
}

func (l *lines) wake() {
	select {
	case l.more <- struct{}{}:
	default:
	}
}

// end waits until everything is written or the client is gone.
func (l *lines) end() {
	l.mu.Lock()
	l.over = true
	l.mu.Unlock()
	l.wake()
	<-l.ended
}

func (l *lines) write(w http.ResponseWriter) {
	defer close(l.ended)
	flusher := http.NewResponseController(w)
	gone := false
	for range l.more {
		l.mu.Lock()
		queue, over := l.queue, l.over
		l.queue = nil
		l.mu.Unlock()
		for _, model := range queue {
			// The header is written with the first line, not before: until then
			// there may be an error to answer with.
			gone = gone || view.WriteJSON(w, model) != nil
		}
		if len(queue) > 0 && !gone {
			gone = flusher.Flush() != nil
		}
		if over {
			return
		}
	}
}
