package kube

import (
	"math/rand/v2"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// dice draw what there is in a cluster: few labels, ports and blocks of addresses,
// so that what could be confused meets.
type dice struct{ *rand.Rand }

func of[T any](d dice, list ...T) T { return list[d.IntN(len(list))] }

// chance is true in so many of a hundred cases.
func (d dice) chance(percent int) bool { return d.IntN(100) < percent }

var namespaceNames = []string{"blue", "red"}

func (d dice) podLabels() map[string]string {
	labels := map[string]string{"app": of(d, "web", "db", "job")}
	if d.chance(50) {
		labels["tier"] = of(d, "front", "back")
	}
	return labels
}

func (d dice) namespaceLabels() map[string]string {
	labels := map[string]string{}
	if d.chance(70) {
		labels["team"] = of(d, "one", "two")
	}
	return labels
}

func (d dice) podSelector() metav1.LabelSelector {
	switch d.IntN(6) {
	case 0:
		return metav1.LabelSelector{}
	case 1:
		return metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{
			Key: "tier", Operator: of(d, metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist),
		}}}
	case 2:
		return metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{
			Key: "app", Operator: of(d, metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn), Values: []string{"web", of(d, "db", "job")},
		}}}
	}
	return metav1.LabelSelector{MatchLabels: map[string]string{"app": of(d, "web", "db", "job")}}
}

func (d dice) namespaceSelector() metav1.LabelSelector {
	if d.chance(20) {
		return metav1.LabelSelector{}
	}
	return metav1.LabelSelector{MatchLabels: map[string]string{"team": of(d, "one", "two")}}
}

// policy draws what a NetworkPolicy says.
func (d dice) policy() networkingv1.NetworkPolicySpec {
	p := networkingv1.NetworkPolicySpec{PodSelector: d.podSelector()}
	if d.chance(80) {
		p.PolicyTypes = append(p.PolicyTypes, networkingv1.PolicyTypeIngress)
		for range d.IntN(3) {
			p.Ingress = append(p.Ingress, networkingv1.NetworkPolicyIngressRule{From: d.peers(), Ports: d.ports()})
		}
	}
	if len(p.PolicyTypes) == 0 || d.chance(40) {
		p.PolicyTypes = append(p.PolicyTypes, networkingv1.PolicyTypeEgress)
		for range 1 + d.IntN(2) {
			p.Egress = append(p.Egress, networkingv1.NetworkPolicyEgressRule{To: d.peers(), Ports: d.ports()})
		}
	}
	return p
}

func (d dice) peers() (list []networkingv1.NetworkPolicyPeer) {
	for range d.IntN(3) {
		var p networkingv1.NetworkPolicyPeer
		pods, namespaces := d.podSelector(), d.namespaceSelector()
		switch d.IntN(4) {
		case 0:
			p.PodSelector = &pods
		case 1:
			p.NamespaceSelector = &namespaces
		case 2:
			p.PodSelector, p.NamespaceSelector = &pods, &namespaces
		default:
			p.IPBlock = d.block()
		}
		list = append(list, p)
	}
	return list
}

func (d dice) block() *networkingv1.IPBlock {
	return of(d,
		&networkingv1.IPBlock{CIDR: "0.0.0.0/0", Except: []string{"10.244.1.0/24"}},
		&networkingv1.IPBlock{CIDR: "::/0", Except: []string{"fd00:10:244:2::/64"}},
		&networkingv1.IPBlock{CIDR: "10.244.1.0/29"},
		&networkingv1.IPBlock{CIDR: "fd00:10:244:1::/125"},
		&networkingv1.IPBlock{CIDR: "10.244.3.0/24"},
		&networkingv1.IPBlock{CIDR: "192.0.2.0/24", Except: []string{"192.0.2.13/32"}},
		&networkingv1.IPBlock{CIDR: "2001:db8:2::/64"},
	)
}

func (d dice) ports() (list []networkingv1.NetworkPolicyPort) {
	for range d.IntN(3) {
		protocol := of(d, corev1.ProtocolTCP, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP)
		p := networkingv1.NetworkPolicyPort{Protocol: &protocol}
		switch d.IntN(5) {
		case 0:
		case 1:
			p.Port = new(intstr.FromString(of(d, "web", "dns")))
		case 2:
			p.Port, p.EndPort = new(intstr.FromInt32(80)), new(of[int32](d, 80, 81, 8080))
		default:
			p.Port = new(intstr.FromInt32(of(d, portNumbers...)))
		}
		list = append(list, p)
	}
	return list
}

// portNumbers are those that policies and probes are about.
var portNumbers = []int32{53, 80, 81, 8080}
