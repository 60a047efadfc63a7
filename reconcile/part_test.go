package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/poldernet/polder/overlay"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

// closes is a policy that isolates the pods with an app.
func closes(name, app string) policy.Event {
	e := allows(name, "nobody", app)
	e.Policy.Ingress = nil
	return e
}

// wires is what a host has of links, and its routes.
func (h *fakeHost) wires() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	state := h.network.Read(overlay.Scope{}).State
	var routes []string
	for key := range state.Routes {
		routes = append(routes, key.Dst.String())
	}
	slices.Sort(routes)
	text, err := json.Marshal([]any{state.Links, routes})
	if err != nil {
		h.t.Fatal(err)
	}
	return string(text)
}

// all are all candidates that there are by now; nil: as before.
func all(candidates []spec.Candidate) map[string]*spec.Candidate {
	if candidates == nil {
		return nil
	}
	changes := map[string]*spec.Candidate{"n1": nil, "n2": nil, "n3": nil}
	maps.Copy(changes, are(candidates...))
	return changes
}

// TestANodeWithoutItsNode: where the cluster no longer gives the node a part in the
// network, the one that it had last stays and is repaired, and policies go on; what is
// wrong is said, and no container is attached. So it is after a restart, too.
func TestANodeWithoutItsNode(t *testing.T) {
	whole := []spec.Candidate{member(1), member(2)}
	bare := member(1)
	bare.Subnets = spec.PerFamily[netip.Prefix]{}
	usurper := member(3)
	usurper.Created = 0 // as old as it may say to be
	usurper.Subnets = member(1).Subnets
	for name, c := range map[string]struct {
		nodes  []spec.Candidate
		why    string
		self   int // what it says of itself
		warned string
	}{
		"it is deleted":     {nodes: whole[1:], why: `node "n1" is not in the spec or in the cluster`},
		"it has no CIDR":    {nodes: []spec.Candidate{bare, member(2)}, why: "this node has no part in the pod network: n1: it has no pod CIDR yet", self: 1, warned: "n1: it has no pod CIDR yet"},
		"another has it":    {nodes: []spec.Candidate{member(2), usurper}, why: `node "n1" is not in the spec or in the cluster`, warned: "n3: IPv4: its pod CIDR 10.244.1.0/24 overlaps 10.244.1.0/24 of node n1"},
		"it is in conflict": {nodes: []spec.Candidate{func() spec.Candidate { n := member(1); n.Created = 9; return n }(), member(2), usurper}, why: "n1: IPv4: its pod CIDR 10.244.1.0/24 overlaps 10.244.1.0/24 of node n3", self: 1, warned: "n3: IPv4: its pod CIDR"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newFakeHost(t, nodes(0)+followed)
				cluster := &heeding{fakeCluster: make(fakeCluster)}
				tell := func(nodes []spec.Candidate, events ...policy.Event) {
					cluster.fakeCluster <- Update{Nodes: all(nodes), Events: events, Complete: true}
					h.settle()
				}
				h.run(DaemonOptions{Cluster: cluster.open})
				defer func() { h.end() }()
				known := []policy.Event{pod(0, app("db")), pod(2, app("web")), closes("first", "web")}
				tell(whole, known...)
				h.inSyncWithout()
				h.expect("before", "10.244.1.100 : jump", false)
				network := h.wires()
				missing := func(when string) {
					t.Helper()
					d := h.Condition()
					if d.InSync || len(d.Failures) != 1 || d.Failures[0].Change.Kind != "own node" || !strings.Contains(d.Failures[0].Err.Error(), c.why) {
						t.Errorf("%s: %q, failures %+v", when, d, d.Failures)
					}
					if warned := strings.Join(d.Warnings, "\n"); !strings.Contains(warned, c.warned) || c.warned == "" && warned != "" {
						t.Errorf("%s: warnings %q", when, warned)
					}
					if s, _ := cluster.latest(); s.Stands || len(s.Families) > 0 || len(s.Self) != c.self {
						t.Errorf("%s: published %+v", when, s)
					}
					if now := h.wires(); now != network {
						t.Errorf("%s: the network was\n%s\nand is\n%s", when, network, now)
					}
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					if err := h.Attach(ctx, container(1)); !errors.Is(err, ErrNotInForce) || !strings.Contains(err.Error(), c.why) {
						t.Errorf("%s, a container: %v", when, err)
					}
				}
				tell(c.nodes)
				missing("without")
				tell(nil, closes("second", "db"))
				h.expect("a policy", "10.244.1.100 : jump", true)
				h.damage("ip route del 10.244.2.0/24")
				h.settle()
				missing("repaired")

				h.end()
				h.run(DaemonOptions{Cluster: cluster.open})
				tell(c.nodes, append(known, closes("second", "db"))...)
				missing("after a restart")
				h.expect("after a restart", "10.244.1.100 : jump", true)
				gone := closes("second", "db")
				gone.Gone = true
				tell(nil, gone)
				h.expect("without the policy", "10.244.1.100 : jump", false)
				tell(nil, closes("third", "db"))
				h.expect("a third policy", "10.244.1.100 : jump", true)

				tell(append(slices.Clone(whole), member(3)))
				h.inSyncWithout()
				if s, _ := cluster.latest(); !s.Stands || len(s.Self) > 0 || !h.route("10.244.3.0/24") {
					t.Errorf("with its Node again: published %+v", s)
				}
			})
		})
	}
}

// inSyncWithout fails the test unless the daemon is in sync and says nothing else. A
// plan from scratch is not made: it would ask no cluster.
func (h *fakeHost) inSyncWithout() {
	h.t.Helper()
	if c := h.Condition(); !c.InSync || len(c.Failures)+len(c.Warnings) > 0 {
		h.t.Fatalf("the daemon says %q, failures %+v, warnings %q\n%s", c, c.Failures, c.Warnings, h.story(0))
	}
}

// TestAPartElsewhere: what a node had in one cluster is nothing in another one, nor after
// a destroy.
func TestAPartElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost(t, nodes(0)+followed)
		cluster := make(fakeCluster)
		h.run(DaemonOptions{Cluster: cluster.open})
		defer func() { h.end() }()
		tell := func(nodes ...spec.Candidate) {
			cluster <- Update{Nodes: all(nodes), Complete: true}
			h.settle()
		}
		tell(member(1), member(2))
		h.inSyncWithout()
		network := h.wires()
		stays := func(when string) {
			t.Helper()
			if c := h.Condition(); c.InSync || len(c.Failures) != 1 || c.Failures[0].Change.Kind != "node" || h.wires() != network {
				t.Errorf("%s: %q, failures %+v, the network is\n%s", when, c, c.Failures, h.wires())
			}
		}
		other := nodes(0) + "kubernetes {\n  kubeconfig = \"/another\"\n}\n"
		h.source.write(parsed(t, other))
		h.settle()
		tell(member(2))
		stays("another cluster")
		h.end()
		h.run(DaemonOptions{Cluster: cluster.open})
		tell(member(2))
		stays("another cluster, after a restart")
		h.source.write(parsed(t, nodes(0)+followed))
		h.settle()
		tell(member(2), member(1))
		h.inSyncWithout()

		plan, err := h.Plan(t.Context(), ModeDestroy)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.Apply(t.Context(), ModeDestroy, plan.ID(), func(Outcome) {}); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(partFile(h.dir)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("after a destroy, the part is kept: %v", err)
		}
	})
}

// TestReleaseTellsOfPolicies: who takes polder off a node is told what is no longer
// enforced then.
func TestReleaseTellsOfPolicies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost(t, nodes(0)+followed)
		cluster := make(fakeCluster)
		h.run(DaemonOptions{Cluster: cluster.open})
		defer h.end()
		expect := func(want string) {
			t.Helper()
			h.settle()
			h.inSyncWithout()
			plan, err := h.Daemon.Plan(t.Context(), ModeRelease)
			if err != nil {
				t.Fatal(err)
			}
			all := strings.Join(plan.Warnings, "\n")
			if strings.Contains(all, "policies end") != (want != "") || !strings.Contains(all, want) || !strings.Contains(all, "masquerade") {
				t.Errorf("warnings are %q, want %q", plan.Warnings, want)
			}
		}
		cluster <- Update{Nodes: all([]spec.Candidate{member(1), member(2)}), Events: []policy.Event{pod(0, app("db")), pod(4, app("db")), pod(2, app("web"))}, Complete: true}
		expect("")
		cluster <- Update{Events: []policy.Event{closes("first", "db"), allows("second", "web", "db")}}
		expect("policies end, and nobody enforces them until something else does: in force are 2, and they isolate endpoints with 2 addresses")
	})
}
