package process

import (
	"encoding/json"
	"strings"
	"sync"
	"time"
)

// Line is a line of the daemon's log.
type Line struct {
	Event                  string `json:"msg"`
	Cause, Kind, Name, Err string
	Action                 string
	Time                   time.Time
	Took                   float64 `json:"took_seconds"`
	Text                   string  `json:"-"` // the whole line
}

// Logbook collects the lines.
type Logbook struct {
	mu    sync.Mutex
	lines []Line
	ended bool
	more  chan struct{} // closed when there is another
}

func (b *Logbook) add(text []byte) {
	l := Line{Text: string(text)}
	_ = json.Unmarshal(text, &l) // what is no JSON is in the text
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines = append(b.lines, l)
	close(b.more)
	b.more = make(chan struct{})
}

func (b *Logbook) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	close(b.more)
	b.more = make(chan struct{})
}

// Mark is the number of lines up to now.
func (b *Logbook) Mark() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.lines)
}

// Since are the lines after a mark, what is closed when there are more, and
// whether there will be none.
func (b *Logbook) Since(mark int) ([]Line, <-chan struct{}, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lines[mark:len(b.lines):len(b.lines)], b.more, b.ended
}

// Tail is the end of the log, for a failed test's report.
func (b *Logbook) Tail() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var text strings.Builder
	for _, l := range b.lines[max(0, len(b.lines)-25):] {
		text.WriteString("\n" + l.Text)
	}
	return text.String()
}
