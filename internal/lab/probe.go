package lab

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
	"time"

	"github.com/poldernet/polder/internal/lab/packet"
)

// Protocol is what a probe is sent as.
type Protocol string

// The protocols. A TCP probe is a whole connection.
const (
	UDP  Protocol = "udp"
	TCP  Protocol = "tcp"
	ICMP Protocol = "icmp" // ICMPv6 for an IPv6 address
	SCTP Protocol = "sctp" // an INIT chunk; nothing answers it
)

// Flow is a question: does a packet from one namespace reach an address in
// another, and how.
type Flow struct {
	From, To *Namespace
	Addr     netip.Addr // of To
	Protocol Protocol
	// Port is of To, for TCP and UDP; zero is a free one. One that is given is for
	// one probe at a time.
	Port uint16
	// Timeout is how long to try; zero is a second.
	Timeout time.Duration
}

// Report is the answer.
type Report struct {
	Reached  bool       // the packet arrived
	Answered bool       // and what To sent back arrived, too
	Source   netip.Addr // of the packet, as To saw it
	Own      netip.Addr // source of the packet, as From sent it
	// Sightings are where the request was seen on its way, in no particular
	// order; those of the answer are in Return.
	Sightings, Return []Sighting
	// Err is why the packet could not be sent, or what refused it.
	Err error
}

// NAT says that the source was changed on the way.
func (r Report) NAT() bool { return r.Reached && r.Source != r.Own }

// Sighting is a probe on a node's underlay interface.
type Sighting struct {
	Machine, Link string
	Outgoing      bool
	Src, Dst      netip.Addr // of the probe
	// Of the VXLAN packet around it; not valid where there is none.
	OuterSrc, OuterDst netip.Addr
	VNI                uint32
}

// Encapsulated says that the probe travelled inside of VXLAN.
func (s Sighting) Encapsulated() bool { return s.OuterSrc.IsValid() }

// Path is how a packet travelled, as it was seen on the wire.
type Path string

// The paths. A packet may change from one to another, "vxlan+direct".
const (
	PathNone   Path = ""
	PathBridge Path = "bridge" // it did not leave its node
	PathDirect Path = "direct" // it crossed the underlay as it is
	PathVXLAN  Path = "vxlan"  // it crossed the underlay inside of VXLAN
)

// Path is how the request travelled, PathNone if it did not arrive.
func (r Report) Path() Path {
	if !r.Reached {
		return PathNone
	}
	var direct, vxlan bool
	for _, s := range r.Sightings {
		direct = direct || !s.Encapsulated()
		vxlan = vxlan || s.Encapsulated()
	}
	var parts []string
	if vxlan {
		parts = append(parts, string(PathVXLAN))
	}
	if direct {
		parts = append(parts, string(PathDirect))
	}
	if len(parts) == 0 {
		return PathBridge
	}
	return Path(strings.Join(parts, "+"))
}

// A tag is in the payload of every packet of a probe, so that it is known
// again on the wire.
type tag uint64

var tagMagic = []byte("polder-probe")

func (t tag) bytes() []byte {
	return binary.BigEndian.AppendUint64(bytes.Clone(tagMagic), uint64(t))
}

func (t tag) in(b []byte) bool {
	found, ok := findTag(b)
	return ok && found == t
}

func findTag(b []byte) (tag, bool) {
	i := bytes.Index(b, tagMagic)
	if i < 0 || len(b) < i+len(tagMagic)+8 {
		return 0, false
	}
	return tag(binary.BigEndian.Uint64(b[i+len(tagMagic):])), true
}

// sight looks for a probe in a frame, VXLAN to the port included.
func sight(frame []byte, vxlanPort uint16) (Sighting, tag, bool) {
	p, err := packet.Dissect(frame)
	if err != nil {
		return Sighting{}, 0, false // not IP: no probe of ours
	}
	var s Sighting
	if vni, inner, ok := p.VXLAN(vxlanPort); ok {
		s.VNI, s.OuterSrc, s.OuterDst = vni, p.Src, p.Dst
		if p, err = packet.Dissect(inner); err != nil {
			return Sighting{}, 0, false
		}
	}
	t, ok := findTag(p.Payload)
	s.Src, s.Dst = p.Src, p.Dst
	return s, t, ok
}
