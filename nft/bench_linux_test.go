package nft

import (
	"context"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// big is a table with a set of many addresses that a rule uses.
func big(n int) Table {
	return Table{
		Family: INet, Name: TableName,
		Sets: []Set{{Name: "many", Key: []Type{TypeIPv4Addr}, Elements: manyAddresses(n)}},
		Chains: []Chain{{Name: "input", Base: &Base{"filter", "input", PriorityFilter, PolicyAccept}, Rules: []Rule{
			NewRule("", Saddr(4).In("many"), Do(Drop)),
		}}},
	}
}

// cpu is the CPU time in seconds of this process or of the children that it
// has waited for. Netlink's work is done in the caller's context.
func cpu(b *testing.B, who int) float64 {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(who, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// measure reports the CPU time of a round in milliseconds.
func measure(b *testing.B, who int, round func()) {
	b.Helper()
	from := cpu(b, who)
	for b.Loop() {
		round()
	}
	b.ReportMetric((cpu(b, who)-from)*1e3/float64(b.N), "cpu-ms/op")
}

// BenchmarkSet compares a set's way to the kernel and back with nft(8)'s.
func BenchmarkSet(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		want := big(n)
		script := "delete table inet polder\n" + want.String()
		b.Run(fmt.Sprintf("elements=%d", n), func(b *testing.B) {
			b.Run("commit", func(b *testing.B) {
				k := newKernel(b)
				create, destroy := Diff(Ruleset{want}, nil), Diff(nil, Ruleset{want})
				measure(b, unix.RUSAGE_SELF, func() {
					for _, p := range []*Plan{create, destroy} {
						gen, err := k.w.reader.Generation()
						if err == nil {
							_, err = k.w.Commit(context.Background(), p, gen)
						}
						if err != nil {
							b.Fatal(err)
						}
					}
				})
			})
			b.Run("commit/by=nft", func(b *testing.B) {
				k := newKernel(b)
				k.nft(want.String())
				measure(b, unix.RUSAGE_CHILDREN, func() { k.nft(script) })
			})
			b.Run("read", func(b *testing.B) {
				k := newKernel(b)
				k.apply(want)
				measure(b, unix.RUSAGE_SELF, func() { k.read() })
			})
			b.Run("read/by=nft", func(b *testing.B) {
				k := newKernel(b)
				k.apply(want)
				measure(b, unix.RUSAGE_CHILDREN, func() { k.nft("list table inet polder") })
			})
			b.Run("diff", func(b *testing.B) {
				have := Ruleset{big(n)}
				measure(b, unix.RUSAGE_SELF, func() {
					if !Diff(Ruleset{want}, have).Empty() {
						b.Fatal("a table differs from itself")
					}
				})
			})
		})
	}
}

// BenchmarkCounters reads all counters of a table, as a scrape does.
func BenchmarkCounters(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprintf("counters=%d", n), func(b *testing.B) {
			k := newKernel(b)
			t := Table{Family: INet, Name: TableName}
			for i := range n {
				t.Counters = append(t.Counters, fmt.Sprintf("c_policy-%d_ingress_0123456789ab", i))
			}
			k.apply(t)
			measure(b, unix.RUSAGE_SELF, func() {
				values, err := k.w.reader.Counters(context.Background(), t.ID())
				if err != nil || len(values) != n {
					b.Fatal(len(values), err)
				}
			})
		})
	}
}
