package kube_test

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/poldernet/polder/spec"
	"github.com/poldernet/polder/spec/selector"
)

// end is an end of a flow: a pod, or something outside, which has no namespace.
type end struct {
	namespace string
	labels    map[string]string
	addr      netip.Addr
	ports     map[string]servicePort
}

type servicePort struct {
	protocol uint8
	number   uint16
}

type flow struct {
	from, to end
	servicePort
}

var namespaces = map[string]map[string]string{
	"shop":  {spec.NamespaceLabel: "shop", "a": "1"},
	"other": {spec.NamespaceLabel: "other", "a": "", "b": "2"},
}

// pods have absent and empty labels, addresses of both families, and the same
// names for ports of different numbers and protocols.
var pods = []end{
	{"shop", nil, netip.MustParseAddr("10.0.0.1"), map[string]servicePort{"http": {6, 80}}},
	{"shop", map[string]string{"a": ""}, netip.MustParseAddr("10.0.0.2"), map[string]servicePort{"http": {6, 81}}},
	{"shop", map[string]string{"a": "1", "b": "2"}, netip.MustParseAddr("2001:db8::3"), map[string]servicePort{"http": {17, 80}}},
	{"other", map[string]string{"a": "1"}, netip.MustParseAddr("10.0.1.4"), map[string]servicePort{"http": {132, 90}}},
	{"other", map[string]string{"b": "1"}, netip.MustParseAddr("2001:db8:1::5"), nil},
}

var outside = []end{
	{addr: netip.MustParseAddr("10.0.1.200")},
	{addr: netip.MustParseAddr("192.0.2.1")},
	{addr: netip.MustParseAddr("2001:db8:1::ff")},
}

var flows = func() (list []flow) {
	all := slices.Concat(pods, outside)
	for _, from := range all {
		for _, to := range all {
			for _, protocol := range []uint8{1, 6, 17, 132} {
				for _, number := range []uint16{0, 80, 81, 85, 90, 65535} {
					if from.addr != to.addr {
						list = append(list, flow{from, to, servicePort{protocol, number}})
					}
				}
			}
		}
	}
	return list
}()

// allowed judges a flow by policies of polder: it is isolated at an end that
// one selects, and then some rule must match.
func allowed(policies []*spec.Policy, f flow) bool {
	for _, d := range spec.Directions {
		subject, peer := f.to, f.from
		if d == spec.Egress {
			subject, peer = f.from, f.to
		}
		isolated, open := false, false
		for _, p := range policies {
			if subject.namespace == "" || p.Namespace != subject.namespace || !p.Applies(d) || !p.Selector.Matches(selector.Labels(subject.labels)) {
				continue
			}
			isolated = true
			for _, r := range p.Rules(d) {
				open = open || r.Action == spec.Allow &&
					(r.Peers == nil || slices.ContainsFunc(r.Peers, func(q spec.Peer) bool { return isPeer(p, q, peer) })) &&
					(r.Services == nil || slices.ContainsFunc(r.Services, func(s spec.Service) bool { return isService(s, f) }))
			}
		}
		if isolated && !open {
			return false
		}
	}
	return true
}

func isPeer(p *spec.Policy, q spec.Peer, e end) bool {
	if q.Block != nil {
		return q.Block.Contains(e.addr)
	}
	s := q.Endpoints
	if e.namespace == "" || s.Selector != nil && !s.Selector.Matches(selector.Labels(e.labels)) {
		return false
	}
	if s.Namespaces == nil {
		return e.namespace == p.Namespace
	}
	return s.Namespaces.Matches(selector.Labels(namespaces[e.namespace]))
}

func isService(s spec.Service, f flow) bool {
	if s.Name != "" {
		return s.Protocol == f.protocol && f.to.ports[s.Name] == f.servicePort
	}
	return s.Protocol == f.protocol && s.Ports.Contains(f.number)
}

// allowedByKubernetes judges a flow by valid objects, after the documentation
// of their fields and with Kubernetes' own selectors.
func allowedByKubernetes(policies []*networkingv1.NetworkPolicy, f flow) bool {
	in := func(s *metav1.LabelSelector, l map[string]string) bool {
		parsed, err := metav1.LabelSelectorAsSelector(s)
		return err == nil && parsed.Matches(labels.Set(l))
	}
	hasPeer := func(p *networkingv1.NetworkPolicy, peers []networkingv1.NetworkPolicyPeer, e end) bool {
		return len(peers) == 0 || slices.ContainsFunc(peers, func(q networkingv1.NetworkPolicyPeer) bool {
			if q.IPBlock != nil {
				contains := func(cidr string) bool { return netip.MustParsePrefix(cidr).Contains(e.addr) }
				return contains(q.IPBlock.CIDR) && !slices.ContainsFunc(q.IPBlock.Except, contains)
			}
			switch {
			case e.namespace == "", q.PodSelector != nil && !in(q.PodSelector, e.labels):
				return false
			case q.NamespaceSelector != nil:
				return in(q.NamespaceSelector, namespaces[e.namespace])
			}
			return e.namespace == p.Namespace
		})
	}
	hasPort := func(ports []networkingv1.NetworkPolicyPort) bool {
		return len(ports) == 0 || slices.ContainsFunc(ports, func(q networkingv1.NetworkPolicyPort) bool {
			number := map[corev1.Protocol]uint8{corev1.ProtocolTCP: 6, corev1.ProtocolUDP: 17, corev1.ProtocolSCTP: 132}
			protocol := number[corev1.ProtocolTCP]
			if q.Protocol != nil {
				protocol = number[*q.Protocol]
			}
			switch {
			case protocol != f.protocol:
				return false
			case q.Port == nil:
				return true
			case q.Port.Type == intstr.String:
				return f.to.ports[q.Port.StrVal] == f.servicePort
			case q.EndPort == nil:
				return q.Port.IntVal == int32(f.number)
			}
			return q.Port.IntVal <= int32(f.number) && int32(f.number) <= *q.EndPort
		})
	}
	is := func(p *networkingv1.NetworkPolicy, t networkingv1.PolicyType) bool {
		if len(p.Spec.PolicyTypes) > 0 {
			return slices.Contains(p.Spec.PolicyTypes, t)
		}
		return t == networkingv1.PolicyTypeIngress || len(p.Spec.Egress) > 0
	}
	inIsolated, inOpen, outIsolated, outOpen := false, false, false, false
	for _, p := range policies {
		about := func(e end) bool {
			return e.namespace != "" && e.namespace == p.Namespace && in(&p.Spec.PodSelector, e.labels)
		}
		if is(p, networkingv1.PolicyTypeIngress) && about(f.to) {
			inIsolated = true
			for _, r := range p.Spec.Ingress {
				inOpen = inOpen || hasPeer(p, r.From, f.from) && hasPort(r.Ports)
			}
		}
		if is(p, networkingv1.PolicyTypeEgress) && about(f.from) {
			outIsolated = true
			for _, r := range p.Spec.Egress {
				outOpen = outOpen || hasPeer(p, r.To, f.to) && hasPort(r.Ports)
			}
		}
	}
	return (!inIsolated || inOpen) && (!outIsolated || outOpen)
}
