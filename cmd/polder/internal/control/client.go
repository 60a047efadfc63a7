package control

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"

	"github.com/poldernet/polder/cmd/polder/internal/view"
	"github.com/poldernet/polder/reconcile"
)

// Client talks to a daemon.
type Client struct {
	socket string
	http   *http.Client
	conn   atomic.Pointer[net.UnixConn] // the latest
}

// Dial finds the daemon of a state directory. The error is ErrNone if there is
// none, and ErrForbidden if it does not talk to this user. A daemon of another
// network namespace than the calling thread's is an error, too: what one asks it
// is not done here.
func Dial(ctx context.Context, stateDir string) (*Client, view.Condition, error) {
	here, err := Namespace()
	if err != nil {
		return nil, view.Condition{}, err
	}
	socket, err := socketPath(stateDir)
	if err != nil {
		return nil, view.Condition{}, err
	}
	c := &Client{socket: socket}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
	}}
	condition, err := c.Condition(ctx)
	if err == nil && condition.Namespace != here {
		err = fmt.Errorf("%s is of a daemon in another network namespace, pid %d in net:[%d]; this one, net:[%d], needs a --state-dir of its own",
			socket, condition.PID, condition.Namespace, here)
	}
	if err != nil {
		return nil, view.Condition{}, errors.Join(err, c.Close())
	}
	return c, condition, nil
}

// dial connects, and makes sure that it is a daemon to be believed, also where the
// directory is one that others may write to.
func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	conn, err := dial(ctx, c.socket)
	if err != nil {
		return nil, err
	}
	p, err := peerOf(conn)
	if err == nil && !p.trusted() {
		err = fmt.Errorf("%s is held by process %d of user %d, which is no daemon to be trusted", c.socket, p.PID, p.UID)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	c.conn.Store(conn)
	return conn, nil
}

// Close closes the connection.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// Condition is how the daemon stands.
func (c *Client) Condition(ctx context.Context) (condition view.Condition, err error) {
	err = c.get(ctx, "condition", nil, &condition)
	return condition, err
}

// Peers are the peers of the daemon's node. Unlike the condition, they are asked of the
// daemon between two rounds.
func (c *Client) Peers(ctx context.Context) (peers view.PeerList, err error) {
	err = c.get(ctx, "peers", nil, &peers)
	return peers, err
}

// Plan has the daemon plan. A spec with errors is a SpecError.
func (c *Client) Plan(ctx context.Context, mode reconcile.Mode) (*reconcile.Plan, error) {
	var model view.Plan
	if err := c.get(ctx, "plan", url.Values{"mode": {string(mode)}}, &model); err != nil {
		return nil, err
	}
	return &reconcile.Plan{
		Mode: model.Mode, Node: model.Node,
		Changes: model.Changes, Conflicts: model.Conflicts, Warnings: model.Warnings,
	}, nil
}

// Apply has the daemon carry out a plan that it made. When ctx ends, it stops
// between two objects, and what was done until then is reported.
func (c *Client) Apply(ctx context.Context, plan *reconcile.Plan, report func(reconcile.Outcome)) (*reconcile.Result, error) {
	// The request lives on when ctx ends: the answer says how far it came.
	body, err := c.do(context.WithoutCancel(ctx), http.MethodPost, "apply", url.Values{"mode": {string(plan.Mode)}, "id": {plan.ID()}})
	if err != nil {
		return nil, err
	}
	defer body.Close()
	defer context.AfterFunc(ctx, c.hangUp)()
	result := &reconcile.Result{}
	for line, err := range jsonLines(body) {
		if err != nil {
			return result, err
		}
		o, end, err := decode(line)
		switch {
		case err != nil:
			return result, err
		case o != nil:
			result.Outcomes = append(result.Outcomes, *o)
			report(*o)
			continue
		}
		result.Remaining = end.Remaining
		if end.Error != "" {
			return result, errors.New(end.Error)
		}
		return result, nil
	}
	return result, errLost
}

// decode reads a line of an apply: an outcome or, at the end, a result.
func decode(line []byte) (*reconcile.Outcome, *view.Result, error) {
	var head struct {
		Type string `json:"type"`
	}
	var outcome view.Outcome
	var end view.Result
	err := json.Unmarshal(line, &head)
	switch {
	case err != nil:
	case head.Type == "outcome":
		err = json.Unmarshal(line, &outcome)
	case head.Type == "result":
		err = json.Unmarshal(line, &end)
	default:
		err = fmt.Errorf("a line of type %q", head.Type)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading the daemon's answer: %w", err)
	}
	if head.Type == "result" {
		return nil, &end, nil
	}
	o := reconcile.Outcome{Change: outcome.Change}
	if !outcome.Done {
		o.Err = errors.New(cmp.Or(outcome.Error, "not done"))
	}
	return &o, nil, nil
}

var errLost = errors.New("the daemon went away in the middle of its answer")

// hangUp ends our half of the connection, which the daemon takes as a wish to
// stop, and leaves the other half open for what it still has to say.
func (c *Client) hangUp() {
	if conn := c.conn.Load(); conn != nil {
		_ = conn.CloseWrite() // of a connection that is closed there is nothing to end
	}
}

// Events yields the events after one of that sequence number: those that there
// are, and with follow those that come, until ctx or the daemon ends. A daemon
// that ends says so with an event of type stopping.
func (c *Client) Events(ctx context.Context, after uint64, follow bool) iter.Seq2[view.Event, error] {
	return func(yield func(view.Event, error) bool) {
		query := url.Values{"after": {strconv.FormatUint(after, 10)}, "follow": {strconv.FormatBool(follow)}}
		body, err := c.do(ctx, http.MethodGet, "events", query)
		if err != nil {
			yield(view.Event{}, err)
			return
		}
		defer body.Close()
		for line, err := range jsonLines(body) {
			var e view.Event
			if err == nil {
				err = json.Unmarshal(line, &e)
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// get reads one model.
func (c *Client) get(ctx context.Context, path string, query url.Values, model any) error {
	body, err := c.do(ctx, http.MethodGet, path, query)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := json.NewDecoder(body).Decode(model); err != nil {
		return fmt.Errorf("reading the daemon's answer: %w", err)
	}
	return nil
}

// do sends a request without a body.
func (c *Client) do(ctx context.Context, method, path string, query url.Values) (io.ReadCloser, error) {
	return c.send(ctx, method, path, query, http.NoBody)
}

// send sends a request. What the daemon answers instead of a body is the error.
func (c *Client) send(ctx context.Context, method, path string, query url.Values, content io.Reader) (io.ReadCloser, error) {
	u := url.URL{Scheme: "http", Host: "polder", Path: "/v1/" + path, RawQuery: query.Encode()}
	request, err := http.NewRequestWithContext(ctx, method, u.String(), content)
	if err != nil {
		return nil, fmt.Errorf("asking the daemon: %w", err)
	}
	response, err := c.http.Do(request)
	for _, plain := range []error{ErrNone, ErrForbidden} {
		if errors.Is(err, plain) {
			return nil, plain // the URL around it means nothing to anybody
		}
	}
	if err != nil {
		return nil, fmt.Errorf("asking the daemon: %w", err)
	}
	if response.StatusCode < http.StatusBadRequest {
		return response.Body, nil
	}
	defer response.Body.Close()
	var e Error
	if err := json.NewDecoder(response.Body).Decode(&e); err != nil {
		return nil, fmt.Errorf("the daemon answers %s: %w", response.Status, err)
	}
	switch e.Code {
	case CodePlanChanged:
		return nil, reconcile.ErrPlanChanged
	case CodeStopped:
		return nil, reconcile.ErrStopped
	case CodeSpec:
		return nil, SpecError{e.Message}
	case CodeNotInForce:
		return nil, answered{reconcile.ErrNotInForce, e.Message}
	case CodeNotAttached:
		return nil, answered{reconcile.ErrNotAttached, e.Message}
	}
	return nil, fmt.Errorf("the daemon: %s", e.Message)
}

// answered is an error of the daemon's, in its words.
type answered struct {
	is      error
	message string
}

func (e answered) Error() string { return e.message }

func (e answered) Unwrap() error { return e.is }

// jsonLines yields the lines of a stream. Its end between two of them is no
// error.
func jsonLines(r io.Reader) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		b := bufio.NewReader(r)
		for {
			line, err := b.ReadBytes('\n')
			switch {
			case err == nil:
				if !yield(line, nil) {
					return
				}
			case errors.Is(err, io.EOF) && len(line) == 0:
				return
			default:
				yield(nil, fmt.Errorf("reading the daemon's answer: %w", err))
				return
			}
		}
	}
}
