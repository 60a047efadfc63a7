package cluster

import (
	"net/netip"
	"reflect"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

// roster knows the pods, and which of them has an address that several claim. Its
// methods return what becomes of endpoints.
type roster struct {
	pods   map[string]*claimant // by the name of the endpoint
	claims map[netip.Addr][]*claimant
	// asked are the pods of which somebody asked, and of which what is watched has not
	// come as far: the resourceVersion of the answer, by the name of the endpoint.
	asked map[string]string
}

// claimant is a pod.
type claimant struct {
	pod      *keptPod
	endpoint *spec.Endpoint // with all that it claims; nil: it is none
	told     *spec.Endpoint // with what it was last told to have; nil: nothing
	uid      string         // of the pod that was told
}

func newRoster() *roster {
	return &roster{pods: map[string]*claimant{}, claims: map[netip.Addr][]*claimant{}, asked: map[string]string{}}
}

// set takes a pod in that is watched, or changes it.
func (r *roster) set(pod *keptPod) []policy.Event {
	name := endpointName(pod.Namespace, pod.Name)
	if older(pod.ResourceVersion, r.asked[name]) {
		return nil
	}
	delete(r.asked, name)
	return r.put(name, pod)
}

// answer takes a pod in as somebody was answered who asked for it, unless what is
// watched has come further.
func (r *roster) answer(pod *keptPod) []policy.Event {
	name := endpointName(pod.Namespace, pod.Name)
	if c := r.pods[name]; c != nil && !older(c.pod.ResourceVersion, pod.ResourceVersion) {
		return nil
	}
	r.asked[name] = pod.ResourceVersion
	return r.put(name, pod)
}

// older says that one resourceVersion of a pod is before another, where there is one.
func older(version, than string) bool {
	order, err := resourceversion.CompareResourceVersion(version, than)
	return err == nil && order < 0
}

func (r *roster) put(name string, pod *keptPod) []policy.Event {
	c := r.pods[name]
	if c == nil {
		c = &claimant{}
		r.pods[name] = c
	}
	c.pod = pod
	return r.claim(c)
}

// remove takes a pod out that is watched no more. That one may be before another of
// its name, of which somebody asked.
func (r *roster) remove(pod metav1.Object) []policy.Event {
	name := endpointName(pod.GetNamespace(), pod.GetName())
	if older(pod.GetResourceVersion(), r.asked[name]) {
		return nil
	}
	return r.drop(name)
}

// drop takes a pod out.
func (r *roster) drop(name string) []policy.Event {
	delete(r.asked, name)
	c := r.pods[name]
	if c == nil {
		return nil
	}
	delete(r.pods, name)
	c.pod = nil
	return r.claim(c)
}

// claim brings the claims of a pod up to date, and gives each address to whom it is
// due.
func (r *roster) claim(c *claimant) []policy.Event {
	old := c.endpoint
	c.endpoint = nil
	if c.pod != nil {
		c.endpoint = c.pod.endpoint
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
	uid := ""
	if now != nil {
		uid = string(c.pod.UID)
	}
	if reflect.DeepEqual(now, c.told) && uid == c.uid {
		return nil
	}
	e := policy.Event{Endpoint: now, UID: uid}
	if now == nil {
		e = policy.Event{Endpoint: c.told, Gone: true}
	}
	c.told, c.uid = now, uid
	return []policy.Event{e}
}

// due is a pod's endpoint with those addresses that are its own.
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
	return &e
}

// before says that an address which both claim is the first one's.
func (c *claimant) before(o *claimant) bool { return younger(c.pod, o.pod) }
