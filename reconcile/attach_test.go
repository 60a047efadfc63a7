package reconcile

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/poldernet/polder/internal/attach"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
	"github.com/poldernet/polder/spec/selector"
)

// container is one that a runtime attaches: a pod of the namespace shop.
func container(i int) attach.Attachment {
	return attach.Attachment{
		ID:   attach.ID{ContainerID: fmt.Sprint("c", i), IfName: "eth0"},
		Pod:  attach.Pod{Namespace: "shop", Name: fmt.Sprint("pod-", i)},
		Port: attach.Port{Interface: fmt.Sprint("veth", i), MAC: spec.MAC{2, 0, 0, 0, 0, byte(i)}, Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 244, 1, byte(100 + i)})}},
	}
}

// of is the detaching of one container.
func of(i int) func(attach.Attachment) bool {
	return func(a attach.Attachment) bool { return a.ID == container(i).ID }
}

// db isolates the workloads with the label app=db.
const db = `policy "db" {
  selector = "app == 'db'"
  types    = ["ingress"]
}
`

// declaredPod is an endpoint of the file.
const declaredPod = `endpoint "pod-1" {
  node      = "n1"
  namespace = "shop"
  addresses = ["10.244.1.50"]
  labels    = { app = "db" }
}
`

// attachOn runs a test on a host with a spec that has been brought in sync.
func attachOn(t *testing.T, more string, test func(t *testing.T, h *fakeHost)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost(t, nodes(2)+more)
		h.run(DaemonOptions{})
		defer func() { h.end() }()
		h.settle()
		h.inSync()
		test(t, h)
	})
}

// expect fails the test unless the ruleset has a text, or has it not.
func (h *fakeHost) expect(when, text string, there bool) {
	h.t.Helper()
	if rules := h.ruleset(); strings.Contains(rules, text) != there {
		h.t.Fatalf("%s: %q there: %v\n%s", when, text, !there, rules)
	}
}

// When Attach returns, the container's port is its own and its policies are in the
// kernel. What the spec says of an endpoint of its namespace and name is said of
// it, and holds again without it.
func TestAttach(t *testing.T) {
	attachOn(t, db+declaredPod, func(t *testing.T, h *fakeHost) {
		h.expect("before", "10.244.1.50 : jump", true)
		if err := h.Attach(t.Context(), container(1)); err != nil {
			t.Fatal(err)
		}
		h.expect("attached", "10.244.1.101 : jump", true)
		h.expect("attached", "10.244.1.50 : jump", false)
		h.expect("attached", `"veth1" . 02:00:00:00:00:01`, true)
		h.inSync()
		if err := h.Attached(t.Context(), container(1)); err != nil {
			t.Error(err)
		}
		other := container(1)
		other.MAC[5]++
		for _, a := range []attach.Attachment{other, container(2)} {
			if err := h.Attached(t.Context(), a); !errors.Is(err, ErrNotAttached) {
				t.Errorf("%s: %v", a.ID, err)
			}
		}
		// Files that change are about it, too.
		h.source.write(parsed(t, nodes(2)+db+strings.Replace(declaredPod, `"db"`, `"web"`, 1)))
		h.settle()
		h.expect("with another label", "10.244.1.101 : jump", false)
		h.source.write(parsed(t, nodes(2)+db+declaredPod))
		h.settle()
		h.expect("with its label", "10.244.1.101 : jump", true)

		for range 2 {
			if err := h.Detach(t.Context(), of(1)); err != nil {
				t.Fatal(err)
			}
			h.settle()
			h.expect("detached", "10.244.1.50 : jump", true)
			h.expect("detached", "veth1", false)
			h.inSync()
		}
	})
}

// Attach does not return while the kernel refuses, and fails when its time is over.
func TestAttachWaits(t *testing.T) {
	attachOn(t, db+declaredPod, func(t *testing.T, h *fakeHost) {
		h.do(func() { h.refused, h.refusal = map[objectKey]int{rulesKey: 1000}, errRefused })
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		err := h.Attach(ctx, container(1))
		if !errors.Is(err, ErrNotInForce) || time.Since(began) < 10*time.Second {
			t.Fatalf("after %v: %v", time.Since(began), err)
		}
		h.do(func() { h.refused = nil })
		// The runtime tries again, and again it is one container.
		if err := h.Attach(t.Context(), container(1)); err != nil {
			t.Fatal(err)
		}
		h.expect("at last", "10.244.1.101 : jump", true)
		h.inSync()
	})
}

// What was sent to a container's addresses before anybody had them does not come to
// it: who waits for a neighbour to answer is sent away once the rules are there.
func TestAttachForgetsNeighbours(t *testing.T) {
	attachOn(t, db+declaredPod, func(t *testing.T, h *fakeHost) {
		h.do(func() { h.forgetting = errRefused })
		if err := h.Attach(t.Context(), container(1)); !errors.Is(err, ErrNotInForce) || !errors.Is(err, errRefused) {
			t.Errorf("where that is not possible: %v", err)
		}
		rules := ""
		h.do(func() {
			h.forgotten, h.forgetting = nil, nil
			h.before = func(access string) {
				if access == "forget" {
					rules = h.ruleset()
				}
			}
		})
		if err := h.Attach(t.Context(), container(1)); err != nil {
			t.Fatal(err)
		}
		h.do(func() { h.before = nil })
		if want := container(1).Addresses; !slices.Equal(h.forgotten, want) || !strings.Contains(rules, "10.244.1.101 : jump") {
			t.Errorf("forgotten are %v, want %v, with the rules\n%s", h.forgotten, want, rules)
		}
	})
}

// Nothing is attached before the daemon knows what there is, nor while it is held.
func TestAttachIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost(t, nodes(2)+followed)
		cluster := make(fakeCluster)
		h.run(DaemonOptions{Cluster: cluster.open})
		defer h.end()
		if err := h.Attach(t.Context(), container(1)); !errors.Is(err, ErrNotInForce) {
			t.Errorf("before it knows the cluster: %v", err)
		}
		cluster <- Update{Complete: true}
		h.settle()
		plan, err := h.Plan(t.Context(), ModeDestroy)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.Apply(t.Context(), ModeDestroy, plan.ID(), func(Outcome) {}); err != nil {
			t.Fatal(err)
		}
		if err := h.Attach(t.Context(), container(1)); !errors.Is(err, ErrNotInForce) {
			t.Errorf("while held: %v", err)
		}
		if _, err := os.Stat(attachmentsFile(h.dir)); err == nil {
			t.Error("it is kept all the same")
		}
	})
}

// Attachments outlive the daemon, and not the boot. Of two with one address the
// later one has it.
func TestAttachmentsAreKept(t *testing.T) {
	attachOn(t, db+declaredPod, func(t *testing.T, h *fakeHost) {
		for i := 1; i <= 2; i++ {
			if err := h.Attach(t.Context(), container(i)); err != nil {
				t.Fatal(err)
			}
		}
		h.end()
		before := h.ruleset()
		h.run(DaemonOptions{})
		h.settle()
		h.inSync()
		if after := h.ruleset(); after != before {
			t.Fatalf("before the restart\n%s\nand after it\n%s", before, after)
		}
		next := container(3)
		next.Addresses = container(1).Addresses
		if err := h.Attach(t.Context(), next); err != nil {
			t.Fatal(err)
		}
		h.expect("replaced", "veth1", false)
		h.expect("replaced", "10.244.1.101", true)

		h.end()
		b, err := os.ReadFile(attachmentsFile(h.dir))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(attachmentsFile(h.dir), []byte(strings.Replace(string(b), `"boot": "`, `"boot": "another`, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		h.run(DaemonOptions{})
		h.settle()
		h.inSync()
		h.expect("after a reboot", "veth", false)
	})
}

// A container is attached when the cluster has told of its pod; a pod of its name may
// be elsewhere, as well; and it may have two ports.
func TestAttachedPodsOfACluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost(t, nodes(2)+guarded+followed)
		cluster := make(fakeCluster)
		h.run(DaemonOptions{Cluster: cluster.open})
		defer h.end()
		closed := policy.Event{Policy: &spec.Policy{
			Kind: spec.KindNetworkPolicy, Name: "shop/db", Namespace: "shop", Tier: spec.DefaultTier,
			Selector: selector.Equals("app", "db"), Types: []spec.Direction{spec.Ingress},
		}}
		told := policy.NewInventory()
		tell := func(events ...policy.Event) {
			cluster <- Update{Events: events, Complete: true}
			for _, e := range events {
				told.Apply(e)
			}
			h.settle()
			h.asTold(told)
		}
		attached := func(a attach.Attachment) {
			if err := h.Attach(t.Context(), a); err != nil {
				t.Fatal(err)
			}
			told.Apply(policy.Event{Attachment: a.On("n1")})
			h.asTold(told)
		}
		known := pod(2, app("db"))
		tell(closed, known)
		attached(container(2))
		h.expect("known before", "10.244.1.102 : jump", true)

		// Without its labels nobody knows what is to hold it; nor is it the one before
		// it that had its name.
		fresh := container(4)
		fresh.Pod.UID = "new"
		for _, uid := range []string{"", "old"} {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			if err := h.Attach(ctx, fresh); !errors.Is(err, ErrNotInForce) || !strings.Contains(err.Error(), "the cluster has not told of pod") {
				t.Errorf("the pod of UID %q is known, and the new one is attached: %v", uid, err)
			}
			cancel()
			unaddressed := pod(4, app("db"))
			unaddressed.Endpoint.Addresses, unaddressed.UID = nil, map[string]string{"": "old", "old": "new"}[uid]
			tell(unaddressed)
			h.expect("not attached", "10.244.1.104 : jump", false)
		}
		attached(fresh)
		h.expect("attached", "10.244.1.104 : jump", true)

		// The runtime may have heard of a pod before the daemon has.
		early, gone := container(6), container(7)
		early.Pod.UID, gone.Pod.UID = "early", "gone"
		answers := map[string]chan error{"early": make(chan error, 1), "gone": make(chan error, 1)}
		for _, a := range []attach.Attachment{early, gone} {
			go func() { answers[a.Pod.UID] <- h.Attach(t.Context(), a) }()
		}
		synctest.Wait()
		if err := h.Detach(t.Context(), of(7)); err != nil {
			t.Error(err)
		}
		if err := <-answers["gone"]; !errors.Is(err, ErrNotInForce) || !errors.Is(err, errGone) {
			t.Errorf("one that is detached while it waits: %v", err)
		}
		told.Apply(policy.Event{Attachment: early.On("n1")})
		late := pod(6, app("db"))
		late.Endpoint.Addresses, late.UID = nil, "early"
		tell(late)
		if err := <-answers["early"]; err != nil {
			t.Errorf("one that the cluster tells of while it waits: %v", err)
		}
		h.expect("told of while it waits", "10.244.1.106 : jump", true)

		second := container(5)
		second.Pod = container(4).Pod
		attached(second)
		h.expect("a second port", "10.244.1.105 : jump", true)
		h.expect("the first port, still", "10.244.1.104 : jump", true)

		moved := *known.Endpoint
		moved.Node, moved.Addresses = "n2", []netip.Addr{netip.MustParseAddr("10.244.2.9")}
		tell(policy.Event{Endpoint: &moved})
		h.expect("one that is elsewhere, too", "10.244.1.102 : jump", true)

		tell(policy.Event{Endpoint: &moved, Gone: true})
		h.expect("one that is gone", "10.244.1.102 : jump", false)
		h.expect("its port is still its own", `"veth2" . 02:00:00:00:00:02`, true)
	})
}
