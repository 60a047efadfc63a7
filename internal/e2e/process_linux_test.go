package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
)

// process is `polder run` as users have it. It ends, at the latest, with the
// test.
type process struct {
	*testing.T
	n    *network
	node string
	argv []string
	file string // the spec
	cmd  *lab.Cmd
	gone chan struct{} // closed when it has ended
	log  *logbook
	http *http.Client
}

// listenPort is where a daemon's metrics are, on the loopback of its node.
const listenPort = "9087"

// endurance is how long a test waits for a process. All namespaces of a machine
// share the kernel's lock for network configuration (rtnl_mutex): where other
// tests take down thousands of links, everybody waits for many seconds.
const endurance = time.Minute

// process makes one of a node, which start starts.
func (p program) process(node, text string) *process {
	p.t.Helper()
	file := filepath.Join(p.t.TempDir(), "polder.hcl")
	d := &process{T: p.t, n: p.network, node: node, file: file, argv: []string{
		p.file, "run", "--spec", file, "--node", node, "--state-dir", filepath.Join(p.dir, node),
		"--log-format", "json", "--listen", listenPort,
	}}
	d.http = &http.Client{Timeout: endurance, Transport: &http.Transport{
		DisableKeepAlives: true, // an idle connection is a descriptor of the daemon's
		DialContext: func(_ context.Context, network, address string) (c net.Conn, err error) {
			err = p.lab.Node(node).Do(func() (err error) {
				c, err = net.Dial(network, address)
				return err
			})
			return c, err
		},
	}}
	d.write(text)
	p.t.Cleanup(d.kill)
	return d
}

// write replaces the spec.
func (d *process) write(text string) {
	d.Helper()
	if err := replaceFile(d.file, text); err != nil {
		d.Fatal(err)
	}
}

// replaceFile writes a file as most editors do.
func replaceFile(name, text string) error {
	if err := os.WriteFile(name+".new", []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

func (d *process) start() {
	d.Helper()
	d.log = &logbook{more: make(chan struct{})}
	r, w := io.Pipe()
	d.cmd = d.n.lab.Node(d.node).Command(context.Background(), d.argv...)
	d.cmd.Stdout, d.cmd.Stderr = w, w
	if err := d.cmd.Start(); err != nil {
		d.Fatal(err)
	}
	d.gone = make(chan struct{})
	go func(log *logbook) {
		defer log.close()
		for s := bufio.NewScanner(r); s.Scan(); {
			log.add(s.Bytes())
		}
	}(d.log)
	go func(cmd *lab.Cmd, gone chan struct{}) {
		_ = cmd.Wait() // most are killed
		_ = w.Close()
		close(gone)
	}(d.cmd, d.gone)
}

// kill ends it with SIGKILL, wherever it is.
func (d *process) kill() {
	if d.cmd == nil {
		return
	}
	_ = d.cmd.Process.Kill()
	<-d.gone
	d.cmd = nil
}

// alive fails the test if it has ended by itself.
func (d *process) alive() {
	d.Helper()
	select {
	case <-d.gone:
		d.Fatalf("the daemon on %s ended by itself: %s", d.node, d.log.tail())
	default:
	}
}

// pause waits until the daemon says something, for a moment at most, so that who
// asks again and again does not keep it from its work.
func (d *process) pause() {
	d.Helper()
	d.alive()
	_, more, _ := d.log.since(d.log.mark())
	select {
	case <-more:
	case <-time.After(50 * time.Millisecond):
	}
}

// await waits for the first line after a mark that is the one, and returns the
// mark after it.
func (d *process) await(after int, what string, is func(logLine) bool) (int, logLine) {
	d.Helper()
	timeout := time.After(endurance)
	for {
		lines, more, ended := d.log.since(after)
		for i, l := range lines {
			if is(l) {
				return after + i + 1, l
			}
		}
		after += len(lines)
		if ended {
			d.Fatalf("the daemon on %s ended before it told of %s: %s", d.node, what, d.log.tail())
		}
		select {
		case <-more:
		case <-timeout:
			d.stuck("tell of " + what)
		}
	}
}

// ready waits until it has been in sync.
func (d *process) ready() {
	d.Helper()
	d.await(0, "being ready", func(l logLine) bool { return l.Event == "ready" })
}

// settle waits until a reading from outside finds nothing to do.
func (d *process) settle(sp *spec.Spec, after string) {
	d.Helper()
	var plan *reconcile.Plan
	for begin := time.Now(); time.Since(begin) < endurance; {
		if plan = d.n.plan(d.node, sp, reconcile.ModeApply); plan.Empty() && len(plan.Conflicts) == 0 {
			return
		}
		d.pause()
	}
	d.Fatalf("after %s %s is still different: %+v %+v\n%s", after, d.node, plan.Changes, plan.Conflicts, d.log.tail())
}

// says waits until the daemon's metrics are so, and returns them.
func (d *process) says(what string, is func(map[string]float64) bool) map[string]float64 {
	d.Helper()
	var now map[string]float64
	for begin := time.Now(); time.Since(begin) < endurance; {
		if now = d.metrics(); is(now) {
			return now
		}
		d.pause()
	}
	d.stuck(fmt.Sprintf("say that %s: in sync %v, failing %v", what, now["polder_in_sync"], sum(now, "polder_failing_objects")))
	return nil
}

// content waits until it says that all is well, and returns its metrics.
func (d *process) content(after string) map[string]float64 {
	d.Helper()
	return d.says("all is well after "+after, func(m map[string]float64) bool {
		return m["polder_in_sync"] == 1 && sum(m, "polder_failing_objects") == 0
	})
}

// metrics are the daemon's, by name with labels as they are printed.
func (d *process) metrics() map[string]float64 {
	d.Helper()
	response, err := d.http.Get("http://127.0.0.1:" + listenPort + "/metrics")
	for begin := time.Now(); err != nil; { // it may not listen yet
		if time.Since(begin) > endurance {
			d.Fatalf("scraping %s: %v\n%s", d.node, err, d.log.tail())
		}
		d.pause()
		response, err = d.http.Get("http://127.0.0.1:" + listenPort + "/metrics")
	}
	defer func() { _ = response.Body.Close() }()
	values := map[string]float64{}
	for s := bufio.NewScanner(response.Body); s.Scan(); {
		name, value, ok := cutLast(s.Text(), " ")
		if f, err := strconv.ParseFloat(value, 64); ok && err == nil && !strings.HasPrefix(name, "#") {
			values[name] = f
		}
	}
	return values
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// sum adds the metrics of a name over those labels that it is given whole or in
// part.
func sum(metrics map[string]float64, name string, labels ...string) (total float64) {
next:
	for series, value := range metrics {
		if series != name && !strings.HasPrefix(series, name+"{") {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(series, l) {
				continue next
			}
		}
		total += value
	}
	return total
}

// usage is what a process holds and has used.
type usage struct {
	goroutines, descriptors, threads int
	heap, rss                        int // KiB
	cpu                              time.Duration
}

func (u usage) String() string {
	return fmt.Sprintf("goroutines %d, descriptors %d, threads %d, heap %d KiB, RSS %d KiB, CPU %v",
		u.goroutines, u.descriptors, u.threads, u.heap, u.rss, u.cpu.Round(10*time.Millisecond))
}

// usage counts.
func (d *process) usage() usage {
	d.Helper()
	m := d.metrics()
	return usage{
		goroutines: int(m["go_goroutines"]), threads: int(m["go_threads"]),
		descriptors: int(m["process_open_fds"]),
		heap:        int(m["go_memstats_heap_inuse_bytes"]) >> 10, rss: int(m["process_resident_memory_bytes"]) >> 10,
		cpu: time.Duration(m["process_cpu_seconds_total"] * float64(time.Second)),
	}
}

// expectNoMore expects a process at rest to hold what it held at an earlier
// rest. The heap of a Go program is as large as its collector lets it grow, so
// that some growth says nothing.
func (u usage) expectNoMore(t *testing.T, before usage) {
	t.Helper()
	// A connection of ours may be closing.
	const few, spare = 2, 16 << 10
	if u.goroutines > before.goroutines+few || u.descriptors > before.descriptors+few {
		t.Errorf("a leak: %v, and before: %v", u, before)
	}
	if u.rss > before.rss+before.rss/4+spare {
		t.Errorf("memory grows: %v, and before: %v", u, before)
	}
}

// stuck fails the test, with the end of the log and the stacks of all goroutines.
func (d *process) stuck(at string) {
	d.Helper()
	said := d.log.mark()
	_ = d.cmd.Process.Signal(syscall.SIGQUIT)
	<-d.gone
	lines, more, ended := d.log.since(0)
	for !ended {
		<-more
		lines, more, ended = d.log.since(0)
	}
	var stacks strings.Builder
	for _, l := range lines[max(0, said-25):] {
		stacks.WriteString("\n" + l.text)
	}
	d.Fatalf("the daemon on %s did not %s%s", d.node, at, &stacks)
}

// logLine is a line of the daemon's log.
type logLine struct {
	Event                  string `json:"msg"`
	Cause, Kind, Name, Err string
	Action                 string
	Time                   time.Time
	Took                   float64 `json:"took_seconds"`
	text                   string
}

// logbook collects the lines.
type logbook struct {
	mu    sync.Mutex
	lines []logLine
	ended bool
	more  chan struct{} // closed when there is another
}

func (b *logbook) add(text []byte) {
	l := logLine{text: string(text)}
	_ = json.Unmarshal(text, &l) // what is no JSON is in the text
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines = append(b.lines, l)
	close(b.more)
	b.more = make(chan struct{})
}

func (b *logbook) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	close(b.more)
	b.more = make(chan struct{})
}

// mark is the number of lines up to now.
func (b *logbook) mark() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.lines)
}

// since are the lines after a mark, what is closed when there are more, and
// whether there will be none.
func (b *logbook) since(mark int) ([]logLine, <-chan struct{}, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lines[mark:len(b.lines):len(b.lines)], b.more, b.ended
}

// tail is the end of the log, for a failed test's report.
func (b *logbook) tail() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var text strings.Builder
	for _, l := range b.lines[max(0, len(b.lines)-25):] {
		text.WriteString("\n" + l.text)
	}
	return text.String()
}
