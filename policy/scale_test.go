package policy

import (
	"fmt"
	"testing"

	"github.com/poldernet/polder/internal/bench"
	"github.com/poldernet/polder/nft"
)

func BenchmarkBuild(b *testing.B) {
	for _, n := range []struct{ policies, endpoints int }{{1000, 10_000}, {10_000, 100_000}} {
		b.Run(fmt.Sprintf("%dx%d", n.policies, n.endpoints), func(b *testing.B) {
			b.ReportAllocs()
			sp := bench.Inventory(n.policies, n.endpoints)
			m, _ := New(sp)
			for b.Loop() {
				c := Compile(m, Host{Node: sp.Nodes[0], Bridge: "cni0"}, nft.Table{})
				b.ReportMetric(float64(len(c.Table.Chains)), "chains")
				b.ReportMetric(float64(len(c.Table.Sets)), "sets")
			}
		})
	}
}
