package cluster

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/poldernet/polder/spec"
)

// Credentials are what a spec says, or else those of the pod that polder runs in.
func Credentials(k *spec.Kubernetes) (*rest.Config, error) {
	if k.Kubeconfig == "" {
		if k.Context != "" {
			return nil, fmt.Errorf("the context %q is of no kubeconfig", k.Context)
		}
		return rest.InClusterConfig()
	}
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: k.Kubeconfig}
	file, err := rules.Load()
	if err != nil {
		return nil, err // names the file
	}
	name := cmp.Or(k.Context, file.CurrentContext)
	if _, there := file.Contexts[name]; name != "" && !there {
		return nil, fmt.Errorf("the kubeconfig %s has no context %q: %s", k.Kubeconfig, name, contexts(file))
	}
	config, err := clientcmd.NewNonInteractiveClientConfig(*file, name, &clientcmd.ConfigOverrides{}, rules).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("the kubeconfig %s: %w", k.Kubeconfig, err)
	}
	return config, nil
}

// contexts says which ones a kubeconfig has.
func contexts(file *clientcmdapi.Config) string {
	if len(file.Contexts) == 0 {
		return "it has none"
	}
	var names []string
	for _, name := range slices.Sorted(maps.Keys(file.Contexts)) {
		names = append(names, strconv.Quote(name))
	}
	return "it has " + strings.Join(names, ", ")
}

// Nodes asks once which nodes there are. Whoever runs in no pod and has no kubeconfig
// gets rest.ErrNotInCluster.
func Nodes(ctx context.Context, k *spec.Kubernetes) ([]spec.Candidate, error) {
	config, err := Credentials(k)
	if err != nil {
		return nil, err
	}
	core, err := client(config, corev1.SchemeGroupVersion)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, nodesTimeout)
	defer cancel()
	var list []spec.Candidate
	for o := (metav1.ListOptions{Limit: nodesAtOnce}); ; {
		var page corev1.NodeList
		if err := core.Get().Resource("nodes").VersionedParams(&o, metav1.ParameterCodec).Do(ctx).Into(&page); err != nil {
			return nil, err
		}
		for i := range page.Items {
			list = append(list, candidateOf(&page.Items[i]))
		}
		if o.Continue = page.Continue; o.Continue == "" {
			return list, nil
		}
	}
}

// How many nodes are asked for at once, and for how long somebody waits for all.
const (
	nodesAtOnce  = 500
	nodesTimeout = 30 * time.Second
)

// client asks for the objects of one group.
func client(c *rest.Config, gv schema.GroupVersion) (*rest.RESTClient, error) {
	codecs, err := scheme()
	if err != nil {
		return nil, err
	}
	c = rest.CopyConfig(c)
	// The typed clients of client-go know every kind of object that there is, which
	// makes a program larger by half.
	c.GroupVersion, c.NegotiatedSerializer = &gv, sifting{codecs.WithoutConversion()}
	c.ContentType, c.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON
	c.APIPath = "/apis"
	if gv.Group == corev1.GroupName {
		c.APIPath = "/api"
	}
	c.UserAgent = "polder"
	return rest.RESTClientFor(c)
}

// scheme knows the kinds of objects of the groups that are of use here.
func scheme() (codecs serializer.CodecFactory, err error) {
	s := runtime.NewScheme()
	metav1.AddToGroupVersion(s, schema.GroupVersion{Version: "v1"})
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, networkingv1.AddToScheme} {
		if err := add(s); err != nil {
			return codecs, err
		}
	}
	return serializer.NewCodecFactory(s), nil
}
