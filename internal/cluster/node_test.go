package cluster

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"pgregory.net/rapid"

	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
)

func someNode() *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "1", CreationTimestamp: metav1.Unix(5, 0), Labels: map[string]string{"a": "b"}, Annotations: map[string]string{"other.example/x": "y"}},
		Spec:       corev1.NodeSpec{PodCIDRs: []string{"fd00:1::/64", "10.244.1.0/24", "garbage"}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeHostName, Address: "n1"}, {Type: corev1.NodeExternalIP, Address: "198.51.100.1"},
			{Type: corev1.NodeInternalIP, Address: "2001:db8::11"}, {Type: corev1.NodeInternalIP, Address: "192.0.2.11"}, {Type: corev1.NodeInternalIP, Address: "192.0.2.12"},
		}, Images: []corev1.ContainerImage{{Names: []string{"x"}}}},
	}
}

func mac(text string) spec.MAC {
	m, err := spec.ParseMAC(text)
	if err != nil {
		panic(err)
	}
	return m
}

// TestCandidate reads Nodes, whole and as they are kept.
func TestCandidate(t *testing.T) {
	plain := spec.Candidate{
		Name: "n1", Created: 5,
		Addresses: spec.PerFamily[netip.Addr]{IPv4: netip.MustParseAddr("192.0.2.11"), IPv6: netip.MustParseAddr("2001:db8::11")},
		Subnets:   spec.PerFamily[netip.Prefix]{IPv4: netip.MustParsePrefix("10.244.1.0/24"), IPv6: netip.MustParsePrefix("fd00:1::/64")},
	}
	vxlan := spec.Published{
		Backend:   spec.VXLAN,
		Addresses: spec.PerFamily[netip.Addr]{IPv4: netip.MustParseAddr("203.0.113.1")},
		MACs:      spec.PerFamily[spec.MAC]{IPv4: mac("12:c6:65:89:b4:e3")},
	}
	flannel := func(with map[string]string) map[string]string {
		all := map[string]string{
			flannelPrefix + "kube-subnet-manager": "true", flannelPrefix + "backend-type": "vxlan",
			flannelPrefix + "backend-data": `{"VNI":1,"VtepMAC":"12:c6:65:89:b4:e3"}`, flannelPrefix + "public-ip": "203.0.113.1",
		}
		maps.Copy(all, with)
		return all
	}
	says := func(change func(*spec.Published)) spec.Published {
		p := vxlan
		change(&p)
		return p
	}
	for name, c := range map[string]struct {
		annotations map[string]string
		polder      spec.Published
		flannel     spec.Published
	}{
		"nothing":                         {},
		"of flannel":                      {annotations: flannel(nil), flannel: vxlan},
		"of flannel, without its manager": {annotations: flannel(map[string]string{flannelPrefix + "kube-subnet-manager": "false"})},
		"of flannel, another VNI, which is nobody's business": {
			annotations: flannel(map[string]string{flannelPrefix + "backend-data": `{"VNI":"x","VtepMAC":"12:c6:65:89:b4:e3"}`}), flannel: vxlan,
		},
		"of flannel, both families": {
			annotations: flannel(map[string]string{flannelPrefix + "backend-v6-data": `{"VNI":1,"VtepMAC":"12:c6:65:89:b4:e4"}`, flannelPrefix + "public-ipv6": "2001:db8::5"}),
			flannel: says(func(p *spec.Published) {
				p.MACs.IPv6, p.Addresses.IPv6 = mac("12:c6:65:89:b4:e4"), netip.MustParseAddr("2001:db8::5")
			}),
		},
		"of flannel, host-gw": {
			annotations: flannel(map[string]string{flannelPrefix + "backend-type": "host-gw", flannelPrefix + "backend-data": "null"}),
			flannel:     says(func(p *spec.Published) { p.Backend, p.MACs.IPv4 = spec.HostGW, spec.MAC{} }),
		},
		"of flannel, udp": {
			annotations: flannel(map[string]string{flannelPrefix + "backend-type": "", flannelPrefix + "backend-data": "null"}),
			flannel:     says(func(p *spec.Published) { p.Backend, p.MACs.IPv4 = noBackend, spec.MAC{} }),
		},
		"of flannel, chosen by the user": {
			annotations: map[string]string{flannelPrefix + "node-public-ip": "192.0.2.12"},
			flannel:     spec.Published{Chosen: spec.PerFamily[netip.Addr]{IPv4: netip.MustParseAddr("192.0.2.12")}},
		},
		"of flannel, garbage": {
			annotations: flannel(map[string]string{flannelPrefix + "backend-data": "{", flannelPrefix + "public-ipv6": "203.0.113.1"}),
			flannel: says(func(p *spec.Published) {
				p.MACs.IPv4 = spec.MAC{}
				p.Garbled.IPv4 = "its annotation flannel.alpha.coreos.com/backend-data cannot be read: unexpected end of JSON input"
				p.Garbled.IPv6 = "its annotation flannel.alpha.coreos.com/public-ipv6 cannot be read: 203.0.113.1 is no address of ipv6"
			}),
		},
		"of polder": {
			annotations: map[string]string{"polder.net/ipv6-vtep-mac": "12:c6:65:89:b4:e3", "polder.net/ipv6-address": "2001:db8::5", "polder.net/ipv4-vtep-mac": "13:00:00:00:00:01"},
			polder: spec.Published{
				MACs: spec.PerFamily[spec.MAC]{IPv6: mac("12:c6:65:89:b4:e3")}, Addresses: spec.PerFamily[netip.Addr]{IPv6: netip.MustParseAddr("2001:db8::5")},
				Garbled: spec.PerFamily[string]{IPv4: "its annotation polder.net/ipv4-vtep-mac cannot be read: 13:00:00:00:00:01 is the MAC of no interface"},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			n, want := someNode(), plain
			maps.Copy(n.Annotations, c.annotations)
			want.Polder, want.Flannel = c.polder, c.flannel
			if got := candidateOf(n); got != want {
				t.Errorf("%+v\nwant %+v", got, want)
			}
			kept, err := New("n2", nil).trim(n)
			if err != nil {
				t.Fatal(err)
			}
			if got := kept.(*keptNode); got.candidate != want || got.own != nil || len(got.Annotations)+len(got.Labels) > 0 || len(n.Labels) == 0 {
				t.Errorf("kept: %+v, or the original changed\nwant %+v", got, want)
			}
			if own := New("n1", nil).keepNode(n).own; own.Annotations["other.example/x"] != "" || len(own.Annotations) != len(c.annotations) || len(own.Labels)+len(own.Status.Images) > 0 {
				t.Errorf("not trimmed: %+v", own)
			}
		})
	}
}

// FuzzBackendData: whatever is published is read as a MAC that a device can have, or
// not at all; and what polder publishes is read as it was meant.
func FuzzBackendData(f *testing.F) {
	for _, text := range []string{`{"VNI":1,"VtepMAC":"12:c6:65:89:b4:e3"}`, `null`, `{}`, `{"VtepMAC":""}`, `[]`, `{"vtepmac":"12:c6:65:89:b4:e3"}`, "\x00"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := decodeBackendData(text)
		if err != nil || m.IsZero() {
			return
		}
		if !m.IsUnicast() {
			t.Fatalf("%q is %s", text, m)
		}
		if again, err := decodeBackendData(encodeBackendData(backendData{1, m})); err != nil || again != m {
			t.Fatalf("%s became %s, %v", m, again, err)
		}
	})
}

// TestBackendData is what flannel writes, to the byte.
func TestBackendData(t *testing.T) {
	if got := encodeBackendData(backendData{7, mac("12:c6:65:89:b4:e3")}); got != `{"VNI":7,"VtepMAC":"12:c6:65:89:b4:e3"}` {
		t.Error(got)
	}
}

// patched is a Node after a patch, as the API server makes it.
func patched(t rapid.TB, n *corev1.Node, p publication) *corev1.Node {
	t.Helper()
	before, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	patch, err := p.patch()
	if err != nil {
		t.Fatal(err)
	}
	after, err := strategicpatch.StrategicMergePatch(before, patch, corev1.Node{})
	if err != nil {
		t.Fatal(err)
	}
	out := &corev1.Node{}
	if err := json.Unmarshal(after, out); err != nil {
		t.Fatal(err)
	}
	return out
}

func genState(t *rapid.T) reconcile.NodeState {
	network := &spec.Network{
		Compat:  rapid.SampledFrom([]spec.Compat{"", spec.CompatFlannel}).Draw(t, "compat"),
		Backend: spec.Backend{Type: rapid.SampledFrom([]spec.BackendType{spec.VXLAN, spec.HostGW}).Draw(t, "backend"), VNI: 1},
	}
	s := reconcile.NodeState{Network: network, Stands: rapid.Bool().Draw(t, "stands")}
	left := func(label string) (list []spec.LeftOut) {
		for i := range rapid.IntRange(0, 15).Draw(t, label) {
			list = append(list, spec.LeftOut{Node: fmt.Sprint("n", i), Reason: spec.NoAddress, Text: rapid.StringN(0, 300, 900).Draw(t, "text")})
		}
		return list
	}
	s.Self, s.Peers = left("self"), left("peers")
	for _, f := range spec.Families {
		if !s.Stands || !rapid.Bool().Draw(t, "family") {
			continue
		}
		s.Families = append(s.Families, f)
		bytes := rapid.SliceOfN(rapid.Byte(), 6, 6).Draw(t, "mac")
		bytes[0] = bytes[0]&^1 | 2
		if network.Backend.Type == spec.VXLAN {
			s.MACs.Set(f, spec.MAC(bytes))
		}
		a, _ := netip.AddrFromSlice(rapid.SliceOfN(rapid.Byte(), f.Bits()/8, f.Bits()/8).Draw(t, "address"))
		s.Addresses.Set(f, a)
	}
	return s
}

// TestPublication: whatever a Node has and whatever somebody does to it, one write
// makes it say what its state is; there is then nothing to be written; and peers read
// what was meant.
func TestPublication(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := trimNode(someNode())
		for i := range rapid.IntRange(1, 6).Draw(t, "steps") {
			if keys := slices.Sorted(maps.Keys(n.Annotations)); len(keys) > 0 && rapid.Bool().Draw(t, "damage") {
				key := rapid.SampledFrom(keys).Draw(t, "key")
				n.Annotations[key] = "x"
				if rapid.Bool().Draw(t, "delete") {
					delete(n.Annotations, key)
				}
			}
			if len(n.Status.Conditions) > 0 && rapid.Bool().Draw(t, "conditions") {
				n.Status.Conditions = n.Status.Conditions[1:]
			}
			s, now := genState(t), metav1.Unix(int64(i), 0)
			n = trimNode(patched(t, n, publicationOf(n, s, now)))
			if again := publicationOf(n, s, now); !again.empty() {
				t.Fatalf("it is written again: %+v", again)
			}
			for _, c := range n.Status.Conditions {
				if len(c.Message) > 4096 {
					t.Fatalf("%d bytes", len(c.Message))
				}
			}
			if !s.Stands {
				continue
			}
			says := polderOf(n)
			if s.Network.Compat != "" {
				if says = flannelOf(n); says.Backend != s.Network.Backend.Type {
					t.Fatalf("%+v", says)
				}
			}
			for _, f := range spec.Families {
				want := s.Addresses.Get(f)
				if other := n.Annotations[flannelOverwrite.Get(f)]; s.Network.Compat != "" && other != "" {
					continue
				}
				if want.Is4In6() {
					continue // no host has one
				}
				if says.MACs.Get(f) != s.MACs.Get(f) || says.Addresses.Get(f) != want || says.Garbled.Get(f) != "" {
					t.Fatalf("peers read %+v of %+v", says, s)
				}
			}
		}
	})
}

// TestPublicationOfFlannel is what flannel's own nodes read, to the byte.
func TestPublicationOfFlannel(t *testing.T) {
	s := reconcile.NodeState{
		Network: &spec.Network{Compat: spec.CompatFlannel, Backend: spec.Backend{Type: spec.VXLAN, VNI: 1}}, Stands: true,
		Families:  []spec.Family{spec.IPv4, spec.IPv6},
		Addresses: spec.PerFamily[netip.Addr]{IPv4: netip.MustParseAddr("192.0.2.11"), IPv6: netip.MustParseAddr("2001:db8::11")},
		MACs:      spec.PerFamily[spec.MAC]{IPv4: mac("12:c6:65:89:b4:e3"), IPv6: mac("12:c6:65:89:b4:e4")},
	}
	has := map[string]string{flannelPrefix + "public-ip-overwrite": "203.0.113.1"}
	for _, c := range []struct{ backend, v4, v6 string }{
		{"vxlan", `{"VNI":1,"VtepMAC":"12:c6:65:89:b4:e3"}`, `{"VNI":1,"VtepMAC":"12:c6:65:89:b4:e4"}`},
		{"host-gw", "null", "null"},
	} {
		s.Network.Backend.Type = spec.BackendType(c.backend)
		want := map[string]string{
			"flannel.alpha.coreos.com/kube-subnet-manager": "true", "flannel.alpha.coreos.com/backend-type": c.backend,
			"flannel.alpha.coreos.com/backend-data": c.v4, "flannel.alpha.coreos.com/backend-v6-data": c.v6,
			"flannel.alpha.coreos.com/public-ip": "203.0.113.1", "flannel.alpha.coreos.com/public-ipv6": "2001:db8::11",
		}
		if got := annotationsDue(has, s); !maps.Equal(got, want) {
			t.Errorf("%v", got)
		}
	}
}

// TestConditions are what states come to.
func TestConditions(t *testing.T) {
	network := &spec.Network{Backend: spec.Backend{Type: spec.VXLAN}}
	missing := []spec.LeftOut{{Node: "n1", Reason: spec.NoPodCIDR, Text: "it has no pod CIDR yet"}}
	for name, c := range map[string]struct {
		state reconcile.NodeState
		want  string
	}{
		"no network":     {reconcile.NodeState{Stands: true}, ""},
		"destroyed":      {reconcile.NodeState{Network: network, Gone: true}, "NetworkUnavailable=True Destroyed; polder.net/Peers=False Destroyed"},
		"not yet":        {reconcile.NodeState{Network: network}, "polder.net/PodCIDRs=True Complete"},
		"all is well":    {reconcile.NodeState{Network: network, Stands: true, Families: []spec.Family{spec.IPv4}}, "NetworkUnavailable=False PolderIsUp; polder.net/PodCIDRs=True Complete; polder.net/Peers=True AllReached"},
		"a broken peer":  {reconcile.NodeState{Network: network, Stands: true, Families: []spec.Family{spec.IPv4}, Peers: missing}, "NetworkUnavailable=False PolderIsUp; polder.net/PodCIDRs=True Complete; polder.net/Peers=False NotAllReached"},
		"no pod CIDR":    {reconcile.NodeState{Network: network, Self: missing}, "NetworkUnavailable=True NoPodCIDR; polder.net/PodCIDRs=False NoPodCIDR"},
		"one family":     {reconcile.NodeState{Network: network, Stands: true, Families: []spec.Family{spec.IPv4}, Self: missing}, "NetworkUnavailable=False PolderIsUp; polder.net/PodCIDRs=False NoPodCIDR; polder.net/Peers=True AllReached"},
		"another subnet": {reconcile.NodeState{Network: network, Stands: true, Families: []spec.Family{spec.IPv4}, Strays: []string{"shop/web"}}, "NetworkUnavailable=False PolderIsUp; polder.net/PodCIDRs=False PodCIDRChanged; polder.net/Peers=True AllReached"},
	} {
		var got []string
		for _, due := range conditionsDue(c.state) {
			got = append(got, fmt.Sprintf("%s=%s %s", due.Type, due.Status, due.Reason))
		}
		if text := strings.Join(got, "; "); text != c.want {
			t.Errorf("%s: %s\nwant %s", name, text, c.want)
		}
	}
}

// TestMessagesNameTheFirst: of thousands of nodes a message names some, and nothing is
// made of the others.
func TestMessagesNameTheFirst(t *testing.T) {
	s := reconcile.NodeState{Network: &spec.Network{}, Stands: true}
	for i := range 5000 {
		s.Peers = append(s.Peers, spec.LeftOut{Node: fmt.Sprint("n", i), Reason: spec.NoPodCIDR, Text: "it has no pod CIDR yet"})
	}
	due := conditionsDue(s)
	message := due[len(due)-1].Message
	if !strings.HasPrefix(message, "n0: it has no pod CIDR yet; n1: ") || !strings.HasSuffix(message, "; n9: it has no pod CIDR yet; and 4990 more, which `polder status --all` on this node shows") {
		t.Error(message)
	}
	if n := testing.AllocsPerRun(10, func() { conditionsDue(s) }); n > 200 {
		t.Errorf("%v allocations", n)
	}
}

// TestPublisher writes what changes at once, and what becomes of peers only when it
// has lasted: all nodes see it when one joins.
func TestPublisher(t *testing.T) {
	p := newPublisher()
	p.set(trimNode(someNode()))
	p.state = reconcile.NodeState{Network: &spec.Network{Backend: spec.Backend{Type: spec.VXLAN}}, Stands: true, Families: []spec.Family{spec.IPv4}}
	now := time.Unix(1000, 0)
	first, again := p.due(100, now)
	if !first.has(networkUnavailable) || first.has(peers) || again < 10*time.Second || again >= 20*time.Second {
		t.Fatalf("%+v, again in %v", first, again)
	}
	p.set(trimNode(patched(t, p.own, first)))
	if early, again := p.due(100, now.Add(time.Second)); !early.empty() || again == 0 {
		t.Fatalf("%+v, again in %v", early, again)
	}
	late, _ := p.due(100, now.Add(again))
	if !late.has(peers) {
		t.Fatalf("%+v", late)
	}
	p.set(trimNode(patched(t, p.own, late)))
	if rest, again := p.due(100, now.Add(again)); !rest.empty() || again != 0 {
		t.Fatalf("%+v, again in %v", rest, again)
	}
	stands := p.state
	p.state = reconcile.NodeState{Network: stands.Network, Gone: true}
	if destroyed, again := p.due(100, now.Add(again)); !destroyed.has(networkUnavailable) || !destroyed.has(peers) || again != 0 {
		t.Fatalf("destroyed: %+v, again in %v", destroyed, again)
	}
	p.state = stands
	old := p.own.DeepCopy()
	old.ResourceVersion, p.own.ResourceVersion = "9", "10"
	p.answered = time.Now()
	p.set(old)
	if p.own == old {
		t.Error("what is told late takes the place of what was answered")
	}
	p.answered = time.Now().Add(-time.Minute)
	select {
	case <-p.wake:
	default:
	}
	p.set(old)
	if p.own != old {
		t.Error("versions that began anew are taken for late ones")
	}
	select {
	case <-p.wake:
	default:
		t.Error("another Node is not looked at")
	}
}

// BenchmarkHeartbeat is a Node's status that is written without a change, as it
// comes every few minutes of each of thousands.
func BenchmarkHeartbeat(b *testing.B) {
	s := New("n0", nil)
	s.nodes = map[string]spec.Candidate{}
	s.tell = func(reconcile.Update) { b.Error("a heartbeat is told of") }
	n := someNode()
	n.Annotations = map[string]string{flannelManaged: "true", flannelType: "vxlan", flannelData.IPv4: `{"VNI":1,"VtepMAC":"12:c6:65:89:b4:e3"}`, flannelAddress.IPv4: "192.0.2.11"}
	s.setNode(s.keepNode(n))
	s.complete = true
	b.ReportAllocs()
	for b.Loop() {
		trimmed, err := s.trim(n)
		if err != nil {
			b.Fatal(err)
		}
		s.setNode(trimmed)
	}
}
