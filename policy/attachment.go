package policy

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/poldernet/polder/spec"
)

// Attachment is what is known of an endpoint by who attached it to its node: the
// port, and the MAC and the addresses by which it speaks there.
//
// Labels and named ports are those of the endpoint that it is of: the one that the
// inventory has under Key or, without one, that of the spec with its namespace and
// name. Where there is neither it is an endpoint without labels.
type Attachment struct {
	ID        string // tells it from all others
	Namespace string // "": any of the spec's, or else the default one
	Name      string
	Node      string
	Interface string
	MAC       spec.MAC
	Addresses []netip.Addr
}

// defaultNamespace is that of endpoints which name none (spec, `endpoint`).
const defaultNamespace = "default"

// Key is the name of the endpoint as a source of endpoints gives it.
func (a *Attachment) Key() string {
	if a.Namespace == "" {
		return a.Name
	}
	return a.Namespace + "/" + a.Name
}

// attach notes an attachment, or that it is gone.
func (v *Inventory) attach(a *Attachment, gone bool) {
	key := a.Key()
	list := slices.DeleteFunc(slices.Clone(v.attachments[key]), func(o *Attachment) bool { return o.ID == a.ID })
	if !gone {
		at, _ := slices.BinarySearchFunc(list, a.ID, func(o *Attachment, id string) int { return cmp.Compare(o.ID, id) })
		list = slices.Insert(list, at, a)
	}
	if v.attachments[key] = list; len(list) == 0 {
		delete(v.attachments, key)
	}
}

// declared is the endpoint of a spec that has a key; nil: there is none.
func declared(sp *spec.Spec, key string) *spec.Endpoint {
	if sp == nil {
		return nil
	}
	for _, e := range sp.Endpoints {
		if e.Name == key || e.Namespace+"/"+e.Name == key {
			return e
		}
	}
	return nil
}

// Around are the endpoints that an event of an endpoint or an attachment may
// change, as they are beside a spec.
func (v *Inventory) Around(sp *spec.Spec, e Event) []*spec.Endpoint {
	switch {
	case e.Endpoint != nil:
		return v.known(sp, e.Endpoint.Name)
	case e.Attachment != nil:
		return v.known(sp, e.Attachment.Key())
	}
	return nil
}

// known are the endpoints of a key. The first has the endpoint's own name; an
// endpoint with several ports is as many, of which the others are called by their
// ports, too. One that is said to be on another node, where one of its name is
// still attached here, is both.
func (v *Inventory) known(sp *spec.Spec, key string) []*spec.Endpoint {
	base := v.endpoints[key]
	if base == nil {
		base = declared(sp, key)
	}
	attached := v.attachments[key]
	var list []*spec.Endpoint
	if base != nil && (len(attached) == 0 || base.Node != attached[0].Node) {
		list = append(list, base)
	}
	for _, a := range attached {
		e := &spec.Endpoint{Name: key, Namespace: cmp.Or(a.Namespace, defaultNamespace)}
		if base != nil {
			*e = *base
		}
		if len(list) > 0 {
			e.Name += "@" + a.Interface
		}
		e.Node, e.Interface, e.MAC, e.Addresses = a.Node, a.Interface, a.MAC, a.Addresses
		list = append(list, e)
	}
	return list
}

// beside are a spec's endpoints with those of the inventory.
func (v *Inventory) beside(sp *spec.Spec) []*spec.Endpoint {
	attached := map[*spec.Endpoint]bool{} // of the spec
	keys := maps.Clone(v.endpoints)
	for key := range v.attachments {
		if v.endpoints[key] == nil {
			keys[key] = nil
			attached[declared(sp, key)] = true
		}
	}
	all := slices.DeleteFunc(slices.Clone(sp.Endpoints), func(e *spec.Endpoint) bool { return attached[e] })
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		all = append(all, v.known(sp, key)...)
	}
	return all
}
