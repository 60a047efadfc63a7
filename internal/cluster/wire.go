package cluster

import (
	"bytes"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// What is decoded of objects: all that trim keeps of them, or judges them by. The
// numbers of fields are those in generated.proto of k8s.io/api and k8s.io/apimachinery.

// siftEvent keeps of an event of a watch its type and of its object what is of use.
var siftEvent = only(sieves{1: whole, 2: only(sieves{1: siftObject})})

// magic is what an object in protobuf begins with, before it says what it is
// (k8s.io/apimachinery/pkg/runtime/serializer/protobuf).
const magic = "k8s\x00"

func siftObject(to, message []byte) ([]byte, bool) {
	object, ok := bytes.CutPrefix(message, []byte(magic))
	if !ok {
		return whole(to, message)
	}
	about, ok := textOf(object, 1)
	version, ofVersion := textOf(about, 1)
	kind, ofKind := textOf(about, 2)
	if s := kinds[runtime.TypeMeta{APIVersion: string(version), Kind: string(kind)}]; s != nil {
		to, sifted := s(append(to, magic...), object)
		return to, ok && ofVersion && ofKind && sifted
	}
	return whole(to, message)
}

// kinds are those of objects of which there may be many.
var kinds = map[runtime.TypeMeta]sieve{
	typeMeta(corev1.SchemeGroupVersion.String(), "Node"): object(sieves{
		1: meta(nil, annotations...),
		2: only(sieves{1: whole, 7: whole}),                // podCIDR, podCIDRs
		3: only(sieves{4: named(conditions...), 5: whole}), // conditions, addresses
	}),
	typeMeta(corev1.SchemeGroupVersion.String(), "Pod"): object(sieves{
		1: meta(whole, corev1.MirrorPodAnnotationKey),
		2: only(sieves{
			2:  only(sieves{6: whole}),            // containers: ports
			10: whole,                             // nodeName
			11: whole,                             // hostNetwork
			20: only(sieves{6: whole, 24: whole}), // initContainers: ports, restartPolicy
		}),
		3: only(sieves{1: whole, 12: whole}), // phase, podIPs
	}),
	typeMeta(networkingv1.SchemeGroupVersion.String(), "NetworkPolicy"): object(sieves{1: meta(nil), 2: whole}),
}

func typeMeta(version, kind string) runtime.TypeMeta {
	return runtime.TypeMeta{APIVersion: version, Kind: kind}
}

// object is what is kept of an object that says what it is.
func object(of sieves) sieve { return only(sieves{1: whole, 2: only(of)}) }

// meta is what is kept of metadata, with the labels or without. By one annotation the
// server says that what it streams has come to the end of what there was.
func meta(labels sieve, annotations ...string) sieve {
	return only(sieves{
		1: whole, 3: whole, 5: whole, 6: whole, // name, namespace, uid, resourceVersion
		8: whole, 9: whole, // creationTimestamp, deletionTimestamp
		11: labels, 12: named(append(slices.Clip(annotations), metav1.InitialEventsAnnotationKey)...),
	})
}
