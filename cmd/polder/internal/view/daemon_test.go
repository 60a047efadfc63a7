package view

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return noon.Add(-d) }

// diagnostics are those of a spec, as the daemon keeps them.
const diagnostics = `Error: Unsupported argument

  on edge.hcl line 3, in network:
   3:   pod_cidr = ["10.244.0.0/16"]

An argument named "pod_cidr" is not expected here. Did you mean "pod_cidrs"?

Error: Missing required argument

  on edge.hcl line 2, in network:
   2: network {`

func failures(n int) []reconcile.Failure {
	var list []reconcile.Failure
	for _, c := range many("route", n) {
		list = append(list, reconcile.Failure{
			Change: c, Err: errors.New("network is unreachable"),
			Attempts: 7, Since: ago(12 * time.Second), Next: noon.Add(6400 * time.Millisecond),
		})
	}
	return list
}

func TestDaemonText(t *testing.T) {
	good := reconcile.SpecCondition{Path: "/etc/polder", Loaded: ago(26 * time.Hour)}
	tests := []struct {
		name      string
		condition reconcile.Condition
		text      Text
	}{
		{"in-sync", reconcile.Condition{
			Spec: good, InSync: true, Ready: true, Since: ago(3 * time.Minute),
			Counters: reconcile.Counters{Changes: map[reconcile.ChangeCount]uint64{
				{Kind: "link", Action: change.Update, Repair: true}:                2,
				{Kind: "link", Action: change.Create, Repair: true}:                1,
				{Kind: "route", Action: change.Create, Repair: true}:               9,
				{Kind: "route", Action: change.Create, Repair: true, Failed: true}: 4,
				{Kind: "route", Action: change.Create}:                             5,
			}},
		}, Text{}},
		{"failing", reconcile.Condition{
			Spec: good, Since: ago(12 * time.Second), Failures: failures(7), Conflicts: conflicts(),
		}, Text{}},
		{"failing-all", reconcile.Condition{Spec: good, Since: ago(12 * time.Second), Failures: failures(7)}, Text{Verbose: true}},
		{"rejected", reconcile.Condition{
			Spec:   reconcile.SpecCondition{Path: "/etc/polder", Loaded: ago(5 * time.Second), Err: errors.New(diagnostics)},
			InSync: true, Since: ago(time.Second),
		}, Text{}},
		{"restored", reconcile.Condition{
			Spec:   reconcile.SpecCondition{Path: "/etc/polder", Loaded: ago(30 * time.Minute), Err: errors.New(diagnostics), Restored: true},
			InSync: true, Since: ago(20 * time.Millisecond),
		}, Text{Verbose: true}},
		{"waiting", reconcile.Condition{
			Spec: reconcile.SpecCondition{Path: "/etc/polder", Err: errors.New("no such file")}, Since: ago(time.Hour),
		}, Text{}},
		{"cluster", reconcile.Condition{
			Spec: good, InSync: true, Since: ago(time.Second),
			Cluster: &reconcile.ClusterCondition{Known: true, Since: ago(25 * time.Hour), Err: errors.New("pods: connection refused"), Unsaid: errors.New("nodes \"n1\" is forbidden")},
		}, Text{}},
		{"cluster-waiting", reconcile.Condition{Spec: good, Since: ago(time.Minute), Cluster: &reconcile.ClusterCondition{Since: ago(time.Minute)}}, Text{}},
		{"held", reconcile.Condition{Spec: good, Held: reconcile.ModeDestroy, Since: ago(100 * time.Hour)}, Text{Color: true}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.condition.Started = ago(26 * time.Hour)
			status := NewStatus(&reconcile.Status{Plan: &reconcile.Plan{Mode: reconcile.ModeApply, Node: "n1"}})
			daemon := NewCondition(test.condition, Process{PID: 4711, StateDir: "/run/polder"}, 17, noon)
			status.Daemon = &daemon
			var b bytes.Buffer
			if err := status.WriteText(&b, test.text); err != nil {
				t.Fatal(err)
			}
			golden(t, "daemon-"+test.name+".txt", b.Bytes())
			if lines := bytes.Count(b.Bytes(), []byte("\n")); lines > 24 {
				t.Errorf("%d lines are more than a screen", lines)
			}
		})
	}
}

// Where the daemon alone knows what there should be, what it says is the whole status.
func TestConditionTellsOfConflictsAndWarnings(t *testing.T) {
	c := NewCondition(reconcile.Condition{Conflicts: conflicts(), Warnings: []string{"left out of the pod network: n3: it has no pod CIDR yet"}}, Process{}, 0, noon)
	var b bytes.Buffer
	if err := c.WriteText(&b, Text{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{conflicts()[0].Reason, "or take node n2 out of the spec.", "\nWarning: left out of the pod network: n3: it has no pod CIDR yet\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, b.String())
		}
	}
}

// In a cluster the peers are those that the daemon knows. Of nodes that are left out, the
// first few are warnings, and all are to be had.
func TestClusterStatus(t *testing.T) {
	condition := reconcile.Condition{
		Started: ago(26 * time.Hour), Since: ago(25 * time.Hour), InSync: true, Spec: reconcile.SpecCondition{Path: "/etc/polder", Loaded: ago(26 * time.Hour)},
		Cluster:  &reconcile.ClusterCondition{Known: true, Since: ago(26 * time.Hour)},
		Warnings: []string{"a firewall", reconcile.LeftOutWarning + "n3: IPv4: it has no address", reconcile.LeftOutWarning + "2 more"},
	}
	list := NewPeerList(
		[]reconcile.Peer{
			{Node: "n2", Subnet: netip.MustParsePrefix("10.244.2.0/24"), Path: reconcile.PathVXLAN, Gateway: netip.MustParseAddr("192.0.2.12"), Present: true},
			{Node: "n6", Subnet: netip.MustParsePrefix("10.244.6.0/24"), Path: reconcile.PathDirect, Gateway: netip.MustParseAddr("192.0.2.16")},
		},
		[]spec.LeftOut{
			{Node: "n3", Family: spec.IPv4, Reason: spec.NoAddress, Text: "it has no address"},
			{Node: "n3", Family: spec.IPv6, Reason: spec.NoAddress, Text: "it has no address"},
			{Node: "n4", Reason: spec.NoPodCIDR, Text: "it has no pod CIDR yet"},
		})
	known := ClusterStatus{Condition: NewCondition(condition, Process{PID: 4711}, 17, noon), PeerList: &list}
	unknown := known
	unknown.PeerList, unknown.PeersError = nil, "the daemon is at work"
	for name, c := range map[string]struct {
		status ClusterStatus
		text   Text
	}{"cluster-peers": {known, Text{}}, "cluster-peers-all": {known, Text{Verbose: true}}, "cluster-peers-unknown": {unknown, Text{Verbose: true}}} {
		var b bytes.Buffer
		if err := c.status.WriteText(&b, c.text); err != nil {
			t.Fatal(err)
		}
		golden(t, name+".txt", b.Bytes())
	}
	var b bytes.Buffer
	if err := WriteJSON(&b, known); err != nil {
		t.Fatal(err)
	}
	golden(t, "cluster-peers.json", b.Bytes())
}

// A daemon that cannot be asked is another answer than that there is none.
func TestStatusTellsAboutTheDaemon(t *testing.T) {
	for given, want := range map[string]string{
		"":                      "Daemon: none is running; ",
		"it talks only to root": "Daemon: it talks only to root\n",
	} {
		status := NewStatus(&reconcile.Status{Plan: &reconcile.Plan{Mode: reconcile.ModeApply, Node: "n1"}})
		status.DaemonError = given
		var b bytes.Buffer
		if err := status.WriteText(&b, Text{}); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, b.String())
		}
	}
}

func TestEventText(t *testing.T) {
	updated := mixed()[3]
	events := []reconcile.Event{
		{Type: reconcile.EventStarted},
		{Type: reconcile.EventSpecLoaded, Message: "/etc/polder"},
		{Type: reconcile.EventChanged, Cause: reconcile.CauseStart, Change: &mixed()[0], Took: 41 * time.Millisecond},
		{Type: reconcile.EventChangedMore, Cause: reconcile.CauseStart, Change: &change.Change{Action: change.Create, Kind: "neighbour"}, Count: 4975, Took: 47 * time.Millisecond},
		{Type: reconcile.EventReady, Cause: reconcile.CauseStart, Took: 48 * time.Millisecond},
		{Type: reconcile.EventDrift, Cause: reconcile.CauseDrift, Differences: 1, Took: 1234 * time.Microsecond},
		{Type: reconcile.EventChanged, Cause: reconcile.CauseDrift, Change: &updated, Took: 2 * time.Millisecond},
		{Type: reconcile.EventFailed, Cause: reconcile.CauseRetry, Change: &updated, Err: "no buffer space available", Took: 2 * time.Second},
		{Type: reconcile.EventSpecRejected, Err: diagnostics, Message: "the last good spec stays in force"},
		{Type: reconcile.EventConflict, Object: "route 10.244.2.0/24", Message: "there is one via 192.0.2.99; remove it"},
		{Type: reconcile.EventOutOfSync, Cause: reconcile.CauseRetry},
		{Type: reconcile.EventHeld, Cause: reconcile.CauseCommand, Message: "by destroy"},
		{Type: reconcile.EventStopping},
	}
	for name, text := range map[string]Text{"events": {}, "events-colour": {Color: true}} {
		var b bytes.Buffer
		for i, e := range events {
			e.Seq, e.Time = uint64(i+1), noon.Add(time.Duration(i)*1001*time.Millisecond)
			if err := NewEvent(e).WriteText(&b, text); err != nil {
				t.Fatal(err)
			}
		}
		if err := NewSkipped(3).WriteText(&b, text); err != nil {
			t.Fatal(err)
		}
		golden(t, name+".txt", b.Bytes())
	}
}

func TestEventJSON(t *testing.T) {
	var b bytes.Buffer
	err := WriteJSON(&b, NewEvent(reconcile.Event{
		Seq: 7, Time: noon, Type: reconcile.EventChanged, Cause: reconcile.CauseDrift, Change: &mixed()[4], Took: 2500 * time.Microsecond,
	}))
	want := `{"format_version":"1.1","type":"event","seq":7,"time":"2026-11-23T12:00:00Z","event":"changed","cause":"drift",` +
		`"change":{"action":"update","kind":"sysctl","name":"net.ipv4.ip_forward","attributes":[{"name":"value","before":"0","after":"1"}]},` +
		`"took_seconds":0.0025}` + "\n"
	if err != nil || b.String() != want {
		t.Errorf("%v\n%s\n%s", err, b.String(), want)
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second:               "0.00 ms", // clocks go back
		300 * time.Microsecond:     "0.30 ms",
		2549 * time.Microsecond:    "2.5 ms",
		999 * time.Millisecond:     "999 ms",
		1500 * time.Millisecond:    "1.5 s",
		59 * time.Second:           "59 s",
		59 * time.Minute:           "59 min",
		47*time.Hour + time.Hour/2: "47 h 30 min",
		80 * time.Hour:             "3 days",
	} {
		if got := span(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}
