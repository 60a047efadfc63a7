package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/poldernet/polder/internal/kubetest"
	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/spec"
)

// TestNewPodsBesideCanals: by the name of canal's network, host-local gives a new pod
// an address that no pod of canal's has. By another name it would give theirs, and
// polder refuses until it gives one that is free.
func TestNewPodsBesideCanals(t *testing.T) {
	for name, refused := range map[string]int{"k8s-pod-network": 0, "cbr0": 2} {
		t.Run(name, func(t *testing.T) {
			c := newCanal(t)
			if status, out := c.polder("import", "flannel", "--live", "--cluster", "canal", "-o", c.file); status != 0 {
				t.Fatalf("status %d: %s", status, out)
			}
			// What canal has given away, and what comes next.
			c.sh("n1", `mkdir -p /run/cni/networks/k8s-pod-network /run/cni/networks/cbr0; cd /run/cni/networks
				for n in 5 6; do for a in 10.244.1.$n fd00:10:244:1::$n; do printf 'canals-%s\r\neth0' $n >k8s-pod-network/$a; done; done
				for name in k8s-pod-network cbr0; do printf 10.244.1.4 >$name/last_reserved_ip.0; printf fd00:10:244:1::4 >$name/last_reserved_ip.1; done`)
			dir := t.TempDir()
			list := filepath.Join(dir, "net.d", "10-polder.conflist")
			ctx, cancel := context.WithCancel(t.Context())
			daemon := c.lab.Node("n1").Command(ctx, "polder", "--node", "n1", "--spec", c.file, "run",
				"--cni-conf-dir", filepath.Dir(list), "--cni-bin-dir", filepath.Join(dir, "bin"), "--cni-name", name)
			if err := daemon.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				cancel()
				_ = daemon.Wait() // it was killed
			}()
			text, err := os.ReadFile(list)
			for begin := time.Now(); err != nil && time.Since(begin) < 20*time.Second; text, err = os.ReadFile(list) {
				c.sh("n1", "sleep 0.05")
			}
			if err != nil {
				t.Fatal(err)
			}
			// The machine's own addresses are not the test's to give away.
			plugins := kubetest.NewCNI(t, c.lab.Node("n1"), strings.Replace(string(text), `"type": "host-local",`, `"type": "host-local", "dataDir": "/run/cni/networks",`, 1), filepath.Join(dir, "bin"))
			ns, err := lab.NewNamespace("new")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := ns.Close(); err != nil {
					t.Error(err)
				}
			})
			pod := kubetest.Attachment{Namespace: "shop", Name: "new", Sandbox: ns, Ports: []kubetest.PortMapping{}}
			for range refused {
				if _, err := plugins.Add(t.Context(), pod); err == nil || !strings.Contains(err.Error(), "an address of the container is another one's") {
					t.Fatalf("a pod has an address of canal's: %v", err)
				}
				if err := plugins.Del(t.Context(), pod); err != nil {
					t.Fatal(err)
				}
			}
			result, err := plugins.Add(t.Context(), pod)
			if err != nil || len(result.IPs) != 2 || result.IPs[0].Address.IP.String() != "10.244.1.7" || result.IPs[1].Address.IP.String() != "fd00:10:244:1::7" {
				t.Fatalf("the pod has %+v: %v", result, err)
			}
			for _, canals := range []string{"10.244.1.5", "fd00:10:244:1::5"} {
				if out, err := ns.Command(t.Context(), "ping", "-c", "1", "-W", "5", canals).CombinedOutput(); err != nil {
					t.Errorf("it does not reach a pod of canal's: %v\n%s", err, out)
				}
			}
			if err := plugins.Del(t.Context(), pod); err != nil {
				t.Error(err)
			}
			for _, f := range spec.Families { // and that one is still there
				c.ping("far", c.pods["web"].addrs.Get(f).String()).stop()
			}
		})
	}
}

// attach tells polder of containers as a runtime does. One that was given a routed
// pod's address is refused, so that it gets another one.
func (c *canal) attach() {
	c.t.Helper()
	add := func(v4, v6 string) (string, error) {
		cmd := c.lab.Node("n1").Command(c.t.Context(), "polder")
		cmd.Env = append(os.Environ(), "CNI_COMMAND=ADD", "CNI_CONTAINERID="+v4+strings.ReplaceAll(v6, ":", "-"), "CNI_NETNS="+c.pods["new"].Path(), "CNI_IFNAME=eth0",
			"CNI_PATH=/opt/cni/bin", "CNI_ARGS=K8S_POD_NAMESPACE=default;K8S_POD_NAME=new")
		cmd.Stdin = strings.NewReader(fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "k8s-pod-network", "type": "polder", "stateDir": "/run/polder", "prevResult": {"cniVersion": "1.0.0",
			"interfaces": [{"name": "cni0"}, {"name": "vethnew"}, {"name": "eth0", "mac": "02:00:00:00:00:20", "sandbox": %q}], "ips": [{"address": "%s/24", "interface": 2}, {"address": "%s/64", "interface": 2}]}}`, c.pods["new"].Path(), v4, v6))
		out, err := cmd.Output()
		return string(out), err
	}
	const v4, v6 = "10.244.1.20", "fd00:10:244:1::20"
	out, err := add(v4, v6)
	for begin := time.Now(); strings.Contains(out, "does not run") && time.Since(begin) < 20*time.Second; out, err = add(v4, v6) {
		runtime.Gosched() // the daemon begins
	}
	if err != nil {
		c.t.Errorf("ADD: %v: %s", err, out)
	}
	for taken, given := range map[string][2]string{"10.244.1.5": {"10.244.1.5", v6}, "fd00:10:244:1::5": {v4, "fd00:10:244:1::5"}} {
		out, err = add(given[0], given[1])
		if err == nil || !strings.Contains(out, `"code": 11`) || !strings.Contains(out, "a route leads to "+taken+" by caliweb, and the container is at vethnew") {
			c.t.Errorf("ADD with an address of a routed pod: %v: %s", err, out)
		}
	}
}
