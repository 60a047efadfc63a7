package reconcile

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

// TestNodesComeAndGo: nodes that come, change and go are in the kernel soon, and nothing
// is read for them, whatever they claim of each other; what others do to the kernel
// meanwhile, and what it refuses, is repaired. A planner that knows nothing finds
// nothing to do, and what is said of the nodes is what it would say.
func TestNodesComeAndGo(t *testing.T) {
	for name, backend := range map[string]string{
		"vxlan": `backend "vxlan" {}`, "direct": "backend \"vxlan\" {\n direct_routing = true\n}", "host-gw": `backend "host-gw" {}`,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				random := rand.New(rand.NewPCG(5, 5))
				h := newFakeHost(t, strings.Replace(nodes(0), `backend "vxlan" {}`, backend, 1)+followed)
				cluster := &heeding{fakeCluster: make(fakeCluster)}
				h.run(DaemonOptions{Cluster: cluster.open})
				defer h.end()
				there := are(member(1), member(2))
				cluster.fakeCluster <- Update{Nodes: are(member(1), member(2)), Complete: true}
				h.settle()
				cluster.fakeCluster <- Update{Events: []policy.Event{pod(1, app("db")), allows("first", "web", "db")}}
				h.settle()
				for i := range 200 {
					changes := map[string]*spec.Candidate{}
					for range 1 + random.IntN(3) {
						c := member(2 + random.IntN(12))
						switch random.IntN(8) {
						case 0: // it claims what is another's
							c.Subnets.IPv4 = member(2 + random.IntN(12)).Subnets.IPv4
						case 1:
							c.Addresses.IPv4 = member(2 + random.IntN(12)).Addresses.IPv4
						case 2:
							c.Addresses.IPv4 = netip.AddrFrom4([4]byte{198, 51, 100, byte(c.Created)}) // behind no link
						case 3:
							c.Polder.MACs.IPv4 = spec.MAC{2, 0, 0, 0, byte(random.IntN(2)), byte(c.Created)}
						}
						changes[c.Name] = &c
						if random.IntN(3) == 0 {
							changes[c.Name] = nil
						}
					}
					quiet := false
					switch i % 8 {
					case 1:
						h.damage("ip route del")
					case 3:
						h.refused, h.refusal = map[objectKey]int{{"route", "10.244.3.0/24"}: 2, {"nexthop", "id 1101077128"}: 1}, errRefused
					case 5:
						h.refused, h.refusal = map[objectKey]int{rulesKey: 1}, errRefused
					case 7:
						c := member(1)
						c.Polder.Backend = spec.BackendType(fmt.Sprint(i)) // the own one is another, and comes to the same
						changes["n1"] = &c
					default:
						quiet = true
					}
					before := h.reads()
					cluster.fakeCluster <- Update{Nodes: maps.Clone(changes)}
					h.settle()
					if reads := h.reads() - before; quiet && reads > 0 {
						t.Fatalf("nodes of step %d made the daemon read %d times\n%s", i, reads, h.story(0))
					}
					h.pass(time.Minute)
					h.refused = nil
					if c := h.Condition(); !c.InSync || len(c.Failures) > 0 {
						t.Fatalf("after step %d the daemon says %q, failures %+v\n%s", i, c, c.Failures, h.story(0))
					}
					maps.Copy(there, changes)
					h.asMembers(cluster, there)
				}
			})
		})
	}
}

// asMembers fails the test unless the kernel, and what is said of it, is as candidates
// have it.
func (h *fakeHost) asMembers(cluster *heeding, candidates map[string]*spec.Candidate) {
	h.t.Helper()
	quiet := &fakeKernel{network: h.network, rules: h.rules, count: map[string]int{}}
	p := &Planner{options: Options{Spec: h.source.current.config.Spec, Node: "n1", StateDir: h.dir}, network: fakeNetwork{quiet}, ruleset: fakeRuleset{quiet}, follows: true}
	p.members.Set(candidates)
	if err := p.loadAttachments(); err != nil {
		h.t.Fatal(err)
	}
	p.inventory.Apply(pod(1, app("db")))
	p.inventory.Apply(allows("first", "web", "db"))
	plan, err := p.Plan(context.Background(), ModeApply)
	if err != nil {
		h.t.Fatal(err)
	}
	if !plan.Empty() || len(plan.Conflicts) > 0 {
		h.t.Fatalf("a plan from scratch has %v, %v\n%s", plan.Changes, plan.Conflicts, h.story(0))
	}
	fresh, known := plan.work.view.compiled, h.view.compiled
	if fresh.String() != known.String() || !slices.Equal(fresh.Peers, known.Peers) || !reflect.DeepEqual(plan.work.view.state.NextHops, h.view.state.NextHops) {
		h.t.Fatalf("known is\n%s%v\nand from the beginning\n%s%v", known, known.Peers, fresh, fresh.Peers)
	}
	out := slices.Concat(p.nodes().out, fresh.LeftOut)
	slices.SortStableFunc(out, spec.LeftOut.Compare)
	if s, _ := cluster.latest(); !slices.Equal(s.Peers, out) || !s.Stands {
		h.t.Fatalf("published is %+v, and left out are %v", s, out)
	}
	warned := slices.DeleteFunc(slices.Clone(h.Condition().Warnings), func(w string) bool { return !strings.HasPrefix(w, "left out") })
	if len(warned) != min(len(out), 11) {
		h.t.Fatalf("warnings %q, and left out are %v", warned, out)
	}
	if peers, all, err := h.Peers(context.Background()); err != nil || !slices.Equal(all, out) || len(peers) != len(fresh.Peers) ||
		slices.ContainsFunc(peers, func(p Peer) bool { return !p.Present }) {
		h.t.Fatalf("%v: peers are %v, and left out %v; they should be %v and %v", err, peers, all, fresh.Peers, out)
	}
}
