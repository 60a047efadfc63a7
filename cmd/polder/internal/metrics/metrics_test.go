package metrics

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/policy/drop"
	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
)

// fake is a daemon in a condition of the test's.
type fake struct {
	condition reconcile.Condition
	ping      func(context.Context) error
}

func (f *fake) Condition() reconcile.Condition { return f.condition }

// counts are counters as the kernel would tell them.
type counts struct {
	values map[string]nft.CounterValue
	err    error
}

func (c counts) Read(context.Context) (map[string]nft.CounterValue, error) { return c.values, c.err }

func (f *fake) Ping(ctx context.Context) error { return f.ping(ctx) }

// troubled has something for each metric.
func troubled() reconcile.Condition {
	return reconcile.Condition{
		Ready:   true,
		Spec:    reconcile.SpecCondition{Loaded: time.UnixMilli(1_795_420_329_250), Err: errors.New("line 3")},
		Cluster: &reconcile.ClusterCondition{Known: true, Since: time.UnixMilli(1_795_420_329_250), Err: errors.New("refused"), Unsaid: errors.New("nodes \"n1\" is forbidden")},
		Failures: []reconcile.Failure{
			{Change: change.Change{Kind: "route"}}, {Change: change.Change{Kind: "route"}}, {Change: change.Change{Kind: "link"}},
		},
		Conflicts: make([]change.Conflict, 4),
		Counters: reconcile.Counters{
			Changes: map[reconcile.ChangeCount]uint64{
				{Kind: "link", Action: change.Update, Repair: true}:  5,
				{Kind: "route", Action: change.Create, Failed: true}: 6,
			},
			Rounds: map[reconcile.Cause]uint64{reconcile.CauseDrift: 7, reconcile.CauseStart: 1},
			Seen:   reconcile.Notifications{RTNetlink: 80, NFTables: 90}, Relevant: reconcile.Notifications{RTNetlink: 8, NFTables: 9},
			Lost: 10, Specs: 11, Rejected: 12, RoundTime: 1500 * time.Millisecond,
		},
		Policies: func() map[string]policy.Counter {
			return map[string]policy.Counter{
				"c_db":                 {Policy: &spec.Policy{Kind: spec.KindPolicy, Name: "db", Tier: "platform"}, Direction: spec.Ingress, Rule: 2, Action: spec.Deny},
				"c_default":            {Tier: &spec.Tier{Name: "default"}, Direction: spec.Egress, Action: spec.Pass},
				"policy_no_connection": {Drop: drop.NoConnection},

				"c_coming": {Tier: &spec.Tier{Name: "coming"}, Direction: spec.Egress, Action: spec.Deny},
			}
		},
	}
}

var counted = counts{values: map[string]nft.CounterValue{
	"c_db": {Packets: 13, Bytes: 1300}, "c_default": {Packets: 14, Bytes: 1 << 60}, "c_gone": {Packets: 1, Bytes: 1},
	"spoof_ip": {Packets: 15, Bytes: 1500}, "policy_no_connection": {Packets: 16, Bytes: 1600},
}}

func TestMetrics(t *testing.T) {
	m := New(&fake{condition: troubled()}, counted, "v1.2.3")
	m.Observe(reconcile.Event{Type: reconcile.EventChanged, Cause: reconcile.CauseDrift, Took: 3 * time.Millisecond})
	m.Observe(reconcile.Event{Type: reconcile.EventChangedMore, Cause: reconcile.CauseDrift, Count: 2, Took: 4 * time.Millisecond})
	m.Observe(reconcile.Event{Type: reconcile.EventFailed, Cause: reconcile.CauseDrift, Took: time.Hour})
	want := `
polder_build_info{version="v1.2.3"} 1
polder_change_latency_seconds_sum{cause="drift"} 0.011
polder_change_latency_seconds_count{cause="drift"} 3
polder_changes_total{action="create",kind="route",repair="false",result="failed"} 6
polder_changes_total{action="update",kind="link",repair="true",result="done"} 5
polder_cluster_heard 0
polder_cluster_known 1
polder_cluster_published 0
polder_cluster_since_timestamp_seconds 1.79542032925e+09
polder_conflicts 4
polder_dropped_bytes_total{reason="policy_no_connection"} 1600
polder_dropped_bytes_total{reason="spoof_ip"} 1500
polder_dropped_packets_total{reason="policy_no_connection"} 16
polder_dropped_packets_total{reason="spoof_ip"} 15
polder_failing_objects{kind="link"} 1
polder_failing_objects{kind="route"} 2
polder_held 0
polder_in_sync 0
polder_notifications_lost_total 10
polder_notifications_relevant_total{source="nftables"} 9
polder_notifications_relevant_total{source="rtnetlink"} 8
polder_notifications_total{source="nftables"} 90
polder_notifications_total{source="rtnetlink"} 80
polder_policy_bytes_total{action="deny",direction="ingress",policy="policy db",rule="2",tier="platform"} 1300
polder_policy_bytes_total{action="pass",direction="egress",policy="",rule="",tier="default"} 1.152921504606847e+18
polder_policy_packets_total{action="deny",direction="ingress",policy="policy db",rule="2",tier="platform"} 13
polder_policy_packets_total{action="pass",direction="egress",policy="",rule="",tier="default"} 14
polder_policy_read_errors_total 0
polder_ready 1
polder_round_seconds_total 1.5
polder_rounds_total{cause="drift"} 7
polder_rounds_total{cause="start"} 1
polder_spec_loaded_timestamp_seconds 1.79542032925e+09
polder_spec_valid 0
polder_specs_rejected_total 12
polder_specs_total 11
`
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	var got strings.Builder
	got.WriteByte('\n')
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, "polder_") && !strings.Contains(line, "_bucket{") {
			got.WriteString(line)
		}
	}
	if got.String() != want {
		t.Errorf("got\n%s\nwant\n%s", got.String(), want)
	}
}

// A kernel that does not answer takes no other metric away.
func TestUnreadCounters(t *testing.T) {
	m := New(&fake{condition: troubled()}, counts{err: errors.New("no")}, "v1")
	for _, n := range []string{"1", "2"} {
		status, body := get(m, "/metrics")
		if status != http.StatusOK || !strings.Contains(body, "polder_policy_read_errors_total "+n+"\n") || !strings.Contains(body, "polder_ready 1") {
			t.Errorf("%d %s", status, body)
		}
		if strings.Contains(body, "polder_policy_packets_total") {
			t.Error("counters without values")
		}
	}
}

// Where no policy is in force, what is dropped for other reasons is told.
func TestNoPoliciesToCount(t *testing.T) {
	_, body := get(New(&fake{}, counted, "v1"), "/metrics")
	if !strings.Contains(body, `polder_dropped_packets_total{reason="spoof_ip"} 15`) || strings.Contains(body, "polder_policy_packets_total") {
		t.Error(body)
	}
}

// Names and help are as Prometheus' own linter wants them.
func TestMetricsAreNamedWell(t *testing.T) {
	families, err := New(&fake{condition: troubled()}, counted, "v1").registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if problems, err := promlint.NewWithMetricFamilies(families).Lint(); err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
}

// The manual lists every metric, and none that is not.
func TestManualListsMetrics(t *testing.T) {
	m := New(&fake{condition: troubled()}, counted, "v1")
	m.Observe(reconcile.Event{Type: reconcile.EventChanged, Cause: reconcile.CauseDrift})
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	has := map[string]bool{}
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "polder_") {
			name := f.GetName()
			var labels []string
			for _, l := range f.GetMetric()[0].GetLabel() {
				labels = append(labels, l.GetName())
			}
			if len(labels) > 0 {
				name += "{" + strings.Join(labels, ",") + "}"
			}
			has[name] = true
		}
	}
	text, err := os.ReadFile("../../../../docs/daemon.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(polder_[^`]+)` \\|").FindAllStringSubmatch(string(text), -1) {
		listed[row[1]] = true
	}
	if !maps.Equal(has, listed) {
		t.Errorf("there are\n%s\nand the manual lists\n%s",
			strings.Join(slices.Sorted(maps.Keys(has)), "\n"), strings.Join(slices.Sorted(maps.Keys(listed)), "\n"))
	}
}

func get(m *Metrics, path string) (int, string) {
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, http.NoBody))
	return w.Code, strings.TrimSpace(w.Body.String())
}

func TestReadiness(t *testing.T) {
	loaded := reconcile.SpecCondition{Loaded: time.Now()}
	for _, test := range []struct {
		name      string
		condition reconcile.Condition
		status    int
		says      string
	}{
		{"unknown cluster", reconcile.Condition{Spec: loaded, Ready: true, Cluster: &reconcile.ClusterCondition{}}, 503, "waiting for the cluster"},
		{"in sync", reconcile.Condition{Spec: loaded, Ready: true, InSync: true}, 200, "ok"},
		{"drifted", reconcile.Condition{Spec: loaded, Ready: true, Failures: make([]reconcile.Failure, 1)}, 200, "ok"},
		{"broken file", reconcile.Condition{Spec: reconcile.SpecCondition{Loaded: time.Now(), Err: errors.New("x")}, Ready: true}, 200, "ok"},
		{"not yet", reconcile.Condition{Spec: loaded, Failures: make([]reconcile.Failure, 2)}, 503, "2 failing"},
		{"no spec", reconcile.Condition{Spec: reconcile.SpecCondition{Err: errors.New("x")}}, 503, "files have errors"},
		{"nothing read", reconcile.Condition{}, 503, "no spec is in force yet"},
		{"held", reconcile.Condition{Spec: loaded, Ready: true, Held: reconcile.ModeDestroy}, 503, "held by destroy"},
	} {
		status, body := get(New(&fake{condition: test.condition}, counts{}, "v1"), "/readyz")
		if status != test.status || !strings.Contains(body, test.says) {
			t.Errorf("%s: %d %s", test.name, status, body)
		}
	}
}

func TestHealth(t *testing.T) {
	d := &fake{ping: func(context.Context) error { return nil }}
	m := New(d, counts{}, "v1")
	if status, body := get(m, "/healthz"); status != 200 || body != "ok" {
		t.Errorf("%d %s", status, body)
	}
	d.ping = func(ctx context.Context) error {
		if _, limited := ctx.Deadline(); !limited {
			t.Error("the probe waits for ever")
		}
		return context.DeadlineExceeded
	}
	if status, body := get(m, "/healthz"); status != 503 || !strings.Contains(body, "does not answer") {
		t.Errorf("%d %s", status, body)
	}
	d.ping = func(context.Context) error { return reconcile.ErrStopped }
	if status, _ := get(m, "/healthz"); status != 503 {
		t.Errorf("a daemon that has stopped: %d", status)
	}
}

func TestServeEnds(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- New(&fake{}, counts{}, "v1").Serve(ctx, l) }()
	response, err := http.Get("http://" + l.Addr().String() + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	if err := response.Body.Close(); err != nil {
		t.Error(err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
