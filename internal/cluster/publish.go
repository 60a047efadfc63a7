package cluster

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
)

// The conditions that polder writes on its own Node.
const (
	// NetworkUnavailable is Kubernetes' own: while it is true, no pods are placed.
	networkUnavailable = corev1.NodeNetworkUnavailable
	// podCIDRs says that the node has a block of each family of the pod network, and
	// containers with no other addresses.
	podCIDRs corev1.NodeConditionType = "polder.net/PodCIDRs"
	// peers says that the paths to all other nodes are in the kernel.
	peers corev1.NodeConditionType = "polder.net/Peers"
)

var conditions = []corev1.NodeConditionType{networkUnavailable, podCIDRs, peers}

// annotationsDue are the annotations that a node should have by its state, of those
// that it has: "" for one that it should not have. What the state leaves open is as
// it is: peers go by it, and are never told of what is not in the kernel.
func annotationsDue(has map[string]string, s reconcile.NodeState) map[string]string {
	if s.Network == nil || !s.Stands {
		return nil
	}
	due := map[string]string{}
	shared := s.Network.Compat == spec.CompatFlannel
	if shared {
		due[flannelManaged], due[flannelType] = "true", string(s.Network.Backend.Type)
	}
	for _, f := range spec.Families {
		address, mac := polderAddress.Get(f), polderMAC.Get(f)
		if shared {
			address, mac = flannelAddress.Get(f), flannelData.Get(f)
		}
		if !slices.Contains(s.Families, f) {
			due[address], due[mac] = "", ""
			continue
		}
		if a := s.Addresses.Get(f); a.IsValid() {
			due[address] = a.String()
		}
		if other := has[flannelOverwrite.Get(f)]; shared && other != "" {
			due[address] = other
		}
		switch m := s.MACs.Get(f); {
		case s.Network.Backend.Type != spec.VXLAN && shared:
			due[mac] = noData
		case s.Network.Backend.Type != spec.VXLAN:
			due[mac] = ""
		case !m.IsZero() && shared:
			due[mac] = encodeBackendData(backendData{s.Network.Backend.VNI, m})
		case !m.IsZero():
			due[mac] = m.String()
		}
	}
	return due
}

// conditionsDue are the conditions that a node should have by its state, without
// times. One of which the state says nothing stays as it is.
func conditionsDue(s reconcile.NodeState) (due []corev1.NodeCondition) {
	if s.Network == nil {
		return nil
	}
	say := func(t corev1.NodeConditionType, status corev1.ConditionStatus, reason, message string) {
		due = append(due, corev1.NodeCondition{Type: t, Status: status, Reason: reason, Message: message})
	}
	switch {
	case s.Gone:
		const why = "the pod network was destroyed on this node"
		say(networkUnavailable, corev1.ConditionTrue, "Destroyed", why)
		say(peers, corev1.ConditionFalse, "Destroyed", why)
		return due
	case s.Stands:
		say(networkUnavailable, corev1.ConditionFalse, "PolderIsUp", "the node's part of the pod network is in the kernel")
	case len(s.Self) > 0 && len(s.Families) == 0:
		say(networkUnavailable, corev1.ConditionTrue, string(s.Self[0].Reason), leftOut(s.Self))
	}
	switch {
	case len(s.Self) > 0:
		say(podCIDRs, corev1.ConditionFalse, string(s.Self[0].Reason), leftOut(s.Self))
	case len(s.Strays) > 0:
		say(podCIDRs, corev1.ConditionFalse, "PodCIDRChanged",
			"containers have addresses that are not in the pod CIDRs of the node, and are not reached; make them anew: "+few(s.Strays, func(name string) string { return name }))
	default:
		say(podCIDRs, corev1.ConditionTrue, "Complete", "the node has a pod CIDR of each family of the pod network")
	}
	switch {
	case !s.Stands:
	case len(s.Peers) > 0:
		say(peers, corev1.ConditionFalse, "NotAllReached", leftOut(s.Peers))
	default:
		say(peers, corev1.ConditionTrue, "AllReached", "the paths to all other nodes are in the kernel")
	}
	return due
}

func leftOut(list []spec.LeftOut) string {
	text := few(list, spec.LeftOut.String)
	if len(list) > mostNamed {
		text += ", which `polder status --all` on this node shows"
	}
	return text
}

// mostNamed is how many of something a message names.
const mostNamed = 10

// few is the first of some as text. The others are not made text: there may be
// thousands, and each change of the Node is asked about.
func few[T any](all []T, text func(T) string) string {
	const mostBytes = 200
	var list []string
	for _, one := range all[:min(len(all), mostNamed)] {
		list = append(list, cut(text(one), mostBytes))
	}
	if more := len(all) - mostNamed; more > 0 {
		list = append(list, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(list, "; ")
}

// publication is a change of a Node.
type publication struct {
	annotations map[string]*string // nil: it is removed
	conditions  []corev1.NodeCondition
}

func (p publication) empty() bool { return len(p.annotations)+len(p.conditions) == 0 }

// has says that a condition is changed.
func (p publication) has(t corev1.NodeConditionType) bool {
	return slices.ContainsFunc(p.conditions, func(c corev1.NodeCondition) bool { return c.Type == t })
}

// without leaves a condition as it is.
func (p publication) without(t corev1.NodeConditionType) publication {
	p.conditions = slices.DeleteFunc(slices.Clone(p.conditions), func(c corev1.NodeCondition) bool { return c.Type == t })
	return p
}

// publicationOf is what is to be changed of a node for it to say what its state is.
func publicationOf(n *corev1.Node, s reconcile.NodeState, now metav1.Time) (p publication) {
	for key, due := range annotationsDue(n.Annotations, s) {
		has, there := n.Annotations[key]
		if has == due && there == (due != "") {
			continue
		}
		if p.annotations == nil {
			p.annotations = map[string]*string{}
		}
		p.annotations[key] = nil
		if due != "" {
			p.annotations[key] = &due
		}
	}
	for _, due := range conditionsDue(s) {
		due.LastHeartbeatTime, due.LastTransitionTime = now, now
		if i := slices.IndexFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool { return c.Type == due.Type }); i >= 0 {
			has := n.Status.Conditions[i]
			if has.Status == due.Status && has.Reason == due.Reason && has.Message == due.Message {
				continue
			}
			if has.Status == due.Status {
				due.LastTransitionTime = has.LastTransitionTime
			}
		}
		p.conditions = append(p.conditions, due)
	}
	return p
}

// patch is the change as a strategic merge patch, in which conditions are known by
// their types.
func (p publication) patch() ([]byte, error) {
	text := map[string]any{}
	if len(p.annotations) > 0 {
		text["metadata"] = map[string]any{"annotations": p.annotations}
	}
	if len(p.conditions) > 0 {
		text["status"] = map[string]any{"conditions": p.conditions}
	}
	return json.Marshal(text)
}
