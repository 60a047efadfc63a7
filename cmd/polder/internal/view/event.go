package view

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/fatih/color"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/reconcile"
)

// Event is something that a daemon did or saw, as `events --json` prints it.
type Event struct {
	FormatVersion string              `json:"format_version"`
	Type          string              `json:"type"` // "event"
	Seq           uint64              `json:"seq"`  // 1 for the first since the daemon started
	Time          time.Time           `json:"time"`
	Event         reconcile.EventType `json:"event"`
	Cause         reconcile.Cause     `json:"cause,omitempty"`
	Change        *change.Change      `json:"change,omitempty"`
	Object        string              `json:"object,omitempty"`
	Differences   int                 `json:"differences,omitempty"` // objects that are not as they should be
	Count         int                 `json:"count,omitempty"`       // changed_more: objects of the change's kind
	Message       string              `json:"message,omitempty"`
	Error         string              `json:"error,omitempty"`
	Took          float64             `json:"took_seconds,omitempty"` // from what caused it
}

// NewEvent is the model of an event.
func NewEvent(e reconcile.Event) Event {
	return Event{
		FormatVersion: FormatVersion, Type: "event",
		Seq: e.Seq, Time: e.Time, Event: e.Type, Cause: e.Cause, Change: e.Change,
		Object: e.Object, Differences: e.Differences, Count: e.Count, Message: e.Message, Error: e.Err, Took: e.Took.Seconds(),
	}
}

// WriteText renders the event on a line, and longer errors on lines of their
// own below it.
func (e Event) WriteText(w io.Writer, t Text) error {
	var b bytes.Buffer
	line := t.faint(e.Time.Format("2006-01-02 15:04:05.000")) + "  " + e.headline(t)
	var aside []string
	if e.Cause != "" {
		aside = append(aside, string(e.Cause))
	}
	if e.Took > 0 {
		aside = append(aside, span(time.Duration(e.Took*float64(time.Second))))
	}
	if len(aside) > 0 {
		line += "  " + t.faint("("+strings.Join(aside, ", ")+")")
	}
	b.WriteString(line + "\n")
	if strings.Contains(e.Error, "\n") {
		writeIndented(&b, "    ", e.Error)
	}
	return flush(w, &b)
}

func (e Event) headline(t Text) string {
	word := strings.ReplaceAll(string(e.Event), "_", " ")
	if colour, ok := eventColours[e.Event]; ok {
		word = t.paint(word, colour)
	}
	parts := []string{word}
	switch {
	case e.Change == nil:
	case e.Count > 0:
		s := signOf(e.Change.Action)
		parts[0] += "  " + t.paint(s.mark(), s.colour) + " " + count(e.Count, e.Change.Kind)
	default:
		parts[0] += "  " + brief(t, *e.Change)
	}
	if e.Differences > 0 {
		parts = append(parts, count(e.Differences, "difference"))
	}
	for _, part := range []string{e.Object, e.Message, e.Error} {
		if part != "" && !strings.Contains(part, "\n") {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, ": ")
}

// eventColours mark what is good, what wants attention and what is bad.
var eventColours = map[reconcile.EventType]color.Attribute{
	reconcile.EventReady:        color.FgGreen,
	reconcile.EventInSync:       color.FgGreen,
	reconcile.EventAttachable:   color.FgGreen,
	reconcile.EventRecovered:    color.FgGreen,
	reconcile.EventDrift:        color.FgYellow,
	reconcile.EventConflict:     color.FgYellow,
	reconcile.EventWarning:      color.FgYellow,
	reconcile.EventHeld:         color.FgYellow,
	reconcile.EventOutOfSync:    color.FgRed,
	reconcile.EventSpecRejected: color.FgRed,
	reconcile.EventFailed:       color.FgRed,
	reconcile.EventError:        color.FgRed,
}

// Skipped says that events were dropped before they could be read, because the
// daemon keeps only the latest.
type Skipped struct {
	FormatVersion string `json:"format_version"`
	Type          string `json:"type"` // "skipped"
	Count         uint64 `json:"count"`
}

// NewSkipped is the model of so many events that were skipped.
func NewSkipped(n uint64) Skipped {
	return Skipped{FormatVersion: FormatVersion, Type: "skipped", Count: n}
}

// WriteText renders the gap.
func (s Skipped) WriteText(w io.Writer, t Text) error {
	_, err := fmt.Fprintf(w, "%s\n", t.warn(fmt.Sprintf("... %s skipped: the daemon keeps only the latest", count(int(s.Count), "event"))))
	return err
}
