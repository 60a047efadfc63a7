package reconcile

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/poldernet/polder/nft"
)

// fakeSource hands a daemon the spec from memory.
type fakeSource struct {
	current *loaded
	changed chan struct{} // of capacity 1
}

func (s *fakeSource) load(string) *loaded {
	l := *s.current
	l.at, l.noticed = time.Now(), time.Now()
	return &l
}

func (s *fakeSource) watch(ctx context.Context, node string, _ []string, box *mailbox) {
	for {
		select {
		case <-s.changed:
			next := s.load(node)
			box.put(func(m *mail) { m.spec = next })
		case <-ctx.Done():
			return
		}
	}
}

// write changes the spec.
func (s *fakeSource) write(l *loaded) {
	s.current = l
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// parsed reads a spec's text.
func parsed(t *testing.T, text string) *loaded {
	t.Helper()
	return parsedIn(t, filepath.Dir(t.TempDir()), text) // the same each time
}

func parsedIn(t testing.TB, dir, text string) *loaded {
	t.Helper()
	file := filepath.Join(dir, "polder.hcl")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Source{Path: file}.load("n1")
}

// nodes is a spec with so many nodes.
func nodes(n int) string {
	var b strings.Builder
	b.WriteString("cluster = \"fake\"\nnetwork {\n  pod_cidrs = [\"10.244.0.0/16\"]\n  backend \"vxlan\" {}\n}\n")
	for i := 1; i <= n; i++ {
		fmt.Fprintf(&b, "node \"n%d\" {\n  addresses = [\"192.0.2.%d/24\"]\n  subnets = [\"10.244.%d.0/24\"]\n}\n", i, 10+i, i)
	}
	return b.String()
}

// fakeHost is a host with a fake kernel and a daemon that runs on it.
type fakeHost struct {
	*fakeKernel
	*Daemon
	t      rapid.TB
	source *fakeSource
	dir    string
	told   []string // by the daemon to the service manager
	stop   context.CancelFunc
	done   chan struct{} // closed when it has ended
}

var underlayAddress = netip.MustParsePrefix("192.0.2.11/24")

func newFakeHost(t *testing.T, text string) *fakeHost {
	return fakeHostOf(t, newFakeKernel(underlayAddress), parsed(t, text), t.TempDir())
}

func fakeHostOf(t rapid.TB, k *fakeKernel, l *loaded, dir string) *fakeHost {
	return &fakeHost{t: t, fakeKernel: k, dir: dir, source: &fakeSource{current: l, changed: make(chan struct{}, 1)}}
}

// open makes a daemon that does not run yet.
func (h *fakeHost) open(o DaemonOptions) {
	o.Node, o.StateDir, o.Source.Path = "n1", h.dir, h.source.current.files[0]
	o.Notify = func(state string) error {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.told = append(h.told, state)
		return nil
	}
	planner := &Planner{options: Options{Node: "n1", StateDir: h.dir, BootDir: o.BootDir}, network: fakeNetwork{h.fakeKernel}, ruleset: fakeRuleset{h.fakeKernel}}
	if err := planner.loadAttachments(); err != nil {
		h.t.Fatal(err)
	}
	applier := &Applier{Planner: planner, network: fakeNetwork{h.fakeKernel}, ruleset: fakeRuleset{h.fakeKernel}}
	h.Daemon = newDaemon(o, h.source, applier, h.offers())
}

// run lets a daemon run until the test ends.
func (h *fakeHost) run(o DaemonOptions) {
	h.open(o)
	var ctx context.Context
	ctx, h.stop = context.WithCancel(context.Background())
	h.done = make(chan struct{})
	go func() {
		defer close(h.done) // also when it is killed
		h.Daemon.Run(ctx)
	}()
	synctest.Wait()
}

// end stops the daemon.
func (h *fakeHost) end() {
	if h.stop == nil {
		return
	}
	h.stop()
	<-h.done
	h.stop = nil
}

// pass lets time go by, and the daemon do what is to be done by then.
func (h *fakeHost) pass(d time.Duration) {
	// What the test has set up is seen by what follows from time alone: there
	// the race detector knows of no order.
	h.do(func() {})
	elapse(d)
	synctest.Wait()
}

// elapse lets time go by: that of a bubble, for which nobody waits.
func elapse(d time.Duration) { <-time.After(d) }

// settle is long enough for a round, and for one that follows from it.
func (h *fakeHost) settle() { h.pass(3 * roundMost) }

// inSync fails the test unless the kernel is as the spec says.
func (h *fakeHost) inSync() {
	h.t.Helper()
	if c := h.Condition(); !c.InSync || len(c.Failures) > 0 {
		h.t.Fatalf("the daemon says %q, failures %+v\n%s", c, c.Failures, h.story(0))
	}
	if rest := h.plan(); !rest.Empty() {
		h.t.Fatalf("the daemon says that it is in sync, and a plan from scratch has %v", rest.Changes)
	}
}

// plan is what a planner that knows nothing would plan.
func (h *fakeHost) plan() *Plan {
	h.t.Helper()
	quiet := &fakeKernel{network: h.network, rules: h.rules, count: map[string]int{}}
	p := &Planner{options: Options{Spec: h.source.current.config.Spec, Node: "n1", StateDir: h.dir}, network: fakeNetwork{quiet}, ruleset: fakeRuleset{quiet}}
	if err := p.loadAttachments(); err != nil {
		h.t.Fatal(err)
	}
	plan, err := p.Plan(context.Background(), ModeApply)
	if err != nil {
		h.t.Fatal(err)
	}
	return plan
}

// events are those of a type after one.
func (h *fakeHost) events(after uint64, types ...EventType) []Event {
	all, _ := h.journal.since(after)
	return slices.DeleteFunc(all, func(e Event) bool { return !slices.Contains(types, e.Type) })
}

// story is the journal for test logs.
func (h *fakeHost) story(after uint64) string {
	var b strings.Builder
	all, _ := h.journal.since(after)
	for _, e := range all {
		object := e.Object
		if e.Change != nil {
			object = fmt.Sprint(e.Change.Action, " ", e.Change.Kind, " ", e.Change.Name)
		}
		fmt.Fprintln(&b, e.Seq, e.Time.Format("15:04:05.000"), e.Type, e.Cause, object, e.Differences, e.Err, e.Message)
	}
	return b.String()
}

// rounds is the number of rounds until now.
func (h *fakeHost) rounds() (n uint64) {
	for _, count := range h.Condition().Counters.Rounds {
		n += count
	}
	return n
}

// damage does one damage, which must be possible, to what is polder's.
func (h *fakeHost) damage(command string) {
	h.t.Helper()
	h.do(func() {
		var possible []string
		for _, d := range h.network.Damages("eth0") {
			if strings.HasPrefix(d.Command, command) {
				h.network.Do(d)
				return
			}
			possible = append(possible, d.Command)
		}
		h.t.Fatalf("no damage is %q; there are\n%s", command, strings.Join(possible, "\n"))
	})
}

// onFakeHost runs a test on a host in a bubble of its own time, with a daemon
// that has brought it in sync.
func onFakeHost(t *testing.T, n int, test func(t *testing.T, h *fakeHost)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost(t, nodes(n))
		defer h.end()
		h.run(DaemonOptions{})
		h.settle()
		h.inSync()
		test(t, h)
	})
}

// drop deletes the polder table, as somebody with nft(8) might.
func (h *fakeHost) drop() {
	h.do(func() { h.rules.Delete("nft", nft.TableID{Family: nft.INet, Name: nft.TableName}) })
}
