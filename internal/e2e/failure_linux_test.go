package e2e

import (
	"errors"
	"strings"
	"testing"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/reconcile"
)

// TestFailuresAreIsolated: what fails is said once, with its reason; what does
// not depend on it is done; what is left is named; and a second apply, when the
// cause is gone, does the rest.
func TestFailuresAreIsolated(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		prepare string // before the plan
		between string // the plan and the apply
		failed  []string
		reason  string
		remain  []string
		needs   string // what depends on it is not attempted, and says so
		repair  string
	}{
		{
			name:    "a sysctl of the host cannot be written",
			prepare: "echo 0 >/proc/sys/net/ipv4/ip_forward; mount --bind /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/ip_forward; mount -o remount,bind,ro /proc/sys/net/ipv4/ip_forward",
			failed:  []string{"sysctl net.ipv4.ip_forward"},
			reason:  "read-only file system",
			remain:  []string{"sysctl net.ipv4.ip_forward"},
			repair:  "umount /proc/sys/net/ipv4/ip_forward",
		},
		{
			name:    "a workload ends, and its interface with it, which is no failure",
			between: "ip link del veth1",
		},
		{
			name:    "a peer's subnet is somebody's by the time",
			between: "ip route add 10.244.2.0/24 via 192.0.2.1 proto static",
			failed:  []string{"route 10.244.2.0/24"},
			reason:  "file exists",
			repair:  "ip route del 10.244.2.0/24",
		},
		{
			name:    "a peer's subnet is somebody's by the time, IPv6",
			between: "ip -6 route add fd00:10:244:2::/64 via 2001:db8:2::1 proto static",
			failed:  []string{"route fd00:10:244:2::/64"},
			reason:  "file exists",
			repair:  "ip route del fd00:10:244:2::/64",
		},
		{
			name:    "a link of the VTEP's name is somebody's by the time",
			between: "ip link add polder.1 type bridge",
			failed:  []string{"link polder.1"},
			needs:   "polder.1",
			reason:  "file exists",
			repair:  "ip link del polder.1",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := up(t, cluster{backend: backendVXLAN, pods: dual})
			if c.prepare != "" {
				n.sh("n1", c.prepare)
			}
			a := n.attempt("n1", n.spec, reconcile.ModeApply, c.between)
			if a.err != nil {
				t.Errorf("the whole apply failed: %v", a.err)
			}
			for _, o := range a.result.Failed() {
				switch {
				case strings.Contains(o.Err.Error(), c.reason):
				case c.needs != "" && strings.Contains(o.Err.Error(), "not attempted without"):
					c.failed = append(c.failed, subject(o.Change))
				default:
					t.Errorf("%s: %v does not say %q", subject(o.Change), o.Err, c.reason)
				}
			}
			a.expectFailed(c.failed...)
			a.expectRemaining(c.remain...)
			if c.needs != "" {
				if now := n.sh("n1", "ip -d link show "+c.needs+"; ip -4 addr show dev "+c.needs+"; ip neigh show dev "+c.needs); strings.Contains(now, "10.244") || strings.Contains(now, "alias") || strings.Contains(now, "UP") {
					t.Errorf("what is somebody else's was written to: %s", now)
				}
			}
			if c.repair != "" {
				n.sh("n1", c.repair)
			}
			n.apply("n1", n.spec, reconcile.ModeApply)
			n.expectNothing(n.spec)
		})
	}
}

// TestStalePlan: nftables is not what it was when the plan was made. Nothing of
// ours is written over it; the next plan sees it and the next apply repairs it.
func TestStalePlan(t *testing.T) {
	t.Parallel()
	for name, between := range map[string]string{
		"a rule is added":   "nft insert rule inet polder guard_input counter accept",
		"a chain is added":  "nft add chain inet polder mine",
		"the table is gone": "nft delete table inet polder",
		"all is flushed":    "nft flush ruleset",
	} {
		t.Run(name, func(t *testing.T) {
			n := up(t, cluster{backend: backendVXLAN, pods: dual})
			n.apply("n1", n.spec, reconcile.ModeApply)
			whole := n.settled("n1")
			n.sh("n1", "nft flush chain inet polder postrouting; ip route del 10.244.2.0/24")
			var after string
			a := n.attempt("n1", n.spec, reconcile.ModeApply, between)
			after = n.ruleset("n1")
			if strings.Contains(name, "added") && !strings.Contains(after, "mine") && !strings.Contains(after, "counter accept") {
				t.Errorf("what was added is gone:\n%s", after)
			}
			failed := 0
			for _, o := range a.result.Failed() {
				if failed++; !errors.Is(o.Err, nft.ErrStale) {
					t.Errorf("%s: %v", subject(o.Change), o.Err)
				}
			}
			if failed == 0 {
				t.Error("nothing failed")
			}
			if a.err != nil || len(a.result.Remaining) == 0 {
				t.Errorf("error %v, remaining %+v", a.err, a.result.Remaining)
			}
			if n.sh("n1", "ip route show 10.244.2.0/24") == "" {
				t.Error("the route was not repaired")
			}
			n.apply("n1", n.spec, reconcile.ModeApply)
			n.expectNothing(n.spec)
			if now := n.settled("n1"); now != whole {
				t.Errorf("repaired to\n%s", difference(whole, now))
			}
		})
	}
	t.Run("somebody else's table", func(t *testing.T) {
		n := up(t, cluster{backend: backendVXLAN, pods: dual})
		a := n.attempt("n1", n.spec, reconcile.ModeApply, "nft add table ip other; nft add chain ip other c")
		a.expectFailed()
		a.expectRemaining()
	})
}

// TestUnguarded: where the rules cannot be written for the first time, nothing
// is that they would guard.
func TestUnguarded(t *testing.T) {
	n := up(t, cluster{backend: backendVXLAN, pods: dual})
	before := n.settled("n1")
	const theirs = "nft add table inet polder; nft add chain inet polder c"
	a := n.attempt("n1", n.spec, reconcile.ModeApply, theirs)
	if len(a.result.Failed()) != len(a.plan.Changes) || len(a.result.Remaining) == 0 {
		t.Errorf("%d of %d failed, %d remain", len(a.result.Failed()), len(a.plan.Changes), len(a.result.Remaining))
	}
	for _, c := range a.result.Remaining {
		if c.Kind == "link" && c.Action != change.Create {
			t.Errorf("remaining: %+v", c)
		}
	}
	n.sh("n1", "nft delete table inet polder")
	if after := n.settled("n1"); after != before {
		t.Errorf("without its guard, the network has\n%s", difference(before, after))
	}
}
