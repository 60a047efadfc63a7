package nflog

import (
	"encoding/binary"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/poldernet/polder/internal/lab/packet"
	"github.com/poldernet/polder/spec"
)

// attribute is a netlink attribute with its padding.
func attribute(kind uint16, data []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(data)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, data...)
	return append(b, make([]byte, -len(b)&3)...)
}

// encode is what the kernel makes of a message.
func encode(m Message) []byte {
	b := []byte{2, 0, 0, 87}
	b = append(b, attribute(1, []byte{8, 0, 2, 0})...) // NFULA_PACKET_HDR
	if !m.Time.IsZero() {
		t := binary.BigEndian.AppendUint64(nil, uint64(m.Time.Unix()))
		b = append(b, attribute(nfulaTimestamp, binary.BigEndian.AppendUint64(t, uint64(m.Time.Nanosecond()/1000)))...)
	}
	b = append(b, attribute(nfulaSeq, binary.BigEndian.AppendUint32(nil, m.Sequence))...)
	b = append(b, attribute(nfulaPrefix, append([]byte(m.Prefix), 0))...)
	return append(b, attribute(nfulaPayload, m.Payload)...)
}

func sample() Message {
	return Message{Prefix: "c_db_ingress_0123456789ab", Time: time.Unix(1_795_420_329, 250_000_000), Sequence: 7, Payload: []byte{1, 2, 3, 4}}
}

func TestDecode(t *testing.T) {
	got, err := decode(encode(sample()))
	if err != nil || !reflect.DeepEqual(got, sample()) {
		t.Errorf("%+v %v", got, err)
	}
	whole := encode(sample())
	for n := range whole {
		if m, err := decode(whole[:n]); err == nil && reflect.DeepEqual(m, sample()) {
			t.Errorf("the first %d of %d bytes are taken for all", n, len(whole))
		}
	}
}

// FuzzDecode: what is accepted is a message that is accepted again, and is the
// same.
func FuzzDecode(f *testing.F) {
	f.Add(encode(sample()))
	f.Add(encode(Message{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decode(b)
		if err != nil {
			return
		}
		if strings.Contains(m.Prefix, "\x00") {
			t.Errorf("prefix %q", m.Prefix)
		}
		if m.Time.Unix() < 0 || len(m.Payload) > 0xfff0 || len(m.Prefix) > 0xfff0 {
			return // no such attribute can be written
		}
		if again, err := decode(encode(m)); err != nil || again.Prefix != m.Prefix || !slices.Equal(again.Payload, m.Payload) || again.Sequence != m.Sequence || !again.Time.Equal(m.Time) {
			t.Errorf("%+v became %+v, %v", m, again, err)
		}
	})
}

var (
	client = spec.PerFamily[netip.AddrPort]{IPv4: netip.MustParseAddrPort("10.244.1.5:41812"), IPv6: netip.MustParseAddrPort("[fd00::5]:41812")}
	server = spec.PerFamily[netip.AddrPort]{IPv4: netip.MustParseAddrPort("10.244.1.6:5432"), IPv6: netip.MustParseAddrPort("[fd00::6]:5432")}
)

// tcp is a TCP header without options.
func tcp(from, to uint16, flags Flags) []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b, from)
	binary.BigEndian.PutUint16(b[2:], to)
	b[12], b[13] = 5<<4, byte(flags)
	return b
}

func TestDissect(t *testing.T) {
	const syn, ack Flags = 2, 16
	for _, f := range spec.Families {
		from, to := client.Get(f), server.Get(f)
		ip := func(protocol uint8, payload []byte) []byte {
			return packet.IP(from.Addr(), to.Addr(), protocol, payload)
		}
		base := Packet{From: from.Addr(), To: to.Addr(), Whole: true}
		ported := func(protocol uint8) Packet {
			p := base
			p.Protocol, p.FromPort, p.ToPort = protocol, from.Port(), to.Port()
			return p
		}
		synack := ported(packet.TCP)
		synack.Flags = syn | ack
		cut := Packet{From: from.Addr(), To: to.Addr(), Protocol: packet.TCP}
		icmp := base
		icmp.Protocol, icmp.Type = map[spec.Family]uint8{spec.IPv4: packet.ICMP, spec.IPv6: packet.ICMPv6}[f], packet.EchoRequest(f)
		gre := base
		gre.Protocol = 47
		whole := ip(packet.TCP, tcp(from.Port(), to.Port(), syn|ack))
		for _, test := range []struct {
			name string
			data []byte
			want Packet
		}{
			{"tcp", whole, synack},
			{"udp", packet.NewUDP(from, to, []byte("x")), ported(packet.UDP)},
			{"sctp", ip(packet.SCTP, packet.NewSCTPInit(from.Port(), to.Port(), nil)), ported(packet.SCTP)},
			{"echo request", ip(icmp.Protocol, packet.Echo(f, 1, 1, nil)), icmp},
			{"gre", ip(47, nil), gre},
			{"tcp, cut before the flags", whole[:len(whole)-7], cut},
			{"tcp, cut behind the addresses", whole[:len(whole)-20], cut},
		} {
			if got, err := Dissect(test.data); err != nil || got != test.want {
				t.Errorf("%s %s: %+v %v, want %+v", f, test.name, got, err, test.want)
			}
		}
	}
}

func TestDissectIPv4Options(t *testing.T) {
	b := packet.NewUDP(client.IPv4, server.IPv4, nil)
	b = slices.Insert(b, 20, 1, 1, 1, 1) // four of "no operation"
	b[0] = 4<<4 | 6
	if p, err := Dissect(b); err != nil || p.ToPort != 5432 {
		t.Errorf("%+v %v", p, err)
	}
	b[7] = 1 // a later fragment
	if p, err := Dissect(b); err != nil || p.Whole || !p.Fragment || p.ToPort != 0 {
		t.Errorf("%+v %v", p, err)
	}
}

// extension is an IPv6 extension header.
func extension(kind, next uint8) []byte {
	switch kind {
	case nextFragment:
		return []byte{next, 0, 0, 1, 0, 0, 0, 9} // the first fragment
	case nextAuth:
		return append([]byte{next, 4}, make([]byte, 22)...)
	}
	return append([]byte{next, 1}, make([]byte, 14)...)
}

// Behind any extension headers is the protocol; where what was reported ends
// among them, the addresses are still told.
func TestDissectExtensions(t *testing.T) {
	kinds := []uint8{nextHopByHop, nextRouting, nextFragment, nextAuth, nextDestination, nextMobility, nextHIP, nextShim6}
	rapid.Check(t, func(t *rapid.T) {
		chain := rapid.SliceOfN(rapid.SampledFrom(kinds), 0, 6).Draw(t, "chain")
		b, next := tcp(1, 2, 2), uint8(packet.TCP)
		for _, kind := range slices.Backward(chain) {
			b, next = append(extension(kind, next), b...), kind
		}
		b = packet.IP(client.IPv6.Addr(), server.IPv6.Addr(), next, b)
		p, err := Dissect(b)
		if err != nil || p != (Packet{From: client.IPv6.Addr(), To: server.IPv6.Addr(), Protocol: packet.TCP, Whole: true, FromPort: 1, ToPort: 2, Flags: 2}) {
			t.Fatalf("%+v %v", p, err)
		}
		n := rapid.IntRange(ipv6Length, len(b)-7).Draw(t, "length")
		if p, err := Dissect(b[:n]); err != nil || p.Whole || p.ToPort != 0 || p.To != server.IPv6.Addr() {
			t.Fatalf("of %d bytes: %+v %v", n, p, err)
		}
	})
}

func TestDissectLaterFragment(t *testing.T) {
	b := extension(nextFragment, packet.TCP)
	b[3] = 8 | 1 // the second one
	b = packet.IP(client.IPv6.Addr(), server.IPv6.Addr(), nextFragment, append(b, tcp(1, 2, 2)...))
	if p, err := Dissect(b); err != nil || p.Whole || !p.Fragment || p.Protocol != packet.TCP || p.ToPort != 0 {
		t.Errorf("%+v %v", p, err)
	}
}

// FuzzDissect: a packet of which more is there says no less, and nothing else.
func FuzzDissect(f *testing.F) {
	for _, family := range spec.Families {
		f.Add(packet.NewUDP(client.Get(family), server.Get(family), []byte("data")), 10)
	}
	f.Add(packet.IP(client.IPv6.Addr(), server.IPv6.Addr(), nextHopByHop, append(extension(nextHopByHop, nextFragment), extension(nextFragment, packet.TCP)...)), 50)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		whole, err := Dissect(b)
		if err != nil {
			return
		}
		if !whole.From.IsValid() || !whole.To.IsValid() || whole.Whole && whole.Fragment || !whole.Whole && whole.FromPort|whole.ToPort != 0 {
			t.Errorf("%+v", whole)
		}
		part, err := Dissect(b[:min(max(cut, 0), len(b))])
		if err == nil && (part.From != whole.From || part.To != whole.To || part.Whole && part != whole) {
			t.Errorf("of the beginning %+v, of all %+v", part, whole)
		}
	})
}

func TestFlagNames(t *testing.T) {
	if got := strings.Join(Flags(0xff).Names(), " "); got != "fin syn rst psh ack urg ecn cwr" {
		t.Error(got)
	}
	if got := Flags(18).Names(); !slices.Equal(got, []string{"syn", "ack"}) {
		t.Error(got)
	}
}
