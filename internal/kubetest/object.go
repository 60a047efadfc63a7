package kubetest

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubeyaml "sigs.k8s.io/yaml"
)

// create is a client's method Create, for a test that has no use for its
// failure.
func create[T any](t testing.TB, method func(context.Context, T, metav1.CreateOptions) (T, error), object T) T {
	t.Helper()
	made, err := method(t.Context(), object, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// Node makes a node with its addresses and the subnets of its pods, of either or
// both families.
func (a *API) Node(t testing.TB, name string, addresses, subnets []string) *corev1.Node {
	t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{PodCIDRs: subnets}}
	if len(subnets) > 0 {
		node.Spec.PodCIDR = subnets[0]
	}
	create(t, a.Client.CoreV1().Nodes().Create, node)
	return a.SetNode(t, name, addresses...)
}

// SetNode sets a node's addresses, whatever its daemon writes to it meanwhile.
func (a *API) SetNode(t testing.TB, name string, addresses ...string) *corev1.Node {
	t.Helper()
	list := []corev1.NodeAddress{}
	for _, address := range addresses {
		list = append(list, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: address})
	}
	text, err := json.Marshal(map[string]any{"status": map[string]any{"addresses": list}})
	if err != nil {
		t.Fatal(err)
	}
	node, err := a.Client.CoreV1().Nodes().Patch(t.Context(), name, types.MergePatchType, text, metav1.PatchOptions{}, "status")
	if err != nil {
		t.Fatal(err)
	}
	return node
}

// Namespace makes a namespace.
func (a *API) Namespace(t testing.TB, name string, labels map[string]string) *corev1.Namespace {
	t.Helper()
	return create(t, a.Client.CoreV1().Namespaces().Create, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}})
}

// Pod is what a test says of a pod.
type Pod struct {
	Namespace, Name, Node string
	Labels                map[string]string
	Ports                 []corev1.ContainerPort
	HostNetwork           bool
	IPs                   []string
	Phase                 corev1.PodPhase // the zero value: running
}

// Pod makes a pod and gives it the status that its kubelet would.
func (a *API) Pod(t testing.TB, p Pod) *corev1.Pod {
	t.Helper()
	pod := create(t, a.Client.CoreV1().Pods(p.Namespace).Create, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, Labels: p.Labels},
		Spec: corev1.PodSpec{
			NodeName: p.Node, HostNetwork: p.HostNetwork,
			Containers: []corev1.Container{{Name: "main", Image: "none", Ports: p.Ports}},
		},
	})
	if p.Phase == "" {
		p.Phase = corev1.PodRunning
	}
	return a.SetPod(t, pod, p.Phase, p.IPs...)
}

// SetPod sets a pod's phase and addresses.
func (a *API) SetPod(t testing.TB, pod *corev1.Pod, phase corev1.PodPhase, ips ...string) *corev1.Pod {
	t.Helper()
	pod = pod.DeepCopy()
	pod.Status.Phase, pod.Status.PodIP, pod.Status.PodIPs = phase, "", nil
	for _, ip := range ips {
		pod.Status.PodIPs = append(pod.Status.PodIPs, corev1.PodIP{IP: ip})
	}
	if len(ips) > 0 {
		pod.Status.PodIP = ips[0]
	}
	pod, err := a.Client.CoreV1().Pods(pod.Namespace).UpdateStatus(t.Context(), pod, metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

// DeletePod deletes a pod at once, as a kubelet does at last.
func (a *API) DeletePod(t testing.TB, namespace, name string) {
	t.Helper()
	if err := a.Client.CoreV1().Pods(namespace).Delete(t.Context(), name, atOnce()); err != nil {
		t.Fatal(err)
	}
}

func atOnce() metav1.DeleteOptions {
	var grace int64
	return metav1.DeleteOptions{GracePeriodSeconds: &grace}
}

// Policy makes a NetworkPolicy with a spec in YAML.
func (a *API) Policy(t testing.TB, namespace, name, spec string) *networkingv1.NetworkPolicy {
	t.Helper()
	p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	if err := kubeyaml.UnmarshalStrict([]byte(spec), &p.Spec); err != nil {
		t.Fatal(err)
	}
	return create(t, a.Client.NetworkingV1().NetworkPolicies(namespace).Create, p)
}

// DeleteNamespace deletes a namespace with the pods and policies in it, as the
// controller manager would.
func (a *API) DeleteNamespace(t testing.TB, name string) {
	t.Helper()
	// First, so that nothing is made in it any more.
	core, ctx := a.Client.CoreV1(), t.Context()
	if err := core.Namespaces().Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := core.Pods(name).DeleteCollection(ctx, atOnce(), metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := a.Client.NetworkingV1().NetworkPolicies(name).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	n, err := core.Namespaces().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	n.Spec.Finalizers = nil
	if _, err := core.Namespaces().Finalize(ctx, n, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// Rules are what a manifest has of a ClusterRole.
func Rules(t testing.TB, manifest string) []rbacv1.PolicyRule {
	t.Helper()
	text, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	for document := range strings.SplitSeq(string(text), "\n---\n") {
		role := rbacv1.ClusterRole{}
		if err := kubeyaml.Unmarshal([]byte(document), &role); err != nil {
			t.Fatal(err)
		}
		if role.Kind == "ClusterRole" {
			return role.Rules
		}
	}
	t.Fatal("there is no ClusterRole")
	return nil
}
