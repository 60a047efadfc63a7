package nft

// Expr is one expression of a rule, as the kernel runs it. The types below are
// all there are; they are comparable, and equal exactly if the kernel does the
// same for both.
type Expr interface{ expr() }

// Register is a place for data, counted in 4-byte slots from 0 to 15. The
// kernel has two numberings for them (NFT_REG_1.. for 16 bytes each, and
// NFT_REG32_00.. for 4 bytes) and answers in the first where it can, whichever
// was written. The verdict register is not among them.
type Register uint8

// PayloadBase is where an offset into the packet counts from
// (enum nft_payload_bases).
type PayloadBase uint32

// The bases.
const (
	LinkHeader      PayloadBase = 0
	NetworkHeader   PayloadBase = 1
	TransportHeader PayloadBase = 2
)

// Payload loads Len bytes of the packet.
type Payload struct {
	Base   PayloadBase
	Offset uint32 // bytes
	Len    uint32 // bytes
	Reg    Register
}

// MetaKey is a property of a packet that is not in it (enum nft_meta_keys).
type MetaKey uint32

// The keys that we use.
const (
	MetaProtocol MetaKey = 1  // Ethernet type, after VLAN tags are off
	MetaMark     MetaKey = 3  // fwmark
	MetaIIFName  MetaKey = 6  // 16 bytes
	MetaOIFName  MetaKey = 7  // 16 bytes
	MetaNFProto  MetaKey = 15 // NFPROTO_IPV4 or _IPV6, 1 byte
	MetaL4Proto  MetaKey = 16 // IPPROTO_*, 1 byte
	MetaPktType  MetaKey = 19 // PACKET_*, 1 byte
	MetaIIFKind  MetaKey = 26 // 16 bytes
	MetaOIFKind  MetaKey = 27 // 16 bytes
)

// Meta loads a property of the packet.
type Meta struct {
	Key MetaKey
	Reg Register
}

// MetaSet writes a property of the packet.
type MetaSet struct {
	Key MetaKey
	Reg Register
}

// CTKey is a property of a packet's connection (enum nft_ct_keys).
type CTKey uint32

// The keys that we use.
const (
	CTKeyState     CTKey = 0  // bits, see the CTState constants
	CTKeyDirection CTKey = 1  // Original or Reply, 1 byte
	CTKeyProtoSrc  CTKey = 11 // source port or ICMP id, of a direction
	CTKeyProtoDst  CTKey = 12 // destination port, or ICMP type<<8|code
	CTKeySrcIPv4   CTKey = 19 // addresses of a direction
	CTKeyDstIPv4   CTKey = 20
	CTKeySrcIPv6   CTKey = 21
	CTKeyDstIPv6   CTKey = 22
)

// The bits of CTKeyState (NF_CT_STATE_BIT).
const (
	CTStateInvalid     uint32 = 1
	CTStateEstablished uint32 = 2
	CTStateRelated     uint32 = 4
	CTStateNew         uint32 = 8
	CTStateUntracked   uint32 = 64
)

// Direction is a direction of a connection (enum ip_conntrack_dir), or that
// the key has none.
type Direction uint8

// The directions. The kernel's numbers are one less.
const (
	NoDirection Direction = 0
	Original    Direction = 1
	Reply       Direction = 2
)

// CT loads a property of the packet's connection.
type CT struct {
	Key CTKey
	Dir Direction
	Reg Register
}

// FIBResult is what a route look-up yields (enum nft_fib_result).
type FIBResult uint32

// The results.
const (
	FIBOIF      FIBResult = 1 // output interface index
	FIBAddrType FIBResult = 3 // RTN_*, <linux/rtnetlink.h>
)

// FIBFlags are the inputs of a route look-up (enum nft_fib_flags).
type FIBFlags uint32

// The flags.
const (
	FIBSaddr   FIBFlags = 1 << 0
	FIBDaddr   FIBFlags = 1 << 1
	FIBIIF     FIBFlags = 1 << 3
	FIBPresent FIBFlags = 1 << 5 // the result is only whether there is one: 0 or 1
)

// rtnLocal is RTN_LOCAL, the type of an address of the host's own.
const rtnLocal = 2

// FIB looks the packet's source or destination up in the routing tables.
type FIB struct {
	Result FIBResult
	Flags  FIBFlags
	Reg    Register
}

// Bitwise computes Dst = Reg & Mask ^ Xor.
type Bitwise struct {
	Reg, Dst  Register
	Mask, Xor Data
}

// CmpOp is a comparison (enum nft_cmp_ops).
type CmpOp uint32

// The comparisons.
const (
	Eq  CmpOp = 0
	Neq CmpOp = 1
	Lt  CmpOp = 2
	Lte CmpOp = 3
	Gt  CmpOp = 4
	Gte CmpOp = 5
)

// Cmp goes on if a register compares with Data.
type Cmp struct {
	Op   CmpOp
	Reg  Register
	Data Data
}

// Lookup goes on if the data in registers are a key of a set, or with Verdict
// gives the verdict that a map has for them.
type Lookup struct {
	Set     string
	Reg     Register
	Invert  bool
	Verdict bool
}

// VerdictKind is a verdict's code (enum nft_verdicts, NF_ACCEPT, NF_DROP).
type VerdictKind int32

// The verdicts.
const (
	VerdictDrop   VerdictKind = 0
	VerdictAccept VerdictKind = 1
	VerdictJump   VerdictKind = -3
	VerdictGoto   VerdictKind = -4
	VerdictReturn VerdictKind = -5
)

// Verdict ends the rule: the packet's fate, or the chain to go on with.
type Verdict struct {
	Kind  VerdictKind
	Chain string `json:",omitzero"` // of jump and goto
}

// Verdicts that need no chain.
var (
	Accept = Verdict{Kind: VerdictAccept}
	Drop   = Verdict{Kind: VerdictDrop}
	Return = Verdict{Kind: VerdictReturn}
)

// Jump goes through a chain and comes back at its end, or at a return.
func Jump(chain string) Verdict { return Verdict{VerdictJump, chain} }

// Goto goes through a chain and comes back to where the present chain was
// jumped to from.
func Goto(chain string) Verdict { return Verdict{VerdictGoto, chain} }

// Counter counts packets and bytes. Its values are not part of a ruleset.
type Counter struct{}

// CounterRef counts in a named counter, which outlives the rule.
type CounterRef struct{ Name string }

// Limit goes on at most Rate times a Unit, and after a pause Burst times at
// once. The kernel takes no burst of 0 packets for what it is
// (nft_limit_init in net/netfilter/nft_limit.c).
type Limit struct {
	Rate  uint64
	Unit  LimitUnit
	Burst uint32
}

// LimitUnit is a time in seconds.
type LimitUnit uint64

// The units.
const (
	PerSecond LimitUnit = 1
	PerMinute LimitUnit = 60
)

// Log sends the packet to those who listen to an nflog group, and goes on.
type Log struct {
	Group   uint16
	Prefix  string `json:",omitzero"` // see Comment; nft(8) takes a $ for a variable
	Snaplen uint32 `json:",omitzero"` // bytes of the packet, 0: all
}

// MasqFlags are the flags of a masquerade (NF_NAT_RANGE_*, <linux/netfilter/nf_nat.h>).
type MasqFlags uint32

// RandomFully chooses the source port at random, without a hash of the tuple.
const RandomFully MasqFlags = 1 << 4

// Masquerade rewrites the source to the output interface's address.
type Masquerade struct{ Flags MasqFlags }

// Notrack keeps connection tracking off the packet.
type Notrack struct{}

// Unknown is an expression read back that is none of the above, or one of them
// with an operand that we never write. No rule of ours holds any, so it always
// is a difference.
type Unknown struct {
	Name string // the kernel's name of the expression
	Data Data   // its attributes, as they came
}

func (Payload) expr()    {}
func (Meta) expr()       {}
func (MetaSet) expr()    {}
func (CT) expr()         {}
func (FIB) expr()        {}
func (Bitwise) expr()    {}
func (Cmp) expr()        {}
func (Lookup) expr()     {}
func (Verdict) expr()    {}
func (Counter) expr()    {}
func (CounterRef) expr() {}
func (Limit) expr()      {}
func (Log) expr()        {}
func (Masquerade) expr() {}
func (Notrack) expr()    {}
func (Unknown) expr()    {}
