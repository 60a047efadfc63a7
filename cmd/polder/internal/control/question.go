package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/poldernet/polder/cmd/polder/internal/view"
	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

// Question is one about policies, with a model as its answer. A command answers it by
// the files, and a daemon by all that it knows, what a cluster told included.
type Question[A any] interface {
	// Answer answers by what is known.
	Answer(Known) (A, error)
	path() string
}

// Known is by what a question is answered.
type Known struct {
	Spec   *spec.Spec
	Config *spec.Config // has the source lines
	Model  *policy.Model
}

// Ask has the daemon answer.
func Ask[A any](ctx context.Context, c *Client, q Question[A]) (answer A, err error) {
	err = c.post(ctx, q.path(), q, &answer)
	return answer, err
}

// answers serves questions of one type. Each is judged by a model of its own, so that
// the daemon goes on meanwhile: that of a large cluster takes a while.
func answers[Q Question[A], A any](s *Server, mux *http.ServeMux) {
	var of Q
	mux.HandleFunc("POST /v1/"+of.path(), func(w http.ResponseWriter, r *http.Request) {
		q, ok := body[Q](w, r)
		if !ok {
			return
		}
		sp, config, err := s.daemon.Known(r.Context())
		if err != nil {
			s.failed(w, err)
			return
		}
		m, _ := policy.New(sp) // what is wrong with it was said when it was loaded
		a, err := q.Answer(Known{sp, config, m})
		if err != nil {
			fail(w, http.StatusBadRequest, "", err)
			return
		}
		answer(w, a)
	})
}

// Explain asks about a connection.
type Explain struct {
	From          string `json:"from"`
	To            string `json:"to"`
	Service       string `json:"service"`
	FromInterface string `json:"from_interface,omitempty"` // "": any
	ToInterface   string `json:"to_interface,omitempty"`
}

func (Explain) path() string { return "explain" }

// Answer is Question's.
func (q Explain) Answer(k Known) (e view.Explanation, err error) {
	question, err := k.Model.Ask(q.From, q.To, q.Service)
	if err != nil {
		return e, err
	}
	question.FromInterface, question.ToInterface = q.FromInterface, q.ToInterface
	decisions, err := k.Model.Answer(question)
	if err != nil {
		return e, err
	}
	return view.NewExplanation(k.Config, question, decisions), nil
}

// Policies asks what policies there are, and what they select.
type Policies struct {
	Names []string `json:"names,omitempty"` // none: all
	Node  string   `json:"node,omitempty"`  // on which is what they select; "": on any
	// Counted is what the kernel has counted, by the counters' names; nil: it was not
	// asked.
	Counted map[string]nft.CounterValue `json:"counted"`
}

func (Policies) path() string { return "policies" }

// Answer is Question's.
func (q Policies) Answer(k Known) (shown view.Policies, err error) {
	tiers := k.Model.Tiers()
	for _, name := range q.Names {
		if !slices.ContainsFunc(tiers, func(t policy.Tier) bool {
			return slices.ContainsFunc(t.Policies, func(p policy.Selected) bool { return p.Name == name })
		}) {
			return shown, fmt.Errorf("the spec has no policy named %q", name)
		}
	}
	if q.Node != "" {
		if k.Spec.Node(q.Node) == nil {
			return shown, fmt.Errorf("the spec has no node %q", q.Node)
		}
		for _, t := range tiers {
			for i := range t.Policies {
				t.Policies[i] = t.Policies[i].On(q.Node)
			}
		}
	}
	shown = view.NewPolicies(tiers, q.Names...)
	shown.Node = q.Node
	if q.Counted != nil {
		shown.Count(tiers, q.Counted)
		if len(q.Names) == 0 {
			shown.CountDropped(q.Counted)
		}
	}
	return shown, nil
}

// Matrix asks who reaches whom.
type Matrix struct{}

func (Matrix) path() string { return "matrix" }

// Answer is Question's.
func (Matrix) Answer(k Known) (x view.Matrix, err error) {
	if tooLarge(k.Spec) {
		return x, errors.New("there is too much for a matrix; polder explain answers for one connection")
	}
	return view.NewMatrix(k.Model.Matrix()), nil
}

// mostMatrix bounds the work of a matrix: nobody can read a larger one, and a daemon
// would be busy with it for long.
const mostMatrix = 20_000_000

// tooLarge says that a matrix would be: each endpoint is held to each peer of each rule.
func tooLarge(sp *spec.Spec) bool {
	peers := 1
	for _, p := range sp.Policies {
		for _, d := range spec.Directions {
			for _, r := range p.Rules(d) {
				peers += len(r.Peers)
			}
		}
	}
	return len(sp.Endpoints)*peers > mostMatrix
}
