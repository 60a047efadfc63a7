package cluster

import (
	"fmt"
	"maps"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/poldernet/polder/internal/kubetest"
	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/reconcile"
)

// TestRefusedPolicies: a policy that nodes' kernels refuse has an Event of each node,
// that is written once for as long as it lasts, and counted when it happens again. A
// policy that the API server does not have is a file's, and has none. It is written with
// the rights of the manifests.
func TestRefusedPolicies(t *testing.T) {
	lab.Require(t)
	api := kubetest.Start(t)
	api.Namespace(t, "shop", nil)
	api.Namespace(t, "polder", nil)
	const selectsAll = `{podSelector: {}}`
	first, web := api.Policy(t, "shop", "db", selectsAll), api.Policy(t, "shop", "web", selectsAll)
	config := api.ServiceAccount(t, "polder", "polder", kubetest.Rules(t, "../../deploy/kubernetes/base/rbac.yaml")...)
	nodes := map[string]*Source{}
	heard := map[string]listener{}
	for _, name := range []string{"n1", "n2"} {
		nodes[name] = New(name, func() (*rest.Config, error) { return config, nil })
		heard[name] = listen(t, nodes[name])
		heard[name].until(t, "everything", func(u reconcile.Update) bool { return u.Complete })
	}
	// are waits until the Events of policies are these: how often each was counted, by
	// the policy's UID and what is said.
	are := func(want map[string]int32) {
		t.Helper()
		for began := time.Now(); ; {
			list, err := api.Client.CoreV1().Events("shop").List(t.Context(), metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]int32{}
			for _, e := range list.Items {
				about := e.InvolvedObject
				if e.Type != "Warning" || e.Reason != "NotProgrammed" || e.Source.Component != "polder" || about.Kind != "NetworkPolicy" ||
					about.APIVersion != networkingv1.SchemeGroupVersion.String() || about.Namespace != "shop" {
					t.Fatalf("%+v", e)
				}
				got[fmt.Sprint(about.UID, ": ", e.Message)] += e.Count
			}
			if maps.Equal(got, want) {
				return
			}
			if time.Since(began) > kubetest.Patience {
				t.Fatalf("there are the Events %v, and not %v", got, want)
			}
		}
	}
	said := func(p *networkingv1.NetworkPolicy, node, why string) string {
		return fmt.Sprintf("%s: On node %s %s", p.UID, node, why)
	}
	refused := func(why string) reconcile.NodeState {
		return reconcile.NodeState{Refused: map[string]string{"shop/db": why, "shop/of-a-file": why}}
	}
	const why, another = "the kernel refuses it: one thing", "the kernel refuses it: another"

	nodes["n1"].Publish(refused(why))
	are(map[string]int32{said(first, "n1", why): 1})
	nodes["n2"].Publish(refused(why))
	all := map[string]int32{said(first, "n1", why): 1, said(first, "n2", why): 1}
	are(all)
	// More is said, and that is as it was; what is written after it is in order.
	longer := refused(why)
	longer.Strays = []string{"shop/web"}
	nodes["n1"].Publish(longer)
	nodes["n1"].Publish(refused(another))
	all[said(first, "n1", another)] = 1
	are(all)
	nodes["n1"].Publish(reconcile.NodeState{})
	nodes["n1"].Publish(refused(another))
	all[said(first, "n1", another)] = 2
	are(all)

	// Another policy of its name; and none.
	remove := func() {
		t.Helper()
		nodes["n1"].Publish(reconcile.NodeState{})
		if err := api.Client.NetworkingV1().NetworkPolicies("shop").Delete(t.Context(), "db", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		heard["n1"].until(t, "that it is gone", anEvent(func(e policy.Event) bool { return e.Policy != nil && e.Policy.Name == "shop/db" && e.Gone }))
	}
	remove()
	second := api.Policy(t, "shop", "db", selectsAll)
	heard["n1"].until(t, "another", anEvent(func(e policy.Event) bool { return e.Policy != nil && e.Policy.Name == "shop/db" }))
	nodes["n1"].Publish(refused(why))
	all[said(second, "n1", why)] = 1
	are(all)
	remove()
	nodes["n1"].Publish(reconcile.NodeState{Refused: map[string]string{"shop/db": another, "shop/web": why}})
	all[said(web, "n1", why)] = 1
	are(all)
}
