package kubenodes

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// network is the spec of all daemons.
const network = `cluster = "edge"
kubernetes {}
network {
  pod_cidrs = ["10.244.0.0/16", "fd00:10:244::/48"]
}
`

// The conditions beside Kubernetes' own.
const (
	podCIDRs = "polder.net/PodCIDRs"
	peers    = "polder.net/Peers"
)

// TestNodes: pods of two nodes reach each other by what Nodes say, in both families.
// A third Node, which claims a subnet of the first, is named and harms nobody; and a
// node without a subnet says so, and has a part when it gets one. Who deletes or
// overwrites what a node publishes is corrected.
func TestNodes(t *testing.T) {
	w := newWorld(t, network)
	w.Node(t, "n1", []string{"192.0.2.11", "2001:db8::11"}, []string{"10.244.1.0/24", "fd00:10:244:1::/64"})
	w.Node(t, "n2", []string{"192.0.2.12", "2001:db8::12"}, []string{"10.244.2.0/24", "fd00:10:244:2::/64"})
	w.Node(t, "n3", []string{"192.0.2.13", "2001:db8::13"}, []string{"10.244.1.128/25", "fd00:99::/64"})
	w.Node(t, "n4", []string{"192.0.2.14", "2001:db8::14"}, nil)
	for _, node := range []string{"n1", "n2", "n4"} {
		w.daemon(node)
	}
	w.plug()
	for _, node := range []string{"n1", "n2"} {
		w.condition(node, corev1.NodeNetworkUnavailable, corev1.ConditionFalse, "PolderIsUp")
		w.condition(node, podCIDRs, corev1.ConditionTrue, "Complete")
	}
	w.reach()
	mac := map[string]string{}
	for _, node := range []string{"n1", "n2"} {
		mac[node] = w.mac(node, "polder.1")
		w.annotated(node, map[string]string{
			"polder.net/ipv4-vtep-mac": mac[node], "polder.net/ipv6-vtep-mac": w.mac(node, "polder-v6.1"),
			"polder.net/ipv4-address": "192.0.2.1" + node[1:], "polder.net/ipv6-address": "2001:db8::1" + node[1:],
		})
	}

	w.condition("n4", corev1.NodeNetworkUnavailable, corev1.ConditionTrue, "NoPodCIDR")
	w.condition("n4", podCIDRs, corev1.ConditionFalse, "NoPodCIDR", "n4: it has no pod CIDR yet")
	w.until("an Event", func() (bool, any) {
		list, err := w.Client.CoreV1().Events("default").List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.kind=Node"})
		if err != nil {
			return false, err
		}
		if len(list.Items) > 1 {
			t.Fatalf("%+v", list.Items)
		}
		return len(list.Items) == 1 && list.Items[0].InvolvedObject.Name == "n4" && list.Items[0].Reason == "NoPodCIDR", list.Items
	})

	// It is written again at once, and nobody takes it for true meanwhile.
	w.patch("n1", `{"metadata": {"annotations": {"polder.net/ipv4-vtep-mac": null, "polder.net/ipv6-vtep-mac": "02:00:00:00:00:99"}}}`)
	w.annotated("n1", map[string]string{"polder.net/ipv4-vtep-mac": mac["n1"], "polder.net/ipv6-vtep-mac": w.mac("n1", "polder-v6.1")})
	if now := w.mac("n1", "polder.1"); now != mac["n1"] {
		t.Errorf("the MAC was %s and is %s", mac["n1"], now)
	}
	w.reach()

	// What is wrong lasts, and is told.
	for _, node := range []string{"n1", "n2"} {
		w.condition(node, peers, corev1.ConditionFalse, "NotAllReached",
			"n3: IPv4: its pod CIDR 10.244.1.128/25 overlaps 10.244.1.0/24 of node n1", "n3: IPv6: its pod CIDR fd00:99::/64 is not in pod_cidrs", "n4: it has no pod CIDR yet")
	}

	w.patch("n4", `{"spec": {"podCIDR": "10.244.4.0/24", "podCIDRs": ["10.244.4.0/24"]}}`)
	w.condition("n4", corev1.NodeNetworkUnavailable, corev1.ConditionFalse, "PolderIsUp")
	w.condition("n4", podCIDRs, corev1.ConditionFalse, "NoPodCIDR", "n4: IPv6: it has no pod CIDR of this family")
	w.until("a way to n4", func() (bool, any) {
		out, err := w.run("n1", "ip route get 10.244.4.0")
		return err == nil && strings.Contains(out, "polder.1"), out
	})
	if err := w.Client.CoreV1().Nodes().Delete(t.Context(), "n3", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.condition("n1", peers, corev1.ConditionFalse, "NotAllReached", "n4: IPv6: it has no pod CIDR of this family")
	w.reach()
}

// TestFlannelsWords: nodes that share a network with flannel's say what these say, to
// the byte. A device of flannel's that is there keeps its MAC.
func TestFlannelsWords(t *testing.T) {
	w := newWorld(t, strings.Replace(network, "network {", "network {\n  compat = \"flannel\"", 1))
	const drawn = "12:c6:65:89:b4:e3"
	w.must("n1", "ip link add flannel.1 address "+drawn+" mtu 1450 type vxlan id 1 dev eth0 local 192.0.2.11 dstport 8472 nolearning && ip link set flannel.1 up")
	w.Node(t, "n1", []string{"192.0.2.11", "2001:db8::11"}, []string{"10.244.1.0/24", "fd00:10:244:1::/64"})
	w.Node(t, "n2", []string{"192.0.2.12", "2001:db8::12"}, []string{"10.244.2.0/24", "fd00:10:244:2::/64"})
	w.Node(t, "n4", []string{"192.0.2.14", "2001:db8::14"}, []string{"10.244.4.0/24", "fd00:10:244:4::/64"})
	w.daemon("n1")
	w.daemon("n2")
	w.plug()
	for _, node := range []string{"n1", "n2"} {
		w.condition(node, corev1.NodeNetworkUnavailable, corev1.ConditionFalse, "PolderIsUp")
		w.condition(node, peers, corev1.ConditionFalse, "NotAllReached", "n4: it has no annotations of flannel's yet")
		says := map[string]string{
			"kube-subnet-manager": "true", "backend-type": "vxlan",
			"public-ip": "192.0.2.1" + node[1:], "public-ipv6": "2001:db8::1" + node[1:],
			"backend-data":    fmt.Sprintf(`{"VNI":1,"VtepMAC":%q}`, w.mac(node, "flannel.1")),
			"backend-v6-data": fmt.Sprintf(`{"VNI":1,"VtepMAC":%q}`, w.mac(node, "flannel-v6.1")),
		}
		want := map[string]string{}
		for key, value := range says {
			want["flannel.alpha.coreos.com/"+key] = value
		}
		w.annotated(node, want)
	}
	if mac := w.mac("n1", "flannel.1"); mac != drawn {
		t.Errorf("its MAC is %s", mac)
	}
	w.reach()

	// Of both families, one alone may change.
	w.patch("n4", `{"metadata": {"annotations": {"flannel.alpha.coreos.com/kube-subnet-manager": "true", "flannel.alpha.coreos.com/backend-type": "vxlan",
		"flannel.alpha.coreos.com/public-ip": "192.0.2.14", "flannel.alpha.coreos.com/backend-data": "{\"VNI\":1,\"VtepMAC\":\"02:00:00:00:04:04\"}",
		"flannel.alpha.coreos.com/public-ipv6": "2001:db8::14", "flannel.alpha.coreos.com/backend-v6-data": "{\"VNI\":1,\"VtepMAC\":\"02:00:00:00:04:06\"}"}}}`)
	rows := func(link, mac, dst string) {
		t.Helper()
		w.until("the row of "+mac, func() (bool, any) {
			out, err := w.run("n1", "bridge fdb show dev "+link)
			return err == nil && strings.Contains(out, mac+" dst "+dst+" self permanent"), out
		})
	}
	rows("flannel.1", "02:00:00:00:04:04", "192.0.2.14")
	rows("flannel-v6.1", "02:00:00:00:04:06", "2001:db8::14")
	w.patch("n4", `{"metadata": {"annotations": {"flannel.alpha.coreos.com/backend-v6-data": "{\"VNI\":9,\"VtepMAC\":\"02:00:00:00:04:66\"}"}}}`)
	rows("flannel-v6.1", "02:00:00:00:04:66", "2001:db8::14")
	if out := w.must("n1", "bridge fdb show dev flannel-v6.1"); strings.Contains(out, "02:00:00:00:04:06") {
		t.Errorf("the old row is left:\n%s", out)
	}

	w.patch("n2", `{"metadata": {"annotations": {"flannel.alpha.coreos.com/public-ip-overwrite": "203.0.113.2"}}}`)
	w.annotated("n2", map[string]string{"flannel.alpha.coreos.com/public-ip": "203.0.113.2"})
	w.condition("n1", peers, corev1.ConditionTrue, "AllReached")
}
