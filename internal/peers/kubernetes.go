package peers

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/poldernet/polder/internal/kubetest"
	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/spec"
)

// KubeFlannel is flanneld on nodes of a Kubernetes cluster, which know each
// other by the annotations of their Node objects (its option -kube-subnet-mgr).
type KubeFlannel struct {
	daemons
	api                *kubetest.API
	config, kubeconfig string // files
}

// managed is the annotation of a Node by which flanneld knows that another one
// runs there, or polder in its place.
const managed = "flannel.alpha.coreos.com/kube-subnet-manager"

// NewKubeFlannel is flanneld with the rights and options that its manifest gives
// it, for nodes that reach the API server at that address. It runs nowhere yet,
// and ends with the test.
func NewKubeFlannel(t testing.TB, api *kubetest.API, at netip.AddrPort, network *spec.Network, nodes map[string]*lab.Namespace, rules Rules) *KubeFlannel {
	t.Helper()
	lab.Require(t)
	f := &KubeFlannel{daemons: newDaemons(t, network, nodes), api: api}
	config, err := json.Marshal(netConf(network, rules))
	if err != nil {
		t.Fatal(err)
	}
	f.config = filepath.Join(f.dir, "net-conf.json")
	if err := os.WriteFile(f.config, config, 0o600); err != nil {
		t.Fatal(err)
	}
	// Documentation/kube-flannel.yml.
	const name = "kube-flannel"
	api.Namespace(t, name, nil)
	f.kubeconfig = api.Kubeconfig(t, api.ServiceAccount(t, name, "flannel",
		rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"get"}},
		rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"nodes"}, Verbs: []string{"get", "list", "watch"}},
		rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"nodes/status"}, Verbs: []string{"patch"}},
	), at)
	t.Cleanup(f.close)
	return f
}

// Start runs flanneld on a node and returns when it says that it is ready,
// which is before it has looked for its peers: see Await.
func (f *KubeFlannel) Start(node string) {
	f.t.Helper()
	// flanneld panics where a Node has no annotations at all (AcquireLease in
	// pkg/subnet/kube/kube.go). A kubelet has written this one before.
	patch := []byte(`{"metadata": {"annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}}}`)
	if _, err := f.api.Client.CoreV1().Nodes().Patch(f.t.Context(), node, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		f.t.Fatal(err)
	}
	f.start(node, "env", "NODE_NAME="+node, f.program, "-kube-subnet-mgr", "-net-config-path", f.config, "-kubeconfig-file", f.kubeconfig)
}

// Await waits until every node that runs has a route to each other node that
// flanneld or polder has announced, and no more.
func (f *KubeFlannel) Await() {
	f.t.Helper()
	f.await(func(node string) map[netip.Prefix]bool {
		nodes, err := f.api.Client.CoreV1().Nodes().List(f.t.Context(), metav1.ListOptions{})
		if err != nil {
			f.t.Fatal(err)
		}
		subnets := map[netip.Prefix]bool{}
		for _, peer := range nodes.Items {
			if peer.Name == node || peer.Annotations[managed] != "true" {
				continue
			}
			for _, s := range peer.Spec.PodCIDRs {
				p, err := netip.ParsePrefix(s)
				if err != nil {
					f.t.Fatal(err)
				}
				subnets[p] = true
			}
		}
		return subnets
	})
}
