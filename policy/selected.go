package policy

import (
	"slices"

	"github.com/poldernet/polder/spec"
)

// Tier is a tier with its policies, in the order in which they are looked at.
type Tier struct {
	*spec.Tier
	Policies []Selected
}

// Selected is a policy with what it selects.
type Selected struct {
	*spec.Policy
	Endpoints     []*spec.Endpoint
	HostEndpoints []*spec.HostEndpoint
}

// On is the policy with what it selects on one node.
func (s Selected) On(node string) Selected {
	s.Endpoints = slices.DeleteFunc(slices.Clone(s.Endpoints), func(e *spec.Endpoint) bool { return e.Node != node })
	s.HostEndpoints = slices.DeleteFunc(slices.Clone(s.HostEndpoints), func(h *spec.HostEndpoint) bool { return h.Node != node })
	return s
}

// Tiers are all tiers, in their order.
func (m *Model) Tiers() []Tier {
	var out []Tier
	for _, t := range m.tiers {
		listed := Tier{Tier: t.Tier}
		for _, p := range t.policies {
			s := Selected{Policy: p}
			for _, e := range m.spec.Endpoints {
				if m.isAbout(p, e) {
					s.Endpoints = append(s.Endpoints, e)
				}
			}
			for _, h := range m.spec.HostEndpoints {
				if isAboutHost(p, h) {
					s.HostEndpoints = append(s.HostEndpoints, h)
				}
			}
			listed.Policies = append(listed.Policies, s)
		}
		out = append(out, listed)
	}
	return out
}
