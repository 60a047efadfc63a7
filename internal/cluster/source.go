package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/policy/kube"
	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
)

// Source is an API server, with what is known of it.
type Source struct {
	config  func() (*rest.Config, error)
	node    string // the name of the own one
	commons commons

	mu       sync.Mutex
	tell     func(reconcile.Update) // nil: nobody watches
	roster   *roster
	nodes    map[string]spec.Candidate
	spaces   map[string]bool        // the namespaces, by their names
	policies map[string]*keptPolicy // by NAMESPACE/NAME
	complete bool
	deaf     map[string]error // why a resource is not heard of
	said     string           // of that, last
	notices  *notices
	core     *rest.RESTClient // nil: there are no credentials yet

	publisher *publisher
	refused   string // why what the own node says is not taken, as it was told
}

// New is the API server to which credentials lead; they are asked for when it is
// watched, and until there are some. It is watched by the node of that name.
func New(node string, config func() (*rest.Config, error)) *Source {
	return &Source{config: config, node: node, roster: newRoster(), publisher: newPublisher()}
}

// say tells events. The caller has the lock, so that they are told in order.
func (s *Source) say(events ...policy.Event) {
	if len(events) > 0 && s.tell != nil {
		s.tell(reconcile.Update{Events: events})
	}
}

// retryCredentials is how long to wait for a kubeconfig that is not there, or not
// right.
const retryCredentials = 5 * time.Second

// Watch tells of the cluster until ctx ends. It is reconcile.Cluster's.
func (s *Source) Watch(ctx context.Context, tell func(reconcile.Update)) {
	s.mu.Lock()
	s.roster = newRoster()
	s.spaces, s.policies = map[string]bool{}, map[string]*keptPolicy{}
	s.nodes, s.complete, s.deaf, s.said, s.tell = map[string]spec.Candidate{}, false, map[string]error{}, "", tell
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.tell = nil
	}()
	for {
		clients, err := s.connect()
		s.heard("credentials", err)
		if err == nil {
			s.watch(ctx, clients)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(retryCredentials):
		}
	}
}

// clients ask for objects of the two groups that are of use here.
type clients struct{ core, networking *rest.RESTClient }

func (s *Source) connect() (c clients, err error) {
	config, err := s.config()
	if err != nil {
		return c, err
	}
	config = rest.CopyConfig(config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return ear{s, next} })
	if c.core, err = client(config, corev1.SchemeGroupVersion); err != nil {
		return c, err
	}
	c.networking, err = client(config, networkingv1.SchemeGroupVersion)
	return c, err
}

// watch runs the informers.
func (s *Source) watch(ctx context.Context, c clients) {
	var parts sync.WaitGroup
	defer parts.Wait()
	s.notices = newNotices(c.core)
	parts.Go(func() { s.notices.run(ctx) })
	parts.Go(func() { s.publish(ctx, c.core) })
	parts.Go(func() { s.askAgain(ctx, c.core) })
	s.mu.Lock()
	s.core = c.core
	s.mu.Unlock()
	var synced []cache.DoneChecker
	for _, r := range []struct {
		name    string
		client  *rest.RESTClient
		example runtime.Object
		set     func(any)
		remove  func(metav1.Object)
	}{
		{"nodes", c.core, &corev1.Node{}, s.setNode, s.removeNode},
		{"namespaces", c.core, &corev1.Namespace{}, s.setNamespace, s.removeNamespace},
		{"pods", c.core, &corev1.Pod{}, s.setPod, s.removePod},
		{"networkpolicies", c.networking, &networkingv1.NetworkPolicy{}, s.setPolicy, s.removePolicy},
	} {
		informer := cache.NewSharedIndexInformerWithOptions(s.listWatch(r.name, r.client), r.example, cache.SharedIndexInformerOptions{})
		handler := handler{&s.mu, r.set, r.remove}
		registration, err := informer.AddEventHandler(handler)
		err = errors.Join(err, informer.SetTransform(s.trim),
			informer.SetWatchErrorHandlerWithContext(func(context.Context, *cache.Reflector, error) {})) // listWatch has told
		if err != nil {
			s.heard(r.name, err)
			continue // it is never complete
		}
		synced = append(synced, registration.HasSyncedChecker())
		parts.Go(func() { informer.RunWithContext(ctx) })
	}
	if len(synced) < 4 || !cache.WaitFor(ctx, "", synced...) {
		<-ctx.Done()
		return
	}
	s.mu.Lock()
	s.complete = true
	all := make(map[string]*spec.Candidate, len(s.nodes))
	for name, c := range s.nodes {
		all[name] = &c
	}
	s.tell(reconcile.Update{Nodes: all, Complete: true})
	s.mu.Unlock()
}

// listWatch asks for a resource, and notes what the API server has against it. That it
// answers is seen where the answers come in: see ear.
func (s *Source) listWatch(resource string, c *rest.RESTClient) cache.ListerWatcher {
	ask := cache.NewListWatchFromClient(c, resource, metav1.NamespaceAll, fields.Everything())
	list, watchIt := ask.ListWithContextFunc, ask.WatchFuncWithContext
	ask.ListWithContextFunc = func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
		objects, err := list(ctx, o)
		s.refusedTo(ctx, resource, err)
		return objects, err
	}
	ask.WatchFuncWithContext = func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
		w, err := watchIt(ctx, o)
		s.refusedTo(ctx, resource, err)
		return w, err
	}
	return cache.ToListWatcherWithWatchListSemantics(ask, c)
}

// refusedTo notes why the API server does not tell of a resource. That a version is too
// old, or that it does not stream lists, leads to another question and is no trouble.
func (s *Source) refusedTo(ctx context.Context, resource string, err error) {
	if err != nil && ctx.Err() == nil && !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) && !apierrors.IsInvalid(err) {
		s.heard(resource, err)
	}
}

// heard notes that something is heard of, or why not, and tells of it.
func (s *Source) heard(what string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if asked := new(url.Error); errors.As(err, &asked) {
		err = asked.Err // without what was asked for, which is something else each time
	}
	delete(s.deaf, what)
	if err != nil {
		s.deaf[what] = err
	}
	var first error
	why := ""
	if all := slices.Sorted(maps.Keys(s.deaf)); len(all) > 0 {
		why = s.deaf[all[0]].Error() // the others mostly say the same
		first = fmt.Errorf("%s: %s", all[0], why)
	}
	if why != s.said {
		s.said = why
		s.tell(reconcile.Update{Hearing: &reconcile.Hearing{Err: first}})
	}
}

// handler calls one of two functions for an object, with the lock.
type handler struct {
	mu     *sync.Mutex
	set    func(any)
	remove func(metav1.Object)
}

func (h handler) OnAdd(object any, _ bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.set(object)
}

func (h handler) OnUpdate(_, object any) { h.OnAdd(object, false) }

func (h handler) OnDelete(object any) {
	if unknown, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = unknown.Obj // as it was known
	}
	o, ok := object.(metav1.Object)
	if !ok {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.remove(o)
}

func (s *Source) setNode(object any) {
	n := object.(*keptNode)
	if n.own != nil {
		s.publisher.set(n.own)
	}
	c := n.candidate
	if old, there := s.nodes[c.Name]; !there || old != c {
		s.nodes[c.Name] = c
		s.sayNode(c.Name, &c)
	}
}

func (s *Source) removeNode(n metav1.Object) {
	name := n.GetName()
	if name == s.node {
		s.publisher.set(nil)
	}
	delete(s.nodes, name)
	s.sayNode(name, nil)
}

// sayNode tells what has become of a node, once all are known.
func (s *Source) sayNode(name string, c *spec.Candidate) {
	if s.complete {
		s.tell(reconcile.Update{Nodes: map[string]*spec.Candidate{name: c}})
	}
}

func (s *Source) setNamespace(object any) {
	ns := namespaceOf(object.(*corev1.Namespace))
	s.spaces[ns.Name] = true
	s.say(policy.Event{Namespace: ns})
}

func (s *Source) removeNamespace(ns metav1.Object) {
	delete(s.spaces, ns.GetName())
	s.say(policy.Event{Namespace: &spec.Namespace{Name: ns.GetName()}, Gone: true})
}

func (s *Source) setPod(object any) { s.say(s.roster.set(object.(*keptPod))...) }

func (s *Source) removePod(pod metav1.Object) { s.say(s.roster.remove(pod)...) }

func (s *Source) setPolicy(object any) {
	np := object.(*keptPolicy)
	s.policies[np.policy.Name] = np
	s.notices.put(policyEvent(np, metav1.Now()))
	s.say(policy.Event{Policy: np.policy})
}

func (s *Source) removePolicy(o metav1.Object) {
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: o.GetNamespace(), Name: o.GetName()}}
	p, _ := kube.Convert(np)
	delete(s.policies, p.Name)
	s.say(policy.Event{Policy: p, Gone: true})
}
