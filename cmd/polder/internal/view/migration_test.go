package view

import (
	"bytes"
	"strings"
	"testing"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/internal/remains"
	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
)

// What a change means to traffic decides the verdict.
func TestMigrationVerdict(t *testing.T) {
	adopt := change.Change{Action: change.Adopt, Kind: "link", Name: "flannel.1"}
	port := change.Change{Action: change.Update, Kind: "port", Name: "veth0", Attrs: []change.Attr{{Name: "master", After: "cni0"}}}
	moved := port
	moved.Attrs = []change.Attr{{Name: "master", Before: "br0", After: "cni0"}}
	for name, test := range map[string]struct {
		changes   []change.Change
		conflicts []change.Conflict
		left      remains.Remains
		want      Verdict
		said      string
	}{
		"nothing":    {nil, nil, remains.Remains{}, VerdictNothing, "matches the spec"},
		"clean":      {[]change.Change{adopt, {Action: change.Create, Kind: "route"}, {Action: change.Update, Kind: "chain"}, port}, nil, remains.Remains{}, VerdictClean, "1 object adopted, 3 added"},
		"a switch":   {[]change.Change{adopt, {Action: change.Update, Kind: "sysctl", Name: "net.ipv4.ip_forward"}}, nil, remains.Remains{}, VerdictClean, "Would be set on the host"},
		"a policy":   {[]change.Change{adopt, {Action: change.Create, Kind: "policy", Name: "db"}}, nil, remains.Remains{}, VerdictClean, "Would be enforced"},
		"a route":    {[]change.Change{adopt, {Action: change.Delete, Kind: "route"}}, nil, remains.Remains{}, VerdictDisturbs, "nodes that the spec has not"},
		"a link":     {[]change.Change{adopt, {Action: change.Replace, Kind: "link", Name: "cni0"}}, nil, remains.Remains{}, VerdictDisturbs, "changed or lost"},
		"a port":     {[]change.Change{adopt, moved}, nil, remains.Remains{}, VerdictDisturbs, "changed or lost"},
		"left":       {[]change.Change{adopt}, nil, remains.Remains{Routes: []string{"10.244.3.0/24 via 192.0.2.13 dev eth0"}}, VerdictDisturbs, "polder drops what comes from there"},
		"a conflict": {[]change.Change{adopt, {Action: change.Delete, Kind: "route"}}, []change.Conflict{{Kind: "link", Name: "cni0"}}, remains.Remains{}, VerdictConflict, "1 object is in the way"},
	} {
		m := NewMigration(&reconcile.Plan{Mode: reconcile.ModeApply, Node: "n1", Changes: test.changes, Conflicts: test.conflicts}, test.left, &spec.Spec{})
		var b bytes.Buffer
		if err := m.WriteText(&b, Text{}); err != nil || m.Verdict != test.want || !strings.Contains(b.String(), test.said) {
			t.Errorf("%s: %v, verdict %s, want %s; no %q in\n%s", name, err, m.Verdict, test.want, test.said, b.String())
		}
		b.Reset()
		if err := WriteJSON(&b, m); err != nil || strings.Contains(b.String(), "null") {
			t.Errorf("%s: %v: %s", name, err, b.String())
		}
	}
}

// What is to be done about routes to strangers depends on where nodes come from.
func TestMigrationAdvice(t *testing.T) {
	lost := []change.Change{{Action: change.Delete, Kind: "route", Name: "10.244.3.0/24"}}
	for _, test := range []struct {
		sp         *spec.Spec
		said, hush string
	}{
		{&spec.Spec{}, "Add the nodes", "Warnings name"},
		{&spec.Spec{Kubernetes: &spec.Kubernetes{}}, "Warnings name those of the\n  cluster", "Add the nodes"},
	} {
		for name, m := range map[string]Migration{
			"lost": NewMigration(&reconcile.Plan{Changes: lost}, remains.Remains{}, test.sp),
			"left": NewMigration(&reconcile.Plan{}, remains.Remains{Routes: []string{"10.244.3.0/24 via 192.0.2.13 dev eth0"}}, test.sp),
			"none": NewMigration(&reconcile.Plan{}, remains.Remains{}, test.sp),
		} {
			var b strings.Builder
			if err := m.WriteText(&b, Text{}); err != nil || strings.Contains(b.String(), test.said) != (name != "none") || strings.Contains(b.String(), test.hush) {
				t.Errorf("%s: %v\n%s", name, err, b.String())
			}
		}
	}
}
