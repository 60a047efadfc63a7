package peers

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/poldernet/polder/internal/kubetest"
	"github.com/poldernet/polder/internal/lab"
)

// TestKubeFlannel: nodes of Kubernetes learn of each other by what flanneld
// writes to their Node objects, and of one that somebody else announced there.
func TestKubeFlannel(t *testing.T) {
	lab.Require(t)
	l, s := twoNodeLab(t)
	api, at := kubetest.Start(t), netip.MustParseAddrPort("127.0.0.1:6443")
	nodes := map[string]*lab.Namespace{}
	for _, name := range []string{"n1", "n2"} {
		nodes[name] = l.Node(name)
		wire, err := kubetest.Forward(nodes[name], at, api.Addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = wire.Close() })
		// By the default routes flanneld finds the underlay.
		if err := nodes[name].Command(t.Context(), "sh", "-ec", "ip route add default dev eth0; ip -6 route add default dev eth0").Run(); err != nil {
			t.Fatal(err)
		}
		i := name[1:]
		api.Node(t, name, []string{"192.0.2.1" + i, "2001:db8::1" + i}, []string{"10.244." + i + ".0/24", "fd00:10:244:" + i + "::/64"})
	}
	show := func(command string) string {
		t.Helper()
		out, err := nodes["n1"].Command(t.Context(), "sh", "-c", command).Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	f := NewKubeFlannel(t, api, at, s.Network, nodes, NFTables)
	f.Start("n1")
	f.Start("n2")
	f.Await()
	if n := strings.Count(show("ip route; ip -6 route"), "onlink"); n != 2 {
		t.Errorf("n1 has %d routes to n2, want one of each family", n)
	}
	n1, err := api.Client.CoreV1().Nodes().Get(t.Context(), "n1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if data, mac := n1.Annotations["flannel.alpha.coreos.com/backend-data"], show("cat /sys/class/net/flannel.1/address"); !strings.Contains(data, mac) {
		t.Errorf("the MAC is %s, and n1 says %s", mac, data)
	}

	n3 := api.Node(t, "n3", []string{"192.0.2.13", "2001:db8::13"}, []string{"10.244.3.0/24", "fd00:10:244:3::/64"})
	const mac = "02:00:00:00:00:13"
	data := fmt.Sprintf(`{"VNI":1,"VtepMAC":%q}`, mac)
	n3.Annotations = map[string]string{
		managed: "true", "flannel.alpha.coreos.com/backend-type": "vxlan",
		"flannel.alpha.coreos.com/backend-data": data, "flannel.alpha.coreos.com/backend-v6-data": data,
		"flannel.alpha.coreos.com/public-ip": "192.0.2.13", "flannel.alpha.coreos.com/public-ipv6": "2001:db8::13",
	}
	if _, err := api.Client.CoreV1().Nodes().Update(t.Context(), n3, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	f.Await()
	if fdb, want := show("bridge fdb show dev flannel.1"), mac+" dst 192.0.2.13 self permanent"; !strings.Contains(fdb, want) {
		t.Errorf("flannel.1 has not %q but\n%s", want, fdb)
	}
	// Without it, what it made stays.
	f.Stop("n1")
	if n := strings.Count(show("ip route; ip -6 route"), "onlink"); n != 4 {
		t.Errorf("%d of 4 routes are left without flannel", n)
	}
}
