package reconcile

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

// guarded is a spec with endpoints that policies select.
const guarded = `
endpoint "db" {
  node      = "n1"
  addresses = ["10.244.1.5"]
  labels    = { app = "db" }
}
endpoint "web" {
  node      = "n1"
  addresses = ["10.244.1.6"]
  labels    = { app = "web" }
}
policy "db" {
  selector = "app == 'db'"
  ingress {
    action = "allow"
    ports  = ["6666/tcp"]
  }
}
policy "web" {
  selector = "app == 'web'"
  ingress {
    action = "allow"
    ports  = ["80/tcp"]
  }
}
`

// A policy that the kernel does not take closes what it selects. The others are
// in force, and so is the rest of the network; when the kernel takes it, it is,
// too.
func TestARefusedPolicyClosesItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost(t, nodes(2)+guarded)
		h.distasteful = "6666"
		h.run(DaemonOptions{})
		defer h.end()
		h.settle()

		text := h.ruleset()
		for _, part := range []string{"ct reply proto-src 80 ", "closed: the kernel refuses a policy", "10.244.1.5 : jump", "10.244.1.6 : jump", "vxlan_door"} {
			if !strings.Contains(text, part) {
				t.Errorf("no %q in\n%s", part, text)
			}
		}
		c := h.Condition()
		if c.InSync || len(c.Failures) != 1 || c.Failures[0].Change.Name != "db" || c.Failures[0].Change.Kind != "policy" {
			t.Fatalf("in sync: %v, failing: %+v", c.InSync, c.Failures)
		}
		manual, err := os.ReadFile("../docs/troubleshooting.md")
		if err != nil {
			t.Fatal(err)
		}
		// There it is a cluster's.
		line := fmt.Sprintf("networkpolicy %q: %s", "shop/db", c.Failures[0].Err)
		line = strings.NewReplacer("policy db", "networkpolicy shop/db", errRefused.Error(), "operation not supported").Replace(line)
		if !strings.Contains(string(manual), "    "+line+"\n") {
			t.Errorf("the manual does not quote %s", line)
		}

		h.do(func() { h.distasteful = "" })
		h.pass(retryMost)
		if text = h.ruleset(); strings.Contains(text, "closed: ") || !strings.Contains(text, "ct reply proto-src 6666 ") {
			t.Errorf("still closed:\n%s", text)
		}
		if c := h.Condition(); !c.InSync || len(c.Failures) > 0 {
			t.Errorf("in sync: %v, failing: %+v", c.InSync, c.Failures)
		}
	})
}

// A cluster is told which of its policies the kernel does not take: once for as long as
// that lasts, whatever is tried meanwhile, and anew when a policy has changed. That is
// tried at once.
func TestRefusedPoliciesArePublished(t *testing.T) {
	for name, text := range map[string]string{"policies alone": policyOnly, "beside those of a file": nodes(2) + guarded + followed} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newFakeHost(t, text)
				h.distasteful = "6666"
				cluster := &heeding{fakeCluster: make(fakeCluster)}
				h.run(DaemonOptions{Cluster: cluster.open})
				defer h.end()
				apps := map[string]string{"db": "cache", "web": "web"} // a file's policy selects what is db
				on := func(name string, ports ...uint16) policy.Event {
					e := allows(name, "web", apps[name])
					for _, p := range ports {
						e.Policy.Ingress[0].Services = append(e.Policy.Ingress[0].Services, spec.Service{Protocol: 6, Ports: spec.PortRange{First: p, Last: p}})
					}
					return e
				}
				seen := 0
				// told expects what was published since it was last asked.
				told := func(when string, want ...map[string]string) {
					t.Helper()
					cluster.mu.Lock()
					defer cluster.mu.Unlock()
					var got []map[string]string
					for _, s := range cluster.said[seen:] {
						got = append(got, s.Refused)
					}
					if seen = len(cluster.said); !slices.EqualFunc(got, want, maps.Equal) {
						t.Fatalf("%s it is told %v, and not %v\n%s", when, got, want, h.story(0))
					}
				}
				refused := map[string]string{"shop/db": "the kernel refuses it, so that what it selects is closed: " + errRefused.Error()}

				cluster.fakeCluster <- Update{
					Nodes:    are(member(1), member(2)),
					Events:   []policy.Event{pod(0, app("cache")), pod(2, app("web")), on("db", 6666), on("web", 80)},
					Complete: true,
				}
				h.settle()
				told("at first", refused)
				h.pass(10 * retryMost)
				told("while it lasts")
				// Somebody else is faster than a retry.
				h.before = func(access string) {
					if access == "commit" {
						h.before = nil
						h.do(func() { h.rules.Delete("somebody", tables[0]) })
					}
				}
				h.pass(retryMost)
				if h.before != nil {
					t.Fatal("it was not tried again")
				}
				told("of a retry that was too late")

				cluster.fakeCluster <- Update{Events: []policy.Event{on("web", 81)}}
				h.settle()
				told("of another policy")
				cluster.fakeCluster <- Update{Events: []policy.Event{on("db", 6666, 82)}}
				h.settle()
				told("of one that is no better", nil, refused)
				cluster.fakeCluster <- Update{Events: []policy.Event{on("db", 82)}}
				h.settle()
				told("of one that is", nil)
				if text := h.ruleset(); !strings.Contains(text, "ct reply proto-src 82 ") {
					t.Fatalf("it is not in force:\n%s", text)
				}

				cluster.fakeCluster <- Update{Events: []policy.Event{on("db", 6666)}}
				h.settle()
				told("of one that is worse", refused)
				gone := on("db")
				gone.Gone = true
				cluster.fakeCluster <- Update{Events: []policy.Event{gone}}
				h.settle()
				told("when it is gone", nil)
				cluster.fakeCluster <- Update{Events: []policy.Event{on("db", 6666)}}
				h.settle()
				told("when it is back", refused)
				h.do(func() { h.distasteful = "" })
				h.pass(retryMost)
				told("when the kernel takes it", nil)
				if c := h.Condition(); !c.InSync {
					t.Errorf("%s: %+v", c, c.Failures)
				}
			})
		})
	}
}

// ruleset is the text of our tables in the kernel.
func (h *fakeHost) ruleset() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	rs, _ := h.rules.Read(tables...)
	return rs.String()
}
