package cluster

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/poldernet/polder/internal/kubetest"
	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
)

// The sandbox ends with the tests, and the API server with the sandbox.
func TestMain(m *testing.M) { lab.Main(m) }

// listener hears what a source tells.
type listener chan reconcile.Update

func listen(t *testing.T, s *Source) listener {
	t.Helper()
	l := make(listener, 1000)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Watch(ctx, func(u reconcile.Update) { l <- u })
	}()
	t.Cleanup(func() { stop(); <-done })
	return l
}

// until waits for an update and returns it, with all events up to then.
func (l listener) until(t *testing.T, what string, is func(reconcile.Update) bool) (found reconcile.Update, events []policy.Event) {
	t.Helper()
	late := time.After(kubetest.Patience)
	for {
		select {
		case u := <-l:
			if events = append(events, u.Events...); is(u) {
				return u, events
			}
		case <-late:
			t.Fatalf("not heard: %s", what)
		}
	}
}

func anEvent(is func(policy.Event) bool) func(reconcile.Update) bool {
	return func(u reconcile.Update) bool { return slices.ContainsFunc(u.Events, is) }
}

// TestSource hears of what is in an API server, of what becomes of it, and of a
// policy that nobody understands: that one lets nothing through, and an Event says
// so, however many nodes find it.
func TestSource(t *testing.T) {
	lab.Require(t)
	api := kubetest.Start(t)
	api.Node(t, "n1", []string{"192.0.2.11"}, []string{"10.244.1.0/24"})
	api.Namespace(t, "shop", map[string]string{"team": "a"})
	web := kubetest.Pod{Namespace: "shop", Name: "web", Node: "n1", Labels: map[string]string{"app": "web"}, IPs: []string{"10.244.1.5"}}
	api.Pod(t, web)
	api.Policy(t, "shop", "deny", `{podSelector: {}}`)
	config := api.ServiceAccount(t, "shop", "polder",
		rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"nodes", "namespaces", "pods"}, Verbs: []string{"list", "watch"}},
		rbacv1.PolicyRule{APIGroups: []string{networkingv1.GroupName}, Resources: []string{"networkpolicies"}, Verbs: []string{"list", "watch"}},
		rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"events"}, Verbs: []string{"create"}})
	var all []listener
	source := New("n1", func() (*rest.Config, error) { return config, nil })
	for _, s := range []*Source{source, New("n1", func() (*rest.Config, error) { return config, nil })} {
		l := listen(t, s)
		all = append(all, l)
		complete, events := l.until(t, "everything", func(u reconcile.Update) bool { return u.Complete })
		if n1 := complete.Nodes["n1"]; len(complete.Nodes) != 1 || n1 == nil || n1.Addresses.IPv4 != netip.MustParseAddr("192.0.2.11") {
			t.Errorf("nodes: %+v", complete.Nodes)
		}
		v := policy.NewInventory()
		for _, e := range events {
			v.Apply(e)
		}
		sp := v.Beside(&spec.Spec{})
		if len(sp.Endpoints) != 1 || sp.Endpoints[0].Name != "shop/web" || len(sp.Policies) != 1 || sp.Policies[0].Name != "shop/deny" ||
			!slices.ContainsFunc(sp.Namespaces, func(ns *spec.Namespace) bool { return ns.Name == "shop" && ns.Labels["team"] == "a" }) {
			t.Errorf("heard of %+v", sp)
		}
	}

	api.DeletePod(t, "shop", "web")
	all[0].until(t, "the end of a pod", anEvent(func(e policy.Event) bool { return e.Endpoint != nil && e.Gone }))

	// As somebody stored it who asked no API server.
	const stored = `{"kind": "NetworkPolicy", "apiVersion": "networking.k8s.io/v1", "metadata": {"name": "odd", "namespace": "shop", "uid": "1"},
		"spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/33"}}]}]}}`
	if err := api.Etcd.Put(t.Context(), "/registry/networkpolicies/shop/odd", stored); err != nil {
		t.Fatal(err)
	}
	for _, l := range all {
		_, events := l.until(t, "the policy", anEvent(func(e policy.Event) bool { return e.Policy != nil && e.Policy.Name == "shop/odd" }))
		if p := events[len(events)-1].Policy; !slices.Equal(p.Types, []spec.Direction{spec.Ingress}) {
			t.Errorf("it is %+v", p)
		}
	}
	var list *corev1.EventList
	for began := time.Now(); list == nil || len(list.Items) == 0; {
		if time.Since(began) > kubetest.Patience {
			t.Fatal("there is no Event")
		}
		var err error
		if list, err = api.Client.CoreV1().Events("shop").List(t.Context(), metav1.ListOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if e := list.Items[0]; len(list.Items) != 1 || e.InvolvedObject.Kind != "NetworkPolicy" || e.InvolvedObject.Name != "odd" || !strings.Contains(e.Message, "spec.ingress[0].from[0].ipBlock.cidr") {
		t.Errorf("%+v", list.Items)
	}

	if err := api.Stop(); err != nil {
		t.Fatal(err)
	}
	all[0].until(t, "that it is away", func(u reconcile.Update) bool { return u.Hearing != nil && u.Hearing.Err != nil })
	if err := api.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	all[0].until(t, "that it is back", func(u reconcile.Update) bool { return u.Hearing != nil && u.Hearing.Err == nil })
}
