package cluster

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/poldernet/polder/spec"
)

// Attachment is how a pod of this node is attached to it. It is known before the
// API server knows the pod's addresses.
type Attachment struct {
	Pod       types.UID
	Namespace string
	Name      string
	Interface string   // of the host
	MAC       spec.MAC // of the pod
	Addresses []netip.Addr
}

// endpointOf is the endpoint that a pod is; nil: it is none. The attachment is nil
// where none is known.
//
// A pod in the network of its node speaks with the node's addresses, and policies
// do not select it. One that has ended has lost its addresses, although its status
// still has them: they may be another pod's.
func endpointOf(pod *corev1.Pod, a *Attachment) *spec.Endpoint {
	if pod.Spec.HostNetwork || pod.Spec.NodeName == "" || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return nil
	}
	e := &spec.Endpoint{
		Name: endpointName(pod.Namespace, pod.Name), Node: pod.Spec.NodeName, Namespace: pod.Namespace,
		Labels: pod.Labels, Ports: namedPorts(pod),
	}
	for _, ip := range pod.Status.PodIPs {
		if at, err := netip.ParseAddr(ip.IP); err == nil && !slices.Contains(e.Addresses, at.Unmap()) {
			e.Addresses = append(e.Addresses, at.Unmap())
		}
	}
	if a != nil {
		e.Interface, e.MAC, e.Addresses = a.Interface, a.MAC, slices.Clone(a.Addresses)
	}
	if len(e.Addresses) == 0 {
		return nil
	}
	return e
}

func endpointName(namespace, name string) string { return namespace + "/" + name }

// namedPorts are the ports of a pod that have a name: those of its containers and
// of the init containers that run beside them. Of two of one name the first counts,
// as it does for a Service.
func namedPorts(pod *corev1.Pod) map[string]spec.Port {
	var ports map[string]spec.Port
	note := func(c corev1.Container) {
		for _, p := range c.Ports {
			protocol, known := protocols[p.Protocol]
			_, taken := ports[p.Name]
			if p.Name == "" || taken || !known || p.ContainerPort < 1 || p.ContainerPort >= 1<<16 {
				continue
			}
			if ports == nil {
				ports = map[string]spec.Port{}
			}
			ports[p.Name] = spec.Port{Number: uint16(p.ContainerPort), Protocol: protocol}
		}
	}
	for _, c := range pod.Spec.Containers {
		note(c)
	}
	for _, c := range pod.Spec.InitContainers {
		if sidecar(c) {
			note(c)
		}
	}
	return ports
}

// sidecar says that an init container goes on running.
func sidecar(c corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// protocols are by the names that Kubernetes has for them; without one, it is TCP.
var protocols = map[corev1.Protocol]string{
	"": "tcp", corev1.ProtocolTCP: "tcp", corev1.ProtocolUDP: "udp", corev1.ProtocolSCTP: "sctp",
}

// younger says which of two pods an address is of that both claim. One that is being
// deleted may have given it back before its status says so; else the one that
// came later has it.
func younger(a, b *corev1.Pod) bool {
	if dying := a.DeletionTimestamp != nil; dying != (b.DeletionTimestamp != nil) {
		return !dying
	}
	if !a.CreationTimestamp.Equal(&b.CreationTimestamp) {
		return b.CreationTimestamp.Before(&a.CreationTimestamp)
	}
	return a.UID > b.UID
}
