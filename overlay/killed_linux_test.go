package overlay

import (
	"fmt"
	"testing"
)

// TestKilledBetweenOperations: an apply that ends after any of its operations
// leaves a state from which the next one gets to the same end, without
// conflicts with what the first one made.
func TestKilledBetweenOperations(t *testing.T) {
	from := cluster{nodes: 3, families: dual, underlay: dual, backend: direct(), bridge: "br9", first: 3}
	to := cluster{nodes: 3, families: dual, underlay: dual, backend: vxlan()}
	whole := newHost(t)
	whole.converge(from.spec())
	count := len(whole.converge(to.spec()).Ops)
	want := whole.snapshot()
	if count < 20 {
		t.Fatalf("the plan has %d operations only", count)
	}
	h := newHost(t)
	for done := range count {
		h.converge(from.spec())
		plan := h.plan(to.spec())
		plan.Ops = plan.Ops[:done]
		h.apply(plan)
		h.converge(to.spec())
		if got := h.snapshot(); got != want {
			t.Fatalf("killed after %d operations and applied again, the state is\n%s\nand not\n%s", done, got, want)
		}
	}
}

// TestKilledInsideALink: a link takes several requests. After any of them the
// next apply goes on, and fixes the bridge's MAC and MTU.
func TestKilledInsideALink(t *testing.T) {
	sp := cluster{nodes: 2, families: onlyIPv4, underlay: onlyIPv4, backend: vxlan()}.spec()
	bridge, vtep := sp.BridgeMAC(sp.Nodes[0]).String(), sp.VTEPMAC(sp.Nodes[0], onlyIPv4[0]).String()
	steps := []string{
		"ip link add cni0 address " + bridge + " mtu 1450 type bridge",
		"ip link set cni0 alias 'polder cluster=test'",
		"ip link set cni0 mtu 1451",
		"ip link set cni0 mtu 1450",
		"ip link set cni0 up",
		"ip link add polder.1 address " + vtep + " mtu 1450 type vxlan id 1 dstport 8472 local 192.0.2.11 dev eth0 nolearning",
		"ip link set polder.1 alias 'polder cluster=test'",
		"ip link set polder.1 up",
	}
	for done := range steps {
		t.Run(fmt.Sprint(done+1, " steps"), func(t *testing.T) {
			h := newHost(t)
			for _, step := range steps[:done+1] {
				h.sh(step)
			}
			h.converge(sp)
			h.sh("ip link add v1 address 00:00:00:00:00:01 mtu 1300 type veth peer name p1; ip link set v1 master cni0 up; ip link set v1 type bridge_slave hairpin on")
			h.expectEmpty(h.plan(sp))
		})
	}
}
