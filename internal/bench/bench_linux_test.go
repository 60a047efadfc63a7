package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
)

func TestMain(m *testing.M) {
	if os.Getenv(forkEnv) != "" {
		os.Exit(fork())
	}
	debug.SetGCPercent(400) // as the command does
	lab.Main(m)
}

// node is an address plan for many nodes; n0 is where everything runs.
type node struct{ number int }

func (n node) name() string { return fmt.Sprintf("n%d", n.number) }

func (n node) address() netip.Addr {
	return netip.AddrFrom4([4]byte{172, 16, byte(n.number >> 8), byte(n.number)}).Next()
}

func (n node) subnet() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n.number >> 8), byte(n.number), 0}), 24)
}

// specText is a cluster of peers and n0 itself.
func specText(peers int) []byte {
	var b bytes.Buffer
	b.WriteString("cluster = \"bench\"\nnetwork {\n  pod_cidrs = [\"10.0.0.0/8\"]\n  subnet_min = \"10.0.0.0\"\n  backend \"vxlan\" {}\n  masquerade {}\n}\n")
	for i := range peers + 1 {
		n := node{i}
		fmt.Fprintf(&b, "node %q {\n  addresses = [\"%s/12\"]\n  subnets   = [\"%s\"]\n}\n", n.name(), n.address(), n.subnet())
	}
	return b.Bytes()
}

// cluster is a spec as a file and as a value.
type cluster struct {
	spec *spec.Spec
	dir  string
}

func newCluster(b *testing.B, peers int) cluster {
	b.Helper()
	dir := b.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "polder.hcl"), specText(peers), 0o600); err != nil {
		b.Fatal(err)
	}
	config, diags := spec.Load(dir, spec.Inputs{})
	if diags.HasErrors() {
		b.Fatal(diags)
	}
	return cluster{config.Spec, dir}
}

// host is n0 in a fresh namespace.
type host struct {
	b  *testing.B
	ns *lab.Namespace
}

func newHost(b *testing.B) host {
	b.Helper()
	lab.Require(b)
	ns, err := lab.NewNamespace("n0")
	if err != nil {
		b.Fatal(err)
	}
	h := host{b, ns}
	h.run("sh", "-ec", fmt.Sprintf("ip link add eth0 type veth peer name wire; ip link set wire up; ip link set eth0 up; ip addr add %s/12 dev eth0", node{0}.address()))
	return h
}

func (h host) close() {
	if err := h.ns.Close(); err != nil {
		h.b.Error(err)
	}
}

// run runs a program in the namespace and returns its CPU time.
func (h host) run(argv ...string) (cpu time.Duration) {
	h.b.Helper()
	var out bytes.Buffer
	err := h.ns.Do(func() error {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Stdout, cmd.Stderr = &out, &out
		err := cmd.Run()
		cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		return err
	})
	if err != nil {
		h.b.Fatalf("%v: %v\n%s", argv, err, out.Bytes())
	}
	return cpu
}

// measure runs a function in the namespace and returns this process's CPU time.
func (h host) measure(fn func() error) time.Duration {
	h.b.Helper()
	var spent time.Duration
	err := h.ns.Do(func() error {
		runtime.GC() // what came before is not on this bill
		before := self()
		err := fn()
		spent = self() - before
		return err
	})
	if err != nil {
		h.b.Fatal(err)
	}
	return spent
}

func self() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // RUSAGE_SELF exists
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// apply plans and applies, as the command does once the spec is loaded.
func apply(c cluster, sp *spec.Spec) func() error {
	return func() (err error) {
		a, err := reconcile.OpenApplier(reconcile.Options{Spec: sp, Node: "n0", StateDir: filepath.Join(c.dir, "state")})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, a.Close()) }()
		plan, err := a.Plan(context.Background(), reconcile.ModeApply)
		if err != nil {
			return err
		}
		result, err := a.Apply(context.Background(), plan, func(reconcile.Outcome) {})
		if err == nil && (len(result.Failed()) > 0 || len(result.Remaining) > 0) {
			err = fmt.Errorf("failed: %v, remaining: %v", result.Failed(), result.Remaining)
		}
		return err
	}
}

// plan plans and expects to find nothing.
func plan(c cluster) func() error {
	return func() (err error) {
		p, err := reconcile.Open(reconcile.Options{Spec: c.spec, Node: "n0", StateDir: filepath.Join(c.dir, "state")})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, p.Close()) }()
		found, err := p.Plan(context.Background(), reconcile.ModeApply)
		if err == nil && !found.Empty() {
			err = fmt.Errorf("the plan is not empty: %v", found.Changes)
		}
		return err
	}
}

// tools writes flannel's objects: a VTEP, then a neighbour, an FDB row and a
// route for each peer.
func (h host) tools(c cluster) time.Duration {
	h.vtep()
	var neigh, fdb, route strings.Builder
	for _, n := range c.spec.Nodes {
		if n.Name == "n0" {
			continue
		}
		base, mac := n.Subnets[0].Addr(), c.spec.VTEPMAC(n, spec.IPv4)
		fmt.Fprintf(&neigh, "neigh replace %s lladdr %s dev flannel.1 nud permanent\n", base, mac)
		fmt.Fprintf(&fdb, "fdb replace %s dev flannel.1 dst %s self permanent\n", mac, n.Addresses[0].Addr)
		fmt.Fprintf(&route, "route replace %s via %s dev flannel.1 onlink\n", n.Subnets[0], base)
	}
	return h.batch("ip", neigh.String()) + h.batch("bridge", fdb.String()) + h.batch("ip", route.String())
}

// vtep makes the link that tools and raw netlink write to.
func (h host) vtep() {
	h.run("sh", "-ec", fmt.Sprintf("ip link add flannel.1 type vxlan id 1 dstport 8472 local %s dev eth0 nolearning; ip link set flannel.1 up; ip addr add %s/32 dev flannel.1",
		node{0}.address(), node{0}.subnet().Addr()))
}

func (h host) batch(tool, commands string) time.Duration {
	file := filepath.Join(h.b.TempDir(), "batch")
	if err := os.WriteFile(file, []byte(commands), 0o600); err != nil {
		h.b.Fatal(err)
	}
	return h.run(tool, "-batch", file)
}

// raw writes polder's objects by raw netlink.
func (h host) raw(c cluster) time.Duration {
	h.vtep()
	index := 0
	if _, err := fmt.Sscan(string(h.output("cat /proc/self/net/dev_snmp6/flannel.1 | awk '/ifIndex/ {print $2}'")), &index); err != nil {
		h.b.Fatal(err)
	}
	return h.measure(func() error {
		r := raw{}
		for i, n := range c.spec.Nodes {
			if n.Name == "n0" {
				continue
			}
			mac := c.spec.VTEPMAC(n, spec.IPv4)
			r.peer(index, i+1, n.Subnets[0].Addr(), n.Addresses[0].Addr, mac[:])
		}
		return r.send()
	})
}

func (h host) output(command string) (out []byte) {
	h.b.Helper()
	err := h.ns.Do(func() (err error) {
		out, err = exec.Command("sh", "-ec", command).Output()
		return err
	})
	if err != nil {
		h.b.Fatal(err)
	}
	return out
}

// rounds runs a function often enough for a median and reports each of the
// figures that it returns.
func rounds(b *testing.B, fn func() map[string]float64) {
	b.Helper()
	const least = 5
	series := map[string][]float64{}
	for i := 0; i < least || i < b.N; i++ {
		for name, v := range fn() {
			series[name] = append(series[name], v)
		}
	}
	for name, values := range series {
		slices.Sort(values)
		b.ReportMetric(values[len(values)/2], name)
	}
	b.ReportMetric(0, "ns/op") // wall time says nothing here
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func ratio(a, b time.Duration) float64 { return float64(a) / float64(b) }

// BenchmarkFirstApply is everything from an empty namespace: read, compile,
// compare, write, read again, nftables included.
func BenchmarkFirstApply(b *testing.B) {
	for _, peers := range []int{1000, 5000} {
		b.Run(fmt.Sprint(peers), func(b *testing.B) {
			c := newCluster(b, peers)
			rounds(b, func() map[string]float64 {
				// Namespaces go at the end: while the kernel takes one down it
				// holds a lock for which a write to ip_forward spins.
				h1, h2, h3 := newHost(b), newHost(b), newHost(b)
				defer h1.close()
				defer h2.close()
				defer h3.close()
				tools := h1.tools(c)
				floor := h2.raw(c)
				own := h3.measure(apply(c, c.spec))
				return map[string]float64{
					"polder-ms": ms(own), "tools-ms": ms(tools), "raw-ms": ms(floor),
					"polder/tools": ratio(own, tools), "polder/raw": ratio(own, floor),
				}
			})
		})
	}
}

// BenchmarkNoChange is a plan that finds nothing, beside the dumps from which
// a person would see the same.
func BenchmarkNoChange(b *testing.B) {
	const peers = 5000
	c := newCluster(b, peers)
	h := newHost(b)
	defer h.close()
	h.measure(apply(c, c.spec))
	rounds(b, func() map[string]float64 {
		var tools time.Duration
		for _, argv := range [][]string{
			{"ip", "-d", "link"}, {"ip", "addr"}, {"ip", "neigh", "show", "nud", "permanent"},
			{"bridge", "fdb", "show"}, {"ip", "nexthop"}, {"ip", "route"},
		} {
			tools += h.run(argv...)
		}
		own := h.measure(plan(c))
		return map[string]float64{"polder-ms": ms(own), "tools-ms": ms(tools), "polder/tools": ratio(own, tools)}
	})
}

// BenchmarkOnePeerMore adds a peer to many, beside the three commands that
// write one.
func BenchmarkOnePeerMore(b *testing.B) {
	const peers = 5000
	c := newCluster(b, peers)
	fewer := *c.spec
	last := c.spec.Nodes[len(c.spec.Nodes)-1]
	fewer.Nodes = c.spec.Nodes[:len(c.spec.Nodes)-1]
	h := newHost(b)
	defer h.close()
	rounds(b, func() map[string]float64 {
		h.measure(apply(c, &fewer))
		own := h.measure(apply(c, c.spec))
		h.measure(apply(c, &fewer))
		base, mac := last.Subnets[0].Addr().String(), c.spec.VTEPMAC(last, spec.IPv4).String()
		tools := h.run("ip", "neigh", "replace", base, "lladdr", mac, "dev", "polder.1", "nud", "permanent") +
			h.run("bridge", "fdb", "replace", mac, "dev", "polder.1", "dst", last.Addresses[0].Addr.String(), "self", "permanent") +
			h.run("ip", "route", "replace", last.Subnets[0].String(), "via", base, "dev", "polder.1", "onlink", "proto", "87")
		return map[string]float64{"polder-ms": ms(own), "tools-ms": ms(tools), "polder/tools": ratio(own, tools)}
	})
}

// BenchmarkProcess is the whole command, the spec's 5,000 nodes parsed, and
// its peak memory.
func BenchmarkProcess(b *testing.B) {
	const peers = 5000
	c := newCluster(b, peers)
	binary := filepath.Join(b.TempDir(), "polder")
	build := exec.Command("go", "build", "-o", binary, "github.com/poldernet/polder/cmd/polder")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	flags := []string{"--spec", c.dir, "--node", "n0", "--state-dir", filepath.Join(c.dir, "state")}
	rounds(b, func() map[string]float64 {
		h := newHost(b)
		defer h.close()
		figures := map[string]float64{}
		for name, argv := range map[string][]string{
			"validate": {"validate", "--spec", c.dir},
			"apply":    append([]string{"apply", "--auto-approve"}, flags...),
		} {
			figures[name+"-ms"], figures[name+"-MiB"] = h.process(append([]string{binary}, argv...)...)
		}
		figures["plan-ms"], figures["plan-MiB"] = h.process(append([]string{binary, "plan", "--detailed-exitcode"}, flags...)...)
		return figures
	})
}

// process runs a program and returns its CPU time in milliseconds and its peak
// memory in MiB. A child begins with the peak of the process that it was
// forked from, which here is large, so a small one, this program again, does
// the forking.
func (h host) process(argv ...string) (cpuMS, peakMiB float64) {
	h.b.Helper()
	var out []byte
	err := h.ns.Do(func() (err error) {
		cmd := exec.Command("/proc/self/exe", argv...)
		cmd.Env = append(os.Environ(), forkEnv+"=1")
		out, err = cmd.Output()
		return err
	})
	if err != nil {
		h.b.Fatalf("%v: %v", argv, err)
	}
	if _, err := fmt.Sscan(string(out), &cpuMS, &peakMiB); err != nil {
		h.b.Fatal(err)
	}
	return cpuMS, peakMiB
}

const forkEnv = "POLDER_BENCH_FORK"

// fork runs its arguments as a command and prints what it took.
func fork() int {
	cmd := exec.Command(os.Args[1], os.Args[2:]...)
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
		return 1
	}
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return 1
	}
	fmt.Println(ms(cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime()), float64(usage.Maxrss)/1024)
	return 0
}
