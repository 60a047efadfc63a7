package nft_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/poldernet/polder/internal/bench"
	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

// policyNode is a node in a namespace of its own whose policies are enforced.
type policyNode struct {
	b  *testing.B
	sp *spec.Spec
	*policy.Index
	to      *nft.Writer
	ns      *lab.Namespace
	inForce nft.Table
	gen     nft.Generation
	plans   []*nft.Plan
	waited  time.Time // when the latest wait began; zero: none since the commit began
}

// commit puts into force what has changed, as the daemon does.
func (n *policyNode) commit() {
	n.b.Helper()
	c := n.Compile(n.inForce)
	if c.Table.Shares(n.inForce) {
		return
	}
	var observed nft.Ruleset
	if len(n.plans) > 0 {
		observed = nft.Ruleset{n.inForce}
	}
	var stops []nft.Ruleset
	for _, t := range append(slices.Clip(c.Via), c.Table) {
		stops = append(stops, nft.Ruleset{t})
	}
	plan := nft.Through(observed, stops...)
	if !plan.Empty() {
		n.waited = time.Time{}
		gen, err := n.to.Commit(context.Background(), plan, n.gen)
		if err != nil {
			n.b.Fatal(err)
		}
		n.plans, n.gen = append(n.plans, plan), gen
	}
	n.inForce = c.Table
}

func newNamespace(b *testing.B) *lab.Namespace {
	b.Helper()
	lab.Require(b)
	ns, err := lab.NewNamespace("n1")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := ns.Close(); err != nil {
			b.Error(err)
		}
	})
	return ns
}

// newPolicyNode begins with nothing in the kernel, and reports what it costs to
// begin.
func newPolicyNode(b *testing.B, policies, endpoints int) *policyNode {
	b.Helper()
	debug.SetGCPercent(400) // as the command does
	n := &policyNode{b: b, sp: bench.Inventory(policies, endpoints), ns: newNamespace(b), gen: 1}
	err := n.ns.Do(func() (err error) {
		n.to, err = nft.OpenWriter()
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = n.to.Close() })
	n.to.OnWait(func() { n.waited = time.Now() })
	return n
}

// start compiles and commits all.
func (n *policyNode) start() {
	n.b.Helper()
	m, _ := policy.New(n.sp)
	n.Index = policy.NewIndex(m, policy.Host{Node: n.sp.Nodes[0], Bridge: "cni0"})
	n.Remake = policy.RemakeFew
	n.commit()
}

// raw sends recorded batches with nothing between them and the kernel.
type raw struct {
	fd    int
	reply []byte
}

func newRaw(b *testing.B) raw {
	b.Helper()
	r := raw{reply: make([]byte, 64<<10)}
	err := newNamespace(b).Do(func() (err error) {
		if r.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER); err != nil {
			return err
		}
		return unix.SetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 8<<20)
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = unix.Close(r.fd) })
	return r
}

// send sends a batch. When sendto returns, the kernel has done it, and its
// errors are there to be read.
func (r raw) send(b *testing.B, batch []byte) {
	b.Helper()
	if err := unix.Sendto(r.fd, batch, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		b.Fatal(err)
	}
	for {
		// What comes are errors, and the rules that the library wants echoed.
		n, _, err := unix.Recvfrom(r.fd, r.reply, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return
		case err != nil:
			b.Fatal(err)
		case n >= 20 && binary.NativeEndian.Uint16(r.reply[4:]) == unix.NLMSG_ERROR:
			b.Fatal(unix.Errno(-int32(binary.NativeEndian.Uint32(r.reply[16:]))))
		}
	}
}

// usage is what has been spent.
type usage struct {
	cpu    time.Duration
	allocs uint64
	bytes  uint64
}

// spending begins to measure; what it returns ends that. What measuring costs
// itself is not in it.
func spending(b *testing.B) func() usage {
	b.Helper()
	var m, n runtime.MemStats
	runtime.ReadMemStats(&m)
	from := cpuTime(b)
	return func() usage {
		to := cpuTime(b)
		runtime.ReadMemStats(&n)
		return usage{to - from, n.Mallocs - m.Mallocs, n.TotalAlloc - m.TotalAlloc}
	}
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// events are what changes, one after the other. Each says what it changes, and
// what brings the model back to where the next one begins, which is not measured.
type events func(i int) (do, undo func())

// policyEvents are the kinds of events at a size.
func (n *policyNode) policyEvents() map[string]events {
	random := rand.New(rand.NewPCG(1, 1))
	var local, remote []*spec.Endpoint
	here := map[string]bool{}
	for _, e := range n.sp.Endpoints {
		if e.Node == n.sp.Nodes[0].Name {
			local = append(local, e)
			here[e.Namespace] = true
		}
	}
	for _, e := range n.sp.Endpoints {
		if e.Node != n.sp.Nodes[0].Name && here[e.Namespace] {
			remote = append(remote, e)
		}
	}
	added := func(list []*spec.Endpoint) events {
		return func(i int) (do, undo func()) {
			e := *list[random.IntN(len(list))]
			e.Name, e.Addresses = "new", []netip.Addr{netip.AddrFrom4([4]byte{11, 0, byte(i >> 8), byte(i)})}
			return func() { n.SetEndpoint(&e) }, func() { n.DeleteEndpoint("new") }
		}
	}
	relabelled := func(list []*spec.Endpoint) events {
		return func(int) (do, undo func()) {
			k := random.IntN(len(list))
			e := *list[k]
			e.Labels = maps.Clone(e.Labels)
			e.Labels["app"] = fmt.Sprintf("a%d", random.IntN(10))
			list[k] = &e
			return func() { n.SetEndpoint(&e) }, nil
		}
	}
	return map[string]events{
		"remote-added": added(remote), "local-added": added(local), "remote-relabelled": relabelled(remote), "local-relabelled": relabelled(local),
		"policy-changed": func(i int) (do, undo func()) {
			k := random.IntN(len(n.sp.Policies))
			for !here[n.sp.Policies[k].Namespace] {
				k = (k + 1) % len(n.sp.Policies)
			}
			p := *n.sp.Policies[k]
			p.Ingress = slices.Clone(p.Ingress)
			p.Ingress[0].Services = []spec.Service{{Protocol: 6, Ports: spec.PortRange{First: uint16(1000 + i), Last: uint16(1000 + i)}}}
			n.sp.Policies[k] = &p
			return func() { n.SetPolicy(&p) }, nil
		},
	}
}

var policySizes = []struct{ policies, endpoints int }{{1000, 10_000}, {10_000, 100_000}}

// BenchmarkPolicyStart is from a model to the kernel's acknowledgement of all of
// it, beside the batch alone, and the memory that stays in use.
func BenchmarkPolicyStart(b *testing.B) {
	for _, size := range policySizes {
		b.Run(fmt.Sprintf("%dx%d", size.policies, size.endpoints), func(b *testing.B) {
			var own, bare, index []float64
			for range 5 {
				n := newPolicyNode(b, size.policies, size.endpoints)
				runtime.GC()
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				from := cpuTime(b)
				n.start()
				own = append(own, milliseconds(cpuTime(b)-from))
				batches := recorded(b, n.plans)
				n.plans = nil
				r := newRaw(b)
				from = cpuTime(b)
				for _, batch := range batches[0] {
					r.send(b, batch)
				}
				bare = append(bare, milliseconds(cpuTime(b)-from))
				runtime.GC()
				runtime.ReadMemStats(&after)
				index = append(index, float64(after.HeapAlloc-before.HeapAlloc)/(1<<20))
				runtime.KeepAlive(n.Index)
			}
			for range b.N {
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(percentile(own, 50), "cpu-ms")
			b.ReportMetric(percentile(bare, 50), "bare-cpu-ms")
			b.ReportMetric(percentile(index, 50), "index-MiB")
		})
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

func percentile(list []float64, p int) float64 {
	slices.Sort(list)
	return list[min(len(list)*p/100, len(list)-1)]
}

func recorded(b *testing.B, plans []*nft.Plan) [][][]byte {
	b.Helper()
	list := make([][][]byte, len(plans))
	for i, p := range plans {
		batches, err := nft.Recorded(p)
		if err != nil {
			b.Fatal(err)
		}
		list[i] = batches
	}
	return list
}

// BenchmarkPolicyEvent is from an event until it is in force, on a node with 100
// endpoints, beside the same batches sent to another namespace that is in the same
// state. What comes after that is not in it: the wait for packets that are on
// their way, and the removal of what they may use. Events that change nothing on
// the node are left out.
func BenchmarkPolicyEvent(b *testing.B) {
	const count = 400
	for _, size := range policySizes {
		b.Run(fmt.Sprintf("%dx%d", size.policies, size.endpoints), func(b *testing.B) {
			for _, kind := range []string{"remote-added", "remote-relabelled", "local-relabelled", "policy-changed", "local-added"} {
				b.Run(kind, func(b *testing.B) {
					n := newPolicyNode(b, size.policies, size.endpoints)
					n.start()
					event := n.policyEvents()[kind]
					runtime.GC()
					var took, done []float64
					var measured []bool // of the plans
					var sum usage
					one := func(change func(), measure bool) {
						plans := len(n.plans)
						end := spending(b)
						began := time.Now()
						change()
						n.commit()
						total := time.Since(began)
						cost := end()
						if len(n.plans) == plans {
							return
						}
						inForce := total
						if !n.waited.IsZero() {
							inForce = n.waited.Sub(began)
						}
						if measured = append(measured, measure); measure {
							took, done = append(took, milliseconds(inForce)), append(done, milliseconds(total))
							sum.cpu, sum.allocs, sum.bytes = sum.cpu+cost.cpu, sum.allocs+cost.allocs, sum.bytes+cost.bytes
						}
					}
					for i := 0; len(took) < count; i++ {
						do, undo := event(i)
						if one(do, true); undo != nil {
							one(undo, false)
						}
					}
					b.ReportMetric(percentile(done, 50), "done-p50-ms")
					replay(b, n, measured, took, sum)
				})
			}
		})
	}
}

// replay sends what was committed again, and reports both.
func replay(b *testing.B, n *policyNode, measured []bool, took []float64, sum usage) {
	b.Helper()
	r := newRaw(b)
	plans := recorded(b, n.plans)
	for _, batch := range plans[0] {
		r.send(b, batch)
	}
	var bare []float64
	var cpu time.Duration
	transactions := 0
	for i, batches := range plans[1:] {
		from, began := cpuTime(b), time.Now()
		for _, batch := range batches {
			r.send(b, batch)
		}
		if measured[i] {
			bare = append(bare, milliseconds(time.Since(began)))
			cpu += cpuTime(b) - from
			transactions += len(batches)
		}
	}
	for range b.N {
	}
	count := float64(len(took))
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(percentile(took, 50), "p50-ms")
	b.ReportMetric(percentile(took, 99), "p99-ms")
	b.ReportMetric(percentile(bare, 50), "bare-p50-ms")
	b.ReportMetric(percentile(bare, 99), "bare-p99-ms")
	b.ReportMetric(milliseconds(sum.cpu)/count, "cpu-ms")
	b.ReportMetric(milliseconds(cpu)/count, "bare-cpu-ms")
	b.ReportMetric(float64(sum.cpu)/float64(cpu), "cpu/bare")
	b.ReportMetric(float64(sum.allocs)/count, "allocs")
	b.ReportMetric(float64(sum.bytes)/count/1024, "KiB")
	b.ReportMetric(float64(transactions)/count, "transactions")
}
