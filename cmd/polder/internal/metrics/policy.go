package metrics

import (
	"context"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/policy/drop"
)

// Counts is what metrics need of reconcile.Counts.
type Counts interface {
	Read(ctx context.Context) (map[string]nft.CounterValue, error)
}

// countsTimeout bounds what a scrape waits for the kernel.
const countsTimeout = 5 * time.Second

var (
	policyLabels  = []string{"tier", "policy", "direction", "rule", "action"}
	policyPackets = prometheus.NewDesc("polder_policy_packets_total",
		"Packets that a rule of a policy matched, or that a tier's default action was for, in which case policy and rule are empty.", policyLabels, nil)
	policyBytes = prometheus.NewDesc("polder_policy_bytes_total",
		"Bytes of these packets.", policyLabels, nil)
	droppedPackets = prometheus.NewDesc("polder_dropped_packets_total",
		"Packets that were dropped without a policy having decided, such as those in another's name.", []string{"reason"}, nil)
	droppedBytes = prometheus.NewDesc("polder_dropped_bytes_total",
		"Bytes of these packets.", []string{"reason"}, nil)
	policyErrors = prometheus.NewDesc("polder_policy_read_errors_total",
		"Scrapes at which the counters of packets could not be read.", nil, nil)
)

// policies reads the counters of packets when it is asked for metrics: in between
// it costs nothing. There are as many values as there are reasons to drop
// something, and rules in the policies that select something on this node,
// whatever the traffic is.
type policies struct {
	daemon Daemon
	counts Counts
	errors atomic.Uint64
}

// Describe implements prometheus.Collector.
func (*policies) Describe(descs chan<- *prometheus.Desc) {
	descs <- policyPackets
	descs <- policyBytes
	descs <- droppedPackets
	descs <- droppedBytes
	descs <- policyErrors
}

// Collect implements prometheus.Collector. What is in the kernel and belongs to
// no rule, because it is about to go, is left out, and so is a rule that is not
// in the kernel yet.
func (p *policies) Collect(values chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), countsTimeout)
	defer cancel()
	counted, err := p.counts.Read(ctx)
	if err != nil {
		p.errors.Add(1) // all other metrics are told
	}
	put := func(packets, bytes *prometheus.Desc, v nft.CounterValue, labels ...string) {
		values <- prometheus.MustNewConstMetric(packets, prometheus.CounterValue, float64(v.Packets), labels...)
		values <- prometheus.MustNewConstMetric(bytes, prometheus.CounterValue, float64(v.Bytes), labels...)
	}
	for _, r := range drop.Reasons() {
		if v, there := counted[string(r)]; there {
			put(droppedPackets, droppedBytes, v, string(r))
		}
	}
	var known map[string]policy.Counter
	if all := p.daemon.Condition().Policies; all != nil {
		known = all()
	}
	for name, v := range counted {
		c, ok := known[name]
		if !ok || c.Drop != "" {
			continue
		}
		labels := []string{c.TierName(), "", string(c.Direction), "", string(c.Action)}
		if c.Policy != nil {
			labels[1], labels[3] = c.Policy.ID(), strconv.Itoa(c.Rule)
		}
		put(policyPackets, policyBytes, v, labels...)
	}
	values <- prometheus.MustNewConstMetric(policyErrors, prometheus.CounterValue, float64(p.errors.Load()))
}
