package deploy

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"

	"github.com/poldernet/polder/internal/kubetest"
	"github.com/poldernet/polder/internal/kubetest/program"
)

const (
	namespace = "polder"
	account   = "polder"
)

// server is an API server that manifests are applied to.
type server struct {
	*kubetest.API
	objects dynamic.Interface
	mapper  meta.RESTMapper
	mu      sync.Mutex
	told    []string
}

func start(t *testing.T) *server {
	t.Helper()
	program.Need(t, program.Kustomize)
	s := &server{API: kubetest.Start(t)}
	config := s.Config()
	config.WarningHandler = s
	var err error
	if s.objects, err = dynamic.NewForConfig(config); err != nil {
		t.Fatal(err)
	}
	groups, err := restmapper.GetAPIGroupResources(s.Client.Discovery())
	if err != nil {
		t.Fatal(err)
	}
	s.mapper = restmapper.NewDiscoveryRESTMapper(groups)
	return s
}

// HandleWarningHeader is told by the API server of what it takes and should not
// have been given.
func (s *server) HandleWarningHeader(_ int, _, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = append(s.told, text)
}

// create creates an object; a field that the API server does not know is an error.
func (s *server) create(ctx context.Context, object runtime.Object, dryRun ...string) error {
	kinds, _, err := scheme.Scheme.ObjectKinds(object)
	if err != nil {
		return err
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	if err != nil {
		return err
	}
	u := &unstructured.Unstructured{Object: content}
	u.SetGroupVersionKind(kinds[0])
	mapping, err := s.mapper.RESTMapping(kinds[0].GroupKind(), kinds[0].Version)
	if err != nil {
		return err
	}
	_, err = s.objects.Resource(mapping.Resource).Namespace(u.GetNamespace()).Create(ctx, u, metav1.CreateOptions{
		DryRun: dryRun, FieldValidation: metav1.FieldValidationStrict,
	})
	return err
}

// pod is one that the controller of the DaemonSet would make.
func pod(d *appsv1.DaemonSet, node string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: *d.Spec.Template.ObjectMeta.DeepCopy(), Spec: *d.Spec.Template.Spec.DeepCopy()}
	p.Namespace, p.Name, p.Spec.NodeName = d.Namespace, d.Name+"-"+node, node
	return p
}

// TestDryRun has an API server judge all objects, and the pods of the DaemonSet and of
// the check, which its admission plugins for priorities and for what pods may have a say in.
func TestDryRun(t *testing.T) {
	s := start(t)
	for i, variant := range variants {
		objects := render(t, variant)
		for _, o := range append(objects, pod(the[*appsv1.DaemonSet](t, objects), "n1"), check(t, "n1")) {
			// What is in a namespace is refused until there is that.
			_, first := o.(*corev1.Namespace)
			if first && i == 0 {
				if err := s.create(t.Context(), o); err != nil {
					t.Fatal(err)
				}
				continue
			} else if first {
				continue
			}
			if err := s.create(t.Context(), o, metav1.DryRunAll); err != nil {
				t.Errorf("%s: %T: %v", variant, o, err)
			}
		}
	}
	if len(s.told) > 0 {
		t.Errorf("the API server warns: %q", s.told)
	}
}

// install applies the base, and is a client of the daemon's pod on a node.
func (s *server) install(t *testing.T, node string) kubernetes.Interface {
	t.Helper()
	objects := render(t, "base")
	p := pod(the[*appsv1.DaemonSet](t, objects), node)
	for _, o := range append(objects, p) {
		if err := s.create(t.Context(), o); err != nil {
			t.Fatalf("%T: %v", o, err)
		}
	}
	made, err := s.Client.CoreV1().Pods(namespace).Get(t.Context(), p.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	token, err := s.Client.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), account, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: &authenticationv1.BoundObjectReference{
			APIVersion: "v1", Kind: "Pod", Name: made.Name, UID: made.UID,
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	config := rest.CopyConfig(s.Config())
	config.BearerToken = token.Status.Token
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// TestRights asks the API server what the daemon's account may do.
func TestRights(t *testing.T) {
	s := start(t)
	s.Node(t, "n1", nil, nil)
	client := s.install(t, "n1")
	for want, rights := range map[bool]string{
		true: `
			list nodes; watch nodes; get pods; list pods; watch pods; list namespaces; watch namespaces
			list networkpolicies.networking.k8s.io; watch networkpolicies.networking.k8s.io
			patch nodes/status; create events; patch events`,
		false: `
			get nodes; create nodes; update nodes; patch nodes; delete nodes; update nodes/status; get nodes/proxy; create nodes/proxy
			create pods; update pods; patch pods; delete pods; deletecollection pods; patch pods/status; create pods/exec; get pods/log; create pods/eviction; create pods/binding
			create namespaces; patch namespaces; delete namespaces
			create networkpolicies.networking.k8s.io; update networkpolicies.networking.k8s.io; patch networkpolicies.networking.k8s.io; delete networkpolicies.networking.k8s.io
			get secrets; list secrets; get configmaps; list configmaps; patch configmaps; list services; list endpoints; create serviceaccounts/token
			create events.events.k8s.io; list events; delete events; update events; get leases.coordination.k8s.io; create leases.coordination.k8s.io
			patch daemonsets.apps; list daemonsets.apps; create clusterrolebindings.rbac.authorization.k8s.io; escalate clusterroles.rbac.authorization.k8s.io
			delete validatingadmissionpolicies.admissionregistration.k8s.io; impersonate users; list customresourcedefinitions.apiextensions.k8s.io`,
	} {
		for right := range strings.FieldsFuncSeq(rights, func(r rune) bool { return r == ';' || r == '\n' }) {
			verb, what, ok := strings.Cut(strings.TrimSpace(right), " ")
			if !ok {
				continue
			}
			what, group, _ := strings.Cut(what, ".")
			resource, subresource, _ := strings.Cut(what, "/")
			review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
				ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: verb, Group: group, Resource: resource, Subresource: subresource},
			}}
			review, err := client.AuthorizationV1().SelfSubjectAccessReviews().Create(t.Context(), review, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if review.Status.Allowed != want {
				t.Errorf("%s: allowed %t, %s", right, review.Status.Allowed, review.Status.Reason)
			}
		}
	}
}

// TestOwnNode has the daemon of n1 write to nodes.
func TestOwnNode(t *testing.T) {
	s := start(t)
	for _, node := range []string{"n1", "n2"} {
		s.Node(t, node, []string{"192.0.2.1"}, nil)
	}
	client := s.install(t, "n1")
	patch := func(node, subresource, text string) error {
		_, err := client.CoreV1().Nodes().Patch(t.Context(), node, types.StrategicMergePatchType, []byte(text), metav1.PatchOptions{}, subresource)
		return err
	}
	const annotation = `{"metadata": {"annotations": {"polder.test/x": "y"}}}`
	// The API server reads new policies after a while.
	ctx, stop := context.WithTimeout(t.Context(), kubetest.Patience)
	defer stop()
	retry := time.NewTicker(50 * time.Millisecond)
	defer retry.Stop()
	for patch("n2", "status", annotation) == nil {
		select {
		case <-ctx.Done():
			t.Fatal("it may write to another node")
		case <-retry.C:
		}
	}
	for _, test := range []struct{ node, subresource, text, refused string }{
		{"n1", "status", annotation, ""},
		{"n1", "status", `{"status": {"conditions": [{"type": "NetworkUnavailable", "status": "False", "reason": "PolderIsUp"}]}}`, ""},
		{"n2", "status", annotation, "its own node only"},
		{"n2", "status", `{"status": {"conditions": [{"type": "NetworkUnavailable", "status": "True"}]}}`, "its own node only"},
		{"n1", "", annotation, `cannot patch resource "nodes"`},
		{"n1", "", `{"spec": {"taints": [{"key": "x", "effect": "NoExecute"}]}}`, `cannot patch resource "nodes"`},
		{"n1", "status", `{"metadata": {"labels": {"x": "y"}}}`, "annotations and conditions only"},
		{"n1", "status", `{"metadata": {"finalizers": ["polder.test/x"]}}`, "annotations and conditions only"},
		{"n1", "status", `{"status": {"conditions": [{"type": "Ready", "status": "True"}]}}`, "those of the kubelet"},
		{"n1", "status", `{"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.2"}]}}`, "conditions only"},
		{"n1", "status", `{"status": {"capacity": {"polder.test/x": "1"}}}`, "conditions only"},
		{"n1", "status", `{"status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": 1}}}}`, "conditions only"},
	} {
		err := patch(test.node, test.subresource, test.text)
		if test.refused == "" && err != nil || test.refused != "" && (!errors.IsForbidden(err) || !strings.Contains(err.Error(), test.refused)) {
			t.Errorf("%s/%s %s: %v", test.node, test.subresource, test.text, err)
		}
	}
	// Others are not held to it.
	if _, err := s.Client.CoreV1().Nodes().Patch(t.Context(), "n1", types.StrategicMergePatchType, []byte(`{"metadata": {"labels": {"x": "y"}}}`), metav1.PatchOptions{}); err != nil {
		t.Error(err)
	}
}
