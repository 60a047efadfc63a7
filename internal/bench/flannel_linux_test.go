package bench

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/internal/peers"
	"github.com/poldernet/polder/spec"
)

// flannel is flanneld on n0, which has been told of peers that do not run.
type flannel struct {
	host
	*peers.Flannel
	spec *spec.Spec
}

func newFlannel(b *testing.B, count int, rules peers.Rules) flannel {
	b.Helper()
	s := newCluster(b, count).spec
	f := flannel{host: newHost(b), spec: s}
	b.Cleanup(f.host.close)
	// flanneld looks for the interface of the default route.
	f.run("ip", "route", "add", "default", "via", node{1}.address().String())
	f.Flannel = peers.StartFlannel(b, s, map[string]*lab.Namespace{"n0": f.ns}, rules)
	for _, n := range s.Nodes[1:] {
		f.Announce(n, s.VTEPMAC(n, spec.IPv4))
	}
	f.Await()
	return f
}

// cpu is flanneld's CPU time up to now.
func (f flannel) cpu() time.Duration { return f.CPU("n0") }

// BenchmarkLease is what corresponds to a spec's change with flanneld: a peer's
// lease is written to etcd, and the route to it comes.
func BenchmarkLease(b *testing.B) {
	for _, count := range []int{10, 5000} {
		b.Run(fmt.Sprint(count, " peers"), func(b *testing.B) {
			f := newFlannel(b, count, peers.IPTables)
			routes := f.witness()
			n := &spec.Node{
				Name:      node{count + 1}.name(),
				Addresses: []spec.NodeAddress{{Addr: node{count + 1}.address()}},
				Subnets:   []netip.Prefix{node{count + 1}.subnet()},
			}
			var took []time.Duration
			before := f.cpu()
			for range b.N {
				begin := time.Now()
				f.Announce(n, f.spec.VTEPMAC(n, spec.IPv4))
				took = append(took, routes.comes(n.Subnets[0]).Sub(begin))
				f.Withdraw(n)
				routes.goes(n.Subnets[0])
				<-time.After(pause)
			}
			latencies(b, took, (f.cpu()-before)/2)
		})
	}
}
