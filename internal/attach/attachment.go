// Package attach is about containers that a runtime attaches to the node's bridge
// by CNI plugins: what is known of each, and the list of them that a daemon keeps.
package attach

import (
	"net/netip"

	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

// Attachment is a container's interface on the node's bridge.
type Attachment struct {
	ID
	Network string `json:"network"` // the name of the list of plugins
	Netns   string `json:"netns"`   // the path of the container's network namespace
	Pod     Pod    `json:"pod,omitzero"`
	Port
}

// ID identifies an attachment, as CNI has it.
type ID struct {
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifname"` // in the container
}

func (id ID) String() string { return id.ContainerID + " " + id.IfName }

// Pod is whose sandbox the container is. It is zero where the runtime did not say.
type Pod struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid,omitempty"`
}

// Port is how the container hangs on the bridge.
type Port struct {
	Interface string       `json:"interface"` // of the node
	MAC       spec.MAC     `json:"mac"`       // of the container
	Addresses []netip.Addr `json:"addresses"`
}

// On is the attachment as policies know it, on a node: to the endpoint of the pod's
// namespace and name or, where there is no pod, of the container's ID.
func (a Attachment) On(node string) *policy.Attachment {
	p := &policy.Attachment{
		ID: a.ID.String(), Namespace: a.Pod.Namespace, Name: a.Pod.Name, Node: node,
		Interface: a.Interface, MAC: a.MAC, Addresses: a.Addresses,
	}
	if p.Name == "" {
		p.Namespace, p.Name = "", a.ContainerID
	}
	return p
}
