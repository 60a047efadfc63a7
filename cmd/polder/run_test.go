package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/reconcile"
)

// A port alone is not open to the network.
func TestListenAddress(t *testing.T) {
	for given, want := range map[string]string{
		"":               "",
		"9087":           "127.0.0.1:9087",
		":9087":          "127.0.0.1:9087",
		"0.0.0.0:9087":   "0.0.0.0:9087",
		"192.0.2.1:9087": "192.0.2.1:9087",
		"[::]:9087":      "[::]:9087",
		"[::1]:1":        "[::1]:1",
	} {
		if got, err := listenAddress(given); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", given, got, err, want)
		}
	}
	for _, given := range []string{":", "70000", "192.0.2.1:", "::1", "2001:db8::1:9087", "x", "-1", "0", "http"} {
		if got, err := listenAddress(given); err == nil || !strings.HasPrefix(err.Error(), "--listen") {
			t.Errorf("%q: %q, %v", given, got, err)
		}
	}
}

// One line a change, with before and after.
func TestLog(t *testing.T) {
	var out bytes.Buffer
	a := &app{streams: streams{err: &out}}
	log, err := a.logger("json")
	if err != nil {
		t.Fatal(err)
	}
	logEvent(log.Logger, reconcile.Event{
		Seq: 7, Type: reconcile.EventFailed, Cause: reconcile.CauseDrift, Err: "no such device", Took: 2345678 * time.Nanosecond,
		Change: &change.Change{Action: change.Update, Kind: "link", Name: "cni0", Reason: "mac_written", Attrs: []change.Attr{
			{Name: "mtu", Before: "1300", After: "1450"}, {Name: "alias", After: "polder cluster=edge"},
			{Name: "rule", Before: "drop", After: "accept"}, {Name: "rule", After: "counter"},
		}},
	})
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	delete(line, "time")
	got, err := json.Marshal(line)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"action":"update","after":{"alias":"polder cluster=edge","mtu":"1450","rule":["accept","counter"]},"before":{"mtu":"1300","rule":"drop"},"cause":"drift",` +
		`"err":"no such device","kind":"link","level":"ERROR","msg":"failed","name":"cni0","reason":"mac_written","seq":7,"took_seconds":0.002346}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}

	out.Reset()
	if log, err = a.logger("text"); err != nil {
		t.Fatal(err)
	}
	logEvent(log.Logger, reconcile.Event{Seq: 8, Type: reconcile.EventSpecRejected, Err: "Error: a\n\n  on line 3"})
	if got := out.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `level=ERROR msg="spec rejected" seq=8 err="Error: a\n\n  on line 3"`) {
		t.Errorf("got %s", got)
	}
	if _, err := a.logger("xml"); err == nil {
		t.Error("there is a format xml")
	}
}

// writes counts them.
type writes struct {
	bytes.Buffer
	count int
}

func (w *writes) Write(b []byte) (int, error) {
	w.count++
	return w.Buffer.Write(b)
}

// Events that come together are written together, in order and whole, and what comes
// alone at once.
func TestLogOfMany(t *testing.T) {
	var out writes
	log, err := (&app{streams: streams{err: &out}}).logger("json")
	if err != nil {
		t.Fatal(err)
	}
	log.Info("first")
	if out.count != 1 {
		t.Fatalf("%d writes", out.count)
	}
	const many = 5000
	events := make([]reconcile.Event, many)
	for i := range events {
		events[i].Seq = uint64(i + 1)
	}
	logEvents(log, slices.Values([][]reconcile.Event{events[:many-1], events[many-1:]}))
	log.Info("last")
	if out.count < 4 || out.count > 50 {
		t.Errorf("%d lines are %d writes", many+2, out.count)
	}
	text := slices.Collect(strings.Lines(out.String()))
	if len(text) != many+2 {
		t.Fatalf("%d lines", len(text))
	}
	for i, line := range text[1 : many+1] {
		if !strings.HasSuffix(line, fmt.Sprintf("\"seq\":%d}\n", i+1)) {
			t.Fatalf("line %d is %s", i+1, line)
		}
	}
}

// What the log lacks, it says.
func TestLogTellsGaps(t *testing.T) {
	var out bytes.Buffer
	log, err := (&app{streams: streams{err: &out}}).logger("text")
	if err != nil {
		t.Fatal(err)
	}
	logEvents(log, slices.Values([][]reconcile.Event{{{Seq: 1}, {Seq: 2}}, {{Seq: 6}}}))
	if got := out.String(); strings.Count(got, "\n") != 4 || !strings.Contains(got, `msg="events skipped" count=3`) {
		t.Errorf("got %s", got)
	}
}
