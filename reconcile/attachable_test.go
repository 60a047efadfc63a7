package reconcile

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/overlay"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

// tryAttach attaches a container, for which there is not much time.
func (h *fakeHost) tryAttach(i int) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return h.Attach(ctx, container(i))
}

// attachable expects that containers are attached, or none, and that runtimes are told
// the same.
func (h *fakeHost) attachable(when string, want bool) {
	h.t.Helper()
	c := h.Condition()
	if c.Attachable != want || (c.Pods != nil) != want {
		h.t.Errorf("%s: attachable %t, pod network %+v; %s\n%s", when, c.Attachable, c.Pods, c, h.story(0))
	}
	began := time.Now()
	err := h.tryAttach(1)
	if (err == nil) != want || err != nil && !errors.Is(err, ErrNotInForce) || err == nil && time.Since(began) > time.Second {
		h.t.Errorf("%s: after %v: %v", when, time.Since(began), err)
	}
}

// Of all objects that a node writes, those that lead to other nodes keep no container
// out when they cannot be written, not even at the first start. All others do.
func TestWhatFailsToPeersKeepsNoContainerOut(t *testing.T) {
	dual := strings.NewReplacer(`["10.244.0.0/16"]`, `["10.244.0.0/16", "fd00:10:244::/48"]`,
		`"192.0.2.11/24"`, `"192.0.2.11/24", "2001:db8::11/64"`, `"192.0.2.12/24"`, `"192.0.2.12/24", "2001:db8::12/64"`,
		`"10.244.1.0/24"`, `"10.244.1.0/24", "fd00:10:244:1::/64"`, `"10.244.2.0/24"`, `"10.244.2.0/24", "fd00:10:244:2::/64"`).Replace(nodes(2))
	host := func(t *testing.T) *fakeHost {
		return fakeHostOf(t, newFakeKernel(underlayAddress, netip.MustParsePrefix("2001:db8::11/64")), parsed(t, dual+db+declaredPod), t.TempDir())
	}
	toPeers := map[string]bool{"neighbour": true, "fdb": true, "nexthop": true, "route": true}
	tried := map[bool]int{}
	keys := map[objectKey]bool{rulesKey: true}
	synctest.Test(t, func(t *testing.T) {
		h := host(t)
		h.open(DaemonOptions{})
		h.adopt(h.source.current)
		plan, err := h.applier.Plan(t.Context(), ModeApply)
		if err != nil {
			t.Fatal(err)
		}
		for _, op := range plan.work.network.Ops {
			keys[keyOf(op.Change)] = true
		}
	})
	for key := range keys {
		t.Run(key.kind+" "+key.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := host(t)
				h.do(func() { h.refused, h.refusal = map[objectKey]int{key: 1000}, errRefused })
				h.run(DaemonOptions{})
				defer h.end()
				h.settle()
				if h.Condition().InSync {
					return // a switch that came right with its link
				}
				tried[toPeers[key.kind]]++
				h.attachable("at the first start", toPeers[key.kind])
				h.do(func() { h.refused = nil })
				h.pass(retryMost)
				h.inSync()
				h.attachable("in the end", true)
			})
		})
	}
	if tried[true] < 8 || tried[false] < 8 {
		t.Errorf("only so many objects are refused: %v", tried)
	}
}

// A conflict about the way to a peer keeps no container out; one about the node's own
// part does, and one about a port the container that has it.
func TestConflictsThatKeepContainersOut(t *testing.T) {
	foreign := func(dst string) func(h *fakeHost) {
		return func(h *fakeHost) {
			if err := h.network.AddRoute(overlay.RouteEntry{
				RouteKey: overlay.RouteKey{Dst: netip.MustParsePrefix(dst)},
				Route:    overlay.Route{Gateway: netip.MustParseAddr("192.0.2.12"), Link: "eth0", Protocol: 4},
			}); err != nil {
				h.t.Fatal(err)
			}
		}
	}
	for name, test := range map[string]struct {
		make       func(h *fakeHost)
		attachable bool
	}{
		"a route to a peer's subnet":    {foreign("10.244.2.0/24"), true},
		"a route to the node's subnet":  {foreign("10.244.1.0/24"), false},
		"a link with the bridge's name": {func(h *fakeHost) { h.network.Plug("cni0") }, false},
		"a link with the VTEP's name":   {func(h *fakeHost) { h.network.Plug("polder.1") }, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newFakeHost(t, nodes(2)+db+declaredPod)
				h.do(func() { test.make(h) })
				h.run(DaemonOptions{})
				defer h.end()
				h.settle()
				if c := h.Condition(); c.InSync || len(c.Conflicts) == 0 {
					t.Fatalf("%s: %v", c, c.Conflicts)
				}
				h.attachable(name, test.attachable)
				// Who writes the list of plugins looks at an event.
				if told := len(h.events(0, EventAttachable)) > 0; told != test.attachable {
					t.Errorf("told of: %t\n%s", told, h.story(0))
				}
			})
		})
	}
}

// A port that is not as it should be keeps out the container that has it, and no other.
func TestAPortKeepsItsOwnContainerOut(t *testing.T) {
	const declared = `endpoint "pod-2" {
  node      = "n1"
  namespace = "shop"
  interface = "veth2"
  addresses = ["10.244.1.60"]
}
`
	attachOn(t, declared, func(t *testing.T, h *fakeHost) {
		h.do(func() {
			h.refused, h.refusal = map[objectKey]int{{"port", "veth2"}: 1000}, errRefused
			h.network.Plug("veth2")
		})
		h.settle()
		if err := h.tryAttach(2); !errors.Is(err, ErrNotInForce) {
			t.Errorf("the one with the port: %v", err)
		}
		if err := h.Attached(t.Context(), container(2)); !errors.Is(err, ErrNotInForce) {
			t.Errorf("it is attached: %v", err)
		}
		h.attachable("another one", true)
		if err := h.Attached(t.Context(), container(1)); err != nil {
			t.Error(err)
		}
		h.do(func() { h.refused = nil })
		if err := h.tryAttach(2); err != nil {
			t.Errorf("in the end: %v", err)
		}
	})
}

// After a round that came to nothing, nobody knows what there is.
func TestNothingIsAttachedInTheDark(t *testing.T) {
	attachOn(t, db+declaredPod, func(t *testing.T, h *fakeHost) {
		h.do(func() { h.network.DropAddress("eth0", underlayAddress) })
		h.settle()
		h.attachable("without an underlay", false)
		h.do(func() {
			if err := h.network.AddAddress("eth0", underlayAddress); err != nil {
				t.Error(err)
			}
		})
		h.pass(retryMost)
		h.inSync()
		h.attachable("in the end", true)
	})
}

// A policy that the kernel refuses keeps no container out. Those that it selects are
// closed, also when all is compiled anew while it waits to be tried again.
func TestARefusedPolicyKeepsNoContainerOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost(t, nodes(0)+followed)
		h.distasteful = "6666"
		cluster := make(fakeCluster)
		h.run(DaemonOptions{Cluster: cluster.open})
		defer h.end()
		refused := allows("db", "web", "db")
		refused.Policy.Ingress[0].Services = []spec.Service{{Protocol: 6, Ports: spec.PortRange{First: 6666, Last: 6666}}}
		told := []policy.Event{refused, allows("web", "web", "web")}
		for _, i := range []int{2, 6, 10} {
			told = append(told, pod(i, app("cache")), pod(i+2, app("db")))
		}
		cluster <- Update{Nodes: are(member(1), member(2)), Events: told, Complete: true}
		h.settle()
		both := func(when string, i int) {
			t.Helper()
			c := h.Condition()
			if c.InSync || len(c.Conflicts) > 0 || len(c.Failures) != 1 || c.Failures[0].Change.Name != "shop/db" || !c.Attachable || c.Pods == nil {
				t.Fatalf("%s: %s; attachable %t, pod network %v, failing %+v", when, c, c.Attachable, c.Pods, c.Failures)
			}
			for _, selected := range []bool{false, true} {
				began := time.Now()
				if err := h.tryAttach(i); err != nil || time.Since(began) > time.Second {
					t.Errorf("%s, selected: %t: after %v: %v\n%s", when, selected, time.Since(began), err, h.story(0))
				}
				a := container(i)
				h.expect(when, fmt.Sprintf("%q . %s", a.Interface, a.MAC), true)
				h.expect(when, a.Addresses[0].String()+" : jump", selected)
				h.expect(when, "closed: the kernel refuses a policy", true)
				i += 2
			}
		}
		both("at first", 2)
		h.pass(10*retryMost + time.Second)
		failed := h.Condition().Failures
		cluster <- Update{Nodes: are(member(3))}
		h.settle()
		both("when a node has come", 6)
		h.damage("ip route del 10.244.2.0/24")
		h.settle()
		both("after a repair", 10)
		if now := h.Condition().Failures; len(now) != 1 || len(failed) != 1 || now[0].Attempts != failed[0].Attempts {
			t.Errorf("it was tried again: %+v, and before %+v", now, failed)
		}

		h.do(func() { h.distasteful = "" })
		h.pass(retryMost)
		if c := h.Condition(); !c.InSync {
			t.Errorf("in the end: %s", c)
		}
		h.expect("in the end", "closed: ", false)
	})
}

// Nothing is attached, and runtimes are not told of a network, without a part in it,
// while the network is held, and before another cluster has told what there is.
func TestWhenNothingIsAttached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost(t, nodes(0)+followed)
		cluster := make(fakeCluster)
		h.run(DaemonOptions{Cluster: cluster.open})
		defer h.end()
		expect := func(when string, want bool) {
			t.Helper()
			h.settle()
			if c := h.Condition(); c.Attachable != want || (c.Pods != nil) != want {
				t.Errorf("%s: attachable %t, pod network %v; %s", when, c.Attachable, c.Pods, c)
			}
		}
		expect("before it is known", false)
		cluster <- Update{Nodes: are(member(1), member(2)), Complete: true}
		expect("in the network", true)
		cluster <- Update{Nodes: gone(are(), "n1")}
		expect("without a part", false)
		cluster <- Update{Nodes: are(member(1))}
		expect("with a part again", true)
		for _, mode := range []Mode{ModeRelease, ModeApply, ModeDestroy, ModeApply} {
			plan, err := h.Plan(t.Context(), mode)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := h.Apply(t.Context(), mode, plan.ID(), func(Outcome) {}); err != nil {
				t.Fatal(err)
			}
			expect(string(mode), mode == ModeApply)
		}
		h.source.write(parsed(t, nodes(0)+"kubernetes {\n  kubeconfig = \"/another\"\n}\n"))
		expect("in another cluster", false)
	})
}

// A port of polder's own links is no container's, and what is not known to be nothing to
// containers is in their way. What the rules are is not concluded from a round that found
// nothing to be done.
func TestWhatARoundLeaves(t *testing.T) {
	attachOn(t, db+declaredPod, func(t *testing.T, h *fakeHost) {
		if err := h.ask(t.Context(), func(context.Context) {
			known, r := h.view, round{Daemon: h.Daemon}
			for name, test := range map[string]struct {
				rules nft.Ruleset
				left  []change.Change
				want  bool
			}{
				"nothing":              {known.rules, nil, true},
				"no rules":             {nil, nil, false},
				"a container's port":   {known.rules, []change.Change{{Kind: "port", Name: "veth9"}}, true},
				"a port of the VTEP's": {known.rules, []change.Change{{Kind: "port", Name: "polder.1"}}, false},
				"something else":       {known.rules, []change.Change{{Kind: "policy", Name: "db"}}, false},
			} {
				v := *known
				v.rules = test.rules
				h.view = &v
				if r.assess(test.left); h.now.Attachable != test.want {
					t.Errorf("%s: attachable %t", name, h.now.Attachable)
				}
			}
			h.view = known
			r.assess(nil)
		}); err != nil {
			t.Fatal(err)
		}
	})
}
