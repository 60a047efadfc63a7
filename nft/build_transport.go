package nft

import "github.com/poldernet/polder/spec"

// The transport protocols with ports (IPPROTO_*).
const (
	TCP  uint8 = 6
	UDP  uint8 = 17
	SCTP uint8 = 132
)

// Dport is the destination port of a transport protocol.
func Dport(proto uint8) Field { return payload(TransportHeader, 2, 2, L4Proto().Is(Proto(proto))) }

// Sport is the source port of a transport protocol.
func Sport(proto uint8) Field { return payload(TransportHeader, 0, 2, L4Proto().Is(Proto(proto))) }

// TCPFlagsNot matches TCP segments whose flags have another value in the bits
// of mask.
func TCPFlagsNot(mask, value uint8) Statement {
	flags := payload(TransportHeader, 13, 1, L4Proto().Is(Proto(TCP)))
	return flags.masked(Neq, Data([]byte{mask}), Data([]byte{value}))
}

// The bits of the TCP flags, RFC 9293, 3.1.
const (
	TCPFin uint8 = 0x01
	TCPSyn uint8 = 0x02
	TCPRst uint8 = 0x04
	TCPAck uint8 = 0x10
)

// ICMPType is the type of an ICMP or ICMPv6 message, one byte.
func ICMPType(f spec.Family) Field { return payload(TransportHeader, 0, 1, icmp(f)...) }

// NDTarget is the target address of a neighbour discovery message (RFC 4861,
// 4.3 to 4.5). Which type the message has is for the rule to say.
func NDTarget() Field {
	target := payload(TransportHeader, 8, 16, icmp(spec.IPv6)...)
	target.start = func(n int) Field { return payload(TransportHeader, 8, uint32(n), icmp(spec.IPv6)...) }
	return target
}

func icmp(f spec.Family) []Statement {
	fam := families.Get(f)
	return []Statement{NFProto().Is(Proto(fam.nfproto)), L4Proto().Is(Proto(fam.icmp))}
}
