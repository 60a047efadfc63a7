package reconcile

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/poldernet/polder/internal/attach"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

// asked is a cluster that tells of nothing by itself, and answers when it is asked.
type asked struct {
	fakeCluster
	find func(attach.Pod) error
}

func (c asked) open(*spec.Kubernetes) Cluster { return c }

func (c asked) Find(_ context.Context, p attach.Pod) error { return c.find(p) }

// TestAttachAsks: a cluster is asked for the pod of a container of which it has not
// told, again and again until it answers; and that there is no such pod is an answer.
func TestAttachAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost(t, nodes(2)+db+followed)
		c := asked{fakeCluster: make(fakeCluster)}
		tries, away := 0, 0
		c.find = func(p attach.Pod) error {
			switch tries++; {
			case tries <= away:
				return errors.New("it is away")
			case p != container(1).Pod:
				return fmt.Errorf("%w: so it says", ErrNoPod)
			}
			e := pod(1, app("db"))
			e.Endpoint.Addresses = nil
			c.fakeCluster <- Update{Events: []policy.Event{e}}
			return nil
		}
		h.run(DaemonOptions{Cluster: c.open})
		defer h.end()
		c.fakeCluster <- Update{Complete: true}
		h.settle()

		attach := func(i int) (time.Duration, error) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			began := time.Now()
			err := h.Attach(ctx, container(i))
			return time.Since(began), err
		}
		if took, err := attach(2); took > 0 || !errors.Is(err, ErrNotInForce) || !errors.Is(err, ErrNoPod) || !strings.Contains(err.Error(), "so it says") {
			t.Errorf("a pod that there is not, after %v: %v", took, err)
		}
		if tries != 1 {
			t.Errorf("it was asked %d times", tries)
		}
		tries, away = 0, 3
		if took, err := attach(1); took > 3*findEvery+roundMost || err != nil {
			t.Errorf("after %v: %v", took, err)
		}
		h.expect("attached", "10.244.1.101 : jump", true)
		elapse(10 * findEvery)
		if tries != 4 {
			t.Errorf("it was asked %d times", tries)
		}
		if took, err := attach(1); took > roundMost || err != nil || tries != 4 {
			t.Errorf("one that is known, after %v and %d questions: %v", took, tries, err)
		}
		tries, away = 0, 100
		if took, err := attach(3); took != 10*time.Second || !errors.Is(err, ErrNotInForce) || errors.Is(err, ErrNoPod) {
			t.Errorf("while it is away, after %v: %v", took, err)
		}
	})
}

// TestAttachWithoutCluster: a container that waits for a cluster to tell of its pod is
// attached when the spec names none any more.
func TestAttachWithoutCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost(t, nodes(2)+db+declaredPod+followed)
		cluster := make(fakeCluster)
		h.run(DaemonOptions{Cluster: cluster.open})
		defer h.end()
		cluster <- Update{Complete: true}
		h.settle()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		answer := make(chan error, 1)
		go func() { answer <- h.Attach(ctx, container(1)) }()
		synctest.Wait()
		began := time.Now()
		h.source.write(parsed(t, nodes(2)+db+declaredPod))
		if err := <-answer; err != nil || time.Since(began) > roundMost {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		h.expect("attached", "10.244.1.101 : jump", true)
		h.inSync()
	})
}
