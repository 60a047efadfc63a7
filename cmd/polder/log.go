package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/lmittmann/tint"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/reconcile"
)

// eventLog is the daemon's log.
type eventLog struct {
	*slog.Logger
	lines *lines
}

// logger makes the daemon's log.
func (a *app) logger(format string) (eventLog, error) {
	out := &lines{w: a.err}
	var handler slog.Handler
	switch {
	case format == "json":
		handler = slog.NewJSONHandler(out, nil)
	case format != "text":
		return eventLog{}, fmt.Errorf("--log-format: there is no format %q, only text and json", format)
	case isTerminal(a.err):
		handler = tint.NewTextHandler(out, &tint.Options{TimeFormat: "15:04:05.000", NoColor: !a.color(a.err)})
	default:
		handler = slog.NewTextHandler(out, nil)
	}
	return eventLog{slog.New(handler), out}, nil
}

// logLevels are those of the events that are not information.
var logLevels = map[reconcile.EventType]slog.Level{
	reconcile.EventDrift:        slog.LevelWarn,
	reconcile.EventConflict:     slog.LevelWarn,
	reconcile.EventWarning:      slog.LevelWarn,
	reconcile.EventHeld:         slog.LevelWarn,
	reconcile.EventOutOfSync:    slog.LevelWarn,
	reconcile.EventSpecRejected: slog.LevelError,
	reconcile.EventFailed:       slog.LevelError,
	reconcile.EventError:        slog.LevelError,
}

// logEvent writes one event on one line: of a change, which object it was and
// what it was like before and after.
func logEvent(log *slog.Logger, e reconcile.Event) {
	attributes := []slog.Attr{slog.Uint64("seq", e.Seq)}
	add := func(key, value string) {
		if value != "" {
			attributes = append(attributes, slog.String(key, value))
		}
	}
	add("cause", string(e.Cause))
	if c := e.Change; c != nil {
		add("kind", c.Kind)
		add("name", c.Name)
		add("action", string(c.Action))
		add("reason", c.Reason)
		attributes = append(attributes, logAttrs("before", c.Attrs, func(a change.Attr) string { return a.Before }),
			logAttrs("after", c.Attrs, func(a change.Attr) string { return a.After }))
	}
	add("object", e.Object)
	if e.Count > 0 {
		attributes = append(attributes, slog.Int("count", e.Count))
	}
	if e.Differences > 0 {
		attributes = append(attributes, slog.Int("differences", e.Differences))
	}
	add("message", e.Message)
	add("err", e.Err)
	if e.Took > 0 {
		attributes = append(attributes, slog.Float64("took_seconds", float64(e.Took.Round(time.Microsecond).Microseconds())/1e6))
	}
	log.LogAttrs(context.Background(), logLevels[e.Type], strings.ReplaceAll(string(e.Type), "_", " "), attributes...)
}

// logAttrs are one side of an object's attributes. An empty group is not
// printed; a name that comes more than once, such as the rules of a chain, has a
// list for its value.
func logAttrs(side string, list []change.Attr, value func(change.Attr) string) slog.Attr {
	var names []string
	values := map[string][]string{}
	for _, a := range list {
		if v := value(a); v != "" {
			if values[a.Name] == nil {
				names = append(names, a.Name)
			}
			values[a.Name] = append(values[a.Name], v)
		}
	}
	var members []any
	for _, name := range names {
		if v := values[name]; len(v) == 1 {
			members = append(members, slog.String(name, v[0]))
		} else {
			members = append(members, slog.Any(name, v))
		}
	}
	return slog.Group(side, members...)
}
