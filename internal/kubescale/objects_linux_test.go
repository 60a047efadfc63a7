package kubescale

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"

	"github.com/poldernet/polder/internal/kubetest"
)

// machine is a node by its number. On 0 the daemons run.
type machine int

func (m machine) name() string { return fmt.Sprintf("n%04d", int(m)) }

func (m machine) address() netip.Addr {
	return netip.AddrFrom4([4]byte{172, 16 + byte(m>>16), byte(m >> 8), byte(m)}).Next()
}

func (m machine) subnet() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(m >> 8), byte(m), 0}), 24)
}

// node is a Node as kubelet and flanneld write it: with conditions, twenty images and
// managed fields, all of which are sent to who watches Nodes.
func (m machine) node() *corev1.Node {
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name:   m.name(),
			Labels: map[string]string{"kubernetes.io/hostname": m.name(), "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", "topology.kubernetes.io/zone": fmt.Sprint("z", m%3)},
			Annotations: map[string]string{
				"flannel.alpha.coreos.com/kube-subnet-manager": "true", "flannel.alpha.coreos.com/backend-type": "vxlan",
				"flannel.alpha.coreos.com/public-ip":    m.address().String(),
				"flannel.alpha.coreos.com/backend-data": fmt.Sprintf(`{"VNI":1,"VtepMAC":"02:00:00:00:%02x:%02x"}`, int(m)>>8, int(m)&0xff),
				"node.alpha.kubernetes.io/ttl":          "300", "volumes.kubernetes.io/controller-managed-attach-detach": "true",
			},
		},
		Spec: corev1.NodeSpec{PodCIDR: m.subnet().String(), PodCIDRs: []string{m.subnet().String()}, ProviderID: "lab://" + m.name()},
		Status: corev1.NodeStatus{
			Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: m.address().String()}, {Type: corev1.NodeHostName, Address: m.name()}},
			Capacity:  corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("8"), corev1.ResourceMemory: resource.MustParse("32Gi"), corev1.ResourcePods: resource.MustParse("110")},
			NodeInfo:  corev1.NodeSystemInfo{MachineID: m.name(), KernelVersion: "6.18.44", OSImage: "Linux", ContainerRuntimeVersion: "containerd://2.1", KubeletVersion: "v1.37.2", OperatingSystem: "linux", Architecture: "amd64"},
		},
	}
	n.Status.Allocatable = n.Status.Capacity
	for i := range 20 {
		n.Status.Images = append(n.Status.Images, corev1.ContainerImage{
			Names: []string{fmt.Sprintf("registry.example/team-%d/app@sha256:%064x", i, i), fmt.Sprintf("registry.example/team-%d/app:v1.%d", i, i)}, SizeBytes: 1 << 27,
		})
	}
	n.Status.Conditions = heartbeat()
	return n
}

// heartbeat is what a kubelet says of itself every few minutes.
func heartbeat() (list []corev1.NodeCondition) {
	for _, t := range []corev1.NodeConditionType{corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure, corev1.NodeReady} {
		c := corev1.NodeCondition{Type: t, Status: corev1.ConditionFalse, Reason: "KubeletHasSufficient", Message: "kubelet has what it needs", LastHeartbeatTime: metav1.Now()}
		if t == corev1.NodeReady {
			c.Status, c.Reason = corev1.ConditionTrue, "KubeletReady"
		}
		list = append(list, c)
	}
	return list
}

// sizes are how many objects there are.
type sizes struct{ nodes, namespaces, pods, policies, own int }

// world is an API server that holds a cluster.
type world struct {
	*testing.B
	sizes
	api    *kubetest.API
	client kubernetes.Interface // which speaks protobuf
}

func newWorld(b *testing.B, s sizes) *world {
	b.Helper()
	w := &world{B: b, sizes: s, api: kubetest.Start(b)}
	config := w.api.Config()
	config.ContentType, config.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf
	var err error
	if w.client, err = kubernetes.NewForConfig(config); err != nil {
		b.Fatal(err)
	}
	return w
}

// writers are how many write to the API server at once.
const writers = 32

// each calls a function for the numbers below n, several at once.
func (w *world) each(n int, what string, fn func(ctx context.Context, i int) error) {
	w.Helper()
	var next atomic.Int64
	var all sync.WaitGroup
	failed := make(chan error, writers)
	for range writers {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := fn(w.Context(), i); err != nil {
					failed <- fmt.Errorf("%s %d: %w", what, i, err)
					return
				}
			}
		})
	}
	all.Wait()
	close(failed)
	if err := <-failed; err != nil {
		w.Fatal(err)
	}
}

func (w *world) addNode(ctx context.Context, m machine) error {
	_, err := w.client.CoreV1().Nodes().Create(ctx, m.node(), metav1.CreateOptions{})
	return err
}

func (w *world) writeNodes() {
	w.Helper()
	w.each(w.nodes, "node", func(ctx context.Context, i int) error { return w.addNode(ctx, machine(i)) })
}

// What policies select by. The policies are of the kind that namespaces of
// applications have, as those of internal/bench.
const (
	apps  = 10
	front = 200 // one pod in so many is of the tier front
)

func namespaceName(i int) string { return fmt.Sprint("ns", i) }

func appName(i int) string { return fmt.Sprint("a", i) }

func app(i int) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": appName(i)}}
}

// pod is the one of a number, the first of which are those of the own node, with what
// a Deployment's pod has.
func (w *world) pod(i int) *corev1.Pod {
	random := rand.New(rand.NewPCG(7, uint64(i)))
	m, nth := machine(0), i
	if i >= w.own {
		m, nth = machine(1+(i-w.own)%(w.nodes-1)), (i-w.own)/(w.nodes-1)
	}
	at := m.subnet().Addr().As4()
	at[3] = byte(2 + nth)
	ip := netip.AddrFrom4(at).String()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespaceName(random.IntN(w.namespaces)), Name: fmt.Sprintf("web-6d4cf56db6-%06d", i),
			Labels: map[string]string{"app": appName(random.IntN(apps)), "role": fmt.Sprint("r", random.IntN(3)), "pod-template-hash": "6d4cf56db6"},
		},
		Spec: corev1.PodSpec{
			NodeName: m.name(),
			Containers: []corev1.Container{{
				Name: "main", Image: "registry.example/team-1/app:v1.1", Args: []string{"--listen", ":8080", "--verbose"},
				Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
				Env:   []corev1.EnvVar{{Name: "DATABASE", Value: "postgres://db.shop.svc.cluster.local/shop"}, {Name: "LOG", Value: "info"}, {Name: "REGION", Value: "here"}},
			}},
		},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}}, HostIP: m.address().String(),
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}, {Type: corev1.PodScheduled, Status: corev1.ConditionTrue}},
			ContainerStatuses: []corev1.ContainerStatus{{
				Name: "main", Ready: true, Image: "registry.example/team-1/app:v1.1", ImageID: fmt.Sprintf("registry.example/team-1/app@sha256:%064x", 1), ContainerID: fmt.Sprintf("containerd://%064x", i),
			}},
		},
	}
	if i%front == front-1 {
		p.Labels["tier"] = "front"
	}
	return p
}

// policy is the one of a number. The first two are about the pod 0: one lets in a tier
// of all namespaces, the other a port that changes.
func (w *world) policy(i int) *networkingv1.NetworkPolicy {
	random := rand.New(rand.NewPCG(9, uint64(i)))
	port, both := intstr.FromInt32(8080), []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}
	peer := func() networkingv1.NetworkPolicyPeer {
		p := networkingv1.NetworkPolicyPeer{PodSelector: app(random.IntN(apps))}
		if random.IntN(3) == 0 {
			p.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: namespaceName(random.IntN(w.namespaces))}}
		}
		return p
	}
	np := &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespaceName(i % w.namespaces), Name: fmt.Sprint("p", i)},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: *app(random.IntN(apps)), PolicyTypes: both,
			Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{peer(), peer()}, Ports: []networkingv1.NetworkPolicyPort{{Port: &port}}}},
			Egress: []networkingv1.NetworkPolicyEgressRule{
				{To: []networkingv1.NetworkPolicyPeer{peer()}}, {To: []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: "192.0.2.0/24"}}}},
			},
		},
	}
	if i < 2 {
		own := w.pod(0)
		np.Namespace, np.Spec.PodSelector = own.Namespace, metav1.LabelSelector{MatchLabels: map[string]string{"app": own.Labels["app"]}}
	}
	if i == 0 {
		np.Spec.Ingress[0].From = []networkingv1.NetworkPolicyPeer{{
			NamespaceSelector: &metav1.LabelSelector{}, PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"tier": "front"}},
		}}
	}
	return np
}

// writePods makes namespaces, pods and policies.
func (w *world) writePods() {
	w.Helper()
	core := w.client.CoreV1()
	w.each(w.namespaces, "namespace", func(ctx context.Context, i int) error {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespaceName(i), Labels: map[string]string{"team": fmt.Sprint("t", i%20)}}}
		_, err := core.Namespaces().Create(ctx, ns, metav1.CreateOptions{})
		return err
	})
	w.each(w.pods, "pod", func(ctx context.Context, i int) error {
		want := w.pod(i)
		made, err := core.Pods(want.Namespace).Create(ctx, want, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		made.Status = want.Status
		_, err = core.Pods(want.Namespace).UpdateStatus(ctx, made, metav1.UpdateOptions{})
		return err
	})
	w.each(w.policies, "policy", func(ctx context.Context, i int) error {
		np := w.policy(i)
		_, err := w.client.NetworkingV1().NetworkPolicies(np.Namespace).Create(ctx, np, metav1.CreateOptions{})
		return err
	})
}
