package policy

import (
	"reflect"

	"github.com/poldernet/polder/spec"
)

// SetModel changes everything to what it is in a model, at the price of looking at
// all of it and of changing what is other than before.
func (x *Index) SetModel(m *Model) {
	if before, after := frame(x.m.spec), frame(m.spec); !reflect.DeepEqual(before, after) {
		x.SetFrame(m.spec)
	}
	namespaces := make(map[string]bool, len(m.spec.Namespaces))
	for _, ns := range m.spec.Namespaces {
		namespaces[ns.Name] = true
		x.SetNamespace(ns)
	}
	for name := range x.declared {
		if !namespaces[name] {
			x.DeleteNamespace(name)
		}
	}
	endpoints := make(map[string]bool, len(m.spec.Endpoints))
	for _, e := range m.spec.Endpoints {
		endpoints[e.Name] = true
		x.SetEndpoint(e)
	}
	for name := range x.endpoints {
		if !endpoints[name] {
			x.DeleteEndpoint(name)
		}
	}
	policies := map[string]bool{}
	for _, t := range m.tiers {
		for _, p := range t.policies {
			policies[p.ID()] = true
			if !reflect.DeepEqual(x.policies[p.ID()], p) {
				x.SetPolicy(p)
			}
		}
	}
	for id := range x.policies {
		if !policies[id] {
			x.DeletePolicy(id)
		}
	}
}

// frame is a spec without endpoints, namespaces and policies.
func frame(sp *spec.Spec) *spec.Spec {
	f := *sp
	f.Endpoints, f.Namespaces, f.Policies, f.Manifests = nil, nil, nil, nil
	return &f
}
