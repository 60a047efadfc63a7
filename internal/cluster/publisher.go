package cluster

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"net/url"
	"slices"
	"time"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/rest"

	"github.com/poldernet/polder/reconcile"
)

// publisher writes to the node's own Node what there is to say of it. It compares
// that with the Node as it is told of: what somebody deletes or overwrites is
// written again. Its fields are under the source's lock.
type publisher struct {
	own   *corev1.Node // trimmed; nil: it is not known
	state reconcile.NodeState
	wake  chan struct{} // of capacity 1: one of the two is another
	// answered is when the API server last answered what own is.
	answered time.Time
	// since is since when the peers are other than they are said to be; zero: they
	// are not.
	since time.Time
	// delay is how long that has to last.
	delay time.Duration
}

func newPublisher() *publisher { return &publisher{wake: make(chan struct{}, 1)} }

func (p *publisher) ring() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// echo is how long what is told may be older than what was answered when the Node was
// written. It is not for ever: versions begin anew when etcd is restored.
const echo = 10 * time.Second

// set notes what the own Node is; nil: it is not there.
func (p *publisher) set(n *corev1.Node) {
	if n != nil && p.own != nil && n.UID == p.own.UID && time.Since(p.answered) < echo {
		if order, err := resourceversion.CompareResourceVersion(n.ResourceVersion, p.own.ResourceVersion); err == nil && order < 0 {
			return
		}
	}
	p.own = n
	p.ring()
}

// How long the peers must be other than they are said to be, in a cluster of so
// many nodes, before it is told: from once to twice as long. A node that joins is
// among those that are not reached for a moment, and if all others wrote that to
// their Nodes, which all of them watch, it would be as the square of the nodes.
func peersDelay(nodes int) time.Duration {
	return 5*time.Second + time.Duration(nodes)*50*time.Millisecond
}

// due is what is to be written now, and after how long to look again; 0: when
// something changes.
func (p *publisher) due(nodes int, now time.Time) (publication, time.Duration) {
	if p.own == nil {
		return publication{}, 0
	}
	all := publicationOf(p.own, p.state, metav1.NewTime(now))
	if !all.has(peers) || p.state.Gone { // somebody has destroyed the paths: they do not flap
		p.since = time.Time{}
		return all, 0
	}
	if p.since.IsZero() {
		p.since, p.delay = now, peersDelay(nodes)
		p.delay += rand.N(p.delay)
	}
	if left := p.since.Add(p.delay).Sub(now); left > 0 {
		return all.without(peers), left
	}
	return all, 0
}

// How often what is published is written at most, and how long is waited after a
// failure, twice as long after each.
const (
	publishEvery = time.Second
	publishBurst = 5
	retryFirst   = time.Second
	retryMost    = time.Minute
)

// publish writes until ctx ends.
func (s *Source) publish(ctx context.Context, core *rest.RESTClient) {
	limiter, retry := rate.NewLimiter(rate.Every(publishEvery), publishBurst), retryFirst
	for ctx.Err() == nil {
		s.mu.Lock()
		change, again := s.publisher.due(len(s.nodes), time.Now())
		s.mu.Unlock()
		if change.empty() {
			wait(ctx, s.publisher.wake, again)
			continue
		}
		if limiter.Wait(ctx) != nil {
			return
		}
		node, err := s.write(ctx, core, change)
		if err != nil {
			s.published(ctx, err)
			wait(ctx, nil, retry)
			retry = min(2*retry, retryMost)
			continue
		}
		retry = retryFirst
		s.published(ctx, nil)
		s.mu.Lock()
		if s.publisher.own != nil && s.publisher.own.UID == node.UID {
			s.publisher.set(trimNode(node))
			s.publisher.answered = time.Now()
		}
		s.mu.Unlock()
		for _, c := range change.conditions {
			if c.Type == podCIDRs && c.Status == corev1.ConditionFalse {
				s.notices.put(nodeEvent(node, c.Reason, c.Message, metav1.Now()))
			}
		}
	}
}

// wait waits for one of several things; 0: for no time.
func wait(ctx context.Context, wake <-chan struct{}, d time.Duration) {
	var late <-chan time.Time
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-ctx.Done():
	case <-wake:
	case <-late:
	}
}

// writeTimeout is for an API server that takes a request and says nothing.
const writeTimeout = 20 * time.Second

// write changes the own Node, by its status: through that, annotations are changed
// as well.
func (s *Source) write(ctx context.Context, core *rest.RESTClient, p publication) (*corev1.Node, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	text, err := p.patch()
	if err != nil {
		return nil, err
	}
	node := &corev1.Node{}
	return node, core.Patch(types.StrategicMergePatchType).Resource("nodes").Name(s.node).SubResource("status").Body(text).Do(ctx).Into(node)
}

// published tells whether what the node says of itself is taken.
func (s *Source) published(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	if asked := new(url.Error); errors.As(err, &asked) {
		err = asked.Err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	why := ""
	if err != nil {
		why = err.Error()
	}
	if s.tell != nil && why != s.refused {
		s.refused = why
		s.tell(reconcile.Update{Saying: &reconcile.Saying{Err: err}})
	}
}

// Publish is reconcile.Cluster's.
func (s *Source) Publish(state reconcile.NodeState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(state.Refused)) {
		why := state.Refused[name]
		if np := s.policies[name]; np != nil && why != s.publisher.state.Refused[name] { // else it is a file's, or was told
			s.notices.put(refusalEvent(np, s.node, why, metav1.Now()))
		}
	}
	s.publisher.state = state
	s.publisher.ring()
}
