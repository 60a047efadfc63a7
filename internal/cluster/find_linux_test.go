package cluster

import (
	"errors"
	"strings"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/poldernet/polder/internal/attach"
	"github.com/poldernet/polder/internal/kubetest"
	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/reconcile"
)

// TestFind: while nothing that is watched is heard, and the API server answers, a pod
// that is asked for is told of at once, by its UID, and what becomes of it soon after.
func TestFind(t *testing.T) {
	lab.Require(t)
	api := kubetest.Start(t)
	api.Node(t, "n1", []string{"192.0.2.11"}, []string{"10.244.1.0/24"})
	api.Namespace(t, "shop", nil)
	first := kubetest.Pod{Namespace: "shop", Name: "web", Node: "n1", Labels: map[string]string{"app": "old"}}
	api.Pod(t, first)
	config := api.ServiceAccount(t, "shop", "polder",
		rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"nodes", "namespaces", "pods"}, Verbs: []string{"list", "watch"}},
		rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"get"}},
		rbacv1.PolicyRule{APIGroups: []string{networkingv1.GroupName}, Resources: []string{"networkpolicies"}, Verbs: []string{"list", "watch"}})
	cut := &kubetest.Cut{}
	config.Wrap(cut.Wrap)
	source := New("n1", func() (*rest.Config, error) { return config, nil })
	l := listen(t, source)
	l.until(t, "everything", func(u reconcile.Update) bool { return u.Complete })
	cut.Make()
	l.until(t, "that it is deaf", func(u reconcile.Update) bool { return u.Hearing != nil && u.Hearing.Err != nil })

	// Another pod of the name of one that is known.
	api.DeletePod(t, "shop", "web")
	second := first
	second.Labels = map[string]string{"app": "new"}
	uid := string(api.Pod(t, second).UID)
	for want, p := range map[string]attach.Pod{
		"the API server has no pod shop/db": {Namespace: "shop", Name: "db"},
		"pod shop/web has the UID " + uid:   {Namespace: "shop", Name: "web", UID: "other"},
		"does not say which pod":            {},
	} {
		if err := source.Find(t.Context(), p); !errors.Is(err, reconcile.ErrNoPod) || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", p, err, want)
		}
	}
	api.Namespace(t, "unheard", nil)
	api.Pod(t, kubetest.Pod{Namespace: "unheard", Name: "web", Node: "n1"})
	if err := source.Find(t.Context(), attach.Pod{Namespace: "unheard", Name: "web"}); err == nil || errors.Is(err, reconcile.ErrNoPod) {
		t.Errorf("in a namespace of which nothing is heard: %v", err)
	}
	began := time.Now()
	if err := source.Find(t.Context(), attach.Pod{Namespace: "shop", Name: "web", UID: uid}); err != nil {
		t.Fatal(err)
	}
	of := func(label string) func(reconcile.Update) bool {
		return anEvent(func(e policy.Event) bool {
			return e.Endpoint != nil && !e.Gone && e.UID == uid && e.Endpoint.Labels["app"] == label
		})
	}
	l.until(t, "the pod", of("new"))
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %v", took)
	}
	if _, err := api.Client.CoreV1().Pods("shop").Patch(t.Context(), "web", types.MergePatchType, []byte(`{"metadata":{"labels":{"app":"newer"}}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	l.until(t, "its other labels", of("newer"))
	api.DeletePod(t, "shop", "web")
	l.until(t, "its end", anEvent(func(e policy.Event) bool { return e.Endpoint != nil && e.Gone }))
}
