package bench

import (
	"fmt"
	"slices"
	"testing"

	"github.com/poldernet/polder/spec"
)

// point is a firewall of a curve, under what makes it differ from the others.
type point struct {
	label string
	firewall
	beside []iptables // the same by iptables
}

var (
	linear = []iptables{{program: "iptables-nft"}, {program: "iptables-nft", established: true}, {program: "iptables-legacy"}, {program: "iptables-legacy", established: true}}
	ipsets = []iptables{{program: "iptables-nft", sets: true}, {program: "iptables-legacy", sets: true}, {program: "iptables-legacy", sets: true, established: true}}
	both   = append(linear[:len(linear):len(linear)], ipsets...)
)

// curves are what a packet costs over what there is more and more of. The
// firewalls let a in by one rule with 10 addresses, where nothing else is said.
var curves = []struct {
	name   string
	points []point
}{
	{"policies of other pods", []point{
		{"0", firewall{rules: times(1, rule{members: 10})}, nil},
		{"100", firewall{rules: times(1, rule{members: 10}), elsewhere: 100}, nil},
		{"1000", firewall{rules: times(1, rule{members: 10}), elsewhere: 1000}, linear},
		{"10000", firewall{rules: times(1, rule{members: 10}), elsewhere: 10_000}, linear},
	}},
	{"pods on the node", []point{
		{"10", firewall{rules: times(1, rule{members: 10}), others: 10}, nil},
		{"1000", firewall{rules: times(1, rule{members: 10}), others: 1000}, ipsets},
		{"100000", firewall{rules: times(1, rule{members: 10}), others: 100_000}, nil},
	}},
	{"addresses in a rule", []point{
		{"10", firewall{rules: times(1, rule{members: 10})}, nil},
		{"1000", firewall{rules: times(1, rule{members: 1000})}, both},
		{"100000", firewall{rules: times(1, rule{members: 100_000})}, ipsets},
	}},
	{"rules of the pod", []point{
		{"1", firewall{rules: times(1, rule{members: 10})}, nil},
		{"10", firewall{rules: times(10, rule{members: 10})}, nil},
		{"100", firewall{rules: times(100, rule{members: 10})}, both},
	}},
	{"rules of the pod, each for a port", []point{
		{"1", firewall{rules: times(1, rule{members: 10}), apart: true}, nil},
		{"10", firewall{rules: times(10, rule{members: 10}), apart: true}, nil},
		{"100", firewall{rules: times(100, rule{members: 10}), apart: true}, ipsets},
	}},
	{"prefixes in a rule", []point{
		{"1", firewall{rules: times(1, rule{prefixes: 1})}, nil},
		{"100", firewall{rules: times(1, rule{prefixes: 100})}, nil},
		{"1000", firewall{rules: times(1, rule{prefixes: 1000})}, both},
		{"10000", firewall{rules: times(1, rule{prefixes: 10_000})}, ipsets},
	}},
	{"kind", []point{
		{"recheck", firewall{rules: times(1, rule{members: 10})}, nil},
		{"keep", firewall{rules: times(1, rule{members: 10}), keep: true}, nil},
		{"both ends", firewall{rules: times(1, rule{members: 10}), both: true}, nil},
		{"no IPv6", firewall{rules: times(1, rule{members: 10}), v4: true}, nil},
	}},
}

// BenchmarkPacketCost is what the policies cost a packet from one pod to another
// on the same node, as a ratio to what it costs without any.
func BenchmarkPacketCost(b *testing.B) {
	for _, c := range curves {
		b.Run(c.name, func(b *testing.B) {
			variants := []variant{{name: "base", family: spec.IPv4}, {name: "base again", family: spec.IPv4}}
			missing := map[iptables]string{}
			for _, p := range c.points {
				p.family = spec.IPv4
				variants = append(variants, p.polder("polder/"+p.label))
			}
			for _, p := range c.points {
				p.family = spec.IPv4
				for _, way := range p.beside {
					if _, known := missing[way]; !known {
						if missing[way] = way.missing(b); missing[way] != "" {
							b.Logf("left out: %v", missing[way])
						}
					}
					if missing[way] == "" {
						variants = append(variants, p.iptables(fmt.Sprintf("%v/%s", way, p.label), way))
					}
				}
			}
			report(b, variants, measure(b, variants))
		})
	}
}

// BenchmarkPacketSteps is where a packet's time goes in polder's ruleset: the
// forward hook's chain cut off after each of its rules, for both ends isolated.
func BenchmarkPacketSteps(b *testing.B) {
	for _, family := range spec.Families {
		b.Run(family.String(), func(b *testing.B) {
			f := firewall{rules: times(1, rule{members: 10}), family: family, both: true}
			chains := f.compile(site{variant: variant{family: family}}).Table.Chains
			variants := []variant{{name: "base", family: family}, {name: "base again", family: family}, {name: "no br_netfilter", family: family, bare: true}, f.begun("hook", 0)}
			for i, r := range chains[slices.IndexFunc(chains, forwards)].Rules {
				variants = append(variants, f.begun(fmt.Sprintf("%d %s", i+1, r.Comment), i+1))
			}
			variants = append(variants, f.polder("all"))
			report(b, variants, measure(b, variants))
		})
	}
}

// report shows each variant's result as a benchmark of its own.
func report(b *testing.B, variants []variant, results []result) {
	b.Helper()
	for i, v := range variants {
		b.Run(v.name, func(b *testing.B) {
			b.ReportMetric(results[i].ratio, "ratio")
			b.ReportMetric(results[i].extra, "extra-ns")
			b.ReportMetric(results[i].least, "least-ns")
			b.ReportMetric(results[i].freshRatio, "new-ratio")
			b.ReportMetric(results[i].freshExtra, "new-extra-ns")
			b.ReportMetric(0, "ns/op")
		})
	}
}
