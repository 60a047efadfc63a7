// Package kube reads Kubernetes objects for policies.
//
// NetworkPolicies come in by two doors. Decode reads files as `kubectl apply`
// and the API server would take them, and refuses what they refuse. Convert
// takes an object that an API server has stored. Behind both is one converter.
package kube

import (
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/poldernet/polder/spec"
	"github.com/poldernet/polder/spec/selector"
)

// order is the place of NetworkPolicies in their tier, Calico's for them.
const order = 1000

// Problem is something in a stored object that cannot be understood.
type Problem struct {
	Field   string // as Kubernetes writes it: spec.ingress[0].from[0].ipBlock.cidr
	Message string
}

// String is the field with what is wrong about it.
func (p Problem) String() string { return p.Field + ": " + p.Message }

// Convert is the policy that an object stands for as an API server stores it.
// CIDRs from before Kubernetes 1.36 may have leading zeros, which are decimal,
// and host bits, which are masked.
//
// What cannot be understood fails closed: a peer or port matches nothing; of
// the selector of pods those requirements hold that are understood, and the
// pods that it then selects may be reached by nobody; an unknown policy type
// isolates in both directions. The object is not changed.
//
// The ranges of the policy name the object: networkpolicies/NAMESPACE/NAME.
func Convert(np *networkingv1.NetworkPolicy) (*spec.Policy, []Problem) {
	place := hcl.Range{Filename: "networkpolicies/" + namespace(np) + "/" + np.Name}
	c := converter{at: func(*field.Path) hcl.Range { return place }}
	p := c.policy(np)
	var problems []Problem
	for _, err := range c.errs {
		problems = append(problems, Problem{err.Field, text(err)})
	}
	return p, problems
}

// converter makes a policy and tells what it could not understand.
type converter struct {
	strict bool                        // as for new objects, not for stored ones
	at     func(*field.Path) hcl.Range // where a field stands
	errs   field.ErrorList
}

var (
	metadataPath = field.NewPath("metadata")
	specPath     = field.NewPath("spec")
)

func (c *converter) policy(np *networkingv1.NetworkPolicy) *spec.Policy {
	o := float64(order)
	p := &spec.Policy{
		Kind:      spec.KindNetworkPolicy,
		Name:      namespace(np) + "/" + np.Name,
		Namespace: namespace(np),
		Tier:      spec.DefaultTier,
		Order:     &o,
		Range:     c.at(metadataPath.Child("name")),
	}
	var known bool
	p.Selector, known = c.selector(&np.Spec.PodSelector, specPath.Child("podSelector"))
	var ingress, egress []spec.Rule
	for i, r := range np.Spec.Ingress {
		path := specPath.Child("ingress").Index(i)
		ingress = append(ingress, c.rule(r.From, r.Ports, path, path.Child("from")))
	}
	for i, r := range np.Spec.Egress {
		path := specPath.Child("egress").Index(i)
		egress = append(egress, c.rule(r.To, r.Ports, path, path.Child("to")))
	}
	types, sure := c.types(&np.Spec)
	if !sure {
		p.Types = slices.Clone(spec.Directions)
	} else {
		for _, d := range spec.Directions {
			if types[d] {
				p.Types = append(p.Types, d)
			}
		}
	}
	// With pods in doubt, a rule could open one that the policy is not about.
	if known && types[spec.Ingress] {
		p.Ingress = ingress
	}
	if known && types[spec.Egress] {
		p.Egress = egress
	}
	return p
}

// namespace is the object's namespace: the API server gives it this one where
// it names none.
func namespace(np *networkingv1.NetworkPolicy) string {
	if np.Namespace == "" {
		return metav1.NamespaceDefault
	}
	return np.Namespace
}

// types are the directions that the policy is about, and whether these are all.
func (c *converter) types(s *networkingv1.NetworkPolicySpec) (types map[spec.Direction]bool, sure bool) {
	if len(s.PolicyTypes) == 0 {
		return map[spec.Direction]bool{spec.Ingress: true, spec.Egress: len(s.Egress) > 0}, true
	}
	path, before := specPath.Child("policyTypes"), len(c.errs)
	if len(s.PolicyTypes) > len(spec.Directions) {
		c.fail(field.Invalid(path, s.PolicyTypes, "may not specify more than two policyTypes"))
	}
	types = make(map[spec.Direction]bool)
	for i, t := range s.PolicyTypes {
		switch t {
		case networkingv1.PolicyTypeIngress:
			types[spec.Ingress] = true
		case networkingv1.PolicyTypeEgress:
			types[spec.Egress] = true
		default:
			c.fail(field.NotSupported(path.Index(i), t,
				[]networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}))
		}
	}
	return types, len(c.errs) == before
}

func (c *converter) rule(peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort, path, peersPath *field.Path) spec.Rule {
	r := spec.Rule{Action: spec.Allow, Range: c.at(path)}
	if len(ports) > 0 {
		r.Services = []spec.Service{}
	}
	for i := range ports {
		if s, ok := c.service(&ports[i], path.Child("ports").Index(i)); ok {
			r.Services = append(r.Services, s)
		}
	}
	if len(peers) > 0 {
		r.Peers = []spec.Peer{}
	}
	for i := range peers {
		if p, ok := c.peer(&peers[i], peersPath.Index(i)); ok {
			r.Peers = append(r.Peers, p)
		}
	}
	return r
}

func (c *converter) peer(np *networkingv1.NetworkPolicyPeer, path *field.Path) (spec.Peer, bool) {
	p, before := spec.Peer{Range: c.at(path)}, len(c.errs)
	selects := np.PodSelector != nil || np.NamespaceSelector != nil
	if selects {
		p.Endpoints = new(spec.PeerSelector)
	}
	if np.PodSelector != nil {
		p.Endpoints.Selector, _ = c.selector(np.PodSelector, path.Child("podSelector"))
	}
	if np.NamespaceSelector != nil {
		p.Endpoints.Namespaces, _ = c.selector(np.NamespaceSelector, path.Child("namespaceSelector"))
	}
	if np.IPBlock != nil {
		p.Block = c.block(np.IPBlock, path.Child("ipBlock"))
	}
	switch {
	case !selects && np.IPBlock == nil:
		c.fail(field.Required(path, "must specify a peer: podSelector, namespaceSelector or ipBlock; every peer is meant where the list is left out"))
	case selects && np.IPBlock != nil:
		c.fail(field.Forbidden(path, "may not specify both ipBlock and another peer; two items of the list are either of them"))
	}
	return p, len(c.errs) == before
}

// selector is a selector with those requirements that are understood, and
// whether these are all.
func (c *converter) selector(s *metav1.LabelSelector, path *field.Path) (*selector.Selector, bool) {
	before := len(c.errs)
	var all []*selector.Selector
	for _, key := range slices.Sorted(maps.Keys(s.MatchLabels)) {
		value := s.MatchLabels[key]
		if errs := validation.ValidateLabels(map[string]string{key: value}, path.Child("matchLabels")); len(errs) > 0 {
			c.fail(errs...)
			continue
		}
		all = append(all, selector.Equals(key, value))
	}
	for i, r := range s.MatchExpressions {
		errs := validation.ValidateLabelSelectorRequirement(r, validation.LabelSelectorValidationOptions{}, path.Child("matchExpressions").Index(i))
		if len(errs) > 0 {
			c.fail(errs...)
			continue
		}
		switch r.Operator {
		case metav1.LabelSelectorOpIn:
			all = append(all, selector.In(r.Key, r.Values...))
		case metav1.LabelSelectorOpNotIn:
			all = append(all, selector.NotIn(r.Key, r.Values...))
		case metav1.LabelSelectorOpExists:
			all = append(all, selector.Has(r.Key))
		case metav1.LabelSelectorOpDoesNotExist:
			all = append(all, selector.Not(selector.Has(r.Key)))
		}
	}
	known := len(c.errs) == before
	if len(all) == 0 {
		return selector.All(), known
	}
	return selector.And(all...), known
}

// protocols are those that a port may be of, with their numbers.
var protocols = map[corev1.Protocol]uint8{
	corev1.ProtocolTCP:  6,
	corev1.ProtocolUDP:  17,
	corev1.ProtocolSCTP: 132,
}

func (c *converter) fail(errs ...*field.Error) { c.errs = append(c.errs, errs...) }

// text is what is wrong about a field. It tells the value, too.
func text(err *field.Error) string {
	body := err.ErrorBody()
	// The kind of the error is of use where nothing else is said.
	if kind, rest, ok := strings.Cut(body, ": "); ok && kind == err.Type.String() {
		return rest
	}
	return body
}
