// Package metrics tells Prometheus how a daemon stands. docs/daemon.md lists
// what it tells.
package metrics

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/poldernet/polder/reconcile"
)

// Daemon is what metrics need of reconcile.Daemon.
type Daemon interface {
	Condition() reconcile.Condition
	alive
}

// Metrics are a daemon's metrics and its answers to probes.
type Metrics struct {
	daemon   Daemon
	registry *prometheus.Registry
	latency  *prometheus.HistogramVec
}

// New makes the metrics of a daemon of that version.
func New(d Daemon, counts Counts, version string) *Metrics {
	m := &Metrics{
		daemon:   d,
		registry: prometheus.NewRegistry(),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "polder_change_latency_seconds",
			Help: "Time from what caused a change, such as a notification of the kernel, to the change done.",
			// From half a millisecond: a repair takes a few of them.
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"cause"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "polder_build_info", Help: "1, with the version as a label.",
		ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	m.registry.MustRegister(collector{d}, &policies{daemon: d, counts: counts}, m.latency, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Observe counts an event.
func (m *Metrics) Observe(e reconcile.Event) {
	objects := e.Count // each of which counts with the latency of the last
	if e.Type == reconcile.EventChanged {
		objects = 1
	}
	for range objects {
		m.latency.WithLabelValues(string(e.Cause)).Observe(e.Took.Seconds())
	}
}

// collector makes metrics of a daemon's condition when it is asked for them.
type collector struct{ daemon Daemon }

// metric is one that is computed from a condition.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(c reconcile.Condition, put put)
}

// put notes a value with those of its labels.
type put func(value float64, labels ...string)

func gauge(name, help string, value func(c reconcile.Condition) float64) metric {
	return metric{prometheus.NewDesc(name, help, nil, nil), prometheus.GaugeValue, func(c reconcile.Condition, put put) { put(value(c)) }}
}

// cluster is a gauge that is there where the spec names a cluster.
func cluster(name, help string, value func(c *reconcile.ClusterCondition) float64) metric {
	return metric{prometheus.NewDesc(name, help, nil, nil), prometheus.GaugeValue, func(c reconcile.Condition, put put) {
		if c.Cluster != nil {
			put(value(c.Cluster))
		}
	}}
}

func counter(name, help string, value func(c reconcile.Counters) float64) metric {
	return metric{prometheus.NewDesc(name, help, nil, nil), prometheus.CounterValue, func(c reconcile.Condition, put put) { put(value(c.Counters)) }}
}

// metrics are all that are computed from a condition.
var metrics = []metric{
	gauge("polder_in_sync", "1 if the kernel holds what the spec says and nothing is in the way.",
		func(c reconcile.Condition) float64 { return truth(c.InSync) }),
	gauge("polder_ready", "1 if /readyz answers 200.",
		func(c reconcile.Condition) float64 { return truth(notReady(c) == "") }),
	gauge("polder_held", "1 if destroy or release holds the daemon: it repairs nothing.",
		func(c reconcile.Condition) float64 { return truth(c.Held != "") }),
	gauge("polder_spec_valid", "1 if the spec's files have no errors. Otherwise the last good spec is in force.",
		func(c reconcile.Condition) float64 { return truth(c.Spec.Err == nil) }),
	{
		prometheus.NewDesc("polder_spec_loaded_timestamp_seconds", "When the spec in force was read. Absent: none is.", nil, nil),
		prometheus.GaugeValue,
		func(c reconcile.Condition, put put) {
			if !c.Spec.Loaded.IsZero() {
				put(float64(c.Spec.Loaded.UnixMilli()) / 1000)
			}
		},
	},
	cluster("polder_cluster_known", "1 if the cluster that the spec names has told of all that there is, 0 as long as it is waited for. Absent: the spec names none.",
		func(c *reconcile.ClusterCondition) float64 { return truth(c.Known) }),
	cluster("polder_cluster_since_timestamp_seconds", "Since when the cluster is known, or is waited for.",
		func(c *reconcile.ClusterCondition) float64 { return float64(c.Since.UnixMilli()) / 1000 }),
	cluster("polder_cluster_heard", "1 if the API server answers. Otherwise what it told last stays in force.",
		func(c *reconcile.ClusterCondition) float64 { return truth(c.Err == nil) }),
	cluster("polder_cluster_published", "1 if the API server takes what the node publishes. Otherwise peers go by what it published before.",
		func(c *reconcile.ClusterCondition) float64 { return truth(c.Unsaid == nil) }),
	gauge("polder_conflicts", "Objects of others in the way of ours.",
		func(c reconcile.Condition) float64 { return float64(len(c.Conflicts)) }),
	{
		prometheus.NewDesc("polder_failing_objects", "Objects that could not be written and are tried again.", []string{"kind"}, nil),
		prometheus.GaugeValue,
		func(c reconcile.Condition, put put) {
			kinds := map[string]int{}
			for _, f := range c.Failures {
				kinds[f.Change.Kind]++
			}
			for kind, n := range kinds {
				put(float64(n), kind)
			}
		},
	},
	{
		prometheus.NewDesc("polder_changes_total", "Changes of objects, by result; repair says that the object had been right before.",
			[]string{"kind", "action", "repair", "result"}, nil),
		prometheus.CounterValue,
		func(c reconcile.Condition, put put) {
			for k, n := range c.Counters.Changes {
				result := "done"
				if k.Failed {
					result = "failed"
				}
				put(float64(n), k.Kind, string(k.Action), strconv.FormatBool(k.Repair), result)
			}
		},
	},
	{
		prometheus.NewDesc("polder_rounds_total", "Rounds of reading, comparing and writing, by what caused them.", []string{"cause"}, nil),
		prometheus.CounterValue,
		func(c reconcile.Condition, put put) {
			for cause, n := range c.Counters.Rounds {
				put(float64(n), string(cause))
			}
		},
	},
	counter("polder_round_seconds_total", "Time spent in rounds.",
		func(c reconcile.Counters) float64 { return c.RoundTime.Seconds() }),
	notifications("polder_notifications_total", "Notifications of the kernel.",
		func(c reconcile.Counters) reconcile.Notifications { return c.Seen }),
	notifications("polder_notifications_relevant_total", "Notifications of the kernel that led to a reading.",
		func(c reconcile.Counters) reconcile.Notifications { return c.Relevant }),
	counter("polder_notifications_lost_total", "Times that notifications were lost, and everything was read again.",
		func(c reconcile.Counters) float64 { return float64(c.Lost) }),
	counter("polder_specs_total", "Specs that came into force.",
		func(c reconcile.Counters) float64 { return float64(c.Specs) }),
	counter("polder_specs_rejected_total", "Specs that had errors.",
		func(c reconcile.Counters) float64 { return float64(c.Rejected) }),
}

func notifications(name, help string, of func(reconcile.Counters) reconcile.Notifications) metric {
	return metric{
		prometheus.NewDesc(name, help, []string{"source"}, nil), prometheus.CounterValue,
		func(c reconcile.Condition, put put) {
			n := of(c.Counters)
			put(float64(n.RTNetlink), "rtnetlink")
			put(float64(n.NFTables), "nftables")
		},
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Describe implements prometheus.Collector.
func (collector) Describe(descs chan<- *prometheus.Desc) {
	for _, m := range metrics {
		descs <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(values chan<- prometheus.Metric) {
	condition := c.daemon.Condition()
	for _, m := range metrics {
		m.of(condition, func(value float64, labels ...string) {
			values <- prometheus.MustNewConstMetric(m.desc, m.kind, value, labels...)
		})
	}
}
