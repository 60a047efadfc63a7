package main

import (
	"io"
	"sync"
)

// lines writes lines one by one, or many at once: a write to a file or a pipe takes
// longer than to make the line, and a first apply has a hundred and more.
type lines struct {
	w    io.Writer
	mu   sync.Mutex
	held []byte // nil: nothing is held back
}

// mostHeld is how many bytes are held back at most.
const mostHeld = 64 << 10

// Write writes a line, or holds it back.
func (l *lines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held == nil {
		return l.w.Write(line)
	}
	l.held = append(l.held, line...)
	if len(l.held) < mostHeld {
		return len(line), nil
	}
	_, err := l.w.Write(l.held)
	l.held = l.held[:0]
	return len(line), err
}

// hold holds lines back until release.
func (l *lines) hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = make([]byte, 0, 1<<10)
}

func (l *lines) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.held) > 0 {
		_, _ = l.w.Write(l.held) // as of a log's handler: nobody hears of it
	}
	l.held = nil
}
