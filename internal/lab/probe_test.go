package lab

import (
	"net/netip"
	"testing"

	"github.com/poldernet/polder/internal/lab/packet"
	"github.com/poldernet/polder/spec"
)

func TestReportPath(t *testing.T) {
	plain := Sighting{Src: netip.MustParseAddr("10.244.1.5")}
	inside := Sighting{OuterSrc: netip.MustParseAddr("192.0.2.11")}
	for _, c := range []struct {
		reached   bool
		sightings []Sighting
		want      Path
	}{
		{false, []Sighting{plain}, PathNone},
		{true, nil, PathBridge},
		{true, []Sighting{plain, plain}, PathDirect},
		{true, []Sighting{inside}, PathVXLAN},
		{true, []Sighting{plain, inside}, "vxlan+direct"},
	} {
		if got := (Report{Reached: c.reached, Sightings: c.sightings}).Path(); got != c.want {
			t.Errorf("%v %v: %q, want %q", c.reached, c.sightings, got, c.want)
		}
	}
}

func TestReportNAT(t *testing.T) {
	own, node := netip.MustParseAddr("10.244.1.5"), netip.MustParseAddr("192.0.2.11")
	for _, c := range []struct {
		r    Report
		want bool
	}{
		{Report{Reached: true, Own: own, Source: own}, false},
		{Report{Reached: true, Own: own, Source: node}, true},
		{Report{Own: own}, false}, // nobody saw a source
	} {
		if got := c.r.NAT(); got != c.want {
			t.Errorf("%+v: %v", c.r, got)
		}
	}
}

// probeFrames are a probe as it is, and inside of VXLAN.
func probeFrames(id tag) (plain, encapsulated []byte) {
	a, b := netip.MustParseAddrPort("10.244.1.5:9"), netip.MustParseAddrPort("10.244.3.5:9")
	plain = packet.Ethernet(spec.MAC{2}, spec.MAC{2, 1}, packet.EtherIPv4, packet.NewUDP(a, b, id.bytes()))
	outer := netip.MustParseAddrPort("[2001:db8:1::11]:5555")
	to := netip.MustParseAddrPort("[2001:db8:2::13]:8472")
	encapsulated = packet.Ethernet(spec.MAC{4}, spec.MAC{4, 1}, packet.EtherIPv6, packet.NewUDP(outer, to, packet.NewVXLAN(7, plain)))
	return plain, encapsulated
}

func TestSight(t *testing.T) {
	const id = tag(0x0123456789abcdef)
	plain, encapsulated := probeFrames(id)
	s, got, ok := sight(plain, 8472)
	if !ok || got != id || s.Encapsulated() || s.Src.String() != "10.244.1.5" || s.Dst.String() != "10.244.3.5" {
		t.Errorf("plain: %+v, tag %x, %v", s, got, ok)
	}
	s, got, ok = sight(encapsulated, 8472)
	if !ok || got != id || s.VNI != 7 || s.OuterSrc.String() != "2001:db8:1::11" || s.Src.String() != "10.244.1.5" {
		t.Errorf("VXLAN: %+v, tag %x, %v", s, got, ok)
	}
	// To another port it is no VXLAN of ours; what is inside is payload.
	if s, _, _ = sight(encapsulated, 4789); s.Encapsulated() {
		t.Errorf("VXLAN to another port: %+v", s)
	}
}

func FuzzSight(f *testing.F) {
	plain, encapsulated := probeFrames(42)
	f.Add(plain)
	f.Add(encapsulated)
	f.Fuzz(func(t *testing.T, frame []byte) {
		s, _, ok := sight(frame, 8472)
		if ok && (!s.Src.IsValid() || !s.Dst.IsValid() || s.VNI >= 1<<24) {
			t.Fatalf("%+v", s)
		}
	})
}
