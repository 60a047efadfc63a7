package kubetest

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
)

// Cut is in the way of a client to an API server. While it is made, nothing is listed
// or watched; what asks for one object or writes passes. The zero value lets all pass.
type Cut struct {
	mu      sync.Mutex
	made    bool
	cancels []context.CancelFunc // of what is watched
}

// Wrap puts it in the way of a client (rest.Config).
func (c *Cut) Wrap(next http.RoundTripper) http.RoundTripper { return cutting{c, next} }

// Make ends what is watched, and refuses more.
func (c *Cut) Make() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.made = true
	for _, cancel := range c.cancels {
		cancel()
	}
	c.cancels = nil
}

// Mend lets all pass again.
func (c *Cut) Mend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.made = false
}

type cutting struct {
	*Cut
	next http.RoundTripper
}

var errCut = errors.New("nothing is listed or watched")

func (c cutting) RoundTrip(r *http.Request) (*http.Response, error) {
	// Who asks for one object says nothing else.
	if r.Method != http.MethodGet || r.URL.RawQuery == "" {
		return c.next.RoundTrip(r)
	}
	ctx, cancel := context.WithCancel(r.Context())
	c.mu.Lock()
	made := c.made
	c.cancels = append(c.cancels, cancel)
	c.mu.Unlock()
	if made {
		cancel()
		return nil, errCut
	}
	answer, err := c.next.RoundTrip(r.WithContext(ctx))
	if err != nil {
		cancel()
		return nil, err
	}
	answer.Body = ending{answer.Body, cancel}
	return answer, nil
}

// ending is an answer that is over when it is closed.
type ending struct {
	io.ReadCloser
	end context.CancelFunc
}

func (e ending) Close() error {
	e.end()
	return e.ReadCloser.Close()
}
