package kubetest_test

import (
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/poldernet/polder/internal/kubetest"
	"github.com/poldernet/polder/internal/lab"
)

// TestObjects makes what there is in a cluster, and takes it away.
func TestObjects(t *testing.T) {
	a, ctx := kubetest.Start(t), t.Context()
	node := a.Node(t, "n1", []string{"192.0.2.11", "2001:db8::11"}, []string{"10.244.1.0/24", "fd00:10:244:1::/64"})
	if len(node.Spec.PodCIDRs) != 2 || len(node.Status.Addresses) != 2 {
		t.Errorf("%+v", node)
	}
	a.Namespace(t, "shop", map[string]string{"team": "a"})
	web := kubetest.Pod{
		Namespace: "shop", Name: "web", Node: "n1", Labels: map[string]string{"app": "web"},
		Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 80}}, IPs: []string{"10.244.1.2", "fd00:10:244:1::2"},
	}
	pod := a.Pod(t, web)
	if pod.Status.Phase != corev1.PodRunning || len(pod.Status.PodIPs) != 2 || pod.Spec.NodeName != "n1" {
		t.Errorf("%+v", pod)
	}
	a.SetPod(t, pod, corev1.PodSucceeded, "10.244.1.2")
	pod, err := a.Client.CoreV1().Pods("shop").Get(ctx, "web", metav1.GetOptions{})
	if err != nil || pod.Status.Phase != corev1.PodSucceeded || len(pod.Status.PodIPs) != 1 {
		t.Errorf("%+v, %v", pod, err)
	}
	// At once: the name is free.
	a.DeletePod(t, "shop", "web")
	a.Pod(t, web)
	p := a.Policy(t, "shop", "web", `{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: http}]}]}`)
	if got := *p.Spec.Ingress[0].Ports[0].Protocol; got != corev1.ProtocolTCP {
		t.Errorf("protocol %q", got)
	}
	a.DeleteNamespace(t, "shop")
	if ns, err := a.Client.CoreV1().Namespaces().Get(ctx, "shop", metav1.GetOptions{}); !errors.IsNotFound(err) {
		t.Errorf("%+v, %v", ns, err)
	}
}

// TestServiceAccount is a client in a node's namespace that may read pods and
// nothing else.
func TestServiceAccount(t *testing.T) {
	lab.Require(t)
	a, ctx := kubetest.Start(t), t.Context()
	n, at := namespace(t, "n1"), netip.MustParseAddrPort("127.0.0.1:6443")
	f, err := kubetest.Forward(n, at, a.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	token := a.ServiceAccount(t, metav1.NamespaceSystem, "polder", rbacv1.PolicyRule{
		APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"get", "list"},
	})
	config, err := clientcmd.BuildConfigFromFlags("", a.Kubeconfig(t, token, at))
	if err != nil {
		t.Fatal(err)
	}
	config.Dial = within(n)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Pods("").List(ctx, metav1.ListOptions{}); err != nil {
		t.Errorf("listing pods: %v", err)
	}
	if _, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{}); !errors.IsForbidden(err) {
		t.Errorf("listing nodes: %v", err)
	}
	config.BearerToken += "x"
	if client, err = kubernetes.NewForConfig(config); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Pods("").List(ctx, metav1.ListOptions{}); !errors.IsUnauthorized(err) {
		t.Errorf("listing pods with another token: %v", err)
	}
}

// TestRestart starts API server and etcd again. What was stored is there, in its
// old revisions too until they are compacted, and tokens are good.
func TestRestart(t *testing.T) {
	a, ctx := kubetest.Start(t), t.Context()
	pods := a.Client.CoreV1().Pods("default")
	before, err := pods.List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	a.Pod(t, kubetest.Pod{Namespace: "default", Name: "web"})
	restart := func() {
		t.Helper()
		if err := a.Stop(); err != nil {
			t.Fatal(err)
		}
		if err := a.Etcd.Stop(); err != nil {
			t.Fatal(err)
		}
		if _, err := pods.List(ctx, metav1.ListOptions{}); err == nil {
			t.Fatal("the API server answers without its etcd")
		}
		if err := a.Etcd.Start(); err != nil {
			t.Fatal(err)
		}
		if err := a.Start(ctx); err != nil {
			t.Fatal(err)
		}
		if list, err := pods.List(ctx, metav1.ListOptions{}); err != nil || len(list.Items) != 1 {
			t.Fatalf("%v, %v", list, err)
		}
	}
	restart()
	old := metav1.ListOptions{ResourceVersion: before.ResourceVersion, ResourceVersionMatch: metav1.ResourceVersionMatchExact}
	if list, err := pods.List(ctx, old); err != nil || len(list.Items) != 0 {
		t.Errorf("before: %v, %v", list, err)
	}
	if err := a.Etcd.Compact(ctx); err != nil {
		t.Fatal(err)
	}
	restart()
	if list, err := pods.List(ctx, old); !errors.IsResourceExpired(err) {
		t.Errorf("after a compaction: %v, %v", list, err)
	}
}
