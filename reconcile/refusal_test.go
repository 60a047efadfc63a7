package reconcile

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
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

// ruleset is the text of our tables in the kernel.
func (h *fakeHost) ruleset() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	rs, _ := h.rules.Read(tables...)
	return rs.String()
}
