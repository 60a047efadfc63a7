package reconcile

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

// Runtimes are told of the network while containers can be attached to it.
func TestPodNetwork(t *testing.T) {
	onFakeHost(t, 2, func(t *testing.T, h *fakeHost) {
		want := &PodNetwork{
			Bridge: "cni0", HairpinMode: true, MTU: 1450, CIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}, Subnets: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")},
		}
		if got := h.Condition().Pods; !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v", got)
		}
		h.do(func() {
			h.refused, h.refusal = map[objectKey]int{{"address", "10.244.1.1/24 dev cni0"}: 100}, errRefused
		})
		h.damage("ip addr del 10.244.1.1/24 dev cni0")
		h.settle()
		if got := h.Condition().Pods; got != nil {
			t.Errorf("without its address it is %+v", got)
		}
		h.do(func() { h.refused = nil })
		more := strings.Replace(nodes(2), "backend", "mtu = 1300\n  masquerade {}\n  bridge { hairpin_mode = false }\n  backend", 1)
		h.source.write(parsed(t, more))
		h.pass(retryMost)
		want.MTU, want.Masquerade, want.HairpinMode = 1300, true, false
		if got := h.Condition().Pods; !reflect.DeepEqual(got, want) {
			t.Errorf("in the end it is %+v", got)
		}
	})
}
