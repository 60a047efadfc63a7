package metrics

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/poldernet/polder/cmd/polder/internal/serve"
	"github.com/poldernet/polder/reconcile"
)

// alive is a daemon that can be asked for a sign of life.
type alive interface {
	// Ping returns when the daemon's goroutine has time for it.
	Ping(ctx context.Context) error
}

// pingTimeout is how long a daemon may be busy and still count as alive. A full
// apply for thousands of peers takes a second or two.
const pingTimeout = 5 * time.Second

// Limits of one exchange with a client that may be anybody.
const (
	readTimeout  = 5 * time.Second
	writeTimeout = pingTimeout + 5*time.Second
	idleTimeout  = 2 * time.Minute
)

// Serve answers scrapes and probes until ctx ends.
func (m *Metrics) Serve(ctx context.Context, l net.Listener) error {
	server := http.Server{
		Handler:     m.Handler(),
		ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
	}
	if err := serve.Until(ctx, &server, l); err != nil {
		return fmt.Errorf("serving metrics: %w", err)
	}
	return nil
}

// Handler answers /metrics, /healthz and /readyz.
func (m *Metrics) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), pingTimeout)
		defer cancel()
		if err := m.daemon.Ping(ctx); err != nil {
			http.Error(w, "the daemon does not answer: "+err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if why := notReady(m.daemon.Condition()); why != "" {
			http.Error(w, why, http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	return mux
}

// notReady says why pods cannot count on their network, or nothing if they can.
// What drifts or fails later does not make a node unready: most of it works.
func notReady(c reconcile.Condition) string {
	switch {
	case c.Held != "":
		return fmt.Sprintf("held by %s until polder apply", c.Held)
	case c.Spec.Loaded.IsZero() && c.Spec.Err != nil:
		return "no spec is in force: the files have errors"
	case c.Spec.Loaded.IsZero():
		return "no spec is in force yet"
	case c.Cluster != nil && !c.Cluster.Known:
		return "waiting for the cluster"
	case !c.Ready:
		return fmt.Sprintf("not in sync with the spec since the start: %d failing, %d in conflict", len(c.Failures), len(c.Conflicts))
	}
	return ""
}
