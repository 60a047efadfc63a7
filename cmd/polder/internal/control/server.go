package control

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/poldernet/polder/cmd/polder/internal/queue"
	"github.com/poldernet/polder/cmd/polder/internal/serve"
	"github.com/poldernet/polder/cmd/polder/internal/view"
	"github.com/poldernet/polder/internal/attach"
	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
)

// Daemon is what a server needs of reconcile.Daemon.
type Daemon interface {
	Condition() reconcile.Condition
	Plan(ctx context.Context, mode reconcile.Mode) (*reconcile.Plan, error)
	Apply(ctx context.Context, mode reconcile.Mode, id string, report func(reconcile.Outcome)) (*reconcile.Result, error)
	Known(ctx context.Context) (*spec.Spec, *spec.Config, error)
	Peers(ctx context.Context) ([]reconcile.Peer, []spec.LeftOut, error)
	Attach(ctx context.Context, a attach.Attachment) error
	Attached(ctx context.Context, a attach.Attachment) error
	Detach(ctx context.Context, gone func(attach.Attachment) bool) error
}

// Journal is what a server needs of reconcile.Journal.
type Journal interface {
	After(ctx context.Context, seq uint64) iter.Seq[reconcile.Event]
	Last() uint64
}

// Server answers commands in a daemon's name.
type Server struct {
	daemon  Daemon
	journal Journal
	process view.Process
	within  time.Duration // how long an attachment is waited for

	mu    sync.Mutex
	shown *reconcile.Plan // the latest that somebody looked at
}

// NewServer makes a server for a daemon of that process.
func NewServer(d Daemon, j Journal, p view.Process) *Server {
	return &Server{daemon: d, journal: j, process: p, within: AttachWithin}
}

// Limits of one exchange. Streams have none: a client that stops reading holds
// up its own goroutine only, and one that is gone is noticed by the kernel.
const (
	headerTimeout = 5 * time.Second
	idleTimeout   = time.Minute
)

// AttachWithin is how long a container's attachment may take to be in the kernel. A
// client that waits longer hears why it is not.
const AttachWithin = 30 * time.Second

// Serve answers until ctx ends. Streams of events end with ctx, after the
// events that there are.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	if err := serve.Until(ctx, &server, l); err != nil {
		return fmt.Errorf("serving commands: %w", err)
	}
	return nil
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/condition", s.condition)
	mux.HandleFunc("GET /v1/peers", s.peers)
	mux.HandleFunc("GET /v1/plan", s.plan)
	mux.HandleFunc("POST /v1/apply", s.apply)
	mux.HandleFunc("GET /v1/events", s.events)
	answers[Explain](s, mux)
	answers[Policies](s, mux)
	answers[Matrix](s, mux)
	mux.HandleFunc("POST /v1/attach", handle(s, func(ctx context.Context, a attach.Attachment) error {
		ctx, cancel := context.WithTimeout(ctx, s.within)
		defer cancel()
		return s.daemon.Attach(ctx, a)
	}))
	mux.HandleFunc("POST /v1/attached", handle(s, s.daemon.Attached))
	mux.HandleFunc("POST /v1/detach", handle(s, func(ctx context.Context, id attach.ID) error {
		return s.daemon.Detach(ctx, func(a attach.Attachment) bool { return a.ID == id })
	}))
	mux.HandleFunc("POST /v1/sweep", handle(s, func(ctx context.Context, sweep Sweep) error {
		return s.daemon.Detach(ctx, sweep.gone)
	}))
	return mux
}

func fail(w http.ResponseWriter, status int, code ErrorCode, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// A client that is gone needs no answer.
	_ = view.WriteJSON(w, Error{FormatVersion: view.FormatVersion, Type: "error", Code: code, Message: err.Error()})
}

// failed answers with an error of the daemon's.
func (s *Server) failed(w http.ResponseWriter, err error) {
	rejected := s.daemon.Condition().Spec.Err
	switch {
	case errors.Is(err, reconcile.ErrPlanChanged):
		fail(w, http.StatusConflict, CodePlanChanged, err)
	case errors.Is(err, reconcile.ErrStopped):
		fail(w, http.StatusServiceUnavailable, CodeStopped, err)
	case errors.Is(err, reconcile.ErrNotInForce):
		fail(w, http.StatusServiceUnavailable, CodeNotInForce, err)
	case errors.Is(err, reconcile.ErrNotAttached):
		fail(w, http.StatusNotFound, CodeNotAttached, err)
	case rejected != nil && err.Error() == rejected.Error():
		fail(w, http.StatusUnprocessableEntity, CodeSpec, err)
	default:
		fail(w, http.StatusInternalServerError, "", err)
	}
}

func answer(w http.ResponseWriter, model any) {
	w.Header().Set("Content-Type", "application/json")
	_ = view.WriteJSON(w, model) // a client that is gone needs no answer
}

func (s *Server) condition(w http.ResponseWriter, _ *http.Request) {
	answer(w, view.NewCondition(s.daemon.Condition(), s.process, s.journal.Last(), time.Now()))
}

func (s *Server) peers(w http.ResponseWriter, r *http.Request) {
	peers, out, err := s.daemon.Peers(r.Context())
	if err != nil {
		s.failed(w, err)
		return
	}
	answer(w, view.NewPeerList(peers, out))
}

// mode is the mode that a request names.
func mode(r *http.Request) (reconcile.Mode, error) {
	switch m := reconcile.Mode(r.URL.Query().Get("mode")); m {
	case reconcile.ModeApply, reconcile.ModeDestroy, reconcile.ModeRelease:
		return m, nil
	default:
		return "", fmt.Errorf("there is no mode %q", m)
	}
}

func (s *Server) plan(w http.ResponseWriter, r *http.Request) {
	m, err := mode(r)
	if err != nil {
		fail(w, http.StatusBadRequest, "", err)
		return
	}
	plan, err := s.daemon.Plan(r.Context(), m)
	if err != nil {
		s.failed(w, err)
		return
	}
	s.mu.Lock()
	s.shown = plan
	s.mu.Unlock()
	answer(w, view.NewPlan(plan))
}

// apply carries out the plan that was shown last. A client that ends its half
// of the connection ends the apply between two objects, and still hears of what
// was done.
func (s *Server) apply(w http.ResponseWriter, r *http.Request) {
	m, err := mode(r)
	if err != nil {
		fail(w, http.StatusBadRequest, "", err)
		return
	}
	s.mu.Lock()
	plan := s.shown
	s.shown = nil
	s.mu.Unlock()
	if plan == nil || plan.Mode != m || plan.ID() != r.URL.Query().Get("id") {
		s.failed(w, reconcile.ErrPlanChanged)
		return
	}
	// The daemon does not wait for a client that reads slowly.
	lines := queue.New[any]()
	written := make(chan struct{})
	go func() {
		defer close(written)
		writeLines(w, lines)
	}()
	end := func() {
		lines.Close()
		<-written
	}
	var outcomes []reconcile.Outcome
	result, err := s.daemon.Apply(r.Context(), m, plan.ID(), func(o reconcile.Outcome) {
		outcomes = append(outcomes, o)
		lines.Put(view.NewOutcome(o))
	})
	if err != nil && len(outcomes) == 0 && result == nil {
		end()
		s.failed(w, err)
		return
	}
	if result == nil {
		result = &reconcile.Result{}
	}
	lines.Put(view.NewResult(plan, outcomes, result.Remaining, err))
	end()
}

// writeLines writes a stream of models. The header goes with the first line, not
// before: until then there may be an error to answer with.
func writeLines(w http.ResponseWriter, lines *queue.Queue[any]) {
	flusher := http.NewResponseController(w)
	gone := false
	for models := range lines.Batches() {
		for _, model := range models {
			gone = gone || view.WriteJSON(w, model) != nil
		}
		gone = gone || flusher.Flush() != nil
	}
}

func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	after, err := strconv.ParseUint(query.Get("after"), 10, 64)
	if err != nil {
		fail(w, http.StatusBadRequest, "", fmt.Errorf("after: %w", err))
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	if query.Get("follow") == "false" {
		cancel() // what there is, and no more
	}
	w.Header().Set("Content-Type", "application/jsonl")
	flusher := http.NewResponseController(w)
	if flusher.Flush() != nil { // the headers: the client knows that it listens
		return
	}
	for e := range s.journal.After(ctx, after) {
		if view.WriteJSON(w, view.NewEvent(e)) != nil || flusher.Flush() != nil {
			return // the client is gone
		}
	}
}
