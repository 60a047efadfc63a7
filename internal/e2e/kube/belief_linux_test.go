package kube

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeyaml "sigs.k8s.io/yaml"

	"github.com/poldernet/polder/internal/world"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/policy/kube"
	"github.com/poldernet/polder/spec"
)

// belief is a cluster as the test itself has made it. No daemon was asked.
type belief struct {
	base       *spec.Spec        // what the files say
	nodes      map[string]*claim // the objects that there are
	namespaces map[string]map[string]string
	pods       map[string]*pod                        // by namespace/name: the objects that there are
	policies   map[string]*networkingv1.NetworkPolicy // likewise
}

// pod is one that runs, or whose object is still there.
type pod struct {
	namespace, name, node string
	labels                map[string]string
	web                   uint16 // the port that it calls so
	addresses             []netip.Addr
	finished              bool // it has no addresses any more, whatever its status says
	dying                 bool // it is being deleted
	made                  metav1.Time
	uid                   string
	*machine              // nil: it has no network
}

// over says which of two pods has an address that both have by their status.
func (p *pod) over(o *pod) bool {
	if p.dying != o.dying {
		return o.dying
	}
	if !p.made.Equal(&o.made) {
		return o.made.Before(&p.made)
	}
	return p.uid > o.uid
}

func (p *pod) key() string { return p.namespace + "/" + p.name }

// ports are those of the pod's container.
func (p *pod) ports() []corev1.ContainerPort {
	return []corev1.ContainerPort{{Name: "web", ContainerPort: int32(p.web)}, {Name: "dns", ContainerPort: 53, Protocol: corev1.ProtocolUDP}}
}

// endpoint is what policies see of the pod, with those of its addresses that no
// other one has.
func (b *belief) endpoint(p *pod) *spec.Endpoint {
	own := slices.DeleteFunc(slices.Clone(p.addresses), func(a netip.Addr) bool {
		for _, o := range b.pods {
			if o != p && !o.finished && slices.Contains(o.addresses, a) && o.over(p) {
				return true
			}
		}
		return false
	})
	return &spec.Endpoint{
		Name: p.key(), Node: p.node, Namespace: p.namespace, Labels: p.labels, Addresses: own,
		Ports: map[string]spec.Port{"web": {Number: p.web, Protocol: "tcp"}, "dns": {Number: 53, Protocol: "udp"}},
	}
}

// spec is the cluster as a spec, with or without its NetworkPolicies, and with Nodes
// that are not there.
func (b *belief) spec(policies bool, more ...*claim) *spec.Spec {
	sp := *b.base
	sp.Nodes = members(slices.Concat(slices.Collect(maps.Values(b.nodes)), more), sp.Network)
	for _, name := range slices.Sorted(maps.Keys(b.namespaces)) {
		sp.Namespaces = append(slices.Clip(sp.Namespaces), &spec.Namespace{Name: name, Labels: b.namespaces[name]})
	}
	for _, key := range slices.Sorted(maps.Keys(b.pods)) {
		if p := b.pods[key]; !p.finished && len(p.addresses) > 0 {
			sp.Endpoints = append(slices.Clip(sp.Endpoints), b.endpoint(p))
		}
	}
	if policies {
		for _, key := range slices.Sorted(maps.Keys(b.policies)) {
			p, _ := kube.Convert(b.policies[key])
			sp.Policies = append(slices.Clip(sp.Policies), p)
		}
	}
	return &sp
}

// opinion is what a node goes by that has heard of all, and that believes in more Nodes.
func (b *belief) opinion(more ...*claim) (opinion, error) {
	sp := b.spec(true, more...)
	m, diags := policy.New(sp)
	if diags.HasErrors() {
		return opinion{}, diags
	}
	return opinion{m, sp.Nodes}, nil
}

// write writes the cluster as a spec with manifests, for `polder explain`.
func (b *belief) write(dir string) error {
	sp := b.spec(false)
	for i, e := range sp.Endpoints {
		renamed := *e
		renamed.Name = strings.ReplaceAll(e.Name, "/", "-")
		sp.Endpoints[i] = &renamed
	}
	text := world.HCL(sp)
	var manifests strings.Builder
	for _, key := range slices.Sorted(maps.Keys(b.policies)) {
		np := b.policies[key].DeepCopy()
		np.TypeMeta = metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"}
		out, err := kubeyaml.Marshal(np)
		if err != nil {
			return err
		}
		fmt.Fprintf(&manifests, "---\n%s", out)
	}
	if len(b.policies) > 0 {
		text = "kubernetes_manifests = [\"policies.yaml\"]\n" + text
	}
	if err := os.WriteFile(filepath.Join(dir, "policies.yaml"), []byte(manifests.String()), 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "polder.hcl"), []byte(text), 0o600)
}
