package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/poldernet/polder/internal/kubetest"
	"github.com/poldernet/polder/internal/lab"
)

// TestKubernetes: `polder run` has pods and a policy from an API server, by a
// kubeconfig, and enforces them also after it was killed. Plans are its own.
func TestKubernetes(t *testing.T) {
	c := cluster{backend: backendVXLAN, pods: dual, oneLink: true}
	n := up(t, c)
	n.plainBridges()
	api := kubetest.Start(t)
	api.Node(t, "n1", []string{"192.0.2.11", "2001:db8:2::11"}, nil)
	for _, name := range []string{"p11", "p12"} {
		pod := kubetest.Pod{Namespace: "default", Name: name, Node: "n1"}
		for _, f := range dual {
			pod.IPs = append(pod.IPs, n.addressOf(name, f).String())
		}
		api.Pod(t, pod)
	}
	api.Policy(t, "default", "closed", fmt.Sprintf(`{podSelector: {}, ingress: [{ports: [{port: %d, endPort: 65535, protocol: UDP}]}]}`, siblingPort))
	at := netip.MustParseAddrPort("127.0.0.1:6443")
	wire, err := kubetest.Forward(n.lab.Node("n1"), at, api.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = wire.Close() })

	program := n.build(c)
	d := program.process("n1", "cluster = \"e2e\"\nkubernetes {}\n")
	d.argv = append(d.argv, "--kubeconfig", api.Kubeconfig(t, api.Config(), at))
	command := func(args ...string) (string, error) {
		argv := append([]string{program.file}, args...)
		argv = append(argv, "--spec", d.file, "--node", "n1", "--state-dir", filepath.Join(n.dir, "n1"))
		out, err := n.lab.Node("n1").Command(context.Background(), argv...).CombinedOutput()
		return string(out), err
	}
	port := uint16(0)
	closed := func(when string) {
		t.Helper()
		for _, f := range dual {
			port++
			ear := n.openEar(lab.UDP, "p11", f, firstPort+port)
			n.knock(lab.UDP, "p12", ear)
			ear.hearsNothing(t, fmt.Sprintf("over %s %s", f, when), n.beside("p12", "p11", f, siblingPort+port))
		}
	}
	for _, when := range []string{"at first", "when it was killed"} {
		d.start()
		d.says("the cluster is known "+when, func(m map[string]float64) bool {
			return m["polder_cluster_known"] == 1 && m["polder_cluster_heard"] == 1 && m["polder_in_sync"] == 1
		})
		closed(when)
		if out, err := command("plan", "--detailed-exitcode"); err != nil {
			t.Errorf("a plan %s: %v\n%s", when, err, out)
		}
		if out, err := command("status"); err != nil || !strings.Contains(out, "known since") {
			t.Errorf("the status %s: %v\n%s", when, err, out)
		}
		d.kill()
		closed("without a daemon")
		if out, err := command("plan"); err == nil || !strings.Contains(out, "only `polder run` asks the cluster") {
			t.Errorf("a plan without a daemon: %v\n%s", err, out)
		}
	}
}
