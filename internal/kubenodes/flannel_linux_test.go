package kubenodes

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/poldernet/polder/internal/kubetest"
	"github.com/poldernet/polder/internal/kubetest/program"
)

// flannelConf is flannel's own of the network.
const flannelConf = `{"Network": "10.244.0.0/16", "IPv6Network": "fd00:10:244::/48", "EnableIPv6": true, "EnableNFTables": true, "Backend": {"Type": "vxlan"}}`

// TestBesideFlannel: a node that runs polder and one that runs flannel have one
// network, by what they say on their Nodes. flannel v0.28.9 has its subnets from
// Kubernetes there, as by kube-flannel.yml.
func TestBesideFlannel(t *testing.T) {
	flanneld := program.Need(t, program.Flannel)
	w := newWorld(t, strings.Replace(network, "network {", "network {\n  compat = \"flannel\"", 1))
	w.Node(t, "n1", []string{"192.0.2.11", "2001:db8::11"}, []string{"10.244.1.0/24", "fd00:10:244:1::/64"})
	w.Node(t, "n2", []string{"192.0.2.12", "2001:db8::12"}, []string{"10.244.2.0/24", "fd00:10:244:2::/64"})
	// Each kubelet writes an annotation; a Node without any makes flanneld panic.
	w.patch("n2", `{"metadata": {"annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}}}`)

	// What flannel's CNI plugin would make.
	w.must("n2", `ip link add cni0 type bridge && ip link set cni0 up && ip link set veth2 master cni0 &&
		ip addr add 10.244.2.1/24 dev cni0 && ip addr add fd00:10:244:2::1/64 dev cni0 nodad &&
		sysctl -q -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1`)
	dir, at := t.TempDir(), netip.MustParseAddrPort("127.0.0.1:6443")
	conf := filepath.Join(dir, "net-conf.json")
	if err := os.WriteFile(conf, []byte(flannelConf), 0o600); err != nil {
		t.Fatal(err)
	}
	wire, err := kubetest.Forward(w.lab.Node("n2"), at, w.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = wire.Close() })
	var log strings.Builder
	flannel := w.lab.Node("n2").Command(context.Background(), "env", "NODE_NAME=n2", flanneld, "-kube-subnet-mgr",
		"-kubeconfig-file", w.Kubeconfig(t, w.Config(), at), "-net-config-path", conf, "-subnet-file", filepath.Join(dir, "subnet.env"), "-iface", "eth0")
	flannel.Stdout, flannel.Stderr = &log, &log
	if err := flannel.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = flannel.Process.Kill()
		_ = flannel.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})

	w.daemon("n1")
	w.until("the bridge of n1", func() (bool, any) {
		out, err := w.run("n1", "ip link set veth1 master cni0")
		return err == nil, out
	})
	w.condition("n1", peers, corev1.ConditionTrue, "AllReached")
	w.until("flannel's routes to n1", func() (bool, any) {
		out, err := w.run("n2", "ip route && ip -6 route")
		return err == nil && strings.Contains(out, "10.244.1.0/24 via") && strings.Contains(out, "fd00:10:244:1::/64 via"), out
	})
	w.reach()
}
