package kube

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/poldernet/polder/internal/e2e/process"
	"github.com/poldernet/polder/internal/kubetest"
	"github.com/poldernet/polder/internal/lab"
)

// besideSpec is what the lab is made of: without a network block, it makes a
// bridge with the pods as its ports.
const besideSpec = `cluster = "e2e"
node "n1" {
  addresses = ["192.0.2.11/24", "2001:db8:2::11/64"]
  subnets   = ["10.244.1.0/24", "fd00:10:244:1::/64"]
}
endpoint "p11" {
  node      = "n1"
  interface = "veth1"
  addresses = ["10.244.1.5", "fd00:10:244:1::5"]
}
endpoint "p12" {
  node      = "n1"
  interface = "veth2"
  addresses = ["10.244.1.6", "fd00:10:244:1::6"]
}
`

// TestKubernetes: `polder run` has pods and a policy from an API server, by a
// kubeconfig, and enforces them also after it was killed. Plans are its own.
func TestKubernetes(t *testing.T) {
	n := up(t, oneNode, besideSpec)
	api := kubetest.Start(t)
	api.Node(t, "n1", []string{"192.0.2.11", "2001:db8:2::11"}, nil)
	for name, ips := range map[string][]string{"p11": {"10.244.1.5", "fd00:10:244:1::5"}, "p12": {"10.244.1.6", "fd00:10:244:1::6"}} {
		api.Pod(t, kubetest.Pod{Namespace: "default", Name: name, Node: "n1", IPs: ips})
	}
	const closedPort, openPort = 80, 81
	api.Policy(t, "default", "closed", fmt.Sprintf(`{podSelector: {}, ingress: [{ports: [{port: %d, protocol: UDP}]}]}`, openPort))
	at := netip.MustParseAddrPort("127.0.0.1:6443")
	forwarder, err := kubetest.Forward(n.Node("n1"), at, api.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = forwarder.Close() })
	wire, err := n.Wire(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = wire.Close() })

	d := n.daemon("n1", "cluster = \"e2e\"\nkubernetes {}\n", "--kubeconfig", api.Kubeconfig(t, api.Config(), at))
	command := func(args ...string) (string, error) {
		argv := append([]string{n.polder}, args...)
		argv = append(argv, "--spec", d.File, "--node", "n1", "--state-dir", n.stateDir("n1"))
		out, err := n.Node("n1").Command(context.Background(), argv...).CombinedOutput()
		return string(out), err
	}
	closed := func(when string) {
		t.Helper()
		for _, to := range []string{"10.244.1.5", "fd00:10:244:1::5"} {
			flow := lab.Flow{From: n.Pod("p12"), To: n.Pod("p11"), Addr: netip.MustParseAddr(to), Protocol: lab.UDP, Port: closedPort, Timeout: 300 * time.Millisecond}
			r, err := wire.Probe(flow)
			if err != nil || r.Reached {
				t.Errorf("to %s %s: %+v, %v", to, when, r, err)
			}
			flow.Port, flow.Timeout = openPort, process.Endurance
			if r, err := wire.Probe(flow); err != nil || !r.Answered {
				t.Errorf("to the open port of %s %s: %+v, %v", to, when, r, err)
			}
		}
	}
	for _, when := range []string{"at first", "when it was killed"} {
		d.Start()
		d.Says("the cluster is known "+when, func(m process.Metrics) bool {
			return m["polder_cluster_known"] == 1 && m["polder_cluster_heard"] == 1 && m["polder_in_sync"] == 1
		})
		closed(when)
		if out, err := command("plan", "--detailed-exitcode"); err != nil {
			t.Errorf("a plan %s: %v\n%s", when, err, out)
		}
		// It is the daemon that knows which node this is.
		if out, err := n.Node("n1").Command(context.Background(), "unshare", "--uts", "sh", "-ec", "echo elsewhere >/proc/sys/kernel/hostname; exec \"$@\"", "sh",
			n.polder, "migrate", "clean", "--check", "--spec", d.File, "--state-dir", n.stateDir("n1")).CombinedOutput(); err != nil || !strings.Contains(string(out), "Nothing on node n1 is left of flannel or Felix") {
			t.Errorf("what is left %s: %v\n%s", when, err, out)
		}
		if out, err := command("status"); err != nil || !strings.Contains(out, "known since") {
			t.Errorf("the status %s: %v\n%s", when, err, out)
		}
		for port, want := range map[int]string{
			closedPort: "ingress of endpoint.default/p11 on n1: denied by tier default: no rule of networkpolicy default/closed (networkpolicies/default/closed) matches",
			openPort:   "ingress of endpoint.default/p11 on n1: allowed by rule 1 of networkpolicy default/closed (networkpolicies/default/closed)",
		} {
			if out, err := command("explain", "default/p12", "default/p11", fmt.Sprint(port, "/udp")); (err != nil) != (port == closedPort) || !strings.Contains(out, want) {
				t.Errorf("what explains port %d %s: %v\n%s", port, when, err, out)
			}
		}
		for want, args := range map[string][]string{
			"networkpolicy default/closed": {"policy", "show", "default/closed"},
			"selects default/p11":          {"policy", "show"},
			"default/p11":                  {"policy", "matrix", "--verbose"},
			" packets, ":                   {"policy", "show", "--counters"},
		} {
			if out, err := command(args...); err != nil || !strings.Contains(out, want) {
				t.Errorf("%v %s: %v\n%s", args, when, err, out)
			}
		}
		d.Kill()
		closed("without a daemon")
		for _, args := range [][]string{{"explain", "10.244.1.6", "10.244.1.5", "80/udp"}, {"policy", "matrix"}} {
			if out, err := command(args...); err != nil || !strings.Contains(out, "pods and policies of the cluster are left out") || strings.Contains(out, "default/p11") {
				t.Errorf("%v without a daemon: %v\n%s", args, err, out)
			}
		}
		if out, err := command("plan"); err == nil || !strings.Contains(out, "only `polder run` asks the cluster") {
			t.Errorf("a plan without a daemon: %v\n%s", err, out)
		}
	}
	// A spec that no longer names the cluster of the credentials is taken for a mistake.
	d.Start()
	d.Ready()
	d.Write("cluster = \"e2e\"\n")
	d.Await(0, "that the spec is refused", func(l process.Line) bool {
		return l.Event == "spec rejected" && strings.Contains(l.Err, "No cluster for --kubeconfig")
	})
	closed("by the last good spec")
	d.Alive()
}
