package view

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/reconcile"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares with testdata/name, or writes it.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (go test -update writes it anew)\n--- got\n%s\n--- want\n%s", file, got, want)
	}
}

// mixed has every action, and each way in which an attribute is printed.
func mixed() []change.Change {
	return []change.Change{
		{Action: change.Create, Kind: "link", Name: "cni0", Attrs: []change.Attr{
			{Name: "type", After: "bridge"},
			{Name: "address", After: "02:5c:1f:00:8a:11"},
			{Name: "mtu", After: "1450"},
			{Name: "alias", After: "polder:edge"},
			{Name: "state", After: "up"},
		}},
		{Action: change.Create, Kind: "route", Name: "10.244.3.0/24", Attrs: []change.Attr{
			{Name: "via", After: "10.244.3.0"}, {Name: "dev", After: "polder.1"},
		}},
		{Action: change.Create, Kind: "port", Name: "veth-web1 master cni0"},
		{Action: change.Update, Kind: "link", Name: "veth-db", Attrs: []change.Attr{
			{Name: "mtu", Before: "1500", After: "1450"},
			{Name: "hairpin", Before: "on"},
		}, Unchanged: 5},
		{Action: change.Update, Kind: "sysctl", Name: "net.ipv4.ip_forward", Attrs: []change.Attr{{Name: "value", Before: "0", After: "1"}}},
		{Action: change.Update, Kind: "chain", Name: "inet polder postrouting", Attrs: []change.Attr{
			{
				Name:   "rule",
				Before: "ip saddr 10.244.0.0/16 ip daddr != 224.0.0.0/4 masquerade",
				After:  "ip saddr 10.244.0.0/16 ip daddr != 224.0.0.0/4 masquerade random,fully-random",
			},
		}, Unchanged: 1},
		{Action: change.Replace, Kind: "link", Name: "polder.1", Attrs: []change.Attr{
			{Name: "vni", Before: "1", After: "7", ForcesReplace: true},
			{Name: "mtu", Before: "1450", After: "1400"},
		}, Unchanged: 4},
		{Action: change.Create, Kind: "fdb", Name: "02:00:00:00:00:03 dev polder.1", Reason: "link_replaced", Attrs: []change.Attr{
			{Name: "dst", After: "192.0.2.13"},
		}},
		{Action: change.Delete, Kind: "route", Name: "10.244.9.0/24", Attrs: []change.Attr{
			{Name: "via", Before: "10.244.9.0"}, {Name: "dev", Before: "polder.1"},
		}},
		{Action: change.Adopt, Kind: "route", Name: "10.244.2.0/24", Attrs: []change.Attr{
			{Name: "protocol", Before: "boot", After: "polder"},
		}, Unchanged: 3},
	}
}

func conflicts() []change.Conflict {
	return []change.Conflict{{
		Kind: "route", Name: "10.244.2.0/24",
		Reason: "there is one via 192.0.2.99 dev eth0 proto static",
		Remedy: "Remove it: ip route del 10.244.2.0/24 via 192.0.2.99\nor take node n2 out of the spec.",
	}}
}

func many(kind string, n int) []change.Change {
	var changes []change.Change
	for i := range n {
		changes = append(changes, change.Change{Action: change.Create, Kind: kind, Name: fmt.Sprintf("10.%d.%d.0/24", i/256, i%256)})
	}
	return changes
}

func TestPlanText(t *testing.T) {
	tests := []struct {
		name string
		plan reconcile.Plan
		text Text
	}{
		{"empty", reconcile.Plan{Mode: reconcile.ModeApply}, Text{}},
		{"empty-destroy", reconcile.Plan{Mode: reconcile.ModeDestroy}, Text{}},
		{"mixed", reconcile.Plan{Mode: reconcile.ModeApply, Changes: mixed()}, Text{}},
		{"mixed-colour", reconcile.Plan{Mode: reconcile.ModeApply, Changes: mixed(), Conflicts: conflicts()}, Text{Color: true}},
		{"conflict-only", reconcile.Plan{Mode: reconcile.ModeApply, Conflicts: conflicts()}, Text{}},
		{"warning", reconcile.Plan{Mode: reconcile.ModeApply, Changes: many("route", 1), Conflicts: conflicts(),
			Warnings: []string{"chain \"ip filter FORWARD\" has policy drop.\nPod traffic will not pass."}}, Text{}},
		{"release", reconcile.Plan{Mode: reconcile.ModeRelease, Changes: []change.Change{
			{Action: change.Release, Kind: "link", Name: "cni0", Attrs: []change.Attr{{Name: "alias", Before: "polder:edge"}}, Unchanged: 6},
		}}, Text{}},
		{"long", reconcile.Plan{Mode: reconcile.ModeApply, Changes: append(many("route", 400), many("fdb", 6)...)}, Text{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.plan.Node = "n1"
			var b bytes.Buffer
			if err := NewPlan(&test.plan).WriteText(&b, test.text); err != nil {
				t.Fatal(err)
			}
			golden(t, "plan-"+test.name+".txt", b.Bytes())
		})
	}
}

// A plan of fullPlan changes is shown whole, and one more cuts it.
func TestLongestFullPlan(t *testing.T) {
	for length, cut := range map[int]string{fullPlan: "", fullPlan + 1: "196 routes not shown"} {
		var b bytes.Buffer
		if err := NewPlan(&reconcile.Plan{Mode: reconcile.ModeApply, Node: "n1", Changes: many("route", length)}).WriteText(&b, Text{}); err != nil {
			t.Fatal(err)
		}
		if text := b.String(); !strings.Contains(text, cut) || strings.Contains(text, "not shown") != (cut != "") {
			t.Errorf("of %d changes, want %q:\n%s", length, cut, text)
		}
	}
}

// Nothing that a plan does may be hidden from those who ask for all of it.
func TestVerboseShowsEveryChange(t *testing.T) {
	plan := NewPlan(&reconcile.Plan{Mode: reconcile.ModeApply, Node: "n1", Changes: many("route", fullPlan+1)})
	var b bytes.Buffer
	if err := plan.WriteText(&b, Text{Verbose: true}); err != nil {
		t.Fatal(err)
	}
	for _, c := range plan.Changes {
		if !strings.Contains(b.String(), fmt.Sprintf("%q", c.Name)) {
			t.Fatalf("%s is missing", c.Name)
		}
	}
	if strings.Contains(b.String(), "not shown") {
		t.Error("the text says that something is not shown")
	}
}

func TestPlanJSON(t *testing.T) {
	var b bytes.Buffer
	if err := WriteJSON(&b, NewPlan(&reconcile.Plan{Mode: reconcile.ModeApply, Node: "n1", Changes: mixed(), Conflicts: conflicts()})); err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(b.Bytes(), []byte("\n")); n != 1 {
		t.Errorf("%d lines, want one", n)
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, b.Bytes(), "", "  "); err != nil {
		t.Fatal(err)
	}
	golden(t, "plan-mixed.json", indented.Bytes())
}

// Lists are lists for a program that reads them, also when they are empty.
func TestJSONHasNoNull(t *testing.T) {
	empty := &reconcile.Plan{Mode: reconcile.ModeApply, Node: "n1"}
	for _, model := range []any{
		NewPlan(empty),
		NewStatus(&reconcile.Status{Plan: empty}),
		NewResult(empty, nil, nil, nil),
		NewCondition(reconcile.Condition{}, Process{}, 0, noon),
		NewValidation(nil),
	} {
		var b bytes.Buffer
		if err := WriteJSON(&b, model); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(b.String(), "null") || !strings.Contains(b.String(), `"format_version":"1.1"`) {
			t.Errorf("%T: %s", model, b.String())
		}
	}
}

func TestResultText(t *testing.T) {
	all := mixed()
	plan := &reconcile.Plan{Mode: reconcile.ModeApply, Node: "n1", Changes: all}
	outcomes := func(n int, failed ...int) []reconcile.Outcome {
		var list []reconcile.Outcome
		for _, c := range all[:n] {
			list = append(list, reconcile.Outcome{Change: c})
		}
		for _, i := range failed {
			list[i].Err = errors.New("adding route: network is unreachable")
		}
		return list
	}
	tests := []struct {
		name   string
		result Result
		done   bool
	}{
		{"complete", NewResult(plan, outcomes(len(all)), nil, nil), true},
		{"failed", NewResult(plan, outcomes(len(all), 1), all[1:2], nil), false},
		{"interrupted", NewResult(plan, outcomes(3), nil, errors.New("interrupted")), false},
		{"drifted", NewResult(plan, outcomes(len(all)), all[3:6], nil), false},
		{"conflict", NewResult(&reconcile.Plan{Mode: reconcile.ModeApply, Node: "n1", Changes: all, Conflicts: conflicts()}, outcomes(len(all)), nil, nil), false},
		{"destroyed", NewResult(&reconcile.Plan{Mode: reconcile.ModeDestroy, Node: "n1", Changes: all[8:9]}, outcomes(9)[8:], nil, nil), true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if test.result.Complete != test.done {
				t.Errorf("complete is %t", test.result.Complete)
			}
			var b bytes.Buffer
			for _, o := range test.result.Failed {
				if err := o.WriteText(&b, Text{}); err != nil {
					t.Fatal(err)
				}
			}
			if err := test.result.WriteText(&b, Text{}); err != nil {
				t.Fatal(err)
			}
			golden(t, "result-"+test.name+".txt", b.Bytes())
		})
	}
}

func TestStatusText(t *testing.T) {
	peers := func(n int) []reconcile.Peer {
		var list []reconcile.Peer
		for i := range n {
			p := reconcile.Peer{
				Node:    fmt.Sprintf("n%d", i+2),
				Subnet:  netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(i + 2), 0}), 24),
				Path:    reconcile.PathVXLAN,
				Gateway: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 12)}),
				Present: i != 24,
			}
			if i%2 == 0 {
				p.Path = reconcile.PathDirect
			}
			list = append(list, p)
		}
		return list
	}
	tests := []struct {
		name   string
		status reconcile.Status
	}{
		{"in-sync", reconcile.Status{Plan: &reconcile.Plan{}, Peers: peers(2)}},
		{"drifted", reconcile.Status{Plan: &reconcile.Plan{Changes: mixed(), Conflicts: conflicts()}, Peers: peers(30),
			Firewalls: []reconcile.Firewall{{Chain: "ip filter FORWARD", Reason: "policy drop",
				Remedy: "Let Docker accept it: iptables -I DOCKER-USER -i cni0 -j ACCEPT"}}}},
		{"alone", reconcile.Status{Plan: &reconcile.Plan{}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.status.Plan.Node, test.status.Plan.Mode = "n1", reconcile.ModeApply
			var b bytes.Buffer
			if err := NewStatus(&test.status).WriteText(&b, Text{}); err != nil {
				t.Fatal(err)
			}
			golden(t, "status-"+test.name+".txt", b.Bytes())
		})
	}
}

func TestValidationCountsBySeverity(t *testing.T) {
	v := NewValidation(hcl.Diagnostics{
		{Severity: hcl.DiagError, Summary: "a", Subject: &hcl.Range{Filename: "f.hcl", Start: hcl.Pos{Line: 3, Column: 2, Byte: 40}, End: hcl.Pos{Line: 3, Column: 9, Byte: 47}}},
		{Severity: hcl.DiagWarning, Summary: "b"},
	})
	if v.Valid || v.ErrorCount != 1 || v.WarningCount != 1 {
		t.Errorf("got %+v", v)
	}
	if r := v.Diagnostics[0].Range; r == nil || r.Start.Line != 3 || r.End.Byte != 47 {
		t.Errorf("range is %+v", r)
	}
	if v.Diagnostics[1].Range != nil {
		t.Error("a finding without a place got one")
	}
}
