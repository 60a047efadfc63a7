package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/poldernet/polder/internal/e2e/process"
	"github.com/poldernet/polder/internal/kubetest"
)

// podNetwork is what a machine and the cluster that it is a node of have in common.
const podNetwork = `cluster = "e2e"
network {
  pod_cidrs = ["10.244.0.0/16", "fd00:10:244::/48"]
}
`

// TestStatus: the status of a node of a cluster has its peers, and all nodes that are
// left out. After a destroy no peers are reached, and what stays on the Node goes as the
// manual says.
func TestStatus(t *testing.T) {
	n := up(t, oneNode, podNetwork+`node "n1" {
  addresses = ["192.0.2.11/24", "2001:db8:2::11/64"]
  subnets   = ["10.244.1.0/24", "fd00:10:244:1::/64"]
}
`)
	api := kubetest.Start(t)
	for i := 1; i <= 2; i++ {
		api.Node(t, fmt.Sprint("n", i), []string{fmt.Sprint("192.0.2.1", i), fmt.Sprint("2001:db8:2::1", i)}, []string{fmt.Sprintf("10.244.%d.0/24", i), fmt.Sprintf("fd00:10:244:%d::/64", i)})
	}
	const wrong = 6 // each by both families
	for i := 3; i < 3+wrong; i++ {
		api.Node(t, fmt.Sprint("n", i), []string{fmt.Sprint("192.0.2.1", i), fmt.Sprint("2001:db8:2::1", i)}, []string{fmt.Sprintf("10.99.%d.0/24", i), fmt.Sprintf("fd00:99:0:%d::/64", i)})
	}
	at := netip.MustParseAddrPort("127.0.0.1:6443")
	forwarder, err := kubetest.Forward(n.Node("n1"), at, api.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = forwarder.Close() })
	d := n.daemon("n1", podNetwork+"kubernetes {}\n", "--kubeconfig", api.Kubeconfig(t, api.Config(), at))
	d.Start()
	d.Says("it is in sync", func(m process.Metrics) bool { return m["polder_in_sync"] == 1 })

	flags := " --node n1 --state-dir " + n.stateDir("n1")
	status := n.polder + " status --spec " + d.File + flags
	brief := n.sh("n1", status)
	if !strings.Contains(brief, "\nPeers: 2 subnets, 2 by VXLAN") || !strings.Contains(brief, "left out of the pod network: 2 more, ") || strings.Contains(brief, "n8") {
		t.Errorf("the status is\n%s", brief)
	}
	all := n.sh("n1", status+" --all")
	for i := 3; i < 3+wrong; i++ {
		if strings.Count(all, fmt.Sprintf("\n  n%d    ipv", i)) != 2 {
			t.Errorf("n%d is not twice in\n%s", i, all)
		}
	}
	var model struct {
		Type    string
		InSync  bool `json:"in_sync"`
		Peers   []struct{ Node string }
		LeftOut []struct{ Node, Family, Reason string } `json:"left_out"`
	}
	if err := json.Unmarshal([]byte(n.sh("n1", status+" --json")), &model); err != nil || model.Type != "condition" || !model.InSync || len(model.Peers) != 2 ||
		len(model.LeftOut) != 2*wrong || model.LeftOut[2*wrong-1].Node != "n8" || model.LeftOut[0].Reason != "OutsidePodCIDRs" {
		t.Errorf("%v: the status is %+v", err, model)
	}

	for _, c := range []string{"plan", "apply", "status", "migrate clean --check"} {
		refused(n, c+" --spec "+d.File+" --node n1 --state-dir "+t.TempDir(), "with another --state-dir than ")
	}

	n.sh("n1", n.polder+" destroy --auto-approve"+flags)
	node := &corev1.Node{}
	if err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, process.Endurance, true, func(ctx context.Context) (_ bool, err error) {
		node, err = api.Client.CoreV1().Nodes().Get(ctx, "n1", metav1.GetOptions{})
		return err == nil && said(node, "polder.net/Peers") == "False Destroyed" && said(node, corev1.NodeNetworkUnavailable) == "True Destroyed", err
	}); err != nil {
		t.Fatalf("%v: after a destroy the Node says %+v", err, node.Status.Conditions)
	}
	d.Kill()
	if !strings.Contains(fmt.Sprint(node.Annotations), "polder.net/") {
		t.Errorf("nothing stays: %v", node.Annotations)
	}
	for _, c := range []string{"plan", "apply", "status", "migrate clean --check"} {
		refused(n, c+" --spec "+d.File+flags, "only `polder run` asks the cluster")
	}

	manual, err := os.ReadFile("../../../docs/kubernetes-deploy.md")
	if err != nil {
		t.Fatal(err)
	}
	patch := regexp.MustCompile(`(?s)kubectl patch node n1 --subresource=status -p '(.*?)'`).FindSubmatch(manual)
	removed := map[string]any{}
	for _, m := range regexp.MustCompile(`(polder\.net/[a-z0-9-]+)-\s`).FindAllSubmatch(manual, -1) {
		removed[string(m[1])] = nil
	}
	annotations, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": removed}})
	if err != nil || len(patch) == 0 {
		t.Fatalf("the manual has no patch: %v", err)
	}
	for _, p := range []struct {
		text []byte
		of   []string
	}{{annotations, nil}, {patch[1], []string{"status"}}} {
		if node, err = api.Client.CoreV1().Nodes().Patch(t.Context(), "n1", types.StrategicMergePatchType, p.text, metav1.PatchOptions{}, p.of...); err != nil {
			t.Fatalf("%s: %v", p.text, err)
		}
	}
	if text := fmt.Sprint(node.Annotations, node.Status.Conditions); strings.Contains(text, "polder") || strings.Contains(text, "Destroyed") {
		t.Errorf("what is left is %s", text)
	}
}

// refused expects that a command says why it knows nothing.
func refused(n *network, args, want string) {
	n.Helper()
	out := n.sh("n1", n.polder+" "+args+" 2>&1 </dev/null || echo status $?")
	if !strings.Contains(out, want) || !strings.HasSuffix(out, "\nstatus 1\n") {
		n.Errorf("%s without a daemon says\n%s", args, out)
	}
}

// said is a condition of a Node, "" if it has none.
func said(n *corev1.Node, of corev1.NodeConditionType) string {
	i := slices.IndexFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool { return c.Type == of })
	if i < 0 {
		return ""
	}
	return fmt.Sprint(n.Status.Conditions[i].Status, " ", n.Status.Conditions[i].Reason)
}
