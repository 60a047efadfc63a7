package cluster

import (
	"encoding/binary"
	"maps"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/poldernet/polder/policy/kube"
	"github.com/poldernet/polder/spec"
)

// keptPod is what is kept of a Pod, by informers and by everybody else: the types of the
// API have room for all that a Pod may have.
type keptPod struct {
	metav1.ObjectMeta
	endpoint *spec.Endpoint // nil: it is none
}

// keptNode is what is kept of a Node. Heartbeats change nothing of it but the version.
type keptNode struct {
	metav1.ObjectMeta
	candidate spec.Candidate
	own       *corev1.Node // trimmed, where it is the own one, which is written to
}

// keptPolicy is what is kept of a NetworkPolicy.
type keptPolicy struct {
	metav1.ObjectMeta
	policy   *spec.Policy
	problems []kube.Problem
}

func (np *keptPolicy) reference() corev1.ObjectReference {
	return corev1.ObjectReference{
		APIVersion: networkingv1.SchemeGroupVersion.String(), Kind: "NetworkPolicy",
		Namespace: np.Namespace, Name: np.Name, UID: np.UID, ResourceVersion: np.ResourceVersion,
	}
}

// keptMeta is by what objects are known, and told apart from those before them.
func keptMeta(m metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name: m.Name, Namespace: m.Namespace, UID: m.UID, ResourceVersion: m.ResourceVersion,
		CreationTimestamp: m.CreationTimestamp, DeletionTimestamp: m.DeletionTimestamp,
	}
}

func (s *Source) keepNode(n *corev1.Node) *keptNode {
	kept := &keptNode{ObjectMeta: keptMeta(n.ObjectMeta), candidate: candidateOf(n)}
	if n.Name == s.node {
		kept.own = trimNode(n)
	}
	return kept
}

func keepPolicy(np *networkingv1.NetworkPolicy) *keptPolicy {
	p, problems := kube.Convert(np)
	return &keptPolicy{keptMeta(np.ObjectMeta), p, problems}
}

// commons are values that many pods have: those of one Deployment have the same labels
// and ports, and each says in which namespace it is and on which node. It is kept once.
// The zero value is ready for use.
type commons struct {
	mu     sync.Mutex
	texts  map[string]string
	labels map[string]map[string]string
	ports  map[string]map[string]spec.Port
}

// keepPod is what is kept of a Pod. Its names are parts of its endpoint's.
func (c *commons) keepPod(p *corev1.Pod) *keptPod {
	kept := &keptPod{keptMeta(p.ObjectMeta), endpointOf(p)}
	if uid := p.Annotations[corev1.MirrorPodAnnotationKey]; uid != "" {
		kept.UID = types.UID(uid) // of a static pod, as its kubelet and the runtime know it
	}
	e := kept.endpoint
	if e == nil {
		return kept
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	kept.Namespace, kept.Name = e.Name[:len(p.Namespace)], e.Name[len(p.Namespace)+1:]
	e.Namespace, e.Node = kept.Namespace, share(&c.texts, e.Node, e.Node)
	e.Labels = shareMap(&c.labels, e.Labels, appendText)
	e.Ports = shareMap(&c.ports, e.Ports, func(text []byte, p spec.Port) []byte {
		return appendText(binary.BigEndian.AppendUint16(text, p.Number), p.Protocol)
	})
	return kept
}

// mostCommons are of how many values of a kind it is known that they are kept. Then
// that is forgotten, and they are kept anew.
const mostCommons = 1 << 14

// share is the first value of a key.
func share[V any](known *map[string]V, key string, v V) V {
	if first, there := (*known)[key]; there {
		return first
	}
	if *known == nil || len(*known) >= mostCommons {
		*known = map[string]V{}
	}
	(*known)[key] = v
	return v
}

// shareMap is the first map that holds the same.
func shareMap[V any](known *map[string]map[string]V, m map[string]V, add func([]byte, V) []byte) map[string]V {
	if len(m) == 0 {
		return m
	}
	var key []byte
	for _, k := range slices.Sorted(maps.Keys(m)) {
		key = add(appendText(key, k), m[k])
	}
	return share(known, string(key), m)
}

// appendText appends a text so that it is seen where it ends.
func appendText(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}
