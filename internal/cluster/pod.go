package cluster

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/poldernet/polder/spec"
)

// endpointOf is the endpoint that a pod is; nil: it is none. One that has no
// addresses yet is told of all the same: who attaches it knows them sooner.
//
// A pod in the network of its node speaks with the node's addresses, and policies
// do not select it. One that has ended has lost its addresses, although its status
// still has them: they may be another pod's.
func endpointOf(pod *corev1.Pod) *spec.Endpoint {
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
func younger(a, b *keptPod) bool {
	if dying := a.DeletionTimestamp != nil; dying != (b.DeletionTimestamp != nil) {
		return !dying
	}
	if !a.CreationTimestamp.Equal(&b.CreationTimestamp) {
		return b.CreationTimestamp.Before(&a.CreationTimestamp)
	}
	return a.UID > b.UID
}
