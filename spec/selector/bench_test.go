package selector_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/poldernet/polder/spec/selector"
)

const typical = `app == "web" && tier in {"front", "back", "cache"} && !has(canary) || role starts with "db-" && zone != "z1"`

var typicalLabels = map[string]selector.Labels{
	"first":  {"app": "web", "tier": "front", "zone": "z1"},
	"second": {"app": "api", "tier": "front", "role": "db-main", "zone": "z2"},
	"none":   {"app": "api", "tier": "none", "zone": "z1"},
}

// TestMatchesAllocatesNothing: it runs for each pod and policy.
func TestMatchesAllocatesNothing(t *testing.T) {
	s := parse(t, typical)
	for name, l := range typicalLabels {
		if n := testing.AllocsPerRun(100, func() { s.Matches(l) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
		if s.Matches(l) != (name != "none") {
			t.Errorf("%s: %v", name, !s.Matches(l))
		}
	}
}

func BenchmarkMatches(b *testing.B) {
	s := parse(b, typical)
	for name, l := range typicalLabels {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.Matches(l)
			}
		})
	}
}

// BenchmarkParse shows the cost of a byte, which must not grow with the text.
func BenchmarkParse(b *testing.B) {
	for _, terms := range []int{1, 100, 10_000} {
		var text strings.Builder
		for i := range terms {
			if i > 0 {
				text.WriteString(" || ")
			}
			fmt.Fprintf(&text, `(app == "web-%d" && !(zone in {"a", "b"} || has(canary)))`, i)
		}
		b.Run(fmt.Sprintf("terms=%d", terms), func(b *testing.B) {
			b.SetBytes(int64(text.Len()))
			b.ReportAllocs()
			for b.Loop() {
				parse(b, text.String())
			}
		})
	}
}
