package reconcile

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/poldernet/polder/spec"
)

// BenchmarkNodes is what a node that comes, or goes, costs a daemon that knows 5,000,
// without what the kernel's part of it takes.
func BenchmarkNodes(b *testing.B) {
	candidate := func(i int) spec.Candidate {
		return spec.Candidate{
			Name: fmt.Sprintf("n%d", i), Created: int64(i),
			Addresses: spec.PerFamily[netip.Addr]{IPv4: netip.AddrFrom4([4]byte{192, 1 + byte(i>>8), byte(i), 7})},
			Subnets:   spec.PerFamily[netip.Prefix]{IPv4: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)},
		}
	}
	const count = 5000
	var list []spec.Candidate
	for i := range count {
		list = append(list, candidate(1+i))
	}
	list[0].Addresses.IPv4 = underlayAddress.Addr()
	dir := b.TempDir()
	text := "cluster = \"fake\"\nnetwork {\n  pod_cidrs = [\"10.0.0.0/8\"]\n  backend \"vxlan\" {}\n}\n" + followed
	h := fakeHostOf(b, newFakeKernel(underlayAddress), parsedIn(b, dir, text), dir)
	cluster := make(fakeCluster)
	h.open(DaemonOptions{Cluster: cluster.open})
	h.adopt(h.source.load("n1"))
	tell := func(u Update) {
		h.Daemon.open(mail{update: u, since: time.Now()})
		h.round(context.Background())
	}
	tell(Update{Nodes: are(list...), Complete: true})
	tell(Update{Nodes: are(list[:2]...)})
	if !h.now.InSync {
		b.Fatal(h.story(0))
	}
	for b.Loop() {
		for _, c := range []map[string]*spec.Candidate{are(candidate(count + 1)), gone(are(), "n5001")} {
			tell(Update{Nodes: c})
		}
	}
	b.StopTimer()
	h.leave()
}
