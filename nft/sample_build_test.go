package nft

import "github.com/poldernet/polder/spec"

// Statements that rules of ours do not use, and the codec knows.

// IsNot matches packets whose field has another value.
func (f Field) IsNot(d Data) Statement { return f.compare(Neq, d) }

// Between matches values from first to last.
func (f Field) Between(first, last Data) Statement {
	return f.then(Cmp{Op: Gte, Data: first}, Cmp{Op: Lte, Data: last})
}

// Verdict ends the rule with the verdict that a map has for the field; without
// one, the rule does not match.
func (f Field) Verdict(verdicts string) Statement {
	return f.then(Lookup{Set: verdicts, Verdict: true})
}

// NotMasked matches packets whose field has another value in the bits of mask.
func (f Field) NotMasked(mask, value Data) Statement {
	return f.then(bitwise(mask), Cmp{Op: Neq, Data: value})
}

// Any matches packets whose field has one of the bits.
func (f Field) Any(bits uint32) Statement {
	return f.NotMasked(Number(bits), Number(0))
}

// Sport is the source port of a transport protocol, Dport the destination.
func Sport(proto uint8) Field { return payload(TransportHeader, 0, 2, L4Proto().Is(Proto(proto))) }

// TCPFlags is the flags byte of the TCP header.
func TCPFlags() Field { return payload(TransportHeader, 13, 1, L4Proto().Is(Proto(TCP))) }

// ICMPType is the type of an ICMP or ICMPv6 message.
func ICMPType(f spec.Family) Field {
	fam := families.Get(f)
	return payload(TransportHeader, 0, 1, NFProto().Is(Proto(fam.nfproto)), L4Proto().Is(Proto(fam.icmp)))
}

// OIFName is the name of the interface that the packet leaves by.
func OIFName() Field { return meta(MetaOIFName, 16) }

// ConnState is the state of the packet's connection, as bits.
func ConnState() Field { return ct(CTState, NoDirection, 4) }

// ConnDirection is the direction of the packet within its connection.
func ConnDirection() Field { return ct(CTDirection, NoDirection, 1) }

// DirectionData is a direction as data.
func DirectionData(d Direction) Data { return Data([]byte{byte(d) - 1}) }

// ConnSaddr is the source address of the connection's tuple in a direction.
func ConnSaddr(d Direction, f spec.Family) Field {
	return ct(spec.PerFamily[CTKey]{IPv4: CTSrcIPv4, IPv6: CTSrcIPv6}.Get(f), d, int(families.Get(f).addrLen))
}

// ConnDaddr is the destination address of the connection's tuple in a
// direction.
func ConnDaddr(d Direction, f spec.Family) Field {
	return ct(spec.PerFamily[CTKey]{IPv4: CTDstIPv4, IPv6: CTDstIPv6}.Get(f), d, int(families.Get(f).addrLen))
}

// ConnSport is the source port of the connection's tuple in a direction.
func ConnSport(d Direction) Field { return ct(CTProtoSrc, d, 2) }

// ConnDport is the destination port of the connection's tuple in a direction;
// for ICMP, type<<8|code of the request.
func ConnDport(d Direction) Field { return ct(CTProtoDst, d, 2) }

func ct(key CTKey, d Direction, length int) Field {
	return Field{length: length, load: func(r Register) Expr { return CT{Key: key, Dir: d, Reg: r} }}
}
