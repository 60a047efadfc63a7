package bench

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/spec"
)

var packetRounds = flag.Int("packet.rounds", 41, "rounds of BenchmarkPacketCost")

// variant is what stands in the way between two pods on a node's bridge.
type variant struct {
	name   string
	family spec.Family
	bare   bool                // neither br_netfilter nor conntrack
	rules  func(at site) error // puts rules in force; nil: there are none
	open   bool                // the rules are not whole: they do not deny what they would
	// decided checks that the rule decided about the packets that was meant to.
	decided func(at site) error
}

// site is the node of a variant, with its two pods, a and b.
type site struct {
	variant
	number int
	node   *lab.Namespace
	*path
}

func (s site) nodeName() string { return fmt.Sprintf("n%d", s.number) }

func (s site) podName(name string) string { return fmt.Sprintf("%s%d", name, s.number) }

func (s site) subnets() []netip.Prefix {
	return []netip.Prefix{
		netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(s.number), 0}), 24),
		netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 7: byte(s.number)}), 64),
	}
}

// pod is the address of a or b in the variant's family.
func (s site) pod(name string) netip.Addr {
	i := slices.Index(spec.Families[:], s.family)
	return s.pods(name)[i]
}

func (s site) pods(name string) []netip.Addr {
	var list []netip.Addr
	for _, p := range s.subnets() {
		a := p.Addr().Next().Next()
		if name == "b" {
			a = a.Next()
		}
		list = append(list, a)
	}
	return list
}

// endpoints are the two pods.
func (s site) endpoints() []*spec.Endpoint {
	var list []*spec.Endpoint
	for _, name := range []string{"a", "b"} {
		list = append(list, &spec.Endpoint{
			Name: s.podName(name), Node: s.nodeName(), Namespace: "default", Interface: "veth-" + name,
			Addresses: s.pods(name), Labels: map[string]string{"name": name},
		})
	}
	return list
}

// sites brings up a node for each variant.
func sites(b *testing.B, variants []variant) []site {
	b.Helper()
	lab.Require(b)
	topology, cluster := &lab.Topology{}, &spec.Spec{Cluster: "bench"}
	list := make([]site, len(variants))
	for i, v := range variants {
		s := site{variant: v, number: i}
		topology.Machines = append(topology.Machines, &lab.Machine{Role: lab.RoleNode, Name: s.nodeName()})
		cluster.Nodes = append(cluster.Nodes, &spec.Node{Name: s.nodeName(), Subnets: s.subnets()})
		cluster.Endpoints = append(cluster.Endpoints, s.endpoints()...)
		list[i] = s
	}
	l, err := lab.Up(b.Context(), topology, cluster)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := l.Close(); err != nil {
			b.Error(err)
		}
	})
	for i := range list {
		s := &list[i]
		s.node = l.Node(s.nodeName())
		if err := s.build(); err != nil {
			b.Fatalf("%s: %v", s.name, err)
		}
	}
	// Not before: the library that writes nftables calls select(2), which takes
	// no descriptor from 1024 on.
	for i := range list {
		s := &list[i]
		s.path, err = newPath(s.node, l.Pod(s.podName("a")), l.Pod(s.podName("b")), s.pod("a"), s.pod("b"))
		if err != nil {
			b.Fatalf("%s: %v", s.name, err)
		}
		b.Cleanup(s.path.close)
	}
	if err := onOneCPU(l); err != nil {
		b.Fatal(err)
	}
	return list
}

// build makes the bridge and the rules.
func (s *site) build() error {
	// A rule that asks for the state starts conntrack, also in a chain to which
	// no packet comes.
	filter, track := "1", "nft 'table inet track { chain nowhere { ct state new; }; }'"
	if s.bare {
		filter, track = "0", ""
	}
	script := fmt.Sprintf(`
		ip link add cni0 type bridge
		ip link set cni0 up
		for p in a b; do ip link set veth-$p master cni0; done
		sysctl -qw net.bridge.bridge-nf-call-iptables=%[1]s net.bridge.bridge-nf-call-ip6tables=%[1]s
		%[2]s`, filter, track)
	if err := s.sh(script); err != nil || s.rules == nil {
		return err
	}
	return s.node.Do(func() error { return s.rules(*s) })
}

// sh runs a script on the node.
func (s *site) sh(script string) error {
	if out, err := s.node.Command(context.Background(), "sh", "-ec", script).CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// onOneCPU checks that packets are received on the CPU on which they are sent.
func onOneCPU(l *lab.Lab) error {
	for _, name := range l.Names() {
		err := l.Machine(name).Do(func() error {
			files, err := filepath.Glob("/sys/class/net/*/queues/rx-*/rps_cpus")
			for _, f := range files {
				mask, err := os.ReadFile(f)
				if err != nil {
					return err
				}
				if strings.Trim(string(mask), "0,\n") != "" {
					return fmt.Errorf("%s is %q: another CPU than the sender's may receive, and its time is not measured", f, mask)
				}
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// sample is what a packet takes of the thread's time, in nanoseconds.
type sample struct {
	open, fresh float64 // of an open flow, and the first of a new one
	share       float64 // of wall time, in the open flow
}

// take takes one sample. What is lost once may have been put off to another
// thread by the kernel, and is asked for again.
func (p *path) take() (s sample, err error) {
	for range 5 {
		if s, err = p.try(); !errors.As(err, &lostError{}) {
			return s, err
		}
		p.empty()
	}
	return s, err
}

func (p *path) try() (s sample, err error) {
	if _, err = p.open(1); err != nil { // the flow is new, the caches are cold
		return s, err
	}
	began, before := time.Now(), threadTime()
	if s.open, err = p.open(burstPairs); err != nil {
		return s, err
	}
	s.share = float64(threadTime()-before) / float64(time.Since(began))
	s.fresh, err = p.fresh()
	return s, err
}

// result is what the rounds say of a variant: medians, of what is found within
// each round. What slows the machine for a while slows the base as well.
type result struct {
	ratio, extra           float64 // to the base and from it, ns, of an open flow
	freshRatio, freshExtra float64 // of new flows
	least                  float64 // ns, of an open flow
}

// measure has the variants take turns, the first of which is the base.
func measure(b *testing.B, variants []variant) []result {
	b.Helper()
	list := sites(b, variants)
	for _, s := range list {
		if err := s.warm(); err != nil {
			b.Fatalf("%s: %v", s.name, err)
		}
	}
	runtime.GC()
	percent := debug.SetGCPercent(-1)
	var rounds [][]sample
	err := list[0].node.Do(func() error { // a thread that ends with the rounds
		if err := alone(); err != nil {
			return err
		}
		for i := range *packetRounds {
			round := make([]sample, len(list))
			for k := range list {
				at := (k + 3*i) % len(list) // nobody always follows the same one
				var err error
				if round[at], err = list[at].take(); err != nil {
					return fmt.Errorf("%s: %w", list[at].name, err)
				}
			}
			rounds = append(rounds, round)
		}
		return nil
	})
	debug.SetGCPercent(percent)
	if err != nil {
		b.Fatal(err)
	}
	share := 0.0
	for _, r := range rounds {
		for _, s := range r {
			share = max(share, s.share)
		}
	}
	if share < 0.8 {
		b.Fatalf("the thread's clock has %.0f %% of the time at most: the kernel accounts interrupts apart (CONFIG_IRQ_TIME_ACCOUNTING), or the machine is too busy", 100*share)
	}
	results := make([]result, len(list))
	for k := range list {
		of := func(f func(s, base sample) float64) float64 {
			var values []float64
			for _, r := range rounds {
				values = append(values, f(r[k], r[0]))
			}
			slices.Sort(values)
			return values[len(values)/2]
		}
		results[k] = result{
			ratio:      of(func(s, base sample) float64 { return s.open / base.open }),
			extra:      of(func(s, base sample) float64 { return s.open - base.open }),
			freshRatio: of(func(s, base sample) float64 { return s.fresh / base.fresh }),
			freshExtra: of(func(s, base sample) float64 { return s.fresh - base.fresh }),
			least:      slices.MinFunc(rounds, func(a, b []sample) int { return int(a[k].open - b[k].open) })[k].open,
		}
	}
	return results
}

// warm sends the first packets, and checks that the rules do what they are for.
func (s site) warm() error {
	if _, err := s.take(); err != nil {
		return err
	}
	if s.rules == nil || s.variant.open {
		return nil
	}
	switch denied, err := s.denies(); {
	case err != nil:
		return err
	case !denied:
		return errors.New("the rules let pass what they are to deny")
	}
	if s.decided == nil {
		return nil
	}
	return s.node.Do(func() error { return s.decided(s) })
}
