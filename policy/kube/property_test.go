package kube_test

import (
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"
	kubeyaml "sigs.k8s.io/yaml"

	"github.com/poldernet/polder/policy/kube"
	"github.com/poldernet/polder/spec"
)

func pick[T any](values ...T) *rapid.Generator[T] { return rapid.SampledFrom(values) }

var (
	someKey   = pick("a", "b")
	someValue = pick("", "1", "2")
	someCIDR  = pick("0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/24", "10.0.1.4/32", "::/0", "2001:db8::/32", "2001:db8:1::/48")
	inside    = map[string][]string{
		"0.0.0.0/0":     {"10.0.0.0/8", "10.0.1.0/24", "0.0.0.0/1", "128.0.0.0/1"},
		"10.0.0.0/8":    {"10.0.0.0/24", "10.0.0.0/23", "10.0.1.4/32"},
		"10.0.0.0/24":   {"10.0.0.0/31", "10.0.0.2/32"},
		"::/0":          {"2001:db8::/32", "::/1", "8000::/1"},
		"2001:db8::/32": {"2001:db8:1::/48", "2001:db8::3/128"},
	}
)

var someSelector = rapid.Custom(func(t *rapid.T) metav1.LabelSelector {
	return metav1.LabelSelector{
		MatchLabels: rapid.MapOfN(someKey, someValue, -1, 1).Draw(t, "matchLabels"),
		MatchExpressions: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) metav1.LabelSelectorRequirement {
			r := metav1.LabelSelectorRequirement{
				Key: someKey.Draw(t, "key"),
				Operator: pick(metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn,
					metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist).Draw(t, "operator"),
			}
			if r.Operator == metav1.LabelSelectorOpIn || r.Operator == metav1.LabelSelectorOpNotIn {
				r.Values = rapid.SliceOfN(someValue, 1, 2).Draw(t, "values")
			}
			return r
		}), 0, 2).Draw(t, "matchExpressions"),
	}
})

var somePeer = rapid.Custom(func(t *rapid.T) (p networkingv1.NetworkPolicyPeer) {
	kind := rapid.IntRange(0, 3).Draw(t, "kind")
	if kind == 0 {
		cidr := someCIDR.Draw(t, "cidr")
		p.IPBlock = &networkingv1.IPBlock{CIDR: cidr}
		if within := inside[cidr]; within != nil {
			p.IPBlock.Except = rapid.SliceOfN(rapid.SampledFrom(within), 0, 3).Draw(t, "except")
		}
	}
	if kind&1 != 0 {
		p.PodSelector = new(someSelector.Draw(t, "podSelector"))
	}
	if kind&2 != 0 {
		p.NamespaceSelector = new(someSelector.Draw(t, "namespaceSelector"))
	}
	return p
})

var somePort = rapid.Custom(func(t *rapid.T) (p networkingv1.NetworkPolicyPort) {
	if protocol := pick("", corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP).Draw(t, "protocol"); protocol != "" {
		p.Protocol = &protocol
	}
	switch rapid.IntRange(0, 3).Draw(t, "kind") {
	case 1:
		p.Port = new(intstr.FromString(pick("http", "none").Draw(t, "name")))
	case 2:
		p.Port = new(intstr.FromInt32(pick[int32](1, 80, 81, 90).Draw(t, "port")))
	case 3:
		p.Port = new(intstr.FromInt32(pick[int32](1, 80, 81).Draw(t, "port")))
		p.EndPort = new(pick[int32](81, 90, 65535).Draw(t, "endPort"))
	}
	return p
})

var someObject = rapid.Custom(func(t *rapid.T) *networkingv1.NetworkPolicy {
	np := &networkingv1.NetworkPolicy{
		TypeMeta:   metav1.TypeMeta{Kind: "NetworkPolicy", APIVersion: "networking.k8s.io/v1"},
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: pick("shop", "other").Draw(t, "namespace")},
	}
	np.Spec.PodSelector = someSelector.Draw(t, "podSelector")
	np.Spec.PolicyTypes = pick(nil,
		[]networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
		[]networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
		[]networkingv1.PolicyType{networkingv1.PolicyTypeEgress, networkingv1.PolicyTypeIngress}).Draw(t, "policyTypes")
	peers, ports := rapid.SliceOfN(somePeer, 0, 2), rapid.SliceOfN(somePort, 0, 2)
	for range rapid.IntRange(0, 2).Draw(t, "ingress") {
		np.Spec.Ingress = append(np.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: peers.Draw(t, "from"), Ports: ports.Draw(t, "ports")})
	}
	for range rapid.IntRange(0, 2).Draw(t, "egress") {
		np.Spec.Egress = append(np.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: peers.Draw(t, "to"), Ports: ports.Draw(t, "ports")})
	}
	return np
})

// TestMeaning compares what objects mean to polder, by either door, with what
// they mean to Kubernetes.
func TestMeaning(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		objects := rapid.SliceOfN(someObject, 1, 3).Draw(t, "objects")
		var converted, decoded []*spec.Policy
		for _, np := range objects {
			before := np.DeepCopy()
			p, problems := kube.Convert(np)
			if len(problems) > 0 {
				t.Fatalf("problems with a valid object: %v", problems)
			}
			if !reflect.DeepEqual(np, before) {
				t.Fatal("the object was changed")
			}
			converted = append(converted, p)
			text, err := kubeyaml.Marshal(np)
			if err != nil {
				t.Fatal(err)
			}
			list, diags := kube.Decode("p.yaml", text)
			if len(diags) > 0 {
				t.Fatalf("%s\n%s", text, diags)
			}
			decoded = append(decoded, list...)
		}
		for _, f := range flows {
			want := allowedByKubernetes(objects, f)
			if got := allowed(converted, f); got != want {
				t.Fatalf("converted: %+v: %v, want %v", f, got, want)
			}
			if got := allowed(decoded, f); got != want {
				t.Fatalf("decoded: %+v: %v, want %v", f, got, want)
			}
		}
	})
}

// spoil are ways to make a field of an object what cannot be understood. They
// say whether the object has such a field.
var spoil = map[string]func(*rapid.T, *networkingv1.NetworkPolicy) bool{
	"policyTypes": func(t *rapid.T, np *networkingv1.NetworkPolicy) bool {
		s := &np.Spec
		if len(s.PolicyTypes) == 0 {
			return false
		}
		s.PolicyTypes = append([]networkingv1.PolicyType(nil), s.PolicyTypes...)
		s.PolicyTypes[rapid.IntRange(0, len(s.PolicyTypes)-1).Draw(t, "which")] = pick[networkingv1.PolicyType]("ingress", "", "Both").Draw(t, "type")
		return true
	},
	"podSelector": func(t *rapid.T, np *networkingv1.NetworkPolicy) bool {
		spoilSelector(t, &np.Spec.PodSelector)
		return true
	},
	"peer": func(t *rapid.T, np *networkingv1.NetworkPolicy) bool {
		var all []*networkingv1.NetworkPolicyPeer
		for _, r := range np.Spec.Ingress {
			for i := range r.From {
				all = append(all, &r.From[i])
			}
		}
		for _, r := range np.Spec.Egress {
			for i := range r.To {
				all = append(all, &r.To[i])
			}
		}
		if len(all) == 0 {
			return false
		}
		spoilPeer(t, rapid.SampledFrom(all).Draw(t, "which"))
		return true
	},
	"port": func(t *rapid.T, np *networkingv1.NetworkPolicy) bool {
		var all []*networkingv1.NetworkPolicyPort
		for _, r := range np.Spec.Ingress {
			for i := range r.Ports {
				all = append(all, &r.Ports[i])
			}
		}
		for _, r := range np.Spec.Egress {
			for i := range r.Ports {
				all = append(all, &r.Ports[i])
			}
		}
		if len(all) == 0 {
			return false
		}
		spoilPort(t, rapid.SampledFrom(all).Draw(t, "which"))
		return true
	},
}

func spoilSelector(t *rapid.T, s *metav1.LabelSelector) {
	if len(s.MatchExpressions) == 0 || rapid.Bool().Draw(t, "labels") {
		s.MatchLabels = map[string]string{pick("a", "-a", "").Draw(t, "key"): "a b"}
		return
	}
	r := rapid.SampledFrom(s.MatchExpressions).Draw(t, "which")
	switch rapid.IntRange(0, 4).Draw(t, "how") {
	case 0:
		r.Operator = pick[metav1.LabelSelectorOperator]("", "in", "Equals").Draw(t, "operator")
	case 1:
		r.Key = pick("", "-a", "a b", "a/b/c").Draw(t, "key")
	case 2:
		r.Operator, r.Values = metav1.LabelSelectorOpNotIn, []string{"1", "a b"}
	case 3:
		r.Operator, r.Values = pick(metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn).Draw(t, "operator"), nil
	case 4:
		r.Operator, r.Values = pick(metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist).Draw(t, "operator"), []string{"1"}
	}
	s.MatchExpressions[0] = r
}

func spoilPeer(t *rapid.T, p *networkingv1.NetworkPolicyPeer) {
	garbage := pick("", "all", "10.0.0.0", "10.0.0.0/33", "0.0.0.0/-0", "::/129", "0.0.0.0/0/0")
	switch {
	case p.IPBlock == nil && p.PodSelector != nil && rapid.Bool().Draw(t, "selector"):
		spoilSelector(t, p.PodSelector)
	case p.IPBlock == nil && p.NamespaceSelector != nil && rapid.Bool().Draw(t, "namespaces"):
		spoilSelector(t, p.NamespaceSelector)
	case p.IPBlock == nil:
		// No kind of peer, or two.
		*p = pick(networkingv1.NetworkPolicyPeer{},
			networkingv1.NetworkPolicyPeer{PodSelector: p.PodSelector, NamespaceSelector: p.NamespaceSelector, IPBlock: &networkingv1.IPBlock{CIDR: "0.0.0.0/0"}}).Draw(t, "peer")
	case rapid.Bool().Draw(t, "cidr"):
		p.IPBlock.CIDR = garbage.Draw(t, "cidr")
	default:
		p.IPBlock.Except = append(p.IPBlock.Except, rapid.OneOf(garbage, pick(p.IPBlock.CIDR, "192.168.0.0/33", "fe80::/129")).Draw(t, "except"))
	}
}

func spoilPort(t *rapid.T, p *networkingv1.NetworkPolicyPort) {
	switch rapid.IntRange(0, 4).Draw(t, "how") {
	case 0:
		p.Protocol = new(pick[corev1.Protocol]("", "tcp", "ICMP", "6").Draw(t, "protocol"))
	case 1:
		p.Port = new(intstr.FromInt32(pick[int32](0, -1, 65536, 65536+80).Draw(t, "port")))
	case 2:
		p.Port = new(intstr.FromString(pick("", "80", "HTTP", "sixteen-letters-").Draw(t, "name")))
	case 3:
		p.EndPort = new(pick[int32](0, -1, 65536, 65536+80).Draw(t, "endPort"))
	case 4:
		p.EndPort = new(int32(65535))
		p.Port = pick(nil, new(intstr.FromString("http"))).Draw(t, "port")
	}
}

// TestGarbage makes a field of an object what cannot be understood. That is
// told, and allows nothing that was not allowed before, whatever the other
// policies are.
func TestGarbage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		objects := rapid.SliceOfN(someObject, 1, 3).Draw(t, "objects")
		spoiled := objects[0].DeepCopy()
		if how := pick("policyTypes", "podSelector", "peer", "port").Draw(t, "field"); !spoil[how](t, spoiled) {
			t.Skip("no such field")
		}
		var before, after []*spec.Policy
		for _, np := range objects {
			p, _ := kube.Convert(np)
			before, after = append(before, p), append(after, p)
		}
		p, problems := kube.Convert(spoiled)
		if len(problems) == 0 {
			t.Fatalf("no problem with %+v", spoiled.Spec)
		}
		after[0] = p
		for _, f := range flows {
			if allowed(after, f) && !allowed(before, f) {
				t.Fatalf("%+v is allowed by what is wrong: %v", f, problems)
			}
		}
		// Files with such objects are refused.
		text, err := kubeyaml.Marshal(spoiled)
		if err != nil {
			t.Fatal(err)
		}
		if list, diags := kube.Decode("p.yaml", text); len(list) > 0 || !diags.HasErrors() {
			t.Fatalf("decoded all the same:\n%s", text)
		}
	})
}
