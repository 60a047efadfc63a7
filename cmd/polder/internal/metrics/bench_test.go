package metrics

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
)

// BenchmarkScrape is a scrape of so many counters, without the kernel's part.
func BenchmarkScrape(b *testing.B) {
	for _, n := range []int{0, 10_000} {
		b.Run(fmt.Sprintf("counters=%d", n), func(b *testing.B) {
			known, values := map[string]policy.Counter{}, map[string]nft.CounterValue{}
			for i := range n {
				name := fmt.Sprintf("c_policy-%d_ingress_0123456789ab", i)
				known[name] = policy.Counter{Policy: &spec.Policy{Kind: spec.KindPolicy, Name: name, Tier: "default"}, Direction: spec.Ingress, Rule: 1, Action: spec.Allow}
				values[name] = nft.CounterValue{Packets: uint64(i), Bytes: uint64(i)}
			}
			handler := New(&fake{condition: reconcile.Condition{Policies: func() map[string]policy.Counter { return known }}}, counts{values: values}, "v1").Handler()
			for b.Loop() {
				handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
			}
		})
	}
}
