package packet

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"net/netip"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/poldernet/polder/spec"
)

var (
	macA = spec.MAC{2, 0, 0, 0, 0, 1}
	macB = spec.MAC{2, 0, 0, 0, 0, 2}
)

func addrs(f spec.Family) (a, b netip.Addr) {
	if f == spec.IPv4 {
		return netip.MustParseAddr("10.244.1.5"), netip.MustParseAddr("10.244.2.7")
	}
	return netip.MustParseAddr("fd00:10:244:1::5"), netip.MustParseAddr("fd00:10:244:2::7")
}

func etherType(f spec.Family) uint16 {
	if f == spec.IPv4 {
		return EtherIPv4
	}
	return EtherIPv6
}

// The checksum example of RFC 1071, section 3, and the header example that
// everybody knows from the IPv4 checksum's literature.
func TestChecksumVectors(t *testing.T) {
	if got := sum(0, []byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}); ^fold(got) != 0xddf2 {
		t.Errorf("RFC 1071: %#x, want 0xddf2", ^fold(got))
	}
	header, err := hex.DecodeString("450000730000400040110000c0a80001c0a800c7")
	if err != nil {
		t.Fatal(err)
	}
	if got := fold(sum(0, header)); got != 0xb861 {
		t.Errorf("IPv4 header: %#x, want 0xb861", got)
	}
}

// A receiver sums a correct packet to all ones (RFC 1071).
func TestChecksumsVerify(t *testing.T) {
	for _, f := range spec.Families {
		a, b := addrs(f)
		for n := range 5 {
			p := NewUDP(netip.AddrPortFrom(a, 4000), netip.AddrPortFrom(b, 53), make([]byte, n))
			if f == spec.IPv4 && fold(sum(0, p[:IPv4HeaderLen])) != 0 {
				t.Errorf("%v: header checksum does not verify", f)
			}
			datagram := p[len(p)-UDPHeaderLen-n:]
			if fold(pseudo(a, b, UDP, len(datagram))+sum(0, datagram)) != 0 {
				t.Errorf("%v: UDP checksum of %d bytes does not verify", f, n)
			}
			p = NewSYN(netip.AddrPortFrom(a, 4000), netip.AddrPortFrom(b, 80), make([]byte, n))
			segment := p[len(p)-TCPHeaderLen-n:]
			if fold(pseudo(a, b, TCP, len(segment))+sum(0, segment)) != 0 {
				t.Errorf("%v: TCP checksum of %d bytes does not verify", f, n)
			}
		}
	}
	init := NewSCTPInit(1000, 2000, []byte("tag"))
	want := []byte{init[8], init[9], init[10], init[11]}
	copy(init[8:], []byte{0, 0, 0, 0})
	c := crc32.Checksum(init, crc32.MakeTable(crc32.Castagnoli))
	if got := []byte{byte(c), byte(c >> 8), byte(c >> 16), byte(c >> 24)}; !bytes.Equal(got, want) {
		t.Errorf("SCTP checksum % x, want % x", want, got)
	}
	if len(init)%4 != 0 {
		t.Errorf("SCTP packet of %d bytes is not padded to words", len(init))
	}
}

// What is built is read back, through any nesting.
func TestDissectReadsWhatWasBuilt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.SampledFrom(spec.Families[:]).Draw(t, "family")
		a, b := addrs(f)
		src := netip.AddrPortFrom(a, rapid.Uint16().Draw(t, "src port"))
		dst := netip.AddrPortFrom(b, rapid.Uint16().Draw(t, "dst port"))
		payload := rapid.SliceOfN(rapid.Byte(), 0, 64).Draw(t, "payload")
		frame := Ethernet(macA, macB, etherType(f), NewUDP(src, dst, payload))
		for range rapid.IntRange(0, 3).Draw(t, "tags") {
			frame = VLAN(rapid.SampledFrom([]uint16{EtherVLAN, EtherQinQ}).Draw(t, "tag"), 0, frame)
		}
		frame = append(frame, make([]byte, rapid.IntRange(0, 20).Draw(t, "padding"))...)
		p, err := Dissect(frame)
		if err != nil {
			t.Fatal(err)
		}
		if p.EtherSrc != macA || p.EtherDst != macB || p.Protocol != UDP ||
			p.Src != a || p.Dst != b || p.SrcPort != src.Port() || p.DstPort != dst.Port() || !bytes.Equal(p.Payload, payload) {
			t.Fatalf("read %+v", p)
		}

		vni := rapid.Uint32Range(0, 1<<24-1).Draw(t, "vni")
		outer, err := Dissect(Ethernet(macB, macA, etherType(f), NewUDP(src, dst, NewVXLAN(vni, frame))))
		if err != nil {
			t.Fatal(err)
		}
		gotVNI, inner, ok := outer.VXLAN(dst.Port())
		if !ok || gotVNI != vni || !bytes.Equal(inner, frame) {
			t.Fatalf("VXLAN: VNI %d, want %d; ok %v", gotVNI, vni, ok)
		}
		if _, _, ok := outer.VXLAN(dst.Port() + 1); ok {
			t.Fatal("a datagram to another port was taken for VXLAN")
		}
	})
}

func TestDissectRefuses(t *testing.T) {
	a, b := addrs(spec.IPv4)
	frame := Ethernet(macA, macB, EtherIPv4, NewUDP(netip.AddrPortFrom(a, 1), netip.AddrPortFrom(b, 2), []byte("data")))
	for n := range frame {
		if _, err := Dissect(frame[:n]); err == nil {
			t.Errorf("a frame cut to %d of %d bytes was read", n, len(frame))
		}
	}
	frame[etherHeaderLen+7] = 1 // fragment offset
	if _, err := Dissect(frame); !errors.Is(err, errFragment) {
		t.Errorf("fragment: %v", err)
	}
	if _, err := Dissect(Ethernet(macA, macB, 0x0806, make([]byte, 46))); !errors.Is(err, errNotIP) {
		t.Errorf("ARP: %v", err)
	}
}

func FuzzDissect(f *testing.F) {
	for _, family := range spec.Families {
		a, b := addrs(family)
		inner := Ethernet(macA, macB, etherType(family), IP(a, b, SCTP, NewSCTPInit(1, 2, []byte("tag"))))
		f.Add(inner)
		f.Add(Ethernet(macA, macB, etherType(family), NewUDP(netip.AddrPortFrom(a, 1), netip.AddrPortFrom(b, 8472), NewVXLAN(1, inner))))
		f.Add(VLAN(EtherVLAN, 0, Ethernet(macA, macB, etherType(family), IP(a, b, ICMP, Echo(family, 1, 2, nil)))))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		for depth := 0; ; depth++ {
			p, err := Dissect(frame)
			if err != nil {
				return
			}
			if !p.Src.IsValid() || p.Src.BitLen() != p.Dst.BitLen() {
				t.Fatalf("addresses %v and %v", p.Src, p.Dst)
			}
			_, inner, ok := p.VXLAN(8472)
			if !ok {
				return
			}
			if len(inner) >= len(frame) {
				t.Fatalf("the frame inside has %d bytes, the one around it %d", len(inner), len(frame))
			}
			frame = inner
		}
	})
}

// What speaks of neighbours is laid out as its RFC has it.
func TestNeighbourPackets(t *testing.T) {
	a, b := addrs(spec.IPv4)
	want, err := hex.DecodeString("0001080006040002" + "020000000001" + "0af40105" + "020000000002" + "0af40207")
	if err != nil {
		t.Fatal(err)
	}
	if got := ARP(ARPReply, macA, a, macB, b); !bytes.Equal(got, want) {
		t.Errorf("ARP: % x, want % x", got, want)
	}
	target := netip.MustParseAddr("fd00:10:244:1::1234:5678")
	if got, want := SolicitedNode(target), netip.MustParseAddr("ff02::1:ff34:5678"); got != want {
		t.Errorf("solicited-node group %s, want %s", got, want)
	}
	for group, want := range map[string]spec.MAC{
		"ff02::1:ff34:5678": {0x33, 0x33, 0xff, 0x34, 0x56, 0x78},
		"224.128.0.251":     {0x01, 0x00, 0x5e, 0x00, 0x00, 0xfb},
	} {
		if got := MulticastMAC(netip.MustParseAddr(group)); got != want {
			t.Errorf("MAC of %s: %s, want %s", group, got, want)
		}
	}
	for _, f := range spec.Families {
		a, b := addrs(f)
		p := NewICMP(a, b, NeighborAdvert, 0, NeighborBody(FlagOverride, target, TargetLinkAddr, macA))
		header, pseudoSum, hops := IPv6HeaderLen, pseudo(a, b, ICMPv6, len(p)-IPv6HeaderLen), p[7]
		if f == spec.IPv4 {
			header, pseudoSum, hops = IPv4HeaderLen, 0, p[8]
			if fold(sum(0, p[:header])) != 0 {
				t.Error("IPv4 header checksum does not verify")
			}
		}
		if hops != 255 || fold(pseudoSum+sum(0, p[header:])) != 0 {
			t.Errorf("%v: hop limit %d, or the ICMP checksum does not verify", f, hops)
		}
		if got := p[header+8 : header+24]; !bytes.Equal(got, target.AsSlice()) {
			t.Errorf("%v: target % x", f, got)
		}
	}
}

// A packet with options dissects as the one without.
func TestExtendIPv4(t *testing.T) {
	a, b := addrs(spec.IPv4)
	plain := NewUDP(netip.AddrPortFrom(a, 1), netip.AddrPortFrom(b, 2), []byte("data"))
	extended := ExtendIPv4(plain)
	want, err := Dissect(Ethernet(macA, macB, EtherIPv4, plain))
	if err != nil {
		t.Fatal(err)
	}
	got, err := Dissect(Ethernet(macA, macB, EtherIPv4, extended))
	if err != nil || !reflect.DeepEqual(got, want) || fold(sum(0, extended[:IPv4HeaderLen+4])) != 0 {
		t.Errorf("%+v, want %+v; %v", got, want, err)
	}
}

// Fragments put together again are the packet, and each is a whole IP packet.
func TestFragmentsAreThePacket(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.SampledFrom(spec.Families[:]).Draw(t, "family")
		a, b := addrs(f)
		payload := rapid.SliceOfN(rapid.Byte(), 1, 200).Draw(t, "payload")
		p := IP(a, b, SCTP, payload)
		header, own := IPv6HeaderLen, 8
		if f == spec.IPv4 {
			header, own = IPv4HeaderLen, 0
		} else if n := 8 * rapid.IntRange(0, 200).Draw(t, "options"); n > 0 {
			p = Extend(p, DestOptions, n)
		}
		var joined []byte
		list := Fragments(p, 8*rapid.IntRange(1, 10).Draw(t, "size"))
		for i, fragment := range list {
			more, offset := fragment[6]&0x20 != 0, int(binary.BigEndian.Uint16(fragment[6:])&0x1fff)*8
			if f == spec.IPv6 {
				field := binary.BigEndian.Uint16(fragment[header+2:])
				more, offset = field&1 != 0, int(field&^7)
				if int(binary.BigEndian.Uint16(fragment[4:])) != len(fragment)-header || fragment[6] != FragmentNext || fragment[header] != p[6] {
					t.Fatalf("fragment % x", fragment)
				}
			} else if fold(sum(0, fragment[:header])) != 0 || int(binary.BigEndian.Uint16(fragment[2:])) != len(fragment) {
				t.Fatalf("fragment % x", fragment)
			}
			if offset != len(joined) || more != (i < len(list)-1) {
				t.Fatalf("fragment %d at %d, more %v", i, offset, more)
			}
			joined = append(joined, fragment[header+own:]...)
		}
		if !bytes.Equal(joined, p[header:]) {
			t.Fatalf("joined % x", joined)
		}
	})
}
