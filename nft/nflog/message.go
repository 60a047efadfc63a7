// Package nflog listens to the packets that rules of nftables log to a group of
// NFLOG, and says what they are.
package nflog

import (
	"encoding/binary"
	"errors"
	"strings"
	"time"
)

// Message is a packet that a rule logged.
type Message struct {
	Prefix string    // of the rule
	Time   time.Time // when the packet came in; zero: it did not come in
	// Sequence numbers the messages of a group. Where one is missing, it was lost.
	Sequence uint32
	// Payload is the beginning of the packet, from its network header on.
	Payload []byte
}

// ErrShort is the error of bytes that end too early.
var ErrShort = errors.New("cut short")

// Attributes of NFULNL_MSG_PACKET (<linux/netfilter/nfnetlink_log.h>).
const (
	nfulaTimestamp = 3
	nfulaPayload   = 9
	nfulaPrefix    = 10
	nfulaSeq       = 12
)

const (
	genmsgLength = 4 // of struct nfgenmsg
	nlattrLength = 4 // of struct nlattr
	// nlaTypeMask takes NLA_F_NESTED and NLA_F_NET_BYTEORDER off an attribute's
	// type.
	nlaTypeMask = 0x3fff
)

// decode reads NFULNL_MSG_PACKET behind its nlmsghdr. It does not trust the
// bytes.
func decode(b []byte) (Message, error) {
	var m Message
	if len(b) < genmsgLength {
		return m, ErrShort
	}
	for b = b[genmsgLength:]; len(b) > 0; {
		if len(b) < nlattrLength {
			return m, ErrShort
		}
		length := int(binary.NativeEndian.Uint16(b))
		if length < nlattrLength || length > len(b) {
			return m, ErrShort
		}
		if err := m.attribute(binary.NativeEndian.Uint16(b[2:])&nlaTypeMask, b[nlattrLength:length]); err != nil {
			return m, err
		}
		b = b[min((length+3)&^3, len(b)):]
	}
	return m, nil
}

func (m *Message) attribute(kind uint16, data []byte) error {
	length := map[uint16]int{nfulaTimestamp: 16, nfulaSeq: 4}[kind]
	if len(data) < length {
		return ErrShort
	}
	switch kind {
	case nfulaTimestamp:
		seconds, micros := binary.BigEndian.Uint64(data), binary.BigEndian.Uint64(data[8:])
		m.Time = time.Unix(int64(seconds), int64(micros%1e6)*int64(time.Microsecond)) //nolint:gosec // any number is some time
	case nfulaPayload:
		m.Payload = append([]byte{}, data...)
	case nfulaPrefix:
		m.Prefix, _, _ = strings.Cut(string(data), "\x00")
	case nfulaSeq:
		m.Sequence = binary.BigEndian.Uint32(data)
	}
	return nil
}
