package main

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"strings"
	"testing"

	"github.com/poldernet/polder/cmd/polder/internal/view"
	"github.com/poldernet/polder/reconcile"
)

// stream is events of these types, numbered from first, and then an end.
func stream(first uint64, end error, types ...reconcile.EventType) iter.Seq2[view.Event, error] {
	return func(yield func(view.Event, error) bool) {
		for i, e := range types {
			if !yield(view.NewEvent(reconcile.Event{Seq: first + uint64(i), Type: e}), nil) {
				return
			}
		}
		if end != nil {
			yield(view.Event{}, end)
		}
	}
}

func TestFollow(t *testing.T) {
	lost := errors.New("connection reset by peer")
	for _, test := range []struct {
		name     string
		follower follower
		seen     uint64
		events   iter.Seq2[view.Event, error]
		want     string // in the output
		err      string
	}{
		{"all of them", follower{}, 4, stream(5, nil, "changed", "stopping"), "  changed\n", ""},
		{"some are gone", follower{}, 4, stream(8, nil, "changed", "stopping"), "... 3 events skipped", ""},
		{"as JSON", follower{asJSON: true}, 4, stream(8, nil, "stopping"), `{"format_version":"1.1","type":"skipped","count":3}` + "\n", ""},
		{"those that there are", follower{still: true}, 4, stream(5, nil, "changed"), "  changed\n", ""},
		{"the daemon is killed", follower{}, 4, stream(5, nil, "changed"), "  changed\n", "the daemon has gone without a word"},
		{"the connection breaks", follower{}, 4, stream(5, lost, "changed"), "  changed\n", "connection reset"},
	} {
		var out bytes.Buffer
		err := test.follower.follow(t.Context(), &app{streams: streams{out: &out}}, test.seen, test.events)
		if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: %v", test.name, err)
		}
		if !strings.Contains(out.String(), test.want) || strings.Contains(out.String(), "skipped") != strings.Contains(test.want, "skipped") {
			t.Errorf("%s: printed %q", test.name, out.String())
		}
	}
	// Ctrl-C is how one stops following.
	ctx, stop := context.WithCancel(t.Context())
	stop()
	var out bytes.Buffer
	if err := (&follower{}).follow(ctx, &app{streams: streams{out: &out}}, 0, stream(1, ctx.Err())); err != nil {
		t.Error(err)
	}
}
