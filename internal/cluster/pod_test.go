package cluster

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

// somePod is a pod that runs.
func somePod() *corev1.Pod {
	always := corev1.ContainerRestartPolicyAlways
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "1", Labels: map[string]string{"app": "web"}, Annotations: map[string]string{"much": "text"}},
		Spec: corev1.PodSpec{
			NodeName: "n1",
			Containers: []corev1.Container{
				{Name: "first", Image: "image", Ports: []corev1.ContainerPort{
					{Name: "http", ContainerPort: 80}, {ContainerPort: 81}, {Name: "sync", ContainerPort: 82, Protocol: corev1.ProtocolSCTP},
					{Name: "odd", ContainerPort: 83, Protocol: "DCCP"}, {Name: "none", ContainerPort: 0},
				}},
				{Name: "second", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 90}, {Name: "dns", ContainerPort: 53, Protocol: corev1.ProtocolUDP}}},
			},
			InitContainers: []corev1.Container{
				{Name: "once", Ports: []corev1.ContainerPort{{Name: "once", ContainerPort: 1}}},
				{Name: "beside", RestartPolicy: &always, Ports: []corev1.ContainerPort{{Name: "beside", ContainerPort: 2}}},
			},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.244.1.5", PodIPs: []corev1.PodIP{{IP: "10.244.1.5"}, {IP: "fd00::5"}, {IP: "garbage"}}},
	}
}

func addresses(texts ...string) (list []netip.Addr) {
	for _, t := range texts {
		list = append(list, netip.MustParseAddr(t))
	}
	return list
}

func TestEndpoint(t *testing.T) {
	want := func() *spec.Endpoint {
		return &spec.Endpoint{
			Name: "shop/web", Namespace: "shop", Node: "n1", Labels: map[string]string{"app": "web"}, Addresses: addresses("10.244.1.5", "fd00::5"),
			Ports: map[string]spec.Port{"http": {Number: 80, Protocol: "tcp"}, "sync": {Number: 82, Protocol: "sctp"}, "dns": {Number: 53, Protocol: "udp"}, "beside": {Number: 2, Protocol: "tcp"}},
		}
	}
	for name, c := range map[string]struct {
		pod  func(*corev1.Pod)
		want func(*spec.Endpoint) // nil: it is none
	}{
		"one that runs":                {func(*corev1.Pod) {}, func(*spec.Endpoint) {}},
		"one that begins":              {func(p *corev1.Pod) { p.Status.Phase = corev1.PodPending }, func(*spec.Endpoint) {}},
		"one that ends":                {func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)} }, func(*spec.Endpoint) {}},
		"one that has ended":           {func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }, nil},
		"one that has failed":          {func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, nil},
		"one in its node's network":    {func(p *corev1.Pod) { p.Spec.HostNetwork = true }, nil},
		"one on no node":               {func(p *corev1.Pod) { p.Spec.NodeName = "" }, nil},
		"one without addresses":        {func(p *corev1.Pod) { p.Status.PodIPs = nil }, func(e *spec.Endpoint) { e.Addresses = nil }},
		"an address in the other form": {func(p *corev1.Pod) { p.Status.PodIPs = []corev1.PodIP{{IP: "::ffff:10.244.1.5"}} }, func(e *spec.Endpoint) { e.Addresses = addresses("10.244.1.5") }},
	} {
		t.Run(name, func(t *testing.T) {
			pod := somePod()
			c.pod(pod)
			var w *spec.Endpoint
			if c.want != nil {
				w = want()
				c.want(w)
			}
			if got := endpointOf(pod); !reflect.DeepEqual(got, w) {
				t.Errorf("%+v, want %+v", got, w)
			}
			trimmed, err := new(Source).trim(pod)
			if err != nil {
				t.Fatal(err)
			}
			kept := trimmed.(*keptPod)
			if !reflect.DeepEqual(kept.endpoint, w) {
				t.Errorf("kept: %+v, want %+v", kept.endpoint, w)
			}
			if kept.Namespace != "shop" || kept.Name != "web" || kept.Annotations != nil || pod.Annotations == nil {
				t.Errorf("not trimmed, or the original changed: %+v", kept.ObjectMeta)
			}
		})
	}
}

// told are the endpoints that events come to.
type told map[string]*spec.Endpoint

func (m told) hear(events []policy.Event) {
	for _, e := range events {
		if e.Gone {
			delete(m, e.Endpoint.Name)
		} else {
			m[e.Endpoint.Name] = e.Endpoint
		}
	}
}

func kept(p *corev1.Pod) *keptPod { return new(commons).keepPod(p) }

// TestStaticPod: a pod of a kubelet's own has another UID in the API server than the one
// by which its runtime attaches it.
func TestStaticPod(t *testing.T) {
	p := somePod()
	p.Annotations[corev1.MirrorPodAnnotationKey] = "4f3c"
	if events := newRoster().set(kept(p)); len(events) != 1 || events[0].UID != "4f3c" {
		t.Errorf("told: %+v", events)
	}
}

// TestCommons: what is the same is kept once, and what is not stays apart, also after
// what was kept is forgotten.
func TestCommons(t *testing.T) {
	one := func(m map[string]string) uintptr { return reflect.ValueOf(m).Pointer() }
	c := &commons{}
	first, ports := c.keepPod(somePod()).endpoint, 0
	for i := range mostCommons + 2 {
		p := somePod()
		p.Labels = map[string]string{"app": "web", "of": fmt.Sprint(i)}
		for _, labels := range []map[string]string{p.Labels, {"app": "web"}, {"ap": "pweb"}} {
			p.Labels = labels
			e := c.keepPod(p).endpoint
			if want := endpointOf(p); !reflect.DeepEqual(e, want) {
				t.Fatalf("%+v, want %+v", e, want)
			}
			if i == 0 && (one(e.Labels) == one(first.Labels)) != maps.Equal(e.Labels, first.Labels) {
				t.Errorf("of %v and %v, one is kept", e.Labels, first.Labels)
			}
			if reflect.ValueOf(e.Ports).Pointer() == reflect.ValueOf(first.Ports).Pointer() {
				ports++
			}
		}
	}
	if n := 3 * (mostCommons + 2); ports != n {
		t.Errorf("the ports are those of the first pod in %d of %d", ports, n)
	}
	if len(c.labels) > mostCommons {
		t.Errorf("%d are known", len(c.labels))
	}
}

// TestReuse gives an address to a pod while another one, which ends, still has it by
// its status.
func TestReuse(t *testing.T) {
	r, m := newRoster(), told{}
	old := somePod()
	m.hear(r.set(kept(old)))
	next := somePod()
	next.Name, next.UID, next.Labels = "db", "2", map[string]string{"app": "db"}
	next.Status.PodIPs = next.Status.PodIPs[:1]
	owner := func(address string) (names []string) {
		for _, name := range slices.Sorted(maps.Keys(m)) {
			if slices.Contains(m[name].Addresses, netip.MustParseAddr(address)) {
				names = append(names, name)
			}
		}
		return names
	}
	expect := func(what, v4, v6 string) {
		t.Helper()
		if got := fmt.Sprint(owner("10.244.1.5"), owner("fd00::5")); got != fmt.Sprintf("[%s] [%s]", v4, v6) {
			t.Errorf("%s: the owners are %s", what, got)
		}
	}
	expect("alone", "shop/web", "shop/web")
	dying := old.DeepCopy()
	dying.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
	m.hear(r.set(kept(dying)))
	expect("one that ends", "shop/web", "shop/web")
	m.hear(r.set(kept(next)))
	expect("one that begins beside it", "shop/db", "shop/web")
	m.hear(r.remove(next))
	expect("the other one is gone", "shop/web", "shop/web")
	ended := old.DeepCopy()
	ended.Status.Phase = corev1.PodSucceeded
	m.hear(r.set(kept(ended)))
	expect("none runs", "", "")
	if len(r.claims) != 0 {
		t.Errorf("claims are left: %v", r.claims)
	}
}

// TestRoster holds what events come to, whatever happens and in whatever order, to
// what a roster tells that begins with what there is at last.
func TestRoster(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, m := newRoster(), told{}
		for i := range rapid.IntRange(1, 30).Draw(t, "steps") {
			name := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name")
			uid := types.UID(name + rapid.SampledFrom([]string{"1", "2"}).Draw(t, "uid"))
			at := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"10.0.0.1", "10.0.0.2", "fd00::1"}), 0, 2, rapid.ID).Draw(t, "addresses")
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				m.hear(r.remove(&metav1.ObjectMeta{Namespace: "x", Name: name}))
			default:
				p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: name, UID: uid, Labels: map[string]string{"step": fmt.Sprint(i)}}}
				p.CreationTimestamp = metav1.Unix(rapid.Int64Range(1, 2).Draw(t, "created"), 0)
				p.Spec.NodeName = "n1"
				p.Status.Phase = rapid.SampledFrom([]corev1.PodPhase{corev1.PodRunning, corev1.PodRunning, corev1.PodFailed}).Draw(t, "phase")
				if rapid.Bool().Draw(t, "dying") {
					p.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
				}
				for _, a := range at {
					p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: a})
				}
				m.hear(r.set(kept(p)))
			}
			fresh, want := newRoster(), told{}
			for _, name := range slices.Backward(slices.Sorted(maps.Keys(r.pods))) {
				want.hear(fresh.set(r.pods[name].pod))
			}
			if !reflect.DeepEqual(m, want) {
				t.Fatalf("told %v, want %v", m, want)
			}
			owners := map[netip.Addr]string{}
			for name, e := range m {
				for _, a := range e.Addresses {
					if owners[a] != "" {
						t.Fatalf("%s is of %s and of %s", a, name, owners[a])
					}
					owners[a] = name
				}
			}
		}
	})
}
