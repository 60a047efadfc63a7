package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/poldernet/polder/cmd/polder/internal/view"
	"github.com/poldernet/polder/internal/attach"
)

// maxRequest bounds the body of a request, in bytes. A sweep names every container
// of the node.
const maxRequest = 4 << 20

// Sweep says which attachments there are of a network: others are gone.
type Sweep struct {
	Network string      `json:"network"`
	Valid   []attach.ID `json:"valid"`
}

// gone says that an attachment is to go.
func (s Sweep) gone(a attach.Attachment) bool {
	return a.Network == s.Network && !slices.Contains(s.Valid, a.ID)
}

// done is the answer to a request that has no other.
type done struct {
	FormatVersion string `json:"format_version"`
	Type          string `json:"type"` // "done"
}

// body reads a request's. Where that fails, it has been answered.
func body[T any](w http.ResponseWriter, r *http.Request) (b T, ok bool) {
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest)).Decode(&b)
	if err != nil {
		fail(w, http.StatusBadRequest, "", fmt.Errorf("reading the request: %w", err))
	}
	return b, err == nil
}

// handle answers requests with a body of one type.
func handle[T any](s *Server, do func(ctx context.Context, body T) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		b, ok := body[T](w, r)
		if !ok {
			return
		}
		if err := do(r.Context(), b); err != nil {
			s.failed(w, err)
			return
		}
		answer(w, done{view.FormatVersion, "done"})
	}
}

// Attach tells the daemon of a container, and returns when what it means is in the
// kernel. The error is reconcile.ErrNotInForce where trying again may help.
func (c *Client) Attach(ctx context.Context, a attach.Attachment) error {
	return c.post(ctx, "attach", a, new(done))
}

// Attached asks whether a container is attached like this. The error is
// reconcile.ErrNotAttached if it is not.
func (c *Client) Attached(ctx context.Context, a attach.Attachment) error {
	return c.post(ctx, "attached", a, new(done))
}

// Detach tells the daemon that a container is gone, or was never there.
func (c *Client) Detach(ctx context.Context, id attach.ID) error {
	return c.post(ctx, "detach", id, new(done))
}

// Sweep tells the daemon which containers there are.
func (c *Client) Sweep(ctx context.Context, s Sweep) error {
	return c.post(ctx, "sweep", s, new(done))
}

// post sends a body, and reads the model that answers it.
func (c *Client) post(ctx context.Context, path string, body, model any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	answer, err := c.send(ctx, http.MethodPost, path, nil, bytes.NewReader(b))
	if err != nil {
		return err
	}
	err = json.NewDecoder(answer).Decode(model)
	if err != nil {
		err = fmt.Errorf("reading the daemon's answer: %w", err)
	}
	return errors.Join(err, answer.Close())
}
