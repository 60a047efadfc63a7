package control

import (
	"context"
	"net/http"
	"net/url"

	"github.com/poldernet/polder/cmd/polder/internal/view"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

// Question is one about a connection, as `explain` is asked it.
type Question struct {
	From, To, Service          string
	FromInterface, ToInterface string // "": any
}

// Names of the parts of a question.
const (
	paramFrom          = "from"
	paramTo            = "to"
	paramService       = "service"
	paramFromInterface = "from-interface"
	paramToInterface   = "to-interface"
)

// Explain has the daemon answer by all that it knows, what a cluster told included.
func (c *Client) Explain(ctx context.Context, q Question) (e view.Explanation, err error) {
	err = c.get(ctx, "explain", url.Values{
		paramFrom: {q.From}, paramTo: {q.To}, paramService: {q.Service},
		paramFromInterface: {q.FromInterface}, paramToInterface: {q.ToInterface},
	}, &e)
	return e, err
}

// explain judges by a model of its own, so that the daemon goes on meanwhile: that
// of a large cluster takes a while.
func (s *Server) explain(w http.ResponseWriter, r *http.Request) {
	sp, config, err := s.daemon.Known(r.Context())
	if err != nil {
		s.failed(w, err)
		return
	}
	m, _ := policy.New(sp) // what is wrong with it was said when it was loaded
	query := r.URL.Query()
	e, err := Explain(m, config, Question{
		From: query.Get(paramFrom), To: query.Get(paramTo), Service: query.Get(paramService),
		FromInterface: query.Get(paramFromInterface), ToInterface: query.Get(paramToInterface),
	})
	if err != nil {
		fail(w, http.StatusBadRequest, "", err)
		return
	}
	answer(w, e)
}

// Explain answers by a model. The config has the source lines.
func Explain(m *policy.Model, config *spec.Config, q Question) (e view.Explanation, err error) {
	question, err := m.Ask(q.From, q.To, q.Service)
	if err != nil {
		return e, err
	}
	question.FromInterface, question.ToInterface = q.FromInterface, q.ToInterface
	decisions, err := m.Answer(question)
	if err != nil {
		return e, err
	}
	return view.NewExplanation(config, question, decisions), nil
}
