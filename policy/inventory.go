package policy

import (
	"maps"
	"slices"

	"github.com/poldernet/polder/spec"
)

// Event is what becomes of one object of a model: it is there, as it is given, or
// it is gone. One of the objects is set.
type Event struct {
	Endpoint   *spec.Endpoint
	Namespace  *spec.Namespace
	Policy     *spec.Policy
	Attachment *Attachment
	UID        string // of the endpoint, where it tells one from the next of its name
	Gone       bool
}

// Apply changes what an event of a namespace or a policy says. Which endpoints one
// of the others changes, the inventory knows: see Around.
func (x *Index) Apply(e Event) {
	switch {
	case e.Namespace != nil && e.Gone:
		x.DeleteNamespace(e.Namespace.Name)
	case e.Namespace != nil:
		x.SetNamespace(e.Namespace)
	case e.Policy != nil && e.Gone:
		x.DeletePolicy(e.Policy.ID())
	case e.Policy != nil:
		x.SetPolicy(e.Policy)
	}
}

// Inventory is what the events of a source come to, beside what a spec says.
type Inventory struct {
	endpoints  map[string]*spec.Endpoint
	uids       map[string]string // of endpoints, by their names
	namespaces map[string]*spec.Namespace
	policies   map[string]*spec.Policy // by ID
	// attachments are by the key of their endpoints, in the order of IDs.
	attachments map[string][]*Attachment
}

// NewInventory is empty.
func NewInventory() *Inventory {
	return &Inventory{
		endpoints: map[string]*spec.Endpoint{}, uids: map[string]string{}, namespaces: map[string]*spec.Namespace{}, policies: map[string]*spec.Policy{},
		attachments: map[string][]*Attachment{},
	}
}

// Attached is an inventory with nothing but the attachments.
func (v *Inventory) Attached() *Inventory {
	a := NewInventory()
	a.attachments = v.attachments
	return a
}

// Has says that an endpoint has been told of, under its name and UID.
func (v *Inventory) Has(name, uid string) bool {
	_, there := v.endpoints[name]
	return there && (uid == "" || v.uids[name] == uid)
}

// Apply changes what an event says.
func (v *Inventory) Apply(e Event) {
	switch {
	case e.Endpoint != nil:
		note(v.endpoints, e.Endpoint.Name, e.Endpoint, e.Gone)
		note(v.uids, e.Endpoint.Name, e.UID, e.Gone)
	case e.Namespace != nil:
		note(v.namespaces, e.Namespace.Name, e.Namespace, e.Gone)
	case e.Policy != nil:
		note(v.policies, e.Policy.ID(), e.Policy, e.Gone)
	case e.Attachment != nil:
		v.attach(e.Attachment, e.Gone)
	}
}

func note[T any](m map[string]T, name string, v T, gone bool) {
	if gone {
		delete(m, name)
	} else {
		m[name] = v
	}
}

// Beside is a spec with what is in the inventory. Of two namespaces of one name it
// has the inventory's; endpoints that are attached are as they were attached.
func (v *Inventory) Beside(sp *spec.Spec) *spec.Spec {
	all := *sp
	all.Endpoints = v.beside(sp)
	all.Policies = slices.Concat(sp.Policies, inOrder(v.policies))
	all.Namespaces = slices.DeleteFunc(slices.Clone(sp.Namespaces), func(ns *spec.Namespace) bool { return v.namespaces[ns.Name] != nil })
	all.Namespaces = append(all.Namespaces, inOrder(v.namespaces)...)
	return &all
}

// Policies are policies of a spec with those of the inventory, in no order.
func (v *Inventory) Policies(more []*spec.Policy) []*spec.Policy {
	return slices.AppendSeq(slices.Clip(more), maps.Values(v.policies))
}

// HasPolicies says that there are policies in the inventory.
func (v *Inventory) HasPolicies() bool { return len(v.policies) > 0 }

func inOrder[T any](m map[string]T) []T {
	list := make([]T, 0, len(m))
	for _, name := range slices.Sorted(maps.Keys(m)) {
		list = append(list, m[name])
	}
	return list
}
