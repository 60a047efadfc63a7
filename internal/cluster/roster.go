package cluster

import (
	"net/netip"
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

// roster knows the pods, and which of them has an address that several claim. Its
// methods return what becomes of endpoints.
type roster struct {
	pods        map[string]*claimant // by the name of the endpoint
	claims      map[netip.Addr][]*claimant
	attachments map[types.UID]Attachment
}

// claimant is a pod.
type claimant struct {
	pod      *corev1.Pod
	endpoint *spec.Endpoint // with all that it claims; nil: it is none
	attached bool           // its addresses are not only what the API server says
	told     *spec.Endpoint // with what it was last told to have; nil: nothing
}

func newRoster() *roster {
	return &roster{pods: map[string]*claimant{}, claims: map[netip.Addr][]*claimant{}, attachments: map[types.UID]Attachment{}}
}

// set takes a pod in, or changes it.
func (r *roster) set(pod *corev1.Pod) []policy.Event {
	name := endpointName(pod.Namespace, pod.Name)
	c := r.pods[name]
	if c == nil {
		c = &claimant{}
		r.pods[name] = c
	}
	c.pod = pod
	return r.claim(c)
}

// remove takes a pod out.
func (r *roster) remove(namespace, name string) []policy.Event {
	c := r.pods[endpointName(namespace, name)]
	if c == nil {
		return nil
	}
	delete(r.pods, endpointName(namespace, name))
	c.pod = nil
	return r.claim(c)
}

// attach notes how a pod is attached. It may not be known yet.
func (r *roster) attach(a Attachment) []policy.Event {
	r.attachments[a.Pod] = a
	return r.attached(a)
}

// detach notes that a pod is attached no longer.
func (r *roster) detach(pod types.UID) []policy.Event {
	a, ok := r.attachments[pod]
	if !ok {
		return nil
	}
	delete(r.attachments, pod)
	return r.attached(a)
}

func (r *roster) attached(a Attachment) []policy.Event {
	// Another pod may have its name by now.
	if c := r.pods[endpointName(a.Namespace, a.Name)]; c != nil && c.pod.UID == a.Pod {
		return r.claim(c)
	}
	return nil
}

// claim brings the claims of a pod up to date, and gives each address to whom it is
// due.
func (r *roster) claim(c *claimant) []policy.Event {
	old := c.endpoint
	c.endpoint, c.attached = nil, false
	if c.pod != nil {
		var a *Attachment
		if known, ok := r.attachments[c.pod.UID]; ok {
			a, c.attached = &known, true
		}
		c.endpoint = endpointOf(c.pod, a)
	}
	concerned := []*claimant{c}
	for _, e := range []*spec.Endpoint{old, c.endpoint} {
		if e == nil {
			continue
		}
		for _, a := range e.Addresses {
			list := slices.DeleteFunc(r.claims[a], func(o *claimant) bool { return o == c })
			for _, o := range list {
				if !slices.Contains(concerned, o) {
					concerned = append(concerned, o)
				}
			}
			if e == c.endpoint {
				list = append(list, c)
			}
			if r.claims[a] = list; len(list) == 0 {
				delete(r.claims, a)
			}
		}
	}
	var events []policy.Event
	for _, o := range concerned {
		events = append(events, r.tell(o)...)
	}
	return events
}

// tell is what has become of a pod's endpoint since it was last told.
func (r *roster) tell(c *claimant) []policy.Event {
	now := r.due(c)
	if reflect.DeepEqual(now, c.told) {
		return nil
	}
	e := policy.Event{Endpoint: now}
	if now == nil {
		e = policy.Event{Endpoint: c.told, Gone: true}
	}
	c.told = now
	return []policy.Event{e}
}

// due is a pod's endpoint with those addresses that are its own; nil: it has none.
func (r *roster) due(c *claimant) *spec.Endpoint {
	if c.endpoint == nil {
		return nil
	}
	lost := func(a netip.Addr) bool {
		return slices.ContainsFunc(r.claims[a], func(o *claimant) bool { return o != c && o.before(c) })
	}
	if !slices.ContainsFunc(c.endpoint.Addresses, lost) {
		return c.endpoint
	}
	e := *c.endpoint
	e.Addresses = slices.DeleteFunc(slices.Clone(e.Addresses), lost)
	if len(e.Addresses) == 0 {
		return nil
	}
	return &e
}

// before says that an address which both claim is the first one's.
func (c *claimant) before(o *claimant) bool {
	if c.attached != o.attached {
		return c.attached
	}
	return younger(c.pod, o.pod)
}
