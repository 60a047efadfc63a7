package nft

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// The decoders below turn the payload of nftables' netlink messages (behind
// the nlmsghdr) into values. They do not trust the bytes: what is cut short is
// an error, what is not understood is kept as such. The names of attributes are
// those of <linux/netfilter/nf_tables.h>.

// errShort is the error of bytes that end too early.
var errShort = errors.New("attribute is cut short")

// messageHeader is what matters of struct nlmsghdr (netlink(7)).
type messageHeader struct {
	kind     uint16
	flags    uint16
	sequence uint32
}

// nlmsghdrLength is the length of struct nlmsghdr.
const nlmsghdrLength = 16

// messages calls f for each netlink message in a datagram, with its payload.
func messages(b []byte, f func(h messageHeader, data []byte) error) error {
	for len(b) > 0 {
		if len(b) < nlmsghdrLength {
			return errShort
		}
		length := binary.NativeEndian.Uint32(b)
		if length < nlmsghdrLength || uint64(length) > uint64(len(b)) {
			return errShort
		}
		h := messageHeader{binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:]), binary.NativeEndian.Uint32(b[8:])}
		if err := f(h, b[nlmsghdrLength:length]); err != nil {
			return err
		}
		b = b[min(padded(int(length)), len(b)):]
	}
	return nil
}

// nlaTypeMask takes NLA_F_NESTED and NLA_F_NET_BYTEORDER off an attribute's
// type.
const nlaTypeMask = 0x3fff

// genmsgLength is the length of struct nfgenmsg.
const genmsgLength = 4

// attributes calls f for each attribute (struct nlattr) in b.
func attributes(b []byte, f func(kind uint16, data []byte) error) error {
	for len(b) > 0 {
		if len(b) < 4 {
			return errShort
		}
		length := int(binary.NativeEndian.Uint16(b))
		if length < 4 || length > len(b) {
			return errShort
		}
		if err := f(binary.NativeEndian.Uint16(b[2:])&nlaTypeMask, b[4:length]); err != nil {
			return err
		}
		b = b[min(padded(length), len(b)):]
	}
	return nil
}

// fields are the attributes of one object, by type. Types that occur twice or
// are beyond what we know do not occur in an object that we understand.
type fields [24][]byte

// parse fills the fields.
func (f *fields) parse(b []byte) error {
	return attributes(b, func(kind uint16, data []byte) error {
		if int(kind) < len(f) {
			if data == nil {
				data = []byte{}
			}
			f[kind] = data
		}
		return nil
	})
}

// only says that no other fields than these are there.
func (f *fields) only(kinds ...int) bool {
	for kind, data := range f {
		if data != nil && !slices.Contains(kinds, kind) {
			return false
		}
	}
	return true
}

// number is a 32-bit number, 0 where the attribute is missing or of another
// length.
func (f *fields) number(kind int) uint32 {
	if len(f[kind]) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(f[kind])
}

// long is a 64-bit number, 0 where the attribute is missing or of another
// length.
func (f *fields) long(kind int) uint64 {
	if len(f[kind]) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(f[kind])
}

// text is a NUL-terminated string.
func (f *fields) text(kind int) string { return string(trimNUL(f[kind])) }

func trimNUL(b []byte) []byte {
	s, _, _ := bytes.Cut(b, []byte{0})
	return s
}

// object parses a message about an object of a table: its nfgenmsg and
// attributes. The name of the table is attribute 1 in all of them.
func (f *fields) object(b []byte) (TableID, error) {
	if len(b) < genmsgLength {
		return TableID{}, errShort
	}
	if err := f.parse(b[genmsgLength:]); err != nil {
		return TableID{}, err
	}
	return TableID{familyOf(b[0]), f.text(1)}, nil
}

// protos are the numbers of the families (NFPROTO_*, <linux/netfilter.h>).
var protos = map[Family]byte{INet: 1, IP: 2, ARP: 3, NetDev: 5, Bridge: 7, IP6: 10}

func familyOf(proto byte) Family {
	for f, p := range protos {
		if p == proto {
			return f
		}
	}
	return Family(fmt.Sprintf("family %d", proto))
}

// tableDormant is NFT_TABLE_F_DORMANT.
const tableDormant = 1

// decodeTable reads NFT_MSG_NEWTABLE.
func decodeTable(b []byte) (Table, error) {
	var f fields
	id, err := f.object(b)
	if err != nil {
		return Table{}, err
	}
	const nftaTableFlags = 2
	return Table{Family: id.Family, Name: id.Name, Dormant: f.number(nftaTableFlags)&tableDormant != 0}, nil
}

// decodeChain reads NFT_MSG_NEWCHAIN.
func decodeChain(b []byte) (TableID, Chain, error) {
	const (
		nftaChainName   = 3
		nftaChainHook   = 4
		nftaChainPolicy = 5
		nftaChainType   = 7

		nftaHookHooknum  = 1
		nftaHookPriority = 2
	)
	var f, hook fields
	id, err := f.object(b)
	if err != nil {
		return id, Chain{}, err
	}
	c := Chain{Name: f.text(nftaChainName)}
	if f[nftaChainHook] == nil {
		return id, c, nil
	}
	if err := hook.parse(f[nftaChainHook]); err != nil {
		return id, Chain{}, fmt.Errorf("hook: %w", err)
	}
	c.Base = &Base{
		Type:     f.text(nftaChainType),
		Hook:     hookName(id.Family, hook.number(nftaHookHooknum)),
		Priority: int32(hook.number(nftaHookPriority)),
		Policy:   PolicyAccept,
	}
	if f.number(nftaChainPolicy) == uint32(VerdictDrop) {
		c.Base.Policy = PolicyDrop
	}
	return id, c, nil
}

// Hooks by number: enum nf_inet_hooks, also for the bridge (NF_BR_*), and enum
// nf_dev_hooks.
var (
	inetHooks   = []string{"prerouting", "input", "forward", "output", "postrouting", "ingress"}
	netdevHooks = []string{"ingress", "egress"}
	arpHooks    = []string{"input", "output", "forward"}
)

func hooks(f Family) []string {
	switch f {
	case NetDev:
		return netdevHooks
	case ARP:
		return arpHooks
	}
	return inetHooks
}

func hookName(f Family, n uint32) string {
	if names := hooks(f); int(n) < len(names) {
		return names[n]
	}
	return fmt.Sprintf("hook %d", n)
}

// decodeObject reads NFT_MSG_NEWOBJ.
func decodeObject(b []byte) (TableID, Object, error) {
	const (
		nftaObjName = 2
		nftaObjType = 3
	)
	var f fields
	id, err := f.object(b)
	return id, Object{Name: f.text(nftaObjName), Type: f.number(nftaObjType)}, err
}

// objectCounter is NFT_OBJECT_COUNTER.
const objectCounter = 1

// decodeRule reads NFT_MSG_NEWRULE.
func decodeRule(b []byte) (id TableID, chain string, r Rule, err error) {
	const (
		nftaRuleChain       = 2
		nftaRuleExpressions = 4
		nftaRuleUserdata    = 7
	)
	var f fields
	if id, err = f.object(b); err != nil {
		return id, "", Rule{}, err
	}
	err = attributes(f[nftaRuleExpressions], func(_ uint16, data []byte) error {
		e, err := decodeExpr(data)
		r.Exprs = append(r.Exprs, e)
		return err
	})
	r.Comment = comment(f[nftaRuleUserdata])
	return id, f.text(nftaRuleChain), r, err
}

// comment finds the comment in a rule's user data: bytes of type and length,
// then the value (libnftnl's udata.h; NFTNL_UDATA_RULE_COMMENT is 0). User data
// are opaque to the kernel, so anything may be in them.
func comment(b []byte) string {
	for len(b) >= 2 {
		kind, length := b[0], int(b[1])
		if len(b) < 2+length {
			return ""
		}
		if kind == 0 {
			return strings.TrimRight(string(b[2:2+length]), "\x00")
		}
		b = b[2+length:]
	}
	return ""
}
