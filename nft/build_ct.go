package nft

import "github.com/poldernet/polder/spec"

// CTStateIn matches packets whose connection is in one of the states, the bits
// of the CTState constants.
func CTStateIn(bits uint32) Statement {
	return ct(CTKeyState, NoDirection, 4).masked(Neq, Number(bits), Number(0))
}

// CTDirection matches packets that go in a direction of their connection.
func CTDirection(d Direction) Statement {
	return ct(CTKeyDirection, NoDirection, 1).Is(Data([]byte{byte(d) - 1}))
}

// CTOriginalSaddr is the source address of the connection's first packet before
// any translation: the client. A packet of the other family, or without a
// connection, does not match (nft_ct_get_eval in net/netfilter/nft_ct.c), so
// that no match of the family is needed.
func CTOriginalSaddr(f spec.Family) Field { return ctSaddr(f, Original) }

// CTReplySaddr is the source address of the connection's answers before any
// translation: the server that a destination NAT chose.
func CTReplySaddr(f spec.Family) Field { return ctSaddr(f, Reply) }

func ctSaddr(f spec.Family, d Direction) Field {
	key := spec.PerFamily[CTKey]{IPv4: CTKeySrcIPv4, IPv6: CTKeySrcIPv6}.Get(f)
	return ct(key, d, int(families.Get(f).addrLen))
}

// CTReplySport is the source port of the connection's answers: the server's
// own port. It means something with a protocol only, which the rule states or
// the key has as a field before it.
func CTReplySport() Field { return ct(CTKeyProtoSrc, Reply, 2) }

// CTOriginalDport is the destination port of the connection's first packet. For
// ICMP it is that packet's type and code, type<<8|code: port and type share a
// union (struct nf_conntrack_tuple), in which the type is the first byte.
func CTOriginalDport() Field { return ct(CTKeyProtoDst, Original, 2) }

func ct(key CTKey, d Direction, length int) Field {
	return Field{length: length, load: func(r Register) Expr { return CT{Key: key, Dir: d, Reg: r} }}
}
