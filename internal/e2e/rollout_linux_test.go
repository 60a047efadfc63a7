package e2e

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
)

const backendAccept = `backend "vxlan" { accept_direct = true }`

// documentedSteps are the backends that the manual leads through, in order.
func documentedSteps(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../../docs/changing-the-backend.md")
	if err != nil {
		t.Fatal(err)
	}
	steps := []string{backendVXLAN}
	for _, block := range regexp.MustCompile("(?s)```hcl\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		steps = append(steps, block[1])
	}
	if len(steps) != 4 {
		t.Fatalf("the steps are %q", steps)
	}
	return steps
}

// TestRollOut: a change of the backend that goes from node to node in the
// documented steps, there and back, loses no packet between pods, nor from a
// node itself to the pods of others. After each node there is traffic, while the
// nodes hold different opinions of the paths between them.
func TestRollOut(t *testing.T) {
	documented := documentedSteps(t)
	for name, c := range map[string]struct {
		oneLink bool
		steps   []string
	}{
		"direct routing": {false, documented[:3]},
		"host-gw":        {true, documented},
	} {
		t.Run(name, func(t *testing.T) {
			n := up(t, cluster{backend: backendVXLAN, pods: dual, oneLink: c.oneLink})
			for _, node := range nodeNames {
				n.sh(node, "echo 1 >/proc/sys/net/ipv4/conf/default/rp_filter") // as on Red Hat's
			}
			n.applyAll()
			for _, node := range nodeNames {
				n.settle(node)
			}
			streams := n.everyPairOfNodes()
			if !c.oneLink {
				// With host-gw, the address goes that a node itself sends from.
				streams = append(streams, n.pingFrom(n.lab.Node("n1"), "n1", "10.244.2.5"), n.pingFrom(n.lab.Node("n1"), "n1", "fd00:10:244:2::5"))
			}
			back := slices.Clone(c.steps[:len(c.steps)-1])
			slices.Reverse(back)
			for _, backend := range slices.Concat(c.steps[1:], back) {
				text, _ := cluster{backend: backend, pods: dual, oneLink: c.oneLink}.text()
				sp := load(t, text)
				for _, node := range nodeNames {
					n.apply(node, sp, reconcile.ModeApply)
					flowAll(t, streams, 20)
				}
			}
			n.expectNothing(n.spec)
			for _, s := range streams {
				// The last may be on its way.
				if sent, received := s.stop(); received < sent-1 {
					t.Errorf("%s: %d sent, %d came back", s.name, sent, received)
				}
			}
		})
	}
}

// TestStrictReversePath: a plan warns where the kernel would drop what comes
// directly, whatever the ruleset says, and says what helps.
func TestStrictReversePath(t *testing.T) {
	n := up(t, cluster{backend: backendAccept, pods: dual})
	n.sh("n1", "echo 1 >/proc/sys/net/ipv4/conf/all/rp_filter")
	warned := func(sp *spec.Spec) bool {
		return slices.ContainsFunc(n.plan("n1", sp, reconcile.ModeApply).Warnings, func(w string) bool {
			return strings.Contains(w, "sysctl net.ipv4.conf.eth0.rp_filter=2")
		})
	}
	if !warned(n.spec) {
		t.Error("no warning")
	}
	for _, backend := range []string{backendVXLAN, backendDirect} {
		text, _ := cluster{backend: backend, pods: dual}.text()
		if warned(load(t, text)) {
			t.Errorf("%s: a warning", backend)
		}
	}
	n.sh("n1", "echo 2 >/proc/sys/net/ipv4/conf/eth0/rp_filter")
	if warned(n.spec) {
		t.Error("a warning where nothing is dropped")
	}
}

// everyPairOfNodes are streams from a pod on each node to one on each other.
func (n *network) everyPairOfNodes() []traffic {
	n.t.Helper()
	var streams []traffic
	for from := 1; from <= 3; from++ {
		for to := 1; to <= 3; to++ {
			if from == to {
				continue
			}
			for _, f := range spec.Families {
				streams = append(streams, n.ping(fmt.Sprintf("p%d1", from), address(n.endpoint(fmt.Sprintf("p%d1", to)), f).String()))
			}
		}
	}
	return streams
}

// flowAll waits until so many more answers have come in each stream. The streams
// are waited for together: one that waits keeps the others from a processor.
func flowAll(t *testing.T, streams []traffic, more int64) {
	t.Helper()
	wants := make([]int64, len(streams))
	for i, s := range streams {
		wants[i] = s.answers.Load() + more
	}
	for i, s := range streams {
		s.flow(t, wants[i]-s.answers.Load())
	}
}
