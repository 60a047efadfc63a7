package control

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/poldernet/polder/cmd/polder/internal/view"
	"github.com/poldernet/polder/internal/attach"
	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
)

// fake is a daemon that does what a test says.
type fake struct {
	condition reconcile.Condition
	plan      *reconcile.Plan
	err       error
	apply     func(ctx context.Context, report func(reconcile.Outcome)) (*reconcile.Result, error)
	applied   []string
	attached  attach.List
	config    *spec.Config
	peers     []reconcile.Peer
	out       []spec.LeftOut
}

func (f *fake) Condition() reconcile.Condition { return f.condition }

func (f *fake) Plan(context.Context, reconcile.Mode) (*reconcile.Plan, error) { return f.plan, f.err }

func (f *fake) Apply(ctx context.Context, mode reconcile.Mode, id string, report func(reconcile.Outcome)) (*reconcile.Result, error) {
	f.applied = append(f.applied, fmt.Sprint(mode, " ", id))
	return f.apply(ctx, report)
}

func (f *fake) Known(context.Context) (*spec.Spec, *spec.Config, error) {
	if f.err != nil {
		return nil, nil, f.err
	}
	return f.config.Spec, f.config, nil
}

func (f *fake) Peers(context.Context) ([]reconcile.Peer, []spec.LeftOut, error) {
	return f.peers, f.out, f.err
}

func (f *fake) Attach(_ context.Context, a attach.Attachment) error {
	if f.err == nil {
		f.attached, _ = f.attached.With(a)
	}
	return f.err
}

func (f *fake) Attached(_ context.Context, a attach.Attachment) error {
	if _, ok := f.attached.Find(a.ID); !ok {
		return fmt.Errorf("%w: %s", reconcile.ErrNotAttached, a.ID)
	}
	return nil
}

func (f *fake) Detach(_ context.Context, gone func(attach.Attachment) bool) error {
	f.attached, _ = f.attached.Without(gone)
	return f.err
}

// events are a journal that has ended, or goes on while more is open.
type events struct {
	first, last uint64 // kept
	more        <-chan uint64
}

func (j events) Last() uint64 { return j.last }

func (j events) After(ctx context.Context, seq uint64) iter.Seq[reconcile.Event] {
	return func(yield func(reconcile.Event) bool) {
		for n := max(seq+1, j.first); n <= j.last; n++ {
			if !yield(reconcile.Event{Seq: n, Type: reconcile.EventChanged}) {
				return
			}
		}
		for ctx.Err() == nil {
			select {
			case n := <-j.more:
				if !yield(reconcile.Event{Seq: n, Type: reconcile.EventChanged}) {
					return
				}
			case <-ctx.Done():
			}
		}
	}
}

func planOf(n int) *reconcile.Plan {
	plan := &reconcile.Plan{Mode: reconcile.ModeApply, Node: "n1", Changes: []change.Change{}}
	for i := range n {
		plan.Changes = append(plan.Changes, change.Change{
			Action: change.Update, Kind: "route", Name: fmt.Sprintf("10.244.%d.0/24", i),
			Attrs: []change.Attr{{Name: "via", Before: "192.0.2.1 <&>", After: "192.0.2.2"}}, Unchanged: i,
		})
	}
	return plan
}

func namespace(t *testing.T) uint64 {
	t.Helper()
	here, err := Namespace()
	if err != nil {
		t.Fatal(err)
	}
	return here
}

// serve serves on a socket of the test's own and returns a client.
func startServer(t *testing.T, d Daemon, j Journal) (*Client, view.Condition) {
	t.Helper()
	dir := t.TempDir()
	l, err := Listen(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() {
		ended <- NewServer(d, j, view.Process{PID: 4711, Namespace: namespace(t), StateDir: "/run/polder", BootDir: "/var/lib/polder"}).Serve(ctx, l)
	}()
	c, condition, err := Dial(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, c.Close()); err != nil {
			t.Error(err)
		}
	})
	return c, condition
}

func TestCondition(t *testing.T) {
	loaded := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	d := &fake{condition: reconcile.Condition{
		Node: "n1", Spec: reconcile.SpecCondition{Path: "/etc/polder", Loaded: loaded, Err: errors.New("line 3")}, Held: reconcile.ModeRelease,
	}}
	_, c := startServer(t, d, events{last: 9})
	if c.PID != 4711 || c.StateDir != "/run/polder" || c.BootDir != "/var/lib/polder" || c.Node != "n1" || c.LastEvent != 9 || c.Held != reconcile.ModeRelease ||
		!c.Spec.Loaded.Equal(loaded) || c.Spec.Error != "line 3" {
		t.Errorf("got %+v", c)
	}
}

func TestPeers(t *testing.T) {
	d := &fake{
		peers: []reconcile.Peer{{Node: "n2", Subnet: netip.MustParsePrefix("10.244.2.0/24"), Path: reconcile.PathVXLAN, Gateway: netip.MustParseAddr("192.0.2.12"), Present: true}},
		out:   []spec.LeftOut{{Node: "n3", Family: spec.IPv6, Reason: spec.NoAddress, Text: "it has no address"}, {Node: "n4", Reason: spec.NoPodCIDR, Text: "it has no pod CIDR yet"}},
	}
	c, _ := startServer(t, d, events{})
	got, err := c.Peers(t.Context())
	if want := view.NewPeerList(d.peers, d.out); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v: got %+v, want %+v", err, got, want)
	}
	d.err = reconcile.ErrStopped
	if _, err := c.Peers(t.Context()); !errors.Is(err, reconcile.ErrStopped) {
		t.Error(err)
	}
}

// The plan that the client shows is the one that the daemon made, to the
// last attribute: so says its ID. And that ID is what the daemon is to apply.
func TestApplyOfAPlan(t *testing.T) {
	const n = 1000 // more than any buffer on the way holds
	plan := planOf(n)
	d := &fake{plan: plan}
	d.apply = func(_ context.Context, report func(reconcile.Outcome)) (*reconcile.Result, error) {
		for i, c := range plan.Changes {
			o := reconcile.Outcome{Change: c}
			if i == 7 {
				o.Err = errors.New("no such process")
			}
			report(o)
		}
		return &reconcile.Result{Remaining: plan.Changes[7:8]}, nil
	}
	c, _ := startServer(t, d, events{})
	got, err := c.Plan(t.Context(), reconcile.ModeApply)
	if err != nil {
		t.Fatal(err)
	}
	if got.ID() != plan.ID() {
		t.Error("the plan is another on the way")
	}
	var reported []reconcile.Outcome
	result, err := c.Apply(t.Context(), got, func(o reconcile.Outcome) { reported = append(reported, o) })
	if err != nil {
		t.Fatal(err)
	}
	if len(reported) != n || len(result.Outcomes) != n || reported[n-1].Change.Name != plan.Changes[n-1].Name {
		t.Errorf("%d outcomes reported, %d returned", len(reported), len(result.Outcomes))
	}
	if reported[6].Err != nil || reported[7].Err == nil || reported[7].Err.Error() != "no such process" {
		t.Errorf("outcomes 6 and 7 are %v and %v", reported[6].Err, reported[7].Err)
	}
	if len(result.Remaining) != 1 || result.Remaining[0].Name != plan.Changes[7].Name {
		t.Errorf("%d remain", len(result.Remaining))
	}
	if want := "apply " + plan.ID(); !slices.Equal(d.applied, []string{want}) {
		t.Errorf("applied %q", d.applied)
	}
	// It was carried out: it is not to be carried out again unseen.
	if _, err := c.Apply(t.Context(), got, nil); !errors.Is(err, reconcile.ErrPlanChanged) || len(d.applied) != 1 {
		t.Errorf("the same plan again: %v", err)
	}
}

// Errors that commands act on are the same on both sides.
// What a daemon explains reads as what a command explains by itself.
func TestExplain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "polder.hcl")
	text := `cluster = "edge"
node "n1" { addresses = ["192.0.2.11"] }
endpoint "web" {
  node      = "n1"
  addresses = ["10.244.1.5"]
  labels    = { app = "web" }
}
endpoint "db" {
  node      = "n1"
  addresses = ["10.244.1.6"]
  ports     = { sql = "5432/tcp" }
}
policy "db" {
  selector = "!has(app)"
  ingress {
    action = "allow"
    ports  = ["sql", "80/tcp"]
    from { selector = "app == 'web'" }
    from { cidr = "198.51.100.0/24" }
  }
}
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	config, m, diags := policy.Load(file, spec.Inputs{})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	c, _ := startServer(t, &fake{config: config}, events{})
	for _, service := range []string{"sql", "22/tcp"} {
		q, err := m.Ask("web", "db", service)
		if err != nil {
			t.Fatal(err)
		}
		decisions, err := m.Answer(q)
		if err != nil {
			t.Fatal(err)
		}
		told, err := Ask(t.Context(), c, Explain{From: "web", To: "db", Service: service})
		if err != nil {
			t.Fatal(err)
		}
		var got, want strings.Builder
		if err := errors.Join(told.WriteText(&got, view.Text{}), view.NewExplanation(config, q, decisions).WriteText(&want, view.Text{})); err != nil {
			t.Fatal(err)
		}
		if got.String() != want.String() {
			t.Errorf("%s is told as\n%s\nand is\n%s", service, &got, &want)
		}
	}
	if _, err := Ask(t.Context(), c, Explain{From: "webb", To: "db", Service: "sql"}); err == nil || !strings.Contains(err.Error(), "did you mean web?") {
		t.Errorf("of nobody: %v", err)
	}

	known := Known{config.Spec, config, m}
	counted := map[string]nft.CounterValue{}
	for _, p := range m.Tiers()[0].Policies {
		counters := policy.Counters(p.Policy, spec.Ingress)
		counted[counters[0].Name()] = nft.CounterValue{Packets: 3, Bytes: 252}
	}
	same(t, c, known, Policies{}, "selects db")
	same(t, c, known, Policies{Names: []string{"db"}, Node: "n1", Counted: counted}, "(3 packets, 252 bytes)")
	same(t, c, known, Policies{Counted: map[string]nft.CounterValue{}}, "(not in force here)")
	same(t, c, known, Matrix{}, "5432/tcp")
	for want, q := range map[string]Policies{`no policy named "web"`: {Names: []string{"web"}}, `no node "n9"`: {Node: "n9"}} {
		if _, err := Ask(t.Context(), c, q); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", q, err)
		}
	}
}

// same fails the test unless the daemon's answer reads as the one that is made here.
func same[A view.Printable](t *testing.T, c *Client, known Known, q Question[A], has string) {
	t.Helper()
	told, err := Ask(t.Context(), c, q)
	if err != nil {
		t.Fatal(err)
	}
	made, err := q.Answer(known)
	if err != nil {
		t.Fatal(err)
	}
	var got, want strings.Builder
	if err := errors.Join(told.WriteText(&got, view.Text{}), made.WriteText(&want, view.Text{})); err != nil {
		t.Fatal(err)
	}
	if got.String() != want.String() || !strings.Contains(want.String(), has) {
		t.Errorf("%+v is told as\n%s\nand is\n%s", q, &got, &want)
	}
}

// A matrix that would keep a daemon busy is refused.
func TestMatrixTooLarge(t *testing.T) {
	sp := &spec.Spec{Policies: []*spec.Policy{{Types: []spec.Direction{spec.Ingress}, Ingress: []spec.Rule{{Peers: make([]spec.Peer, 99)}}}}}
	for n, want := range map[int]bool{mostMatrix / 100: false, mostMatrix/100 + 1: true} {
		sp.Endpoints = make([]*spec.Endpoint, n)
		if got := tooLarge(sp); got != want {
			t.Errorf("%d endpoints: %t", n, got)
		}
	}
}

func TestErrorsTravel(t *testing.T) {
	plan := planOf(1)
	rejected := errors.New("Error: Unsupported argument\n\n  on edge.hcl line 3")
	d := &fake{plan: plan, condition: reconcile.Condition{Spec: reconcile.SpecCondition{Err: rejected}}}
	c, _ := startServer(t, d, events{})
	for _, want := range []error{reconcile.ErrPlanChanged, reconcile.ErrStopped} {
		d.apply = func(context.Context, func(reconcile.Outcome)) (*reconcile.Result, error) {
			return nil, fmt.Errorf("asked: %w", want)
		}
		if _, err := c.Plan(t.Context(), reconcile.ModeApply); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Apply(t.Context(), plan, nil); !errors.Is(err, want) {
			t.Errorf("%v became %v", want, err)
		}
	}
	d.err = errors.Join(nil, rejected)
	var specError SpecError
	if _, err := c.Plan(t.Context(), reconcile.ModeApply); !errors.As(err, &specError) || specError.Diagnostics != rejected.Error() {
		t.Errorf("got %v", err)
	}
	d.err = errors.New("reading the kernel: no buffer space available")
	if _, err := c.Plan(t.Context(), reconcile.ModeApply); err == nil || !strings.Contains(err.Error(), d.err.Error()) {
		t.Errorf("got %v", err)
	}
	if _, err := c.Plan(t.Context(), "erase"); err == nil || !strings.Contains(err.Error(), `no mode "erase"`) {
		t.Errorf("got %v", err)
	}
}

// Ctrl-C at the command stops the daemon between two objects, and the command
// still hears what was done.
func TestInterruptedApply(t *testing.T) {
	plan := planOf(2)
	d := &fake{plan: plan}
	d.apply = func(ctx context.Context, report func(reconcile.Outcome)) (*reconcile.Result, error) {
		report(reconcile.Outcome{Change: plan.Changes[0]})
		<-ctx.Done()
		report(reconcile.Outcome{Change: plan.Changes[1]})
		return &reconcile.Result{}, ctx.Err()
	}
	c, _ := startServer(t, d, events{})
	if _, err := c.Plan(t.Context(), reconcile.ModeApply); err != nil {
		t.Fatal(err)
	}
	ctx, interrupt := context.WithCancel(t.Context())
	done := 0
	_, err := c.Apply(ctx, plan, func(reconcile.Outcome) { done++; interrupt() })
	if err == nil || !strings.Contains(err.Error(), "context canceled") || done != 2 {
		t.Errorf("%d done, %v", done, err)
	}
}

// A client that does not read, or is gone, holds up nobody.
func TestDeafClient(t *testing.T) {
	plan := planOf(5_000) // a megabyte, which no socket buffer takes
	done := make(chan error, 1)
	d := &fake{plan: plan}
	d.apply = func(ctx context.Context, report func(reconcile.Outcome)) (*reconcile.Result, error) {
		for _, c := range plan.Changes {
			report(reconcile.Outcome{Change: c})
		}
		done <- ctx.Err()
		return &reconcile.Result{}, nil
	}
	c, _ := startServer(t, d, events{})
	if _, err := c.Plan(t.Context(), reconcile.ModeApply); err != nil {
		t.Fatal(err)
	}
	request := httptest.NewRequest(http.MethodPost, "/v1/apply?mode=apply&id="+plan.ID(), http.NoBody)
	conn, err := dial(t.Context(), c.socket)
	if err != nil {
		t.Fatal(err)
	}
	if err := request.Write(conn); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("the apply was cut short: %v", err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Condition(t.Context()); err != nil {
		t.Errorf("after a client that went away: %v", err)
	}
}

func TestEvents(t *testing.T) {
	more := make(chan uint64)
	c, _ := startServer(t, &fake{}, events{first: 5, last: 7, more: more})
	read := func(ctx context.Context, after uint64, follow bool, each func(n int)) []uint64 {
		var seen []uint64
		for e, err := range c.Events(ctx, after, follow) {
			if err != nil {
				if ctx.Err() == nil {
					t.Error(err)
				}
				break
			}
			seen = append(seen, e.Seq)
			each(len(seen))
		}
		return seen
	}
	if got := read(t.Context(), 2, false, func(int) {}); !slices.Equal(got, []uint64{5, 6, 7}) {
		t.Errorf("what there is: %v", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	got := read(ctx, 6, true, func(n int) {
		switch n {
		case 1:
			more <- 8
		case 2:
			cancel()
		}
	})
	if !slices.Equal(got, []uint64{7, 8}) {
		t.Errorf("following: %v", got)
	}
}

// Followers hear the daemon's last words: the stream ends after them.
func TestEventsEndWithTheServer(t *testing.T) {
	dir := t.TempDir()
	l, err := Listen(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan error)
	go func() {
		ended <- NewServer(&fake{}, events{first: 1, last: 1}, view.Process{Namespace: namespace(t)}).Serve(ctx, l)
	}()
	c, _, err := Dial(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, err := range c.Events(t.Context(), 0, true) {
		if err != nil {
			t.Error(err)
		}
		seen++
		stop()
	}
	if err := errors.Join(<-ended, c.Close()); err != nil || seen != 1 {
		t.Errorf("%d events, %v", seen, err)
	}
}
