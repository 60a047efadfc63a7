package nft

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// The functions below turn values to the library's types.

func encodeBase(c *nftables.Chain, b *Base) error {
	hook := slices.Index(hooks(Family("")), b.Hook)
	if hook < 0 {
		return fmt.Errorf("there is no hook %q", b.Hook)
	}
	num, priority, policy := nftables.ChainHook(hook), nftables.ChainPriority(b.Priority), nftables.ChainPolicyAccept
	if b.Policy == PolicyDrop {
		policy = nftables.ChainPolicyDrop
	}
	c.Type, c.Hooknum, c.Priority, c.Policy = nftables.ChainType(b.Type), &num, &priority, &policy
	return nil
}

func encodeRule(r Rule) (*nftables.Rule, error) {
	out := &nftables.Rule{}
	if len(r.Comment) > MaxComment {
		return nil, fmt.Errorf("the comment has %d bytes, more than %d", len(r.Comment), MaxComment)
	}
	if r.Comment != "" {
		out.UserData = userdata.AppendString(nil, userdata.TypeComment, r.Comment)
	}
	for _, e := range r.Exprs {
		enc, err := encodeExpr(e)
		if err != nil {
			return nil, err
		}
		out.Exprs = append(out.Exprs, enc)
	}
	return out, nil
}

func encodeExpr(e Expr) (expr.Any, error) {
	switch e := e.(type) {
	case Payload:
		return &expr.Payload{DestRegister: e.Reg.number(), Base: expr.PayloadBase(e.Base), Offset: e.Offset, Len: e.Len}, nil
	case Meta:
		return &expr.Meta{Key: expr.MetaKey(e.Key), Register: e.Reg.number()}, nil
	case MetaSet:
		return &expr.Meta{Key: expr.MetaKey(e.Key), Register: e.Reg.number(), SourceRegister: true}, nil
	case CT:
		// The library writes a direction for the keys of a tuple, and only for
		// these.
		ofTuple := e.Key != CTKeyState && e.Key != CTKeyDirection
		if e.Dir > Reply || ofTuple != (e.Dir != NoDirection) {
			return nil, fmt.Errorf("ct key %d with direction %d cannot be written", e.Key, e.Dir)
		}
		enc := &expr.Ct{Key: expr.CtKey(e.Key), Register: e.Reg.number()}
		if ofTuple {
			enc.Direction = uint32(e.Dir - 1)
		}
		return enc, nil
	case FIB:
		if e.Flags&^(FIBSaddr|FIBDaddr|FIBIIF|FIBPresent) != 0 {
			return nil, fmt.Errorf("fib flags 0x%x cannot be written", uint32(e.Flags))
		}
		return &expr.Fib{
			Register:       e.Reg.number(),
			ResultOIF:      e.Result == FIBOIF,
			ResultADDRTYPE: e.Result == FIBAddrType,
			FlagSADDR:      e.Flags&FIBSaddr != 0,
			FlagDADDR:      e.Flags&FIBDaddr != 0,
			FlagIIF:        e.Flags&FIBIIF != 0,
			FlagPRESENT:    e.Flags&FIBPresent != 0,
		}, nil
	case Bitwise:
		return &expr.Bitwise{SourceRegister: e.Reg.number(), DestRegister: e.Dst.number(), Len: uint32(len(e.Mask)), Mask: []byte(e.Mask), Xor: []byte(e.Xor)}, nil
	case Cmp:
		return &expr.Cmp{Op: expr.CmpOp(e.Op), Register: e.Reg.number(), Data: []byte(e.Data)}, nil
	case Lookup:
		return &expr.Lookup{SourceRegister: e.Reg.number(), SetName: e.Set, Invert: e.Invert, DestRegister: regVerdict, IsDestRegSet: e.Verdict}, nil
	case Verdict:
		return encodeVerdict(e), nil
	case Counter:
		return &expr.Counter{}, nil
	case CounterRef:
		return &expr.Objref{Type: objectCounter, Name: e.Name}, nil
	case Limit:
		if e.Burst == 0 {
			return nil, errors.New("a limit without a burst cannot be written")
		}
		return &expr.Limit{Type: expr.LimitTypePkts, Rate: e.Rate, Unit: expr.LimitTime(e.Unit), Burst: e.Burst}, nil
	case Log:
		return encodeLog(e)
	case Masquerade:
		if e.Flags&^RandomFully != 0 {
			return nil, fmt.Errorf("masquerade flags 0x%x cannot be written", uint32(e.Flags))
		}
		return &expr.Masq{FullyRandom: e.Flags&RandomFully != 0}, nil
	case Notrack:
		return &expr.Notrack{}, nil
	}
	return nil, fmt.Errorf("expression %T cannot be written", e)
}

// maxPrefix is NF_LOG_PREFIXLEN less the NUL.
const maxPrefix = 127

func encodeLog(l Log) (expr.Any, error) {
	if len(l.Prefix) > maxPrefix {
		return nil, fmt.Errorf("the log prefix has %d bytes, more than %d", len(l.Prefix), maxPrefix)
	}
	enc := &expr.Log{Key: 1 << unix.NFTA_LOG_GROUP, Group: l.Group}
	if l.Prefix != "" {
		enc.Key, enc.Data = enc.Key|1<<unix.NFTA_LOG_PREFIX, []byte(l.Prefix)
	}
	if l.Snaplen != 0 {
		enc.Key, enc.Snaplen = enc.Key|1<<unix.NFTA_LOG_SNAPLEN, l.Snaplen
	}
	return enc, nil
}

func encodeVerdict(v Verdict) *expr.Verdict {
	return &expr.Verdict{Kind: expr.VerdictKind(v.Kind), Chain: v.Chain}
}

func encodeSet(t *nftables.Table, s Set) (*nftables.Set, error) {
	if s.Other != "" {
		return nil, fmt.Errorf("a set with %s cannot be written", s.Other)
	}
	key, err := encodeKey(s.Key)
	if err != nil {
		return nil, err
	}
	enc := &nftables.Set{
		Table: t, Name: s.Name, KeyType: key, Interval: s.Interval,
		// The flag selects the set type that knows ranges in several fields. A
		// concatenation without ranges is one long key.
		Concatenation: s.Interval && len(s.Key) > 1,
		IsMap:         s.Verdicts,
	}
	if len(s.Key) == 1 && typeInfos[s.Key[0]].host {
		enc.KeyByteOrder = binaryutil.NativeEndian // nft(8) prints garbage without
	}
	if s.Verdicts {
		enc.DataType = nftables.TypeVerdict
	}
	return enc, nil
}

// encodeKey makes the library's type of a key. Its name matters: the library
// takes the lengths of a concatenation's fields from it.
func encodeKey(key []Type) (nftables.SetDatatype, error) {
	parts := make([]nftables.SetDatatype, len(key))
	for i, t := range key {
		info, ok := typeInfos[t]
		if !ok {
			return nftables.SetDatatype{}, fmt.Errorf("there is no type %q", t)
		}
		parts[i] = nftables.SetDatatype{Name: string(t), Bytes: uint32(info.length)}
		parts[i].SetNFTMagic(info.number)
	}
	switch len(parts) {
	case 0:
		return nftables.SetDatatype{}, errors.New("a set needs a key")
	case 1:
		return parts[0], nil
	}
	return nftables.ConcatSetType(parts...)
}

// encodeElements makes the library's elements. In a single-field interval set
// an element is two: its first key and, unless that is beyond the largest, the
// one behind its last.
func encodeElements(s Set, elements []Element) []nftables.SetElement {
	out := make([]nftables.SetElement, 0, len(elements))
	for _, e := range elements {
		enc := nftables.SetElement{Key: []byte(e.Key)}
		if s.Verdicts {
			enc.VerdictData = encodeVerdict(e.Verdict)
		}
		switch {
		case s.Interval && len(s.Key) == 1:
			behind := successor(e.last())
			enc.IntervalOpen = behind == "" // nft(8) then prints the last key
			out = append(out, enc)
			if behind != "" {
				out = append(out, nftables.SetElement{Key: []byte(behind), IntervalEnd: true})
			}
		case s.Interval:
			enc.KeyEnd = []byte(e.last())
			out = append(out, enc)
		default:
			out = append(out, enc)
		}
	}
	return out
}

func encodeCounter(t *nftables.Table, name string) *nftables.NamedObj {
	return &nftables.NamedObj{Table: t, Name: name, Type: nftables.ObjTypeCounter, Obj: &expr.Counter{}}
}
