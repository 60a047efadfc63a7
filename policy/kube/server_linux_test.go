package kube_test

import (
	"encoding/json"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes/scheme"
	kubeyaml "sigs.k8s.io/yaml"

	"github.com/poldernet/polder/internal/kubetest"
	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/policy/kube"
)

// The sandbox ends with the tests, and the API server with the sandbox.
func TestMain(m *testing.M) { lab.Main(m) }

// TestServer has an API server judge the samples, as `kubectl create
// --dry-run=server` does. What it makes of those that it accepts, defaults filled
// in, is the same policy to us as the file.
func TestServer(t *testing.T) {
	server := kubetest.Start(t)
	samples(t, "testdata/accepted/*.yaml", func(t *testing.T, name string, text []byte) {
		stored, err := post(t, server, text)
		if err != nil {
			t.Fatalf("the server rejects it: %v", err)
		}
		served, problems := kube.Convert(stored)
		if len(problems) > 0 {
			t.Errorf("the server stores what is not understood: %v", problems)
		}
		read, diags := kube.Decode(name, text)
		if len(read) != 1 {
			t.Fatalf("%s", rendered(t, name, text, diags))
		}
		if got, want := told(read[0]), told(served); got != want {
			t.Errorf("the file is\n%s\nthe server has\n%s", got, want)
		}
	})
	samples(t, "testdata/rejected/*.yaml", func(t *testing.T, _ string, text []byte) {
		stored, err := post(t, server, text)
		if err == nil {
			b, err := json.Marshal(stored)
			t.Fatalf("the server accepts it: %s, %v", b, err)
		}
		t.Log(err)
		if errors.IsNotFound(err) || errors.IsForbidden(err) || errors.IsUnauthorized(err) {
			t.Fatalf("the server does not look at it: %v", err)
		}
	})
}

// post is what a server would store of a file. An error can be the
// client's: it has to know the kind,
// and the namespace has to exist.
func post(t *testing.T, server *kubetest.API, text []byte) (*networkingv1.NetworkPolicy, error) {
	t.Helper()
	b, err := kubeyaml.YAMLToJSON(text)
	if err != nil {
		return nil, err
	}
	object, kind, err := unstructured.UnstructuredJSONScheme.Decode(b, nil, nil)
	if err != nil {
		return nil, err
	}
	if kind.Version == "" {
		return nil, fmt.Errorf("there is no kind %s without a version", kind.Kind)
	}
	namespace := metav1.NamespaceDefault
	if u, ok := object.(*unstructured.Unstructured); ok && u.GetNamespace() != "" {
		namespace = u.GetNamespace()
	}
	core := server.Client.CoreV1().Namespaces()
	_, err = core.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	if err != nil && !errors.IsAlreadyExists(err) {
		return nil, err
	}
	stored := new(networkingv1.NetworkPolicy)
	err = server.Client.NetworkingV1().RESTClient().Post().Namespace(namespace).Resource("networkpolicies").
		VersionedParams(&metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}, FieldValidation: metav1.FieldValidationStrict}, scheme.ParameterCodec).
		SetHeader("Content-Type", "application/yaml").Body(text).Do(t.Context()).Into(stored)
	return stored, err
}
