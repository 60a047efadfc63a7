package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/poldernet/polder/internal/filewatch"
	"github.com/poldernet/polder/nft/nflog"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

// messages are a source that ends with an error, or with its context.
type messages struct {
	list []any // nflog.Message, error, func()
	end  func()
}

func (m *messages) Next(context.Context) (nflog.Message, error) {
	for len(m.list) > 0 {
		next := m.list[0]
		m.list = m.list[1:]
		switch next := next.(type) {
		case nflog.Message:
			return next, nil
		case error:
			return nflog.Message{}, next
		case func():
			next()
		}
	}
	m.end()
	return nflog.Message{}, errors.New("interrupted")
}

const watchedSpec = `cluster = "edge"
node "n1" { addresses = ["192.0.2.11"] }
policy "db" {
  selector = "app == 'db'"
  ingress { action = "log" }
}
`

// newWatched is a watcher of a spec, and the name of the counter of its rule.
func newWatched(t *testing.T, out *bytes.Buffer) (w *watcher, path, name string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "polder.hcl")
	write(t, path, watchedSpec)
	w = &watcher{app: &app{streams: streams{out: out, err: out}, specPath: path}}
	config, m, err := w.load(policy.Read)
	if err != nil {
		t.Fatal(err)
	}
	w.take(config, m)
	for name, c := range w.counters {
		if c.Policy != nil {
			return w, path, name
		}
	}
	t.Fatal("no rule logs")
	return nil, "", ""
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// What is lost is told, by number where the kernel's numbers say so.
func TestWatchTellsOfLoss(t *testing.T) {
	var out bytes.Buffer
	w, _, name := newWatched(t, &out)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	numbered := func(n uint32) nflog.Message { return nflog.Message{Prefix: name, Sequence: n} }
	from := &messages{list: []any{numbered(0), numbered(1), nflog.ErrLost, numbered(2), numbered(5), numbered(1<<32 - 1), numbered(0)}, end: cancel}
	if err := w.follow(ctx, from); err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(out.String()) {
		switch {
		case strings.Contains(line, "... "):
			got = append(got, strings.TrimSpace(line[strings.Index(line, "... ")+4:]))
		case strings.Contains(line, "log   policy db ingress 1"):
			got = append(got, "packet")
		default:
			t.Errorf("%q", line)
		}
	}
	want := "packet|packet|packets were missed: more came than could be read|packet|2 packets missed|packet|4294967289 packets missed|packet|packet"
	if strings.Join(got, "|") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, "|"), want)
	}
}

// A line names what the files say when it is printed. While they have errors,
// what they said before.
func TestWatchFollowsFiles(t *testing.T) {
	var out bytes.Buffer
	w, path, name := newWatched(t, &out)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	age := func() { w.looked = time.Time{} }
	moved := "\n\n" + strings.Replace(watchedSpec, "  ingress", "  ingress { action = \"allow\" }\n  ingress", 1)
	from := &messages{list: []any{
		nflog.Message{Prefix: name},
		func() { write(t, path, moved); age() },
		nflog.Message{Prefix: name, Sequence: 1},
		func() { write(t, path, "broken {"); age() },
		nflog.Message{Prefix: name, Sequence: 2},
		// A prefix that is not known has the files looked at without delay.
		func() { write(t, path, strings.ReplaceAll(watchedSpec, `"db"`, `"database"`)) },
		nflog.Message{Prefix: "c_database_ingress_", Sequence: 3},
		nflog.Message{Prefix: name, Sequence: 4},
	}, end: cancel}
	if err := w.follow(ctx, from); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	for i, want := range []string{
		"policy db ingress 1 (" + path + ":5)", "policy db ingress 2 (" + path + ":8)", "policy db ingress 2 (" + path + ":8)",
		`no rule of the spec logs "c_database_ingress_"`, `no rule of the spec logs "` + name + `"`,
	} {
		if i >= len(lines) || !strings.Contains(lines[i], want) {
			t.Errorf("line %d does not say %s:\n%s", i+1, want, out.String())
			break
		}
	}
	if found := filewatch.Fingerprint(w.files, spec.IsInput); found != w.known {
		t.Error("the files are not known")
	}
}

// An error of the source ends it.
func TestWatchEnds(t *testing.T) {
	var out bytes.Buffer
	w, _, _ := newWatched(t, &out)
	broken := errors.New("broken")
	if err := w.follow(t.Context(), &messages{list: []any{broken}}); !errors.Is(err, broken) {
		t.Error(err)
	}
}
