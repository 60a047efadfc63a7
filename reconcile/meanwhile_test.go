package reconcile

import (
	"net/netip"
	"sync"
	"testing"

	"github.com/poldernet/polder/overlay"
)

// TestANewLinkHurriesWhatWaits: what could not be written to a link that went
// away meanwhile is written with the new one.
func TestANewLinkHurriesWhatWaits(t *testing.T) {
	onFakeHost(t, 3, func(t *testing.T, h *fakeHost) {
		from := h.journal.Last()
		var once sync.Once
		h.before = func(access string) {
			if access == "apply" {
				once.Do(func() { h.damage("ip link del polder.1") })
			}
		}
		h.damage("ip link set cni0 mtu") // so that links are read again, and the deletion is no news
		h.damage("bridge fdb del")
		h.settle()
		if len(h.events(from, EventFailed)) == 0 {
			t.Errorf("nothing was written to the dying link:\n%s", h.story(from))
		}
		h.inSync()
	})
}

// TestAConflictThatComesMeanwhile: what comes into the way between the plan and the
// reading after it is no news any more when its notification comes.
func TestAConflictThatComesMeanwhile(t *testing.T) {
	onFakeHost(t, 3, func(t *testing.T, h *fakeHost) {
		written := false
		h.before = func(access string) {
			if access == "refresh" && written {
				h.before = nil
				h.do(func() {
					if err := h.network.ReplaceRoute(overlay.RouteEntry{
						RouteKey: overlay.RouteKey{Dst: netip.MustParsePrefix("10.244.2.0/24")},
						Route:    overlay.Route{Gateway: netip.MustParseAddr("192.0.2.12"), Link: "eth0", Protocol: 4},
					}); err != nil {
						t.Error(err)
					}
				})
			}
			written = written || access == "apply"
		}
		h.damage("ip route del 10.244.3.0/24")
		h.settle()
		if c := h.Condition(); c.InSync || len(c.Conflicts) != 1 || c.Conflicts[0].Name != "10.244.2.0/24" {
			t.Errorf("%s: %v\n%s", c, c.Conflicts, h.story(0))
		}
	})
}
