package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"

	"github.com/poldernet/polder/internal/attach"
	"github.com/poldernet/polder/reconcile"
)

// Find is reconcile.Cluster's. What is watched may be behind: after an outage client-go
// waits for up to a minute before it asks again.
func (s *Source) Find(ctx context.Context, p attach.Pod) error {
	if p.Namespace == "" || p.Name == "" {
		return fmt.Errorf("%w: the runtime does not say which pod it is", reconcile.ErrNoPod)
	}
	s.mu.Lock()
	core := s.core
	s.mu.Unlock()
	if core == nil {
		return errors.New("there are no credentials yet")
	}
	pod, err := s.get(ctx, core, p.Namespace, p.Name)
	name := endpointName(p.Namespace, p.Name)
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Errorf("%w: the API server has no pod %s", reconcile.ErrNoPod, name)
	case err != nil:
		return fmt.Errorf("asking the API server for pod %s: %w", name, err)
	case p.UID != "" && p.UID != string(pod.UID):
		return fmt.Errorf("%w: pod %s has the UID %s in the API server, and %s here", reconcile.ErrNoPod, name, pod.UID, p.UID)
	case pod.endpoint == nil:
		return fmt.Errorf("%w: pod %s has ended, or is in the network of its node", reconcile.ErrNoPod, name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.spaces[p.Namespace] {
		// Nor has anybody heard of the policies in it.
		return fmt.Errorf("nothing is heard of the namespace %s of pod %s yet", p.Namespace, name)
	}
	s.say(s.roster.answer(pod)...)
	return nil
}

// get asks for one pod, as it is and not as a cache has it.
func (s *Source) get(ctx context.Context, core *rest.RESTClient, namespace, name string) (*keptPod, error) {
	pod := &corev1.Pod{}
	if err := core.Get().Namespace(namespace).Resource("pods").Name(name).Do(ctx).Into(pod); err != nil {
		return nil, err
	}
	return s.commons.keepPod(pod), nil
}

// askEvery is how often a pod that was asked for is asked for again, until what is
// watched has come as far: it may end meanwhile, and then nothing tells of that.
const askEvery = 5 * time.Second

// askAgain asks for them until ctx ends.
func (s *Source) askAgain(ctx context.Context, core *rest.RESTClient) {
	every := time.NewTicker(askEvery)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
		s.mu.Lock()
		asked := maps.Clone(s.roster.asked)
		s.mu.Unlock()
		for name, version := range asked {
			namespace, of, _ := strings.Cut(name, "/")
			within, cancel := context.WithTimeout(ctx, askEvery)
			pod, err := s.get(within, core, namespace, of)
			cancel()
			s.mu.Lock()
			if s.roster.asked[name] == version {
				switch {
				case apierrors.IsNotFound(err):
					s.say(s.roster.drop(name)...)
				case err == nil:
					s.say(s.roster.answer(pod)...)
				}
			}
			s.mu.Unlock()
		}
	}
}
