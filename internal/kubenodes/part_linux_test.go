package kubenodes

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/poldernet/polder/internal/kubetest"
	"github.com/poldernet/polder/internal/lab"
)

// TestNodeIsDeleted: without its Node, a node goes on with what it had, so that a policy
// which comes then isolates a pod of it, and so it is after a restart of the daemon.
// With its Node again, all is as it was.
func TestNodeIsDeleted(t *testing.T) {
	w := newWorld(t, network)
	object := func(name string) {
		i := name[1:]
		w.Node(t, name, []string{"192.0.2.1" + i, "2001:db8::1" + i}, []string{"10.244." + i + ".0/24", "fd00:10:244:" + i + "::/64"})
	}
	object("n1")
	object("n2")
	w.Namespace(t, "shop", nil)
	w.Pod(t, kubetest.Pod{Namespace: "shop", Name: "p1", Node: "n1", Labels: map[string]string{"app": "p1"}, IPs: []string{"10.244.1.5", "fd00:10:244:1::5"}})
	w.daemon("n2")
	dir := t.TempDir()
	d, stop := w.daemonIn("n1", dir)
	t.Cleanup(func() { stop() })
	w.plug()
	for _, node := range []string{"n1", "n2"} {
		w.condition(node, corev1.NodeNetworkUnavailable, corev1.ConditionFalse, "PolderIsUp")
	}
	w.reach()
	mac := w.mac("n1", "polder.1")
	// Peers take the way to it away, so that what is tried is the way to the node.
	gateway := func(open bool) {
		t.Helper()
		wire, err := w.lab.Wire(8472)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := wire.Close(); err != nil {
				t.Error(err)
			}
		}()
		w.until(fmt.Sprintf("that the node is open to its pod: %t", open), func() (bool, any) {
			for _, a := range []string{"192.0.2.11", "2001:db8::11"} {
				r, err := wire.Probe(lab.Flow{From: w.lab.Pod("p1"), To: w.lab.Node("n1"), Addr: netip.MustParseAddr(a), Protocol: lab.UDP, Timeout: 300 * time.Millisecond})
				if err != nil || r.Reached != open {
					return false, r
				}
			}
			return true, nil
		})
	}
	gateway(true)

	if err := w.Client.CoreV1().Nodes().Delete(t.Context(), "n1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	missing := func() {
		t.Helper()
		w.until("that its Node is missing", func() (bool, any) {
			c := d.Condition()
			return !c.InSync && len(c.Failures) == 1 && c.Failures[0].Change.Kind == "own node", c
		})
	}
	missing()
	const deny = `{podSelector: {matchLabels: {app: p1}}, policyTypes: [Egress]}`
	w.Policy(t, "shop", "deny", deny)
	gateway(false)
	stop()
	d, stop = w.daemonIn("n1", dir)
	missing()
	gateway(false)
	if err := w.Client.NetworkingV1().NetworkPolicies("shop").Delete(t.Context(), "deny", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	gateway(true)
	w.Policy(t, "shop", "deny", deny)
	gateway(false)
	if err := w.Client.NetworkingV1().NetworkPolicies("shop").Delete(t.Context(), "deny", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}

	object("n1")
	w.condition("n1", corev1.NodeNetworkUnavailable, corev1.ConditionFalse, "PolderIsUp")
	w.condition("n1", peers, corev1.ConditionTrue, "AllReached")
	w.annotated("n1", map[string]string{"polder.net/ipv4-vtep-mac": mac})
	w.until("sync", func() (bool, any) { c := d.Condition(); return c.InSync && len(c.Failures) == 0, c })
	w.until("the way back", func() (bool, any) {
		out, err := w.run("n2", "ip route show 10.244.1.0/24; ip -6 route show fd00:10:244:1::/64; bridge fdb show dev polder.1; bridge fdb show dev polder-v6.1")
		return err == nil && strings.Count(out, "10.244.1.0/24 ")+strings.Count(out, "fd00:10:244:1::/64 ") == 2 && strings.Count(out, " dst ") == 2, out
	})
	gateway(true)
	w.reach()
	if now := w.mac("n1", "polder.1"); now != mac {
		t.Errorf("its MAC was %s and is %s", mac, now)
	}
}
