package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/poldernet/polder/internal/e2e/process"
)

// underlayUp raises the underlay again, with the routes that the kernel dropped
// with it and that are not polder's.
const underlayUp = "ip link set eth0 up; ip route replace default via 192.0.2.1; ip -6 route replace default via 2001:db8:2::1"

// TestDaemonFlap takes the underlay down and up again and again. With it up the
// node is soon what it was, and the daemon holds no more than before. With it
// down the daemon says how it stands: where the link keeps its addresses all
// peers are reached by VXLAN, as far as the node is concerned; without the
// address of a family nothing can be planned, and what there is stays.
func TestDaemonFlap(t *testing.T) {
	for _, c := range []struct {
		name, down, up string
		failing        float64
	}{
		{"addresses stay", "ip link set eth0 down", underlayUp, 0},
		{
			"addresses go", "ip link set eth0 down; ip -6 addr flush dev eth0 scope global; ip addr flush dev eth0",
			"ip addr add 192.0.2.11/24 brd + dev eth0; ip -6 addr add 2001:db8:2::11/64 dev eth0;" + underlayUp, 1,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, whole := wholeNode(t)
			text, _ := damagedCluster.text()
			d := n.build(damagedCluster).process("n1", text)
			d.Start()
			d.Ready()
			flaps := often(t, 5, 50)
			var before process.Usage
			var slowest time.Duration
			for i := range flaps {
				n.sh("n1", c.down)
				d.Says("the underlay is down", func(m process.Metrics) bool {
					return m[`polder_failing_objects{kind="node"}`] == c.failing && m["polder_in_sync"] == 1-c.failing
				})
				if c.failing == 0 {
					n.matches(d, n.spec, "taking the underlay down")
					if routes := n.sh("n1", "ip route show proto 87; ip -6 route show proto 87"); strings.Count(routes, " dev polder") != 4 {
						t.Fatalf("not all peers are reached by VXLAN:\n%s", routes)
					}
				}
				n.sh("n1", c.up)
				begin := time.Now()
				n.matches(d, n.spec, "the underlay's return")
				slowest = max(slowest, time.Since(begin))
				d.Content("the underlay's return")
				if after := n.settled("n1"); after != whole {
					t.Fatalf("after flap %d:\n%s%s", i+1, difference(whole, after), d.Logbook.Tail())
				}
				if i == flaps/5 {
					before = d.Usage()
				}
			}
			after := d.Usage()
			t.Logf("%d flaps, the slowest repaired %v after it; after %d: %v; at the end: %v", flaps, slowest, flaps/5+1, before, after)
			after.ExpectNoMore(t, before)
		})
	}
}
