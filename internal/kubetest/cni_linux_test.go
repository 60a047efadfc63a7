package kubetest_test

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/poldernet/polder/internal/kubetest"
	"github.com/poldernet/polder/internal/lab"
)

const conflist = `{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [
    {
      "type": "bridge", "bridge": "cni0", "isGateway": true,
      "ipam": {"type": "host-local", "dataDir": "/run/cni/networks", "ranges": [[{"subnet": "10.244.1.0/24"}], [{"subnet": "fd00:10:244:1::/64"}]]}
    },
    {"type": "portmap", "capabilities": {"portMappings": true}, "backend": "nftables"}
  ]
}`

// TestCNI attaches two pods to a node, reaches one by its address and by a port
// of the node, and detaches them, after which their addresses are free.
func TestCNI(t *testing.T) {
	lab.Require(t)
	ctx := t.Context()
	node := namespace(t, "n1")
	cni := kubetest.NewCNI(t, node, conflist)
	pods := map[string]kubetest.Attachment{
		"a": {Namespace: "x", Name: "a", Sandbox: namespace(t, "a"), Ports: []kubetest.PortMapping{{HostPort: 8080, ContainerPort: 80, Protocol: "tcp"}}},
		"b": {Namespace: "x", Name: "b", Sandbox: namespace(t, "b")},
	}
	for _, test := range []struct{ pod, v4, v6 string }{
		{"a", "10.244.1.2/24", "fd00:10:244:1::2/64"},
		{"b", "10.244.1.3/24", "fd00:10:244:1::3/64"},
	} {
		result, err := cni.Add(ctx, pods[test.pod])
		if err != nil {
			t.Fatal(err)
		}
		if len(result.IPs) != 2 || result.IPs[0].Address.String() != test.v4 || result.IPs[1].Address.String() != test.v6 {
			t.Errorf("%s got %+v", test.pod, result.IPs)
		}
		if err := cni.Check(ctx, pods[test.pod]); err != nil {
			t.Error(err)
		}
	}

	a := pods["a"].Sandbox
	var l net.Listener
	err := a.Do(func() (err error) {
		l, err = new(net.ListenConfig).Listen(ctx, "tcp", ":80")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	for _, to := range []string{"10.244.1.2:80", "[fd00:10:244:1::2]:80", "10.244.1.1:8080"} {
		c, err := within(pods["b"].Sandbox)(ctx, "tcp", to)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	}

	if err := cni.Del(ctx, pods["a"]); err != nil {
		t.Fatal(err)
	}
	if err := cni.Del(ctx, pods["a"]); err != nil {
		t.Errorf("again: %v", err) // a runtime may repeat it
	}
	if err := cni.Check(ctx, pods["a"]); err == nil {
		t.Error("a is still attached")
	}
	if got, want := leases(t, node), "10.244.1.3 fd00:10:244:1::3"; got != want {
		t.Errorf("taken are %s, want %s", got, want)
	}
}

// leases are the addresses that host-local has given away.
func leases(t *testing.T, node *lab.Namespace) string {
	t.Helper()
	var taken []string
	err := node.Do(func() error {
		entries, err := os.ReadDir("/run/cni/networks/pods")
		for _, e := range entries {
			if a, err := netip.ParseAddr(e.Name()); err == nil {
				taken = append(taken, a.String())
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(taken, " ")
}

// TestCNIFails: what a plugin says when it cannot is the error.
func TestCNIFails(t *testing.T) {
	lab.Require(t)
	cni := kubetest.NewCNI(t, namespace(t, "n1"), strings.Replace(conflist, `"cni0"`, `"a-name-of-a-bridge-too-long"`, 1))
	_, err := cni.Add(context.Background(), kubetest.Attachment{Namespace: "x", Name: "a", Sandbox: namespace(t, "a")})
	if err == nil || !strings.Contains(err.Error(), "a-name-of-a-bridge-too-long") {
		t.Error(err)
	}
}
