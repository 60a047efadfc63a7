package reconcile

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/poldernet/polder/internal/attach"
	"github.com/poldernet/polder/overlay"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

// heeding is a cluster that notes what is published.
type heeding struct {
	fakeCluster
	mu   sync.Mutex
	said []NodeState
}

func (c *heeding) open(*spec.Kubernetes) Cluster { return c }

func (c *heeding) Publish(s NodeState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.said = append(c.said, s)
}

// latest is what was published last, and how often something was.
func (c *heeding) latest() (NodeState, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.said) == 0 {
		return NodeState{}, 0
	}
	return c.said[len(c.said)-1], len(c.said)
}

// member is the i-th node of a cluster.
func member(i int) spec.Candidate {
	return spec.Candidate{
		Name: fmt.Sprint("n", i), Created: int64(i),
		Addresses: spec.PerFamily[netip.Addr]{IPv4: netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + i)})},
		Subnets:   spec.PerFamily[netip.Prefix]{IPv4: netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", i))},
	}
}

// are are candidates that have come or changed, and gone are some that have gone as well.
func are(candidates ...spec.Candidate) map[string]*spec.Candidate {
	changes := map[string]*spec.Candidate{}
	for _, c := range candidates {
		changes[c.Name] = &c
	}
	return changes
}

func gone(changes map[string]*spec.Candidate, names ...string) map[string]*spec.Candidate {
	for _, name := range names {
		changes[name] = nil
	}
	return changes
}

func (h *fakeHost) route(dst string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	state := h.network.Read(overlay.Scope{}).State
	_, there := state.Routes[overlay.RouteKey{Dst: netip.MustParsePrefix(dst)}]
	return there
}

// TestNetworkOfACluster: nodes of the network are those of the cluster, as they come
// and go; one that is wrong is named, and so is one that cannot be written. A node
// without a subnet waits, and leaves what is there.
func TestNetworkOfACluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost(t, nodes(0)+followed)
		cluster := &heeding{fakeCluster: make(fakeCluster)}
		h.run(DaemonOptions{Cluster: cluster.open})
		defer h.end()

		bare := member(1)
		bare.Subnets = spec.PerFamily[netip.Prefix]{}
		cluster.fakeCluster <- Update{Nodes: are(bare, member(2)), Complete: true}
		h.settle()
		s, _ := cluster.latest()
		if c := h.Condition(); c.InSync || len(s.Self) != 1 || s.Self[0].Reason != spec.NoPodCIDR || s.Stands || len(s.Families) > 0 ||
			!strings.Contains(c.Failures[0].Err.Error(), "no part in the pod network: n1: it has no pod CIDR yet") {
			t.Fatalf("without a subnet: %q, failures %+v, published %+v", c, c.Failures, s)
		}

		wrong := member(3)
		wrong.Subnets.IPv4 = netip.MustParsePrefix("10.244.2.0/24")
		all := []spec.Candidate{member(1), member(2), wrong}
		cluster.fakeCluster <- Update{Nodes: are(all...)}
		h.settle()
		s, count := cluster.latest()
		if c := h.Condition(); !c.InSync || !s.Stands || len(s.Self) > 0 || !h.route("10.244.2.0/24") {
			t.Fatalf("%q, failures %+v, published %+v", c, c.Failures, s)
		}
		if len(s.Peers) != 1 || s.Peers[0].Node != "n3" || s.Peers[0].Reason != spec.OverlappingCIDR {
			t.Fatalf("peers: %+v", s.Peers)
		}
		if c := h.Condition(); len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "left out of the pod network: n3: IPv4: its pod CIDR 10.244.2.0/24 overlaps") {
			t.Fatalf("warnings: %q", c.Warnings)
		}
		derived := s.MACs.IPv4
		if derived.IsZero() || s.Addresses.IPv4 != underlayAddress.Addr() {
			t.Fatalf("published %+v", s)
		}

		// What the own Node is made to say is not what the VTEP becomes.
		all[0].Polder.MACs.IPv4 = spec.MAC{2, 9, 9, 9, 9, 9}
		cluster.fakeCluster <- Update{Nodes: are(all...)}
		h.settle()
		if again, n := cluster.latest(); again.MACs.IPv4 != derived || n != count {
			t.Fatalf("published %+v, %d times more", again, n-count)
		}

		// One peer that cannot be written does not keep the node out.
		h.do(func() {
			h.refused, h.refusal = map[objectKey]int{{"route", "10.244.3.0/24"}: 1000}, errRefused
		})
		all[2].Subnets.IPv4 = netip.MustParsePrefix("10.244.3.0/24")
		cluster.fakeCluster <- Update{Nodes: are(all...)}
		h.settle()
		if s, _ := cluster.latest(); !s.Stands || len(s.Peers) != 1 || s.Peers[0].Node != "n3" || s.Peers[0].Reason != spec.NoPath {
			t.Fatalf("published %+v", s)
		}
		h.do(func() { h.refused = nil })
		h.pass(time.Minute)
		if s, _ := cluster.latest(); len(s.Peers) > 0 || !h.Condition().InSync {
			t.Fatalf("published %+v; %s", s, h.story(0))
		}

		// A container that was attached before the subnet became another one.
		cluster.fakeCluster <- Update{Events: []policy.Event{{Endpoint: &spec.Endpoint{Name: "shop/web", Namespace: "shop", Node: "n1"}}}}
		h.settle()
		if err := h.Attach(t.Context(), attach.Attachment{
			ID: attach.ID{ContainerID: "c1", IfName: "eth0"}, Pod: attach.Pod{Namespace: "shop", Name: "web"},
			Port: attach.Port{Interface: "veth1", Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.9")}},
		}); err != nil {
			t.Fatal(err)
		}
		all[0].Subnets.IPv4 = netip.MustParsePrefix("10.244.7.0/24")
		cluster.fakeCluster <- Update{Nodes: are(all...)}
		h.settle()
		if s, _ := cluster.latest(); !slices.Equal(s.Strays, []string{"shop/web"}) || !s.Stands {
			t.Fatalf("published %+v", s)
		}
		if err := h.Detach(t.Context(), func(attach.Attachment) bool { return true }); err != nil {
			t.Fatal(err)
		}
		h.settle()
		if s, _ := cluster.latest(); len(s.Strays) > 0 {
			t.Fatalf("published %+v", s)
		}

		// Without a subnet again, what is there stays, and it is said.
		cluster.fakeCluster <- Update{Nodes: gone(are(bare), "n3")}
		h.settle()
		if s, _ := cluster.latest(); s.Stands || len(s.Self) != 1 || !h.route("10.244.2.0/24") {
			t.Fatalf("published %+v", s)
		}
		cluster.fakeCluster <- Update{Nodes: gone(are(member(1)), "n2")}
		h.settle()
		if h.route("10.244.2.0/24") || !h.Condition().InSync {
			t.Fatalf("a node that is gone is still there: %q", h.Condition())
		}

		plan, err := h.Plan(t.Context(), ModeDestroy)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.Apply(t.Context(), ModeDestroy, plan.ID(), func(Outcome) {}); err != nil {
			t.Fatal(err)
		}
		if s, _ := cluster.latest(); !s.Gone || s.Stands {
			t.Fatalf("published %+v", s)
		}
	})
}
